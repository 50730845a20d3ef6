"""The launchers: every .bat is read and held against its .sh twin, every .sh runs with a Python that only records."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from main import VERBS

ROOT = Path(__file__).resolve().parent.parent
WINDOWS = sorted((ROOT / "bat" / "windows").glob("*.bat"))
LINUX = sorted((ROOT / "bat" / "linux").glob("*.sh"))
SHARED = {"env", "end"}  # called by launchers, no launchers themselves
LAUNCHERS = [path.stem for path in LINUX if path.stem not in SHARED]
MODEL = ["--model-dir", "WORKSPACE/model", "--model", "SAEHD"]
AMP = [*MODEL[:-1], "AMP"]
SRC = ["main.py", "train", "--training-data-src-dir", "WORKSPACE/data_src/aligned", "--training-data-dst-dir"]
PAIR = [*SRC, "WORKSPACE/data_dst/aligned"]
QUICK = [*PAIR, "--pretrained-model-dir", "ROOT/pretrain_Quick96", *MODEL[:-1], "Quick96"]
VARIANTS = ("Quick96", "Quick64", "SAEHDBW")
TRAIN = [*PAIR, "--pretraining-data-dir", "PRETRAIN", *MODEL]
UTILS = {
    f"{number}_data_{side}_util_faceset_{work}": [
        "main.py", "util", "--input-dir", f"WORKSPACE/data_{side}/aligned", flag
    ]
    for number, side in (("4.2", "src"), ("5.2", "dst"))
    for work, flag in (
        ("metadata_save", "--save-faceset-metadata"), ("metadata_restore", "--restore-faceset-metadata"),
        ("pack", "--pack-faceset"), ("unpack", "--unpack-faceset"),
    )
}  # fmt: skip
XSEG = {
    f"5_XSeg_data_{side}_{work}": [
        "main.py", "xseg", *words, "--input-dir", f"WORKSPACE/data_{side}/aligned", *more
    ]
    for side in ("src", "dst")
    for work, words, more in (
        ("mask_fetch", ["fetch"], []), ("mask_remove", ["remove_labels"], []), ("trained_mask_remove", ["remove"], []),
        ("trained_mask_apply", ["apply"], ["--model-dir", "WORKSPACE/model"]),
    )
}  # fmt: skip
COMMANDS = {
    **UTILS,
    **XSEG,
    "5_XSeg_train": [*TRAIN[:-1], "XSeg"],
    "5_XSeg_export_as_onnx": ["main.py", "exportdfm", *MODEL[:-1], "XSeg"],
    "1_clear_workspace": ["bat/env/clear.py", "WORKSPACE"],
    "4.1_data_src_view_aligned_result": ["bat/env/view.py", "WORKSPACE/data_src/aligned"],
    "5.1_data_dst_view_aligned_results": ["bat/env/view.py", "WORKSPACE/data_dst/aligned"],
    **{
        f"6_model_{work}": ["main.py", "model", work, "--model-dir", "WORKSPACE/model"]
        for work in ("list", "verify", "backup", "restore")
    },
    "8_preview_history_to_mp4": [
        "main.py", "videoed", "timelapse", "--model-dir", "WORKSPACE/model", "--output-file",
        "WORKSPACE/preview_history.mp4",
    ],
    "10.misc_doctor": ["main.py", "doctor", "--workspace", "WORKSPACE"],
    "10.misc_bench_step": ["main.py", "bench", "step"],
    "10.misc_bench_samples": ["main.py", "bench", "samples"],
    "6_export_SAEHD_as_dfm": ["main.py", "exportdfm", *MODEL],
    "6_export_AMP_as_dfm": ["main.py", "exportdfm", *AMP],
    "6_train_AMP": [*PAIR, *AMP],
    "6_train_AMP_no_preview": [*PAIR, *AMP, "--no-preview"],
    "6_train_AMP_SRC-SRC": [*SRC, "WORKSPACE/data_src/aligned", *AMP],
    **{f"6_export_{each}_as_dfm": ["main.py", "exportdfm", *MODEL[:-1], each] for each in VARIANTS},
    "6_train_Quick96": QUICK,
    "6_train_Quick96_no_preview": [*QUICK, "--no-preview"],
    "6_train_Quick64": [*PAIR, *MODEL[:-1], "Quick64"],
    "6_train_Quick64_no_preview": [*PAIR, *MODEL[:-1], "Quick64", "--no-preview"],
    "6_train_SAEHDBW": [*TRAIN[:-1], "SAEHDBW"],
    "6_train_SAEHDBW_no_preview": [*TRAIN[:-1], "SAEHDBW", "--no-preview"],
    "6_train_SAEHD": TRAIN,
    "6_train_SAEHD_no_preview": [*TRAIN, "--no-preview"],
    "demo": ["bat/env/demo.py"],
    "test": ["bat/env/checks.py"],
}
FOLDERS_LEFT = ("test", "1_clear_workspace", "10.misc_doctor", *(name for name in COMMANDS if "_view_" in name))
"""Launchers that make no folders of the workspace: they look at it as it is, or make them themselves."""
DFL_WINDOWS = {  # of its list, what exists here
    "1) clear workspace", "4.1) data_src view aligned result", "5.1) data_dst view aligned results",
    "4.2) data_src util faceset metadata save", "4.2) data_src util faceset metadata restore",
    "4.2) data_src util faceset pack", "4.2) data_src util faceset unpack", "5.2) data_dst util faceset pack",
    "5.2) data_dst util faceset unpack", "6) train SAEHD", "6) export SAEHD as dfm", "6) train AMP",
    "6) train AMP SRC-SRC", "6) export AMP as dfm", "6) train Quick96",
    "5.XSeg) train", "5.XSeg) data_src mask fetch", "5.XSeg) data_dst mask fetch", "5.XSeg) data_src mask remove",
    "5.XSeg) data_dst mask remove", "5.XSeg) data_src trained mask apply", "5.XSeg) data_dst trained mask apply",
    "5.XSeg) data_src trained mask remove", "5.XSeg) data_dst trained mask remove",
}  # fmt: skip
DFL_LINUX = {
    "1_clear_workspace", "4.2_data_src_util_faceset_metadata_save", "4.2_data_src_util_faceset_metadata_restore",
    "4.2_data_src_util_faceset_pack", "4.2_data_src_util_faceset_unpack", "5.2_data_dst_util_faceset_pack",
    "5.2_data_dst_util_faceset_unpack", "6_train_SAEHD", "6_train_SAEHD_no_preview",
    "6_train_Quick96", "6_train_Quick96_no_preview", "5_XSeg_train",
    "5_XSeg_data_src_mask_fetch", "5_XSeg_data_dst_mask_fetch", "5_XSeg_data_src_mask_remove",
    "5_XSeg_data_dst_mask_remove", "5_XSeg_data_src_trained_mask_apply", "5_XSeg_data_dst_trained_mask_apply",
    "5_XSeg_data_src_trained_mask_remove", "5_XSeg_data_dst_trained_mask_remove",
}  # fmt: skip
needs_bash = pytest.mark.skipif(os.name == "nt" or not shutil.which("bash"), reason="needs bash")


def twin(stem: str) -> str:
    """`6) train SAEHD` -> `6_train_SAEHD`, `5.XSeg) train` -> `5_XSeg_train`: both are DFL's."""
    return stem.replace("5.XSeg", "5_XSeg").replace(") ", "_").replace(" ", "_")


