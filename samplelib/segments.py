"""Where prepared faces lie on the disk: pairs of files that grow, each written by one process alone.

`<name>.faces` holds records one after another, whatever their bytes are, and `<name>.list` one line of 36 bytes for
each that is complete: key, place, length and both checksums. No file is ever changed by another process or again by a
later run, so two trainers cannot meet in one, and what a killed one left half-written is a tail that no line names. A
record whose checksum is wrong (a power cut, a bad disk) is as good as none. Any of these files may be deleted at any
time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

FACES, LIST = ".faces", ".list"
KEY = 16  # bytes of a key
MAX_RECORD = 64 << 20
MAX_SEGMENTS = 200
UNUSED_S = 30 * 86400.0
"""What no training has used for so long is dropped."""

_MAGIC = b"facesmith faces 1\n"
_LINE = struct.Struct("<16sQIII")  # key, place, length, CRC-32 of the record, CRC-32 of the 32 bytes before
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
    """A pair of files. size: bytes of both; used: when a training last used it, in seconds since 1970."""

    name: str
    size: int
    used: float
    records: dict[bytes, Record]


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
    return Segment(path.stem, end + len(data), stat.st_mtime, records)


def drop(folder: Path, segment: Segment) -> bool:
    """Deletes a segment, if that is possible."""
    gone = True
    for ending in (LIST, FACES):
        try:
            (folder / f"{segment.name}{ending}").unlink(missing_ok=True)
        except OSError:  # on Windows, while another program reads it
            gone = False
    return gone


def empty(folder: Path) -> None:
    """Deletes all segments of a folder that can be deleted, and no other file."""
    for ending in (LIST, FACES):
        for path in folder.glob(f"*{ending}"):
            with contextlib.suppress(OSError):
                path.unlink()


def tidy(folder: Path, segments: list[Segment], wanted: Collection[bytes], limit: int, now: float) -> list[Segment]:
    """Drops segments of which nothing is wanted now: those long unused, then, while all of them take more than `limit`
    bytes or are too many, those unused for longest. Marks the others that are wanted as used. Returns what stays."""
    kept, unwanted = [], []
    for segment in segments:
        if not segment.records.keys().isdisjoint(wanted):
            kept.append(segment)
            with contextlib.suppress(OSError):
                os.utime(folder / f"{segment.name}{LIST}", (now, now))
        elif now - segment.used > UNUSED_S and drop(folder, segment):
            continue
        else:
            unwanted.append(segment)
    size = sum(segment.size for segment in (*kept, *unwanted))
    for segment in sorted(unwanted, key=lambda one: one.used):
        over = size > limit or len(kept) + len(unwanted) > MAX_SEGMENTS
        if over and now - segment.used > _FRESH_S and drop(folder, segment):
            unwanted.remove(segment)
            size -= segment.size
    stems = {segment.name for segment in segments}
    for path in folder.glob(f"*{FACES}"):  # of a process that was killed before its first line
        with contextlib.suppress(OSError):
            if path.stem not in stems and now - path.stat().st_mtime > _FRESH_S:
                path.unlink()
    return kept + unwanted


class Writer:
    """Appends records to a segment of its own, made with the first of them."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._files: list[BinaryIO] = []
        self._end = 0

    def append(self, key: bytes, data: bytes) -> Record:
        """Raises OSError where it cannot be written in full: then the writer is not to be used any more."""
        if not self._files:
            for ending in (FACES, LIST):
                self._files.append((self._folder / f"{self._name}{ending}").open("xb", buffering=0))
            _write(self._files[1], _MAGIC)
        record = Record(self._end, len(data), zlib.crc32(data))
        _write(self._files[0], data)
        self._end += len(data)
        line = _LINE.pack(key, record.at, record.length, record.check, 0)[:-4]
        _write(self._files[1], line + struct.pack("<I", zlib.crc32(line)))
        return record

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
            file.seek(record.at)
            data = file.read(record.length)
        except OSError:
            return None
        return data if len(data) == record.length and zlib.crc32(data) == record.check else None

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}
