"""The set-up: which PyTorch for which machine, the stamp, Python without ensurepip. No network, nothing installed."""

from __future__ import annotations

import configparser
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ENV = Path(__file__).resolve().parent.parent / "bat" / "env"
PLAIN = [("torch==2.13.0", None)]
Texts = dict[str, str]
WHEELS = "https://download.pytorch.org/whl/"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ENV / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # setup.py imports its neighbour by name, and dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def torchbuild() -> Iterator[ModuleType]:
    yield load("torchbuild")
    del sys.modules["torchbuild"]


@pytest.fixture
def setup(torchbuild: ModuleType) -> Iterator[ModuleType]:
    yield load("setup")
    del sys.modules["setup"]


class Machine:
    """A made-up machine: what its commands print and which files it has."""

    def __init__(self, system: str, commands: Texts | None = None, files: Texts | None = None) -> None:
        self.system, self.commands, self.files = system, commands or {}, files or {}

    def run(self, command: list[str]) -> str | None:
        return self.commands.get(" ".join(command[:2])) or self.commands.get(command[0])

    def card(self, torchbuild: ModuleType, environ: dict[str, str] | None = None) -> Any:
        return torchbuild.find_card(self.system, environ or {}, self.run, self.files.get)


SMI = "nvidia-smi --query-gpu=name,driver_version,compute_cap"
NEW = "NVIDIA GeForce RTX 5090, 581.29, 12.0\n"
KFD = {"/dev/kfd": ""}
ROCM_INDEXES = ["rocm7.2", "rocm7.1", "rocm7.0", "rocm6.4"]
MACHINES = {
    "linux, nothing": (Machine("Linux"), "none", ["cpu", None], "CPU build (no NVIDIA or AMD card found)"),
    "windows, nothing": (Machine("Windows"), "none", [None], "CPU build"),
    "mac": (Machine("Darwin"), "mps", [None], "Metal"),
    "linux, new card": (Machine("Linux", {SMI: NEW}), "nvidia", [None], "RTX 5090, driver 581.29"),
    "windows, new card": (Machine("Windows", {SMI: NEW}), "nvidia", ["cu130", "cu128", "cu126"], "CUDA 13"),
    "windows, off the path": (
        Machine("Windows", {r"C:\Windows\System32\nvidia-smi.exe": NEW}), "nvidia", ["cu130", "cu128", "cu126"], "5090",
    ),
    "wsl": (Machine("Linux", {"/usr/lib/wsl/lib/nvidia-smi": NEW}), "nvidia", [None], "CUDA 13"),
    "old card": (Machine("Linux", {SMI: "GTX 1080, 580.65.06, 6.1"}), "nvidia", ["cu126", "cu128"], "older card"),
    "old and new card": (Machine("Linux", {SMI: f"GTX 1080, 581.29, 6.1\n{NEW}"}), "nvidia", [None], "CUDA 13"),
    "old driver": (Machine("Linux", {SMI: "RTX 3090, 535.104.05, 8.6"}), "nvidia", ["cu126", "cu128"], "older driver"),
    "new card, old driver": (Machine("Linux", {SMI: "RTX 5090, 570.86.10, 12.0"}), "nvidia", ["cu128"], "12.8"),
    "driver without compute_cap": (
        Machine("Linux", {"nvidia-smi --query-gpu=name,driver_version": "GTX 980, 470.82.01"}),
        "nvidia", ["cu126", "cu128"], "older driver",
    ),
    "capability not told": (Machine("Linux", {SMI: "GRID, 581.29, [N/A]"}), "nvidia", [None], "CUDA 13"),
    "smi without a card": (Machine("Linux", {"nvidia-smi": "No devices were found"}), "none", ["cpu", None], "CPU"),
    "container": (
        Machine("Linux", files={"/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Kernel Module  535.1  x"}),
        "nvidia", ["cu126", "cu128"], "/proc/driver/nvidia",
    ),
    "rocminfo": (Machine("Linux", {"rocminfo": "Name: gfx1100"}, KFD), "rocm", ROCM_INDEXES, "ROCm build"),
    "opt rocm": (Machine("Linux", files={**KFD, "/opt/rocm": ""}), "rocm", ROCM_INDEXES, "/opt/rocm"),
    "amd without rocm": (Machine("Linux", files=KFD), "none", ["cpu", None], "FACESMITH_TORCH_INDEX"),
}  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_choice(name: str, torchbuild: ModuleType) -> None:
    machine, kind, builds, why = MACHINES[name]
    card = machine.card(torchbuild)
    choice = torchbuild.choose(machine.system, card, {})
    assert card.kind == kind and choice.gpu == (kind != "none")
    wanted = [("torch==2.13.0", WHEELS + build if build else None) for build in builds]
    assert [(attempt.requirement, attempt.index) for attempt in choice.attempts] == wanted
    assert {attempt.dependencies for attempt in choice.attempts} == {kind == "rocm"}
    assert why in choice.why