def command(path: Path) -> str:
    """The line of a launcher that starts Python, in the spelling of bash."""
    text = path.read_text(encoding="ascii")
    (line,) = [line for line in text.splitlines() if re.match(r'(run )?"[%$]PYTHON', line)]
    line = re.sub(r"%(\w+)%", r"$\1", line.replace("%*", '"$@"')) if path.suffix == ".bat" else line
    return line.removeprefix("run ").replace("\\", "/")


def test_every_launcher_has_its_twin() -> None:
    assert sorted(twin(path.stem) for path in WINDOWS if path.stem not in SHARED) == sorted(LAUNCHERS)
    assert sorted(LAUNCHERS) == sorted(COMMANDS)
    assert {path.stem for path in WINDOWS} >= DFL_WINDOWS and {path.stem for path in LINUX} >= DFL_LINUX
    assert all(os.access(path, os.X_OK) for path in LINUX if path.stem not in SHARED)


def test_readme_names_every_launcher() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in (*WINDOWS, *LINUX):
        if path.stem not in SHARED | {"demo", "test"}:
            assert f"`{path.stem}`" in readme, f"{path.name} is missing in the README's table of launchers"


@pytest.mark.parametrize("path", WINDOWS, ids=lambda path: path.stem)
def test_bat(path: Path) -> None:
    data = path.read_bytes()
    assert data.endswith(b"\r\n") and data.count(b"\n") == data.count(b"\r\n") == data.count(b"\r")
    text = data.decode("ascii")
    assert not re.search(r"(?i)\b[a-z]:[\\/]|/home|/usr|\\Users", text), "an absolute path"
    for line in text.splitlines():
        if not line.lower().startswith(("rem ", "@rem ")):
            unquoted = "".join(line.split('"')[::2])
            assert line.count('"') % 2 == 0
            assert not re.search(r"%~?\w+%?", unquoted.replace("%CODE%", "").replace("%%", "")), line
    if path.stem in SHARED:
        return
    lines = text.splitlines()
    assert lines[0] == "@echo off" and lines[2] == "setlocal EnableExtensions DisableDelayedExpansion"
    assert re.fullmatch(r'call "%~dp0env\.bat" (installed( dfm| video)?|present|bare)', lines[3])
    assert lines[4] == 'if not "%ERRORLEVEL%"=="0" goto end'
    assert lines[-2:] == [":end", 'call "%~dp0end.bat"'] and len(lines) == 8


