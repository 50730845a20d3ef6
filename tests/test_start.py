"""Starts that hang and programs that break, as processes: what is said, the exit code, what the log holds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests_support import ROOT, soon
from training import ENVIRONMENT, command, digest

FIRST = ["--no-preview", "--exit-at-target", "--target-iter", "3"]


def environment(tmp_path: Path, **modules: str) -> dict[str, str]:
    """An environment in which those modules are found before all others."""
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    for name, text in modules.items():
        (fakes / f"{name}.py").write_text(text, encoding="utf-8")
    (tmp_path / "temporary").mkdir()
    return {**ENVIRONMENT, "PYTHONPATH": str(fakes), "TMPDIR": str(tmp_path / "temporary")}


def spare(tmp_path: Path) -> str:
    """The log in the temporary folder."""
    (path,) = (tmp_path / "temporary").glob("facesmith_log*")
    return path.read_text(encoding="utf-8")


def ended(words: list[str], environ: dict[str, str]) -> tuple[int, str, str]:
    done = subprocess.run(
        words, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


def breaking(words: list[str], text: str) -> list[str]:
    """The command line with something patched before it runs."""
    return [words[0], "-c", f"import sys\n{text}\nfrom main import main\nsys.exit(main())", *words[2:]]


@contextmanager
def running(words: list[str], environ: dict[str, str], out: Path) -> Iterator[subprocess.Popen[bytes]]:
    with out.open("wb") as file:
        process = subprocess.Popen(words, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_start_names_and_times_its_stages(trained: Path) -> None:
    log = (trained / "new_SAEHD_facesmith_log.txt").read_text(encoding="utf-8")
    stages = ["Loading PyTorch", "Loading samples", "Initializing models", "Starting sample workers"]
    stages += ["First samples", "First preview", "First iteration"]
    places = [re.search(rf"{stage}\.\.\.\n.*{stage}: \d+\.\d s", log, re.S) for stage in stages]
    assert all(places), log
    for part in ("facesmith 0", "Python 3", "torch ", "numpy ", "cv2 ", "main.py train", "Using device: CPU", "archi:"):
        assert part in log
    assert re.search(r"Start: \d+\.\d s \(loading PyTorch", log) and "Ended at iteration 3: target." in log


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_import_that_hangs_is_told(faces: Path, tmp_path: Path) -> None:
    environ = environment(tmp_path, torch="import time\ntime.sleep(600)\n")
    out = tmp_path / "out.txt"
    with running(command(faces, tmp_path / "m", *FIRST, "--watchdog", "1"), environ, out) as process:
        assert soon(lambda: "within fakes/torch.py:2" in out.read_text()), out.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    said = out.read_text()
    told = r"Loading PyTorch\.\.\.\nWarning: Loading PyTorch: no progress for \d+ s\. It stands at (core|models)/"
    assert re.search(told, said)
    assert "(import torch), within fakes/torch.py:2 in <module> (time.sleep(600))" in said and "virus scanner" in said
    assert "Traceback" not in said and not (tmp_path / "m").exists()
    assert "thread MainThread:" in spare(tmp_path) and "time.sleep(600)" in spare(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_workers_that_never_come_up_are_told(faces: Path, tmp_path: Path) -> None:
    asleep = "import sys, time\nif 'samplelib.worker' in ' '.join(sys.orig_argv):\n    time.sleep(600)\n"
    environ, out, model = environment(tmp_path, sitecustomize=asleep), tmp_path / "out.txt", tmp_path / "m"
    with running(command(faces, model, *FIRST, "--watchdog", "1"), environ, out) as process:
        assert soon(lambda: "First samples: no progress" in out.read_text()), out.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    said = out.read_text()
    assert re.search(r"First samples: no progress for \d+ s\. It stands at samplelib/loader\.py:", said), said
    assert "--workers 0" in said and "Traceback" not in said
    assert "in _receive" in (model / "new_SAEHD_facesmith_log.txt").read_text()


SLEEPING_STEP = (
    "import time, models.swap as s\nbefore = s.SwapTask.step\n"
    "def step(self, batch):\n    time.sleep(4 * (self.iteration == 1))\n    return before(self, batch)\n"
    "s.SwapTask.step = step"
)
SLEEPING_DISK = (
    "import time, core.modeldir as m\nbefore = m.ModelDir.write\n"
    "def write(*a, **k):\n    time.sleep(4)\n    before(*a, **k)\nm.ModelDir.write = write"
)


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        (SLEEPING_STEP, "in step|in _iterate", "Other programs"),
        pytest.param(SLEEPING_DISK, r"core/saver.py:\d+ in wait", "with the model", marks=pytest.mark.slow),
    ],
)
def test_a_training_that_hangs_is_told_and_goes_on(
    faces: Path, tmp_path: Path, text: str, place: str, hint: str
) -> None:
    words = breaking(command(faces, tmp_path / "m", *FIRST, "--watchdog", "1"), text)
    code, out, said = ended(words, environment(tmp_path))
    assert code == 0, out + said
    assert re.search(rf"iteration \d: no progress for \d+ s\. It stands at .*({place}).*\n.*{hint}", out), out
    assert "Traceback" not in out + said


@pytest.mark.slow
def test_no_watchdog_on_request(faces: Path, tmp_path: Path) -> None:
    environ = environment(tmp_path)
    words = breaking(command(faces, tmp_path / "m", *FIRST, "--watchdog", "0"), SLEEPING_STEP)
    code, out, _ = ended(words, environ)
    assert code == 0 and "no progress" not in out
    code, _, said = ended(command(faces, tmp_path / "m", "--watchdog", "-1"), environ)
    assert code == 2 and "whole number from 0" in said


@pytest.mark.parametrize(
    ("module", "text", "message"),
    [
        ("torch", "raise ImportError('DLL load failed while importing _C.')", "PyTorch is .* cannot be loaded: DLL"),
        ("torch", "raise OSError('[WinError 126] c10.dll')", r"PyTorch is .* cannot be loaded: \[WinError 126\]"),
        ("torch", "raise ImportError('x.so: failed to map segment')", "not enough memory to load PyTorch: .*ulimit"),
        ("cv2", "raise ImportError('libGL.so.1: cannot open shared object file')", "OpenCV .* apt install libgl1"),
        ("numpy", "raise AttributeError('two versions')", "NumPy is installed but cannot be loaded"),
        ("numpy", "raise ModuleNotFoundError('No module named numpy', name='numpy')", "NumPy is not installed .*pip"),
    ],
)  # fmt: skip
def test_a_broken_package_is_told_in_one_message(
    faces: Path, tmp_path: Path, module: str, text: str, message: str
) -> None:
    code, _, said = ended(command(faces, tmp_path / "m", *FIRST), environment(tmp_path, **{module: text}))
    assert code == 1 and re.search(message, said), said
    assert "Traceback" not in said and said.count("Error: ") == 1 and f"Details: {tmp_path / 'temporary'}" in said
    assert "Traceback" in spare(tmp_path) and text.partition("'")[2][:12] in spare(tmp_path)
    assert not (tmp_path / "m").exists()


UTIL = ["util", "--input-dir", ".", "--save-faceset-metadata"]


@pytest.mark.parametrize("verb", [UTIL, ["demo-faces", "--output-dir", "x"], ["bench", "step"]])
def test_every_verb_tells_a_broken_package(tmp_path: Path, verb: list[str]) -> None:
    environ = environment(tmp_path, numpy="raise ImportError('numpy is broken')")
    code, _, said = ended([sys.executable, str(ROOT / "main.py"), *verb], environ)
    assert code == 1 and re.match("Error: (NumPy|OpenCV) is .* cannot be loaded: numpy is broken", said), said
    assert "Traceback" not in said and "Traceback" in spare(tmp_path)


IN_A_STEP = "import models.swap as s\ndef step(self, batch): raise KeyError('not there')\ns.SwapTask.step = step"
IN_THE_BUILD = "import models.spec as s\ndef build(*_, **__): raise LookupError('odd')\ns.ModelSpec.build = build"
IN_THE_SAVER = "import core.modeldir as m\ndef write(*_, **__): raise KeyError('odd')\nm.ModelDir.write = write"
IN_A_THREAD = "import core.history as h\ndef take(*_): raise KeyError('odd')\nh.PreviewFiles.__call__ = take"
A_CRASH = (
    "import faulthandler, models.swap as s\ndef step(self, batch): faulthandler._sigsegv()\ns.SwapTask.step = step"
)


@pytest.mark.parametrize(
    ("text", "message", "made"),
    [
        (IN_A_STEP, "Error: An error that should not happen: KeyError: 'not there'.* last save are untouched", True),
        (IN_THE_BUILD, "Error: An error that should not happen: LookupError: odd", False),
        (IN_THE_SAVER, "Warning: Could not save in .*: 'odd'", True),
    ],
)
def test_errors_of_the_program_are_one_message_and_a_traceback_in_the_log(
    faces: Path, tmp_path: Path, text: str, message: str, made: bool
) -> None:
    code, out, said = ended(breaking(command(faces, tmp_path / "m", *FIRST), text), environment(tmp_path))
    assert code == 1 and re.search(message, out + said), out + said
    assert "Traceback" not in out + said
    path = tmp_path / "m" / "new_SAEHD_facesmith_log.txt"
    assert path.exists() == made == (tmp_path / "m").exists()
    log = path.read_text(encoding="utf-8") if made else spare(tmp_path)
    assert "Traceback (most recent call last)" in log and ("KeyError" in log or "LookupError" in log)
    if text != IN_THE_SAVER:
        assert f"Details: {path if made else tmp_path / 'temporary'}" in out + said


def test_sample_workers_that_break_are_told_in_a_line(faces: Path, tmp_path: Path) -> None:
    broken = "import sys\nif 'samplelib.worker' in ' '.join(sys.orig_argv):\n    sys.modules['cv2'] = None\n"
    code, out, said = ended(command(faces, tmp_path / "m", *FIRST), environment(tmp_path, sitecustomize=broken))
    assert code == 1 and "Traceback" not in out + said, out + said
    assert re.search(r"Error: No more samples: a sample worker .*3 times in a row: ModuleNotFound.*cv2", out), out
    assert out.count("another takes over its work: ModuleNotFoundError") == 2
    log = (tmp_path / "m" / "new_SAEHD_facesmith_log.txt").read_text(encoding="utf-8")
    assert "Traceback" in log and "samplelib/worker.py" in log


@pytest.mark.parametrize(("text", "error"), [(IN_THE_BUILD, "LookupError: odd"), (IN_A_STEP, "KeyError: 'not there'")])
def test_a_traceback_is_shown_to_who_asks_for_it(faces: Path, tmp_path: Path, text: str, error: str) -> None:
    environ = {**environment(tmp_path), "FACESMITH_TRACEBACK": "1"}
    code, _, said = ended(breaking(command(faces, tmp_path / "m", *FIRST), text), environ)
    assert code == 1 and "Traceback" in said and error in said


@pytest.mark.slow
def test_a_listener_that_breaks_does_not_end_the_training(faces: Path, tmp_path: Path) -> None:
    code, out, said = ended(breaking(command(faces, tmp_path / "m", *FIRST), IN_A_THREAD), environment(tmp_path))
    assert code == 0 and "Warning: A part of the program (preview files) has ended by an error" in out, out + said
    assert "Traceback" not in out + said
    assert "Traceback" in (tmp_path / "m" / "new_SAEHD_facesmith_log.txt").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_crash_leaves_its_stacks_in_the_log(faces: Path, tmp_path: Path) -> None:
    code, _, _ = ended(breaking(command(faces, tmp_path / "m", *FIRST), A_CRASH), environment(tmp_path))
    log = (tmp_path / "m" / "new_SAEHD_facesmith_log.txt").read_text(encoding="utf-8")
    assert code == -signal.SIGSEGV and "Fatal Python error: Segmentation fault" in log and "in step" in log


def test_a_refused_model_keeps_its_files_and_a_log(faces: Path, copy: Path, tmp_path: Path) -> None:
    (copy / "new_SAEHD_encoder.npy").write_bytes(b"\0" * 100)
    before = digest(copy)
    code, _, said = ended(command(faces, copy, "--no-preview", small=False), environment(tmp_path))
    log = copy / "new_SAEHD_facesmith_log.txt"
    assert code == 1 and digest(copy) == before and said.splitlines()[-1] == f"Details: {log}"
    assert "new_SAEHD_encoder.npy" in said and "Traceback" in log.read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read_gets_no_log(faces: Path, copy: Path, tmp_path: Path) -> None:
    copy.chmod(0o555)
    code, _, said = ended(command(faces, copy, "--no-preview", small=False), environment(tmp_path))
    copy.chmod(0o755)
    assert code == 1 and "Details: " in said and "Traceback" in spare(tmp_path)


def test_a_log_that_cannot_be_written_hurts_nothing(faces: Path, copy: Path, tmp_path: Path) -> None:
    log = copy / "new_SAEHD_facesmith_log.txt"
    log.unlink()
    log.mkdir()
    words = command(faces, copy, "--no-preview", "--target-iter", "4", "--exit-at-target", small=False)
    code, out, said = ended(words, environment(tmp_path))
    assert code == 0 and out.count("cannot be written") == 1, out + said
    assert "Ended at iteration 4" in spare(tmp_path)
