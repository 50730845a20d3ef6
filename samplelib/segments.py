"""Where prepared faces lie on the disk: pairs of files that grow, each written by one process alone.

`<name>.faces` holds records one after another, whatever their bytes are, and `<name>.list` one line of 36 bytes for
each that is complete: key, place, length and both checksums. No file is ever changed by another process or again by a
later run, so two trainers cannot meet in one, and what a killed one left half-written is a tail that no line names. A
record whose checksum is wrong (a power cut, a bad disk) is as good as none. Any of these files may be deleted at any
time. Who reads or writes a pair holds a shared lock on it, so that it is not tidied away under him
(`samplelib.cachetidy`); on Windows an open file cannot be deleted anyway.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

FACES, LIST = ".faces", ".list"
KEY = 16
"""Bytes of a key."""
FACE = 8
"""Of these, the first that say which face it is; the others say in which state. Of two states of a face that is still
wanted only the present one will ever be."""
MAX_RECORD = 64 << 20
MAX_SEGMENT = 2 << 30
"""From here on a writer begins the next segment."""

_MAGIC = b"facesmith faces 1\n"
_LINE = struct.Struct("<16sQIII")  # key, place, length, CRC-32 of the record, CRC-32 of the 32 bytes before
LINE, HEAD = _LINE.size, len(_MAGIC)
_MAX_LIST = 1 << 30
_FRESH_S = 600.0  # such files may be in work


@dataclass(frozen=True, slots=True)
class Record:
    """Where a record lies in its segment."""

    at: int
    length: int
    check: int


@dataclass(frozen=True)
class Segment:
    """A pair of files. size: bytes of both; used: when a training last used it, in seconds since 1970; known: whether
    it is of this version."""

    name: str
    size: int
    used: float
    records: dict[bytes, Record]
    known: bool = True


def read_segments(folder: Path) -> list[Segment]:
    """All segments of a folder, none where there is no such folder; what cannot be read is left out."""
    found = []
    for path in sorted(folder.glob(f"*{LIST}")):
        with contextlib.suppress(OSError, MemoryError):
            found.append(_read(path))
    return found


def _read(path: Path) -> Segment:
    faces = path.with_suffix(FACES)
    stat, end = path.stat(), faces.stat().st_size
    with path.open("rb", buffering=0) as file:
        data = file.read(min(stat.st_size, _MAX_LIST))
    records = {}
    start = len(_MAGIC) if data.startswith(_MAGIC) else len(data)
    for at in range(start, len(data) - _LINE.size + 1, _LINE.size):
        line = data[at : at + _LINE.size]
        key, place, length, check, own = _LINE.unpack(line)
        if zlib.crc32(line[:-4]) == own and 0 < length <= MAX_RECORD and place + length <= end:
            records[key] = Record(place, length, check)
    return Segment(path.stem, end + len(data), stat.st_mtime, records, data.startswith(_MAGIC))


def drop(folder: Path, segment: Segment) -> bool:
    """Deletes a segment, if that is possible."""
    gone = True
    for ending in (LIST, FACES):
        try:
            (folder / f"{segment.name}{ending}").unlink(missing_ok=True)
        except OSError:  # on Windows, while another program reads it
            gone = False
    return gone


def folder_size(folder: Path) -> int:
    """Bytes of all segments. Raises OSError where there is no such folder."""
    size = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((FACES, LIST)):
                with contextlib.suppress(FileNotFoundError):
                    size += entry.stat().st_size
    return size


def empty(folder: Path) -> None:
    """Deletes all segments of a folder that can be deleted, and no other file."""
    for ending in (LIST, FACES):
        for path in folder.glob(f"*{ending}"):
            with contextlib.suppress(OSError):
                path.unlink()


def cost(records: Mapping[bytes, Record]) -> int:
    """Bytes that these records take, with their lines."""
    return sum(record.length for record in records.values()) + LINE * len(records)


def alone(stack: contextlib.ExitStack, folder: Path, segment: Segment, now: float) -> bool:
    """Whether no process reads or writes a segment. As long as the stack is open, nobody else is told so."""
    try:
        return _lock(stack, folder / f"{segment.name}{FACES}")
    except FileNotFoundError:
        return False
    except OSError:  # a file system without locks
        return now - segment.used > _FRESH_S


class Writer:
    """Appends records to a segment of its own, made with the first of them. size: bytes of both files."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._files: list[BinaryIO] = []
        self._end = self.size = 0

    def append(self, key: bytes, data: bytes) -> Record:
        """Raises OSError where it cannot be written in full: then the writer is not to be used any more."""
        if not self._files:
            self._files.append((self._folder / f"{self._name}{FACES}").open("xb", buffering=0))
            _hold(self._files[0])  # before there is a list by which it is found
            self._files.append((self._folder / f"{self._name}{LIST}").open("xb", buffering=0))
            _write(self._files[1], _MAGIC)
            self.size = HEAD
        record = Record(self._end, len(data), zlib.crc32(data))
        _write(self._files[0], data)
        self._end += len(data)
        self.size += len(data) + LINE
        line = _LINE.pack(key, record.at, record.length, record.check, 0)[:-4]
        _write(self._files[1], line + struct.pack("<I", zlib.crc32(line)))
        return record

    @property
    def gone(self) -> bool:
        """Whether somebody deleted its files."""
        return any(os.fstat(file.fileno()).st_nlink == 0 for file in self._files)

    def close(self) -> None:
        for file in self._files:
            file.close()


def _write(file: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while left:  # what no longer fits is told by the write after a short one
        if not (written := file.write(left)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        left = left[written:]


class Reader:
    """Reads records of any segment of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}

    def read(self, name: str, record: Record) -> bytes | None:
        """The bytes of a record; None where they are not what was written."""
        try:
            if (file := self._files.get(name)) is None:
                file = self._files[name] = (self._folder / f"{name}{FACES}").open("rb", buffering=0)
                _hold(file)
            file.seek(record.at)
            data = file.read(record.length)
        except OSError:
            return None
        return data if len(data) == record.length and zlib.crc32(data) == record.check else None

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}


if sys.platform == "win32":

    def _hold(file: BinaryIO) -> None:
        """Nothing: an open file cannot be deleted."""

    def _lock(stack: contextlib.ExitStack, path: Path) -> bool:
        try:
            path.replace(path)  # refused while anybody has it open
        except PermissionError:
            return False
        return True

else:
    import fcntl

    def _hold(file: BinaryIO) -> None:
        """Shows others that it is in use, where the file system knows locks and nobody is tidying it away just now."""
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _lock(stack: contextlib.ExitStack, path: Path) -> bool:
        """Whether it could be locked alone, until the stack closes. Raises OSError where that cannot be known."""
        file = stack.enter_context(path.open("r+b", buffering=0))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return os.fstat(file.fileno()).st_nlink > 0  # else another did so and has dropped it