def test_bat_labels_and_characters() -> None:
    """What cmd would stumble over: a label that is not there, letters beyond ASCII in the files themselves, `!` and
    `%` in what is called, brackets that would end a block."""
    for path in WINDOWS:
        text = path.read_text("ascii")
        labels = set(re.findall(r"(?m)^:(\w+)", text))
        assert set(re.findall(r"(?:goto|call) :?(\w+)\b(?!\.)", text)) <= labels | {"eof"}, path.name
        assert "EnableDelayedExpansion" not in text.replace("DisableDelayedExpansion", "")
        assert not re.search(r"(?m)^[^\"]*\($", text), "a block: a bracket in a path would end it"
    assert "chcp 65001 >nul" in (ROOT / "bat" / "windows" / "env.bat").read_text("ascii").splitlines()


@pytest.mark.parametrize("path", [path for path in WINDOWS if path.stem not in SHARED], ids=lambda path: path.stem)
def test_bat_does_as_its_twin(path: Path) -> None:
    other = ROOT / "bat" / "linux" / f"{twin(path.stem)}.sh"
    assert command(path) == command(other)
    mode = re.compile(r'env\.(?:bat|sh)" ([\w ]+)')
    assert mode.findall(path.read_text("ascii")) == mode.findall(other.read_text("ascii"))
    said = [text.splitlines()[1].lstrip("# ").removeprefix("rem ") for text in map(Path.read_text, (path, other))]
    assert re.sub(r"[\"`\\/]", "", said[0]) == re.sub(r"[\"`\\/]", "", said[1])


def test_env_files_set_the_same() -> None:
    names = {"ROOT", "PYTHON", "WORKSPACE", "PRETRAIN_FACES", "PRETRAINED_QUICK96", "PYTHONNOUSERSITE", "PYTHONUTF8"}
    bat = (ROOT / "bat" / "windows" / "env.bat").read_text("ascii")
    sh = (ROOT / "bat" / "linux" / "env.sh").read_text("ascii")
    assert set(re.findall(r'set "(\w+)=[^"]', bat)) == names
    assert set(re.findall(r"(?m)(?<!:)\b([A-Z_]+[A-Z0-9_]*)=(?!')", sh)) == names
    wanted = r"FACESMITH_\w+"
    assert set(re.findall(wanted, bat)) == set(re.findall(wanted, sh))


