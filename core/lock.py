"""Keeps two trainers off one model.

The operating system holds the lock and drops it with the process, however that dies, so a lock file that was left
behind keeps nobody out. Where a file system knows no locks, the process named in the file decides: a living one on this
machine, or any on another, keeps others out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from pathlib import Path
from typing import IO

from core.modeldata import ModelError

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
OWNER = re.compile(r"process (\d{1,10}) on (\S+)")


class ModelLock:
    """The lock of one model, in a `with`; raises ModelError where another trainer has it or no file can be made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> ModelLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self._acquire()
        except OSError as error:
            raise ModelError(
                f"{self.path.parent}: cannot be written ({error.strerror}). Give a model folder you may write to."
            ) from error
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._file = file
        return self

    def _acquire(self) -> IO[str]:
        """The open, locked file that has the lock's name."""
        while True:
            file = self.path.open("a+", encoding="utf-8")
            held = _held(file)
            if held:
                file.close()
                raise ModelError(
                    f"This model is being trained by {held}. Stop that trainer first, or choose another model. Should "
                    f"there be none any more, delete {self.path}."
                )
            # Whoever had it may have deleted it between our opening and locking: then it is no lock any more.
            try:
                if os.name == "nt" or os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    return file
            except FileNotFoundError:
                pass
            file.close()

    def holder(self) -> str:
        """Who trains the model, as the refusal names them; empty where nobody does."""
        try:
            with self.path.open("r+", encoding="utf-8") as file:
                return _held(file)
        except OSError:
            return ""  # no lock, or a folder that may only be read: nobody trains there

    def __exit__(self, *_: object) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        if os.name == "nt":  # an open file cannot be deleted there, and one that another opened meanwhile stays
            file.close()
        with contextlib.suppress(OSError):  # a file that stays behind keeps nobody out
            self.path.unlink(missing_ok=True)
        file.close()


def _held(file: IO[str]) -> str:
    """Locks the file and returns nothing, or who keeps others out."""
    try:
        _lock(file)
    except OSError as error:
        file.seek(0)
        owner = file.read(500).strip()
        if error.errno in HELD or _lives(owner):
            return owner or "another program"
    return ""


def _lives(owner: str) -> bool:
    """Whether the process a lock file names may still be there. On another machine nobody can tell."""
    found = OWNER.match(owner)
    if found is None:
        return False
    if found[2] != socket.gethostname() or os.name == "nt":
        return True
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return int(found[1]) != os.getpid()


def _lock(file: IO[str]) -> None:
    """Raises OSError when another process holds the lock, or where there are none."""
    if os.name == "nt":
        import msvcrt

        # Windows locks bytes: one far behind the text keeps the text readable for the message above.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