@pytest.mark.parametrize(
    ("environ", "attempts"),
    [
        ({"FACESMITH_TORCH_INDEX": ""}, PLAIN),
        ({"FACESMITH_TORCH_INDEX": "https://a/b"}, [("torch==2.13.0", "https://a/b")]),
        ({"FACESMITH_TORCH": "torch==2.9.1"}, [("torch==2.9.1", f"{WHEELS}cpu"), ("torch==2.9.1", None)]),
        ({"FACESMITH_TORCH": "torch==2.9.1", "FACESMITH_TORCH_INDEX": ""}, [("torch==2.9.1", None)]),
        ({"FACESMITH_TORCH": " "}, [("torch==2.13.0", f"{WHEELS}cpu"), *PLAIN]),
    ],
)
def test_overrides_win(environ: dict[str, str], attempts: list[tuple[str, str | None]], torchbuild: ModuleType) -> None:
    choice = torchbuild.choose("Linux", Machine("Linux").card(torchbuild), environ)
    assert [(attempt.requirement, attempt.index) for attempt in choice.attempts] == attempts
    assert all(name in choice.why for name, value in environ.items() if value.strip())


def test_python_version_is_checked(setup: ModuleType) -> None:
    for version in ((3, 10), (3, 14)):
        setup.check_python(version, {})
    setup.check_python((3, 15), {"FACESMITH_TORCH": "torch==2.15.0"})
    for version in ((3, 9), (3, 15)):
        with pytest.raises(setup.SetUpError, match=rf"this is Python 3\.{version[1]} .*needs 3\.10 to 3\.14"):
            setup.check_python(version, {})


# What happens when