# For real


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A project of launchers only, in a path that is hard on shells."""
    folder = tmp_path / "a b (é) 火 & 'c'"
    shutil.copytree(ROOT / "bat", folder / "bat", ignore=shutil.ignore_patterns("local.*", "__pycache__"))
    return folder


def launch(script: Path, *arguments: str, python: Path | None = None, **variables: str) -> tuple[int, list[str], str]:
    """Runs a launcher from another folder: exit code, what its Python was given, standard error."""
    place = script.parent.parent.parent.parent
    stub = place / "stub python"
    stub.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >"{place}/argv"\nexit 3\n')
    stub.chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FACESMITH_")}
    environ |= {"FACESMITH_PYTHON": str(python or stub), **variables}
    elsewhere = place / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    done = subprocess.run(["bash", script, *arguments], cwd=elsewhere, env=environ, capture_output=True, text=True)
    argv = (place / "argv").read_text("utf-8").splitlines() if (place / "argv").exists() else []
    return done.returncode, argv, done.stderr


def expected(name: str, root: Path, workspace: Path, pretrain: Path) -> list[str]:
    words = {"ROOT": root}
    words |= {"WORKSPACE": workspace, "PRETRAIN": pretrain, "main.py": root / "main.py", "bat": root / "bat"}
    parts = [word.split("/") for word in COMMANDS[name]]
    return [str(Path(words.get(head, head), *rest)) for head, *rest in parts]


@needs_bash
@pytest.mark.parametrize("name", COMMANDS)
def test_sh_runs_from_anywhere(name: str, home: Path) -> None:
    script = home / "bat" / "linux" / f"{name}.sh"
    code, argv, _ = launch(script, "--set", "batch_size=4", "two words", "*")
    assert code == 3, "the exit code of Python is the launcher's"
    workspace = home / "workspace"
    wanted = expected(name, home, workspace, home / "pretrain_faces")
    assert argv == [*wanted, "--set", "batch_size=4", "two words", "*"]
    made = [(workspace / part).is_dir() for part in ("data_src/aligned", "data_dst/aligned", "model")]
    assert made == [name not in FOLDERS_LEFT] * 3


@needs_bash
def test_sh_without_any_input_or_output(home: Path) -> None:
    """As some desktops start what is double-clicked: the three streams are closed, not only empty."""
    probe = home / "bat" / "env" / "checks.py"
    probe.write_text(
        "import os, sys\nfrom pathlib import Path\n"
        "Path(__file__).with_name('seen').write_text(str([os.fstat(n).st_rdev for n in range(3)]))\n"
        "print('said'); sys.exit(len(sys.stdin.read()))\n", encoding="utf-8",
    )  # fmt: skip
    script = home / "bat" / "linux" / "test.sh"
    line = f"setsid bash {shlex.quote(str(script))} <&- >&- 2>&-; exit $?"
    environ = {**os.environ, "FACESMITH_PYTHON": sys.executable}
    assert subprocess.run(["bash", "-c", line], env=environ, cwd=home.parent, timeout=60, check=False).returncode == 0
    nowhere = Path(os.devnull).stat().st_rdev
    assert probe.with_name("seen").read_text() == str([nowhere] * 3)


@needs_bash
def test_doctor_takes_the_environment_that_is_there(home: Path) -> None:
    """It sets nothing up: `.venv` where there is one, else the Python that was found."""
    (home / "main.py").write_text("import sys\nsys.exit(4 if 'venv' in sys.executable else 6)", encoding="utf-8")
    script = home / "bat" / "linux" / "10.misc_doctor.sh"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("FACESMITH_")}
    environ["PATH"] = os.pathsep.join(("/usr/bin", "/bin", str(Path(sys.base_prefix) / "bin")))
    assert subprocess.run(["bash", script], env=environ, check=False).returncode == 6
    (home / ".venv" / "bin").mkdir(parents=True)
    (home / ".venv" / "bin" / "python").symlink_to(sys.executable)
    assert subprocess.run(["bash", script], env=environ, check=False).returncode == 4
    assert not (home / "workspace").exists()


@needs_bash
def test_sh_installs_what_its_verb_needs(home: Path) -> None:
    """The set-up is told the extra of the launcher, then its environment's Python runs the verb."""
    setup = home / "bat" / "env" / "setup.py"
    setup.write_text(
        "import os, sys\nfrom pathlib import Path\nhome = Path(__file__).parent.parent.parent\n"
        "(home / 'extras').write_text('|'.join(sys.argv[1:]))\n(home / '.venv' / 'bin').mkdir(parents=True)\n"
        "os.symlink(sys.executable, home / '.venv' / 'bin' / 'python')\n",
        encoding="utf-8",
    )
    (home / "main.py").write_text("raise SystemExit(5)", encoding="utf-8")
    needs = ("6_export_SAEHD_as_dfm", "dfm"), ("8_preview_history_to_mp4", "video"), ("6_train_SAEHD", "")
    for name, extras in needs:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("FACESMITH_")}
        path = os.pathsep.join((str(Path(sys.executable).parent), environ["PATH"]))
        script = home / "bat" / "linux" / f"{name}.sh"
        assert subprocess.run(["bash", script], env={**environ, "PATH": path}, check=False).returncode == 5
        assert (home / "extras").read_text() == f"--extras|{extras}"
        shutil.rmtree(home / ".venv")


@needs_bash
def test_sh_through_a_link(home: Path, tmp_path: Path) -> None:
    link = home / "bat" / "linux" / "link"
    link.symlink_to("6_train_SAEHD.sh")
    assert launch(link)[1] == expected("6_train_SAEHD", home, home / "workspace", home / "pretrain_faces")


