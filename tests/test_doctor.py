"""`main.py doctor` as a process, on machines that lack this and that: every line, the exit code, nothing raised."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from screen import Screen
from tests_support import ROOT

from core.device import CPU, abilities, built_for
from core.mainmemory import MainMemory
from mainscripts import doctor_machine as machine
from mainscripts import doctor_packages as packages
from mainscripts.doctor_finding import ask, safely

BLIND = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}


def doctor(*words: str, **variables: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "doctor", *words], cwd=ROOT.parent,
        env={**BLIND, "OMP_NUM_THREADS": "1", **variables}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def checks(told: str) -> dict[str, Any]:
    """The rows of `--json` by name."""
    return {row["name"]: row for row in json.loads(told)["checks"]}


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """A folder of modules that are found before the real ones."""
    (tmp_path / "fakes").mkdir()
    return tmp_path / "fakes"


def test_a_sound_machine(tmp_path: Path) -> None:
    workspace = tmp_path / "wörk space"
    (workspace / "model").mkdir(parents=True)
    code, told, errors = doctor("--workspace", str(workspace), "--json")
    whole, rows = json.loads(told), checks(told)
    assert len(rows) == len(whole["checks"]), "two checks of one name"
    assert errors == "" and whole["format"] == 1 and whole["problems"] == code == 0, told
    assert whole["notes"] == sum(row["state"] == "note" for row in rows.values())
    for name in ("facesmith", "Python", "Memory", "NumPy", "OpenCV", "Pictures", "PyTorch", "Device CPU", "Locks"):
        assert rows[name]["state"] in ("ok", "note"), rows[name]
    assert rows["Python"]["data"]["bits"] == 64 and rows["Device CPU"]["data"]["float32"] is True
    assert str(workspace) in rows["Workspace"]["text"] and rows["Workspace"]["data"]["free"] > 0
    assert rows["Terminal"]["data"]["output"] is False
    if sys.platform == "linux":
        assert rows["Window"]["state"] == "note" and "neither DISPLAY" in rows["Window"]["text"]
    assert [path.name for path in workspace.rglob("*")] == ["model"], "something was left there"


def test_nothing_is_installed(tmp_path: Path) -> None:
    """A bare Python: every package is a line with what to do; what needs none of them is looked at all the same."""
    venv.create(tmp_path / "v")
    python = tmp_path / "v" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = subprocess.run(
        [python, str(ROOT / "main.py"), "doctor", "--workspace", str(tmp_path)], env=BLIND, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr == ""
    lines = done.stdout.splitlines()
    for name in ("NumPy", "OpenCV", "PyTorch", "prompt_toolkit", "rich", "h5py"):
        (at,) = [i for i, line in enumerate(lines) if line.startswith("problem") and f"{name} is not installed" in line]
        assert "-> Start a launcher in bat/" in lines[at + 1]
    assert any(line.startswith("note     onnx ") and "exporting a .dfm" in line for line in lines)
    assert any(line.startswith("ok       Workspace") for line in lines)
    assert lines[-1].startswith("That is 6 problems and ")


def test_broken_packages_cost_a_line_each(fakes: Path, tmp_path: Path) -> None:
    """One aborts the process, one ends it with noise, one is too old, one is half there."""
    (fakes / "torch.py").write_text("import os\nos.abort()\n", encoding="utf-8")
    (fakes / "rich.py").write_text("print('noise')\nraise SystemExit(3)\n", encoding="utf-8")
    (fakes / "h5py.py").write_text("__version__ = '2.9'\n", encoding="utf-8")
    (fakes / "onnx.py").write_text("raise OSError('DLL load failed')\n", encoding="utf-8")
    code, told, errors = doctor("--json", "--workspace", str(tmp_path), PYTHONPATH=str(fakes))
    rows = checks(told)
    assert code == 1 and errors == ""
    assert rows["PyTorch"]["state"] == "problem" and "crashes Python" in rows["PyTorch"]["text"]
    assert "not looked at" in rows["Devices"]["text"]
    assert rows["rich"]["state"] == "problem" and "exit code 3" in rows["rich"]["text"]
    assert "too old, allowed is >=3.10" in rows["h5py"]["text"] and str(fakes) in rows["h5py"]["text"]
    assert rows["onnx"]["state"] == "note" and "DLL load failed" in rows["onnx"]["text"]
    assert rows["OpenCV"]["state"] == rows["NumPy"]["state"] == "ok"
    assert rows["Settings"]["state"] == "note" and "unset it" in rows["Settings"]["advice"]
    assert all(row["advice"] for row in rows.values() if row["state"] == "problem")


def test_a_broken_numpy_is_told_once_as_what_it_is(fakes: Path, tmp_path: Path) -> None:
    (fakes / "numpy.py").write_text("raise ImportError('numpy.core.multiarray failed to import')\n", encoding="utf-8")
    nowhere = str(tmp_path / "no such")
    code, told, _ = doctor("--json", "--workspace", str(tmp_path), PYTHONPATH=str(fakes), TMPDIR=nowhere)
    rows = checks(told)
    assert rows["Temporary"]["state"] == "note" and f"TMPDIR is {nowhere}" in rows["Temporary"]["text"]
    assert code == 1 and "multiarray" in rows["NumPy"]["text"]
    assert rows["Locks"]["text"] == rows["Shared memory"]["text"] == "not tried: NumPy cannot be loaded"
    assert "OpenCV cannot be loaded" in rows["Window"]["text"]


@pytest.mark.skipif(sys.platform != "linux", reason="/sys is a folder in which even root writes nothing")
def test_a_folder_that_cannot_be_written_and_one_that_is_not_there(tmp_path: Path) -> None:
    (found,) = machine.folder("Workspace", Path("/sys"), must_exist=True)
    assert found.state == "problem" and found.advice.startswith("Make the folder writable")
    (found,) = machine.folder("Workspace", tmp_path / "no" / "such", must_exist=True)
    assert found.state == "problem" and "is no folder" in found.text and found.advice
    (found,) = machine.folder("Workspace", tmp_path / "no" / "such", must_exist=False)
    assert found.state != "problem" and "not there yet" in found.text and not any(tmp_path.iterdir())
    (tmp_path / "file").touch()
    (found,) = machine.folder("Workspace", tmp_path / "file", must_exist=False)
    assert found.state == "problem"


def test_the_window_is_tried(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", screen.environ["DISPLAY"])
    found = packages.window(ask("window"), {"windows": "QT5"})
    assert found.state == "ok", found
    monkeypatch.setenv("DISPLAY", ":4711")
    found = packages.window(ask("window"), {"windows": "QT5"})
    assert found.state == "problem" and ":4711" in found.text and "--no-preview" in found.advice


def test_a_package_that_hangs(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fakes / "rich.py").write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(fakes))
    answer = ask("rich", seconds=1.0)
    assert "did not answer within 1 s" in answer["error"] and answer["advice"]


def test_a_check_that_fails_is_a_line() -> None:
    def check() -> list[packages.Finding]:
        raise RuntimeError("odd")

    (found,) = safely("Memory", check)
    assert found.state == "problem" and "RuntimeError: odd" in found.text and found.advice


# What no machine of the tests has


def test_pythons_that_will_not_do() -> None:
    assert [machine.python(version, bits)[0].state for version, bits in (
        ((3, 9, 18), 64), ((3, 10, 0), 64), ((3, 14, 2), 64), ((3, 15, 0), 64), ((3, 12, 1), 32),
    )] == ["problem", "ok", "ok", "note", "problem"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "import main; main.check_python((3, 8, 1))"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "needs Python 3.10 or newer; this is 3.8.1" in done.stderr


def test_memory_and_cores_of_small_machines(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    for kilobytes, state in ((500_000, "problem"), (2_000_000, "note"), (8_000_000, "ok")):
        (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: 9000000 kB\nMemAvailable: {kilobytes} kB\n")
        if sys.platform != "win32":
            assert machine.memory(MainMemory(tmp_path))[0].state == state
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("50000 100000\n")
    (found,) = machine.processor(tmp_path)
    assert found.state == "note" and found.data["quota"] == 0.5


def graphics(**more: object) -> dict[str, Any]:
    row = {"key": "0", "name": "RTX 5090 (31.8 GB)", "free": 30e9, "total": 34e9, "capability": "12.0",
           "built_for": True, "float32": True, "bfloat16": True, "float16": True, "tf32": True}  # fmt: skip
    return {**row, **more}


def test_cards() -> None:
    cpu = graphics(key="CPU", name="CPU", tf32=False) | {"capability": "", "free": None}
    answer = {"cuda": "13.0", "hip": None, "devices": [graphics(), cpu]}
    card = {"kind": "nvidia", "seen": "RTX 5090, driver 580.65", "choice": "CUDA 13 build (RTX 5090)"}
    found = packages.devices(answer, card, {})
    assert [each.state for each in found] == ["ok"] * 3 and "driver 580" in found[0].text
    assert "30.0 GB free; float32, tf32" in found[1].text
    old = packages.devices({**answer, "devices": [graphics(built_for=False), cpu]}, card, {})[1]
    assert old.state == "problem" and "no code for its generation (12.0)" in old.text
    dead = packages.devices({**answer, "devices": [graphics(float32=False), cpu]}, card, {})[1]
    assert dead.state == "problem" and "driver" in dead.advice
    none = {**answer, "devices": [cpu]}
    assert "driver" in packages.devices(none, card, {})[0].advice
    assert "CUDA_VISIBLE_DEVICES hides it" in packages.devices(none, card, {"CUDA_VISIBLE_DEVICES": ""})[0].advice
    build = packages.devices({**none, "cuda": None}, card, {})[0]
    assert build.state == "problem" and "CPU build" in build.advice and "CUDA 13 build" in build.advice
    assert packages.devices({**none, "cuda": None}, {"kind": "none", "seen": "none found"}, {})[0].state == "note"


def test_what_a_build_runs_on() -> None:
    assert built_for((8, 9), ["sm_80", "sm_86"]) and not built_for((12, 0), ["sm_80", "sm_90"])
    assert built_for((12, 0), ["sm_80", "compute_90"]) and not built_for((6, 1), ["sm_75", "compute_90"])
    assert not built_for((8, 0), ["sm_86"]) and built_for((12, 0), ["sm_120"])
    assert abilities(CPU)["float32"]


def test_versions() -> None:
    wanted = packages.allowed()
    assert wanted["torch"].startswith(">=") and {each.distribution for each in packages.PACKAGES} <= set(wanted)
    assert packages.new_enough("2.13.0+cpu", ">=2.8") and not packages.new_enough("2.7.1", ">=2.8")
    assert packages.new_enough("2.10", ">=2.9") and packages.new_enough("unknown", ">=2.9")


def test_shared_memory_and_locks_of_other_systems(tmp_path: Path) -> None:
    told = packages.shared({"place": "/dev/shm", "shm": 64 << 20}, {})
    assert told.state == "ok" and "/dev/shm holds 67 MB" in told.text
    told = packages.shared({"place": "/tmp", "shm": None}, {})
    assert told.state == "note" and told.advice
    told = packages.shared({"error": "no room for 64 MB of shared memory", "advice": ""}, {})
    assert told.state == "problem" and told.advice
    assert packages.lock({"held": False}, {}, tmp_path).state == "note"