@pytest.fixture
def project(tmp_path: Path, setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose set-up makes real folders but installs nothing; `setup.done` lists what pip would have done."""
    root = tmp_path / "with space é"
    root.mkdir()
    for name in ("setup.cfg", "pyproject.toml"):
        (root / name).write_text("[metadata]\n")
    for name in ("FACESMITH_TORCH", "FACESMITH_TORCH_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(setup, "done", [], raising=False)
    monkeypatch.setattr(setup.tempfile, "tempdir", str(tmp_path))

    def make(folder: Path, say: object) -> None:
        setup.done.append("make")
        python = setup.python_of(folder)
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text("#!/bin/sh\n")
        python.chmod(0o755)

    monkeypatch.setattr(setup, "make_environment", make)
    monkeypatch.setattr(setup, "quietly", lambda command: None)
    monkeypatch.setattr(setup, "pip", lambda python, *words: setup.done.append("pip " + words[-1]))
    monkeypatch.setattr(setup, "output_of", lambda *_, **__: None)
    monkeypatch.setattr(setup, "text_of", lambda path: None)
    monkeypatch.setattr(setup, "verify", lambda *_: "versions")
    return root


def test_second_run_does_nothing(project: Path, setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def go(*extras: str, fresh: bool = False, folder: str = ".venv") -> list[str]:
        said.clear()
        setup.done.clear()
        python = setup.set_up(project, project / folder, set(extras), fresh, said.append)
        assert python == setup.python_of(project / folder)
        return list(setup.done)

    assert go() == ["make", "pip torch==2.13.0", f"pip {project}"]
    assert said[1].startswith("PyTorch: CPU build") and said[-1].startswith("Ready after")
    assert go() == [] and said == []
    assert go("test") == ["pip torch==2.13.0", f"pip {project}[test]"]
    assert go("test") == go() == []
    (project / "setup.cfg").write_text("[metadata]\nname = other\n")
    assert go() == ["pip torch==2.13.0", f"pip {project}[test]"], "extras once installed stay"
    monkeypatch.setenv("FACESMITH_TORCH", "torch==2.9.1")
    assert go() == ["make", "pip torch==2.9.1", f"pip {project}[test]"], "another torch: another environment"
    assert go(fresh=True, folder=".venv-fresh")[0] == "make" == go(fresh=True, folder=".venv-fresh")[0]
    setup.python_of(project / ".venv").unlink()
    monkeypatch.setattr(setup, "quietly", lambda command: "gone")
    with pytest.raises(setup.SetUpError, match=r"no Python environment with pip \(gone\): remove it"):
        go()


def test_interrupted_run_is_completed(project: Path, setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(setup, "install_project", broken)
        with pytest.raises(KeyboardInterrupt):
            setup.set_up(project, project / ".venv", {"test"}, False, print)
    setup.done.clear()
    setup.set_up(project, project / ".venv", set(), False, print)
    assert setup.done == ["pip torch==2.13.0", f"pip {project}[test]"]


def test_next_build_is_tried(project: Path, setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def pip(python: Path, *words: str) -> str | None:
        asked.append(words)
        return "ERROR: no matching distribution" if "--index-url" in words else None

    monkeypatch.setattr(setup, "pip", pip)
    said: list[str] = []
    setup.set_up(project, project / ".venv", set(), False, said.append)
    assert [f"{WHEELS}cpu" in words for words in asked] == [True, False, False]
    assert "--extra-index-url" not in asked[2]
    assert said[2] == f"torch==2.13.0 is not to be had from {WHEELS}cpu: ERROR: no matching distribution"

    monkeypatch.setenv("FACESMITH_TORCH_INDEX", "https://nowhere")
    with pytest.raises(setup.SetUpError, match="PyTorch could not be installed"):
        setup.set_up(project, project / ".venv", set(), False, said.append)


# The environment itself


def test_without_ensurepip(setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "é x" / ".venv"
    ways: list[str] = []

    def way(name: str, works: bool) -> None:
        def get(python: Path) -> str:
            assert python.exists(), "the environment is there before pip"
            ways.append(name)
            if works:
                monkeypatch.setattr(setup, "has_pip", lambda python: True)
            return f"{name} failed"

        monkeypatch.setattr(setup, name, get)

    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(setup, "has_pip", lambda python: False)
    for name in ("pip_of_system", "pip_of_wheel", "pip_of_index"):
        way(name, works=False)
    with pytest.raises(setup.SetUpError, match=r"no pip.*pip_of_system failed; pip_of_wheel failed; .*python3-venv"):
        setup.make_environment(folder, print)
    ways.clear()
    way("pip_of_wheel", works=True)
    setup.make_environment(folder, print)
    assert ways == ["pip_of_system", "pip_of_wheel"]
    prefix = subprocess.check_output([setup.python_of(folder), "-c", "import sys; print(sys.prefix)"], encoding="utf-8")
    assert Path(prefix.strip()) == folder


def test_other_folders_are_left_alone(setup: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(setup.SetUpError, match="no Python environment: move it away"):
        setup.make_environment(tmp_path, print)
    assert (tmp_path / "thesis.txt").exists()


def test_warns_when_torch_sees_no_card(
    setup: ModuleType, torchbuild: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(setup, "quietly", lambda command: None)
    for seen, gpu, warned in ((False, True, True), (True, True, False), (False, False, False)):
        text = f'["2.13.0", {str(seen).lower()}]\n'
        monkeypatch.setattr(setup, "asked", lambda python, code, text=text: text if "torch" in code else "4.14.0\n")
        choice = torchbuild.Choice((), "why", gpu)
        assert setup.verify(Path(sys.executable), choice, said.append).startswith("torch 2.13.0")
        assert [line.startswith("Warning: a card is there") for line in said] == [True] * warned
        said.clear()


def test_opencv_without_windows_where_libraries_lack(
    setup: ModuleType, torchbuild: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []
    monkeypatch.setattr(setup, "asked", lambda python, code: '["2.13.0", false]' if "torch" in code else "4.14.0")
    monkeypatch.setattr(setup, "pip", lambda python, *words: installed.append(words[-1]))
    missing = "ImportError: libGL.so.1: cannot open shared object file"
    monkeypatch.setattr(setup, "quietly", lambda command: None if installed else missing)
    said: list[str] = []
    setup.verify(Path(sys.executable), torchbuild.Choice((), "", False), said.append)
    assert installed == ["opencv-python-headless"] and "libGL.so.1" in said[0] and "libgl1" in said[0]


def test_second_set_up_waits(setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.tempfile, "tempdir", str(tmp_path))
    said: list[str] = []
    with setup.one_at_a_time(tmp_path / "a", said.append):
        (lock,) = tmp_path.glob("*.lock")
        with setup.one_at_a_time(tmp_path / "b", said.append), lock.open("a+") as second:
            assert not setup.try_lock(second.fileno())
    with lock.open("a+") as second:
        assert setup.try_lock(second.fileno())
        monkeypatch.setattr(setup.time, "sleep", lambda seconds: second.close())
        with setup.one_at_a_time(tmp_path / "a", said.append):
            assert said == ["Waiting for another set-up of this folder."]


def test_error_is_one_line(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise setup.SetUpError("because")

    monkeypatch.setattr(setup, "set_up", refuse)
    assert setup.main([]) == 1
    assert capsys.readouterr().err == "facesmith cannot be set up: because\n"


def test_last_line_prefers_pips_error(setup: ModuleType) -> None:
    assert setup.last_line("WARNING: a\nERROR: No space left\nnote: b\n") == "ERROR: No space left"
    assert setup.last_line("Traceback\nImportError: x\n\n") == "ImportError: x"


def test_constraints_pin_what_setup_cfg_needs() -> None:
    config = configparser.ConfigParser()
    config.read(ENV.parent.parent / "setup.cfg", encoding="utf-8")
    needed = "\n".join([config["options"]["install_requires"], *config["options.extras_require"].values()])
    names = {re.split(r"[=><;]", line)[0].strip() for line in needed.split("\n") if line.strip()} - {"torch"}
    lines = (ENV / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    assert names <= pinned
    assert [line for line in lines if line.startswith("opencv")] == [
        "opencv-python==4.14.0.94",
        "opencv-python-headless==4.14.0.94",
    ]


def test_checks_install_what_tests_need(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an extra its tests would be skipped unseen."""
    monkeypatch.delenv("FACESMITH_PYTHON", raising=False)
    asked: list[list[str]] = []
    monkeypatch.setattr(setup, "main", lambda arguments: asked.append(arguments) or 1)
    assert load("checks").main(["--fresh"]) == 1 and asked == [["--extras", "test,dfm,video,tensorboard", "--fresh"]]
    del sys.modules["checks"]
