"""The disk as a save sees it: one method for every step that can fail, or be the last one before the power goes.

Whoever writes a model takes a `Disk` as an argument, so that tests can break any single step of it.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ESTALE)
BLOCK = 1 << 22  # bytes read at a time: a read-back never holds more of a file
PATIENCE = (0.05, 0.1, 0.2, 0.4) if os.name == "nt" else ()
"""Seconds to wait before a refused rename or delete is tried again: on Windows a virus scanner or a preview may hold a
fresh file for a moment."""


class Disk:
    """The real one. Every method raises OSError where the system refuses."""

    def __init__(self, patience: Iterable[float] = PATIENCE, sleep: Callable[[float], None] = time.sleep) -> None:
        self._patience, self._sleep = tuple(patience), sleep

    def create(self, path: Path) -> BinaryIO:
        return path.open("wb")

    def write(self, file: BinaryIO, data: bytes | memoryview) -> None:
        file.write(data)

    def sync(self, file: BinaryIO) -> None:
        """Returns when the content is on the disk, not only in the system's memory."""
        file.flush()
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)  # fsync alone leaves it in the drive's memory there
        else:
            os.fsync(file.fileno())

    def sync_folder(self, folder: Path) -> None:
        """Returns when the names in a folder are on the disk. Windows cannot be asked; NTFS logs renames itself."""
        if os.name == "posix":
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def replace(self, source: Path, target: Path) -> None:
        self._patiently(lambda: source.replace(target))

    def link(self, source: Path, target: Path) -> None:
        """A second name for the same file. Raises OSError too where the file system has no hard links (FAT)."""
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        self._patiently(lambda: path.unlink(missing_ok=True))

    def free(self, folder: Path) -> int:
        """Bytes that may still be written."""
        return shutil.disk_usage(folder).free

    def blocks(self, path: Path, fresh: bool = False) -> Iterator[memoryview]:
        """The content in pieces, each valid until the next. fresh: from the disk itself rather than from the system's
        memory, where the system can be asked for it; the file must have been synced."""
        with path.open("rb", buffering=0) as file:
            buffer = memoryview(bytearray(min(BLOCK, os.fstat(file.fileno()).st_size + 1)))
            if fresh and sys.platform == "linux":
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while count := file.readinto(buffer):
                yield buffer[:count]

    def checksum(self, path: Path, fresh: bool = False) -> int:
        """CRC-32 of a file: it finds accidents, not forgeries, and costs a third of a second per GB."""
        value = 0
        for block in self.blocks(path, fresh):
            value = zlib.crc32(block, value)
        return value

    def write_file(self, path: Path, pieces: Iterable[bytes | memoryview]) -> tuple[int, int]:
        """A whole file, on the disk; returns its size in bytes and its CRC-32."""
        size = value = 0
        with self.create(path) as file:
            for piece in pieces:
                self.write(file, piece)
                size, value = size + len(piece), zlib.crc32(piece, value)
            self.sync(file)
        return size, value

    def _patiently(self, step: Callable[[], object]) -> None:
        for pause in self._patience:
            try:
                step()
                return
            except PermissionError:
                self._sleep(pause)
        step()


DISK = Disk()


def remedy(number: int | None, folder: Path) -> str:
    """What to do about an error of the disk, by its number; a sentence and a blank, or nothing."""
    if number in FULL:
        return "Free some space there: delete other files, or old backups. "
    if number in FORBIDDEN:
        return "Make the folder writable for this user, or the disk, if it is mounted read-only. "
    if number in GONE:
        return f"Bring {folder} back: is the disk or the network drive still connected? "
    if number == errno.EIO:
        return "The disk reports damage: copy the model elsewhere soon. "
    return ""
