"""The log of a run: what to send when asking for help. Who ran what on which machine, stages with their times, every
warning and failure with its traceback, stacks of a start that hung.

Nothing is written before `open` or `flush`: a start that is refused leaves the folder as it was. Standard library only,
because a broken PyTorch, NumPy or OpenCV has to be told too.
"""

from __future__ import annotations

import os
import platform
import shlex
import stat
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from core.events import BackedUp, Event, Failed, Noted, Saved, Staged, Started, Stopped, Warned
from core.shown import without_secrets
from core.version import VERSION

ENDING = "facesmith_log.txt"
LIMIT = 1 << 20
"""Bytes of a log: beyond, its older half is cut off."""
ENTRY_LIMIT = 1 << 16
MAX_WAITING = 500
PACKAGES = ("torch", "numpy", "cv2", "onnx", "onnxruntime")


def spare_path() -> Path:
    """Where a log goes that has no model folder: one file for each user."""
    user = f"_{os.getuid()}" if sys.platform != "win32" else ""
    return Path(tempfile.gettempdir()) / f"facesmith_log{user}.txt"


def versions() -> str:
    """Python and the packages that are loaded by now, for the log's head."""
    loaded = [(name, getattr(sys.modules.get(name), "__version__", "")) for name in PACKAGES]
    texts = [f"Python {platform.python_version()}", *(f"{name} {version}" for name, version in loaded if version)]
    return f"{', '.join(texts)}; {platform.platform()}"


class RunLog:
    """A log whose place becomes known later. Safe to use from any thread; never raises OSError.

    command: the command line. spare: where it goes without a place. warn: told once where the log cannot be written;
    to be set once somebody can be told.
    """

    def __init__(
        self,
        command: Sequence[str],
        now: Callable[[], datetime] = datetime.now,
        spare: Path | None = None,
    ) -> None:
        self.warn: Callable[[str], object] = lambda text: None
        self._command, self._now = without_secrets(command), now
        self._spare = spare_path() if spare is None else spare
        self._place: Path | None = None
        self._opened = self._warned = False
        self._waiting: deque[str] = deque(maxlen=MAX_WAITING)
        self._begun: set[Path] = set()
        self._lock = threading.RLock()

    def place(self, path: Path | None) -> None:
        """Where the log goes if it has to be written; None: to the temporary folder."""
        with self._lock:
            self._place = path

    def open(self) -> Path | None:
        """From now on every entry is written at once. Returns where; None where it cannot be written."""
        self._opened = True
        return self.flush()

    def note(self, text: str) -> None:
        """An entry, with the time. Lines beyond the first are set in."""
        if len(text) > ENTRY_LIMIT:
            text = f"{text[: ENTRY_LIMIT // 2]}\n[...]\n{text[-ENTRY_LIMIT // 2 :]}"
        entry = f"{self._now():%Y-%m-%d %H:%M:%S}  {text.rstrip()}".replace("\n", "\n    ") + "\n"
        with self._lock:
            self._waiting.append(entry)
        if self._opened:
            self.flush()

    def failure(self, error: BaseException) -> None:
        """The traceback of an error, as an entry."""
        self.note("".join(traceback.format_exception(error)))

    def flush(self) -> Path | None:
        """Writes what is noted; returns where: the log's place, where that is refused the temporary folder, or None."""
        with self._lock:
            path, problem = self._write()
            problem, self._warned = "" if self._warned else problem, self._warned or bool(problem)
        if problem:  # not with the lock held: who is told may write to the log
            self.warn(problem)
        return path

    def _write(self) -> tuple[Path | None, str]:
        """Where it was written, and what is wrong with the place where it was not."""
        problem = ""
        for path in (self._place, self._spare):
            if path is None:
                continue
            try:
                self._append(path)
                return path, problem
            except OSError as error:
                problem = problem or f"The log {path} cannot be written ({error.strerror or error}). All else goes on."
        return None, problem

    def _append(self, path: Path) -> None:
        """Writes all that waits to the end of a file. Raises OSError."""
        text = "".join(self._waiting)
        if path not in self._begun:
            text = f"\n{'=' * 80}\n{self._head()}{text}"
        write_bounded(path, text.encode("utf-8", "backslashreplace"))
        self._begun.add(path)
        self._waiting.clear()

    def _head(self) -> str:
        return (
            f"{self._now():%Y-%m-%d %H:%M:%S}  facesmith {VERSION}, process {os.getpid()}\n"
            f"    {versions()}\n    {shlex.join(self._command)}\n"
        )


def log_sink(log: RunLog) -> Callable[[Event], None]:
    """A sink that puts what is told, and its traceback, into a log."""

    def take(event: Event) -> None:
        if text := _entry(event):
            log.note(text)

    return take


def _entry(event: Event) -> str:
    match event:
        case Noted(text):
            return text
        case Staged(name, seconds, failed):
            return f"{name}..." if seconds is None else f"{name}: {seconds:.1f} s{', failed' if failed else ''}"
        case Warned(text, trace):
            return f"Warning: {text}\n{trace}"
        case Failed(text, trace):
            return f"Error: {text}\n{trace}"
        case Started(name, iteration, target):
            return f"Training of {name} begins at iteration {iteration}, target {target or 'none'}."
        case Saved(iteration, _, ms):
            return f"Saved iteration {iteration} in {ms:.0f} ms."
        case BackedUp(iteration, folder):
            return f"Backup of iteration {iteration}: {folder}"
        case Stopped(iteration, reason):
            return f"Ended at iteration {iteration}: {reason}."
    return ""


def write_bounded(path: Path, data: bytes, limit: int = LIMIT) -> None:
    """Appends to a file and, where it has grown beyond `limit` bytes, cuts its older half off at a line's end.

    Raises OSError, also where the path is a link, no regular file, or another user's: a folder from a stranger, or the
    temporary folder, must not lead the log elsewhere.
    """
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | careful, 0o644)
    with os.fdopen(handle, "r+b", buffering=0) as file:
        status = os.fstat(handle)
        shared = path.parent == Path(tempfile.gettempdir()) and sys.platform != "win32"
        if not stat.S_ISREG(status.st_mode) or (shared and (status.st_uid != os.getuid() or status.st_nlink > 1)):
            raise OSError(f"{path} is no file of this user")
        if status.st_size + len(data) > limit:
            file.seek(max(0, status.st_size - limit // 2))
            kept = file.read().partition(b"\n")[2]
            file.truncate(0)
            data = kept + data[-limit // 2 :]
        file.write(data)  # O_APPEND: at the end, wherever the reading left off
