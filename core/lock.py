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
import time
from pathlib import Path
from typing import IO

from core.disk import FULL, remedy
from core.modeldata import ModelError

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
PATIENCE, PAUSE = 5, 0.1  # attempts, seconds
OWNER = re.compile(r"process (\d{1,10}) on (\S+)")


class ModelLock:
    """The lock of one model, in a `with`; raises ModelError where another trainer has it or no file can be made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> ModelLock:
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._acquire()
            self._sign(self._file)
        except OSError as error:
            self.__exit__()
            full = remedy(error.errno, folder) if error.errno in FULL else ""
            advice = full or "Give a model folder you may write to. "
            raise ModelError(f"{folder}: cannot be written ({error.strerror}). {advice.rstrip()}") from error
        return self

    @staticmethod
    def _sign(file: IO[str]) -> None:
        """Who has the lock, for those who are refused."""
        try:
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        except OSError:
            with contextlib.suppress(OSError):  # what could not be written would be tried again
                file.close()
            raise

    def _acquire(self) -> IO[str]:
        """The open, locked file that has the lock's name."""
        for attempt in range(PATIENCE):  # somebody who only looks has it for a moment
            file = self.path.open("a+", encoding="utf-8")
            held, by_name = _held(file)
            if held:
                file.close()
                if attempt < PATIENCE - 1 and not by_name:
                    time.sleep(PAUSE)
                    continue
                gone = f" Should there be none any more, delete {self.path}." if by_name else ""
                raise ModelError(
                    f"This model is being trained by {held}. Stop that trainer first, or choose another model.{gone}"
                )
            # Whoever had it may have deleted it between our opening and locking: then it is no lock any more.
            try:
                if os.name == "nt" or os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    return file
            except FileNotFoundError:
                pass
            file.close()
        raise ModelError(f"{self.path}: is made and deleted all the time. Try again.")

    def holder(self) -> str:
        """Who trains the model, as the refusal names them; empty where nobody does."""
        try:
            with self.path.open("r+", encoding="utf-8") as file:
                return _held(file)[0]
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


def _held(file: IO[str]) -> tuple[str, bool]:
    """Locks the file and returns nothing, or who keeps others out; and whether only the name in the file says so."""
    try:
        _lock(file)
    except OSError as error:
        file.seek(0)
        owner = file.read(500).strip()
        if error.errno in HELD:
            return owner or "another program", False
        if _lives(owner):
            return owner, True
    return "", False


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
