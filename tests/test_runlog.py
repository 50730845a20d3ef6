"""The log of a run: where it goes, that it stays small, and that it never hurts."""

from __future__ import annotations

import errno
import os
import sys
from datetime import datetime
from pathlib import Path

import pytest

from core.events import Failed, Saved, Staged, Warned
from core.failures import broken_package, explain
from core.modeldir import ModelDir
from core.runlog import RunLog, log_sink, spare_path, write_bounded


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(["main.py", "train", "a b"], lambda: datetime(2026, 11, 21, 14, 30), tmp_path / "spare.txt")


def test_nothing_is_written_before_it_has_to_be(log: RunLog, tmp_path: Path) -> None:
    log.place(tmp_path / "log.txt")
    log.note("early")
    assert not list(tmp_path.iterdir())
    assert log.open() == tmp_path / "log.txt"
    log.note("late\nsecond line")
    text = (tmp_path / "log.txt").read_text()
    head, early, late = text.partition("early")[0], text.index("early"), text.index("late\n    second line")
    assert early < late and "main.py train 'a b'" in head and f"Python {sys.version.split()[0]}" in head
    assert "2026-11-21 14:30:00  facesmith" in head


def test_without_a_place_it_goes_to_the_temporary_folder(log: RunLog, tmp_path: Path) -> None:
    log.note("it failed")
    assert log.flush() == tmp_path / "spare.txt" and "it failed" in (tmp_path / "spare.txt").read_text()


def test_a_place_that_refuses_is_told_once(log: RunLog, tmp_path: Path) -> None:
    told: list[str] = []
    log.warn = told.append
    log.place(tmp_path / "no such folder" / "log.txt")
    assert log.open() == tmp_path / "spare.txt"
    log.note("one")
    (tmp_path / "spare.txt").unlink()
    (tmp_path / "spare.txt").mkdir()
    log.note("two")
    assert log.flush() is None and len(told) == 1 and "cannot be written" in told[0]


def test_it_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    for number in range(1000):
        write_bounded(path, f"line {number}\n".encode(), limit=1000)
        assert path.stat().st_size <= 1000
    lines = path.read_text().splitlines()
    assert lines[-1] == "line 999" and all(line.startswith("line ") for line in lines)
    write_bounded(path, b"x" * 5000, limit=1000)
    assert path.stat().st_size <= 1000


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
def test_a_strangers_link_or_pipe_is_not_written_through(log: RunLog, tmp_path: Path) -> None:
    import os

    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link").symlink_to(victim)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        log.place(tmp_path / name)
        log.note(name)
        assert log.flush() == tmp_path / "spare.txt"
    assert victim.read_text() == "mine"


def test_tracebacks_and_warnings_are_kept(log: RunLog, tmp_path: Path) -> None:
    take = log_sink(log)
    for event in (Warned("careful", "the trace"), Failed("over"), Staged("A", 1.0), Saved(7, None, 3.0, tmp_path)):
        take(event)
    try:
        raise KeyError("lost")
    except KeyError as error:
        log.failure(error)
    assert log.flush() is not None
    text = (tmp_path / "spare.txt").read_text()
    for part in ("Warning: careful\n    the trace", "Error: over", "A: 1.0 s", "iteration 7", "KeyError: 'lost'"):
        assert part in text


def test_it_is_no_file_of_the_model(tmp_path: Path) -> None:
    directory = ModelDir(tmp_path, "a", "SAEHD")
    directory.log_path.write_text("log")
    assert directory.log_path.name == "a_SAEHD_facesmith_log.txt" and directory.files() == []


def test_messages_of_errors() -> None:
    missing = explain(ModuleNotFoundError("No module named 'cv2'", name="cv2"))
    assert missing.startswith("OpenCV is not installed for ") and "pip install" in missing
    assert explain(MemoryError()).startswith("There is not enough memory")
    assert explain(FileNotFoundError(2, "No such file or directory", "x")) == "x: No such file or directory."
    try:
        raise ValueError("odd\nsecond line")
    except ValueError as error:
        said = explain(error)
        assert said.startswith("An error that should not happen: ValueError: odd (at tests/test_runlog.py:")
        assert "\n" not in said and broken_package(error) == ""
    assert spare_path().name.startswith("facesmith_log")


def test_a_shortage_of_memory_is_told_as_one() -> None:
    path = "/x/.venv/lib/python3.11/site-packages/torch/_C.cpython-311-x86_64-linux-gnu.so"
    segment = ImportError("libtorch_cpu.so: failed to map segment from shared object", name="_C", path=path)
    said = explain(segment)
    assert (
        said.startswith("There is not enough memory to load PyTorch: libtorch_cpu.so: failed") and "ulimit -v" in said
    )
    assert ".venv" not in said and broken_package(segment) == "torch"
    said = explain(RuntimeError("can't start new thread"))
    assert said.startswith("No new thread could be started: memory is short") and "ulimit -u" in said
    other = ImportError("undefined symbol: x", name="_C", path=path)
    assert explain(other).startswith("PyTorch is installed but cannot be loaded: undefined symbol: x.")


def test_errors_of_the_system_say_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    def told(number: int, path: Path | None) -> str:
        return explain(OSError(number, os.strerror(number), *([] if path is None else [str(path)])))

    for number, path, advice in [
        (errno.ENOSPC, file, "Free some space there"),
        (errno.ENOSPC, None, "Free some space there"),
        (errno.EROFS, file, "Make the folder writable"),
        (errno.ENOENT, tmp_path / "gone" / "x", f"Bring {tmp_path / 'gone'} back"),
        (errno.ENOTDIR, file / "x" / "y", f"{file} is a file, and a folder is needed there."),
    ]:
        start = f"{'The system' if path is None else path}: {os.strerror(number)}. {advice}"
        assert start in told(number, path) and told(number, path).endswith((".", "?"))
    assert told(errno.EACCES, None) == "The system: Permission denied."