@needs_bash
def test_local_file_points_to_another_workspace(home: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "DFL ü" / "workspace"
    (theirs / "data_src" / "aligned").mkdir(parents=True)
    faces = theirs.parent / "_internal" / "pretrain_faces"
    (home / "bat" / "env" / "local.sh").write_text(
        f"export FACESMITH_WORKSPACE='{theirs}'\nFACESMITH_PRETRAIN_FACES='{faces}'\n", encoding="utf-8"
    )
    code, argv, _ = launch(home / "bat" / "linux" / "6_train_SAEHD.sh")
    assert (code, argv) == (3, expected("6_train_SAEHD", home, theirs, faces))
    assert (theirs / "model").is_dir() and not (home / "workspace").exists()


@needs_bash
def test_named_workspace_must_exist(home: Path) -> None:
    code, argv, said = launch(home / "bat" / "linux" / "6_train_SAEHD.sh", FACESMITH_WORKSPACE="/no such/place")
    assert code == 1 and argv == [] and "FACESMITH_WORKSPACE is /no such/place" in said


@needs_bash
def test_settings_of_another_python_are_dropped(home: Path) -> None:
    probe = home / "bat" / "env" / "checks.py"
    probe.write_text("raise SystemExit(7)", encoding="utf-8")
    assert launch(home / "bat" / "linux" / "test.sh", python=Path(sys.executable), PYTHONHOME="/dfl")[0] == 7


@needs_bash
@pytest.mark.skipif(sys.platform != "linux", reason="asks ps for the session")
@pytest.mark.parametrize(("python", "code"), [("stub", 3), ("/no/such/python", 127)])
def test_a_window_of_its_own_stays_open(home: Path, python: str, code: int) -> None:
    """What a terminal does with a script that is double-clicked: the script leads its session."""
    pexpect = pytest.importorskip("pexpect", reason="pexpect drives a pseudo-terminal (test extra)")
    script = home / "bat" / "linux" / "6_train_SAEHD.sh"
    assert launch(script)[0] == 3  # makes the stub
    given = str(home.parent / "stub python") if python == "stub" else python
    environ = {**os.environ, "FACESMITH_PYTHON": given}
    child = pexpect.spawn("bash", [str(script)], env=environ, encoding="utf-8", timeout=20)
    child.expect_exact(f"Ended with exit code {code}. Press Enter to close this window.")
    child.send("\r")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == code
    child = pexpect.spawn("bash", [str(script)], env={**environ, "FACESMITH_NO_PAUSE": "1"}, timeout=20)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == code
    line = f"bash {shlex.quote(str(script))}; exit 9"
    shell = pexpect.spawn("bash", ["--norc", "-c", line], env=environ, encoding="utf-8", timeout=20)
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 9 and "Press Enter" not in str(shell.before)


# What is launched understands its flags


def parse(arguments: list[str]) -> None:
    verb = next(verb for verb in VERBS if tuple(arguments[: len(verb)]) == verb)
    parser = ArgumentParser(exit_on_error=False)
    import_module(VERBS[verb][0]).add_arguments(parser)
    parser.parse_args(arguments[len(verb) :])


@pytest.fixture
def demo() -> ModuleType:
    spec = spec_from_file_location("demo", ROOT / "bat" / "env" / "demo.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_commands_are_understood(demo: ModuleType) -> None:
    for words in COMMANDS.values():
        if words[0] == "main.py":
            parse(words[1:])
    parse(demo.train_command(["--target-iter", "3"]))
    parse(demo.faces_command())


def test_demo_draws_faces_once(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    codes = {"demo-faces": 2, "train": 0}

    def run(command: list[str]) -> int:
        ran.append(command[0])
        return codes[command[0]]

    monkeypatch.setattr(demo.signal, "signal", lambda *_: None)
    monkeypatch.setattr(demo, "WORKSPACE", tmp_path)
    monkeypatch.setattr(demo, "COUNT", 1)
    monkeypatch.setattr(demo, "run", run)
    assert demo.main([]) == 2 and ran == ["demo-faces"] and capsys.readouterr().out == ""
    codes["demo-faces"] = 0
    assert demo.main([]) == 0 and ran[1:] == ["demo-faces", "train"]
    assert str(tmp_path / "model") in capsys.readouterr().out
    for side in ("data_src", "data_dst"):
        (tmp_path / side / "aligned").mkdir(parents=True)
        (tmp_path / side / "aligned" / "face.jpg").touch()
    assert demo.main([]) == 0 and ran[3:] == ["train"]
