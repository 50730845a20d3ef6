"""Prepared faces kept on the disk, between those kept in memory (`samplelib.cache`) and preparing them.

The parent looks once which faces are there (`Stock`); workers read and write them (`DiskCache`). What they share is a
table: for each face in which segment it lies and where. A worker that writes a face enters it there, so the others find
it at once. A face is known by everything that its prepared form depends on: its file's name, size and times, what is
known of it, the model's size and face type, what is prepared, how it is coded, and the code that does it. A face that
was changed therefore is another one.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import mmap
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from core.batch import KINDS, SampleRequest
from core.sharedbuf import Layout
from samplelib.cachetidy import tidy
from samplelib.facecoding import Coding, decode, encode
from samplelib.faceset import Faceset
from samplelib.prepare import VERSION, Prepared, kinds
from samplelib.segments import FACE, KEY, LINE, MAX_SEGMENT, Reader, Record, Segment, Writer, folder_size, read_segments

SPARE = 1 << 30
_SHARE = {"raw": 1.0, "png": 0.6, "jpg": 0.15}  # of the raw size
_LOOK_EVERY = 32 << 20  # bytes written between two looks at what is free
_OWN = 1 << 20  # from here on segments are numbered by process and in it: those of this run
_PIDS = 1 << 32
_COUNTERS = 64
_LIMIT, _NO_ROOM = -1, -2  # reasons to stop, beside the system's error numbers


@dataclass(frozen=True)
class DiskSettings:
    """folder: made where it is not there. limit: bytes that all its files may take, but for a face that each worker
    writes at that moment; 0: a quarter of what is free and theirs. spare: bytes that stay free on the disk."""

    folder: Path
    coding: Coding = field(default_factory=Coding)
    limit: int = 0
    spare: int = SPARE


@dataclass(frozen=True)
class Group:
    """What is asked for together: kinds of the faces of a faceset, as a request wants them."""

    name: str
    kinds: tuple[str, ...]
    request: SampleRequest

    def prefix(self, coding: Coding) -> bytes:
        """What all keys of the group have in common."""
        type_of_model = "" if self.kinds == ("colours",) else self.request.face_type
        parts = (VERSION, cv2.__version__, self.request.resolution, type_of_model, *self.kinds, coding.tag())
        return "\n".join(map(str, parts)).encode()

    def size(self, coding: Coding) -> int:
        """About how many bytes a face will take."""
        raw = self.request.resolution**2 * sum(KINDS[kind] for kind in self.kinds)
        return int(raw * _SHARE[coding.image]) + LINE


def groups(requests: Mapping[str, SampleRequest], sets: Mapping[str, str]) -> list[Group]:
    """All that can be asked for. sets: side -> name of its faceset."""
    found: dict[tuple[str, tuple[str, ...]], Group] = {}
    for side, request in requests.items():
        asked = [(sets[side], kinds(request))]
        if request.ct_mode != "none":
            asked.append((sets[request.ct_from], ("colours",)))
        for name, wanted in asked:
            found.setdefault((name, wanted), Group(name, wanted, request))
    return list(found.values())


def key_of(prefix: bytes, folder: bytes, faceset: Faceset, index: int) -> bytes:
    """KEY bytes, the first FACE of which stay as they are when the face is changed. folder: where the faces lie,
    absolute."""
    face = hashlib.blake2b(b"\0".join((prefix, folder, faceset.name(index))), digest_size=FACE).digest()
    return face + hashlib.blake2b(face + faceset.identity(index), digest_size=KEY - FACE).digest()


@functools.lru_cache(maxsize=8)
def _place(folder: Path) -> bytes:
    return os.fsencode(folder.resolve())


class Stock:
    """The parent's view of the folder, and the table that workers share.

    words: how many faces there are. `trouble` says once why no more are kept. Where the folder cannot be used `warn`
    gets one line and `usable` is false.
    """

    def __init__(
        self,
        settings: DiskSettings,
        facesets: Mapping[str, Faceset],
        requests: Mapping[str, SampleRequest],
        sets: Mapping[str, str],
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._clock, self._told, self._limit = settings, clock, False, 0
        self._groups = groups(requests, sets)
        counts = [len(facesets[group.name]) for group in self._groups]
        self._layout = _layout(counts)
        self.usable, self.words, self._segments, self._room = False, "", list[Segment](), 0
        folder = settings.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            segments, free = read_segments(folder), shutil.disk_usage(folder).free
        except OSError as error:
            warn(f"{folder}: faces cannot be kept there ({error.strerror or error}); training goes on without")
            return
        keys = [self._keys(group, facesets[group.name]) for group in self._groups]
        size, known = sum(one.size for one in segments), {key for one in segments for key in one.records}
        self._limit = settings.limit or (free + size) // 4
        missing = [sum(key not in known for key in table) for table in keys]
        need = sum(n * group.size(settings.coding) for n, group in zip(missing, self._groups, strict=True))
        wanted = {key for table in keys for key in table}
        self._segments = tidy(folder, segments, wanted, self._limit, clock(), self._run(), need)
        size = sum(segment.size for segment in self._segments)
        self._room = max(0, self._limit - size)
        where = {key: (n, record) for n, one in enumerate(self._segments) for key, record in one.records.items()}
        self._tables = [_table(table, where) for table in keys]
        self.words = self._said({group.name: len(facesets[group.name]) for group in self._groups}, size)
        self.usable = True

    def _said(self, counts: Mapping[str, int], size: int) -> str:
        """counts: faces of each faceset; size: bytes of all there is. A face is there where all that is asked of it
        is."""
        there = 0
        for name, count in counts.items():
            whole = np.ones(count, np.bool_)
            for group, table in zip(self._groups, self._tables, strict=True):
                if group.name == name:
                    whole &= table[:, 0] > 0
            there += int(np.count_nonzero(whole))
        own, total = sum(int(table[:, 2].sum()) for table in self._tables), sum(counts.values())
        many = "all" if there == total else f"{there:,} of" if there else "none yet of"
        taken = f", {own / 1e6:,.0f} MB" if own else ""
        others = f" ({size / 1e6:,.0f} MB with what this training does not use)" if size > 1.4 * own + 1e6 else ""
        return f"{many} {total:,}{taken}{others} in {self._settings.folder}"

    def _run(self) -> str:
        """What names of new segments begin with: by time, as the newest record of a face counts."""
        return f"{int(self._clock() * 1000):011x}-{secrets.token_hex(4)}"

    def _keys(self, group: Group, faceset: Faceset) -> list[bytes]:
        prefix, folder = group.prefix(self._settings.coding), _place(faceset.folder)
        return [key_of(prefix, folder, faceset, index) for index in range(len(faceset))]

    @property
    def size(self) -> int:
        """Bytes of the table."""
        return self._layout.size

    def fill(self, memory: memoryview | mmap.mmap) -> None:
        """Writes the table into the memory that is shared; from now on what workers enter there is seen."""
        views = self._layout.views(memory)
        for number, table in enumerate(self._tables):
            views[str(number)][...] = table
        self._tables, self._stopped = [], views["stopped"]

    def plain(self) -> dict[str, Any]:
        """What a worker needs, for JSON."""
        settings = self._settings
        return {
            "folder": os.fspath(settings.folder),
            "coding": asdict(settings.coding),
            "segments": [segment.name for segment in self._segments],
            "run": self._run(),
            "room": self._room,
            "limit": self._limit,
            "spare": settings.spare,
        }

    def trouble(self) -> str:
        """Why no more faces are kept, once; else empty."""
        stopped = int(self._stopped[0])
        if not stopped or self._told:
            return ""
        self._told = True
        limit = "as much as may be kept is there (max_cache_gb)"
        reason = {_LIMIT: limit, _NO_ROOM: "the disk is nearly full"}.get(stopped) or os.strerror(stopped)
        return f"{self._settings.folder}: no more faces are kept there ({reason}); training goes on without"


def _table(keys: Sequence[bytes], where: Mapping[bytes, tuple[int, Record]]) -> npt.NDArray[np.int64]:
    """(N, 4): segment + 1, place, length, checksum of each face; zeros where it is not there."""
    table = np.zeros((len(keys), 4), np.int64)
    for row, key in enumerate(keys):
        if (found := where.get(key)) is not None:
            number, record = found
            table[row] = number + 1, record.at, record.length, record.check
    return table


def _layout(counts: Sequence[int]) -> Layout:
    tables = {str(number): (np.int64, (count, 4)) for number, count in enumerate(counts)}
    return Layout.of({"stopped": (np.int64, (1,)), "written": (np.int64, (_COUNTERS,)), **tables})


class DiskCache:
    """What a worker does with the faces on the disk."""

    def __init__(
        self,
        plain: Mapping[str, Any],
        memory: memoryview | mmap.mmap,
        facesets: Mapping[str, Faceset],
        requests: Mapping[str, SampleRequest],
        sets: Mapping[str, str],
    ) -> None:
        """plain, memory: of the parent's `Stock`. facesets: by side."""
        self._folder, self._coding = Path(plain["folder"]), Coding(**plain["coding"])
        self._segments, self._run = list(plain["segments"]), plain["run"]
        self._room, self._limit, self._spare = plain["room"], plain["limit"], plain["spare"]
        self._facesets = facesets
        found = groups(requests, sets)
        views = _layout([len(facesets[group.name]) for group in found]).views(memory)
        self._stopped, self._written = views["stopped"], views["written"]
        self._counter = os.getpid() % _COUNTERS  # one that hardly any other worker has: two would lose some
        self._groups = {(g.name, g.kinds): (g, views[str(number)]) for number, g in enumerate(found)}
        self._reader, self._own = Reader(self._folder), _OWN + os.getpid()
        self._writer = Writer(self._folder, self._name(self._own))
        self._since = _LOOK_EVERY  # bytes written since the last look at what is free

    def get(self, name: str, index: int, kinds: tuple[str, ...]) -> Prepared | None:
        """Those kinds of a face of the faceset of that name; None where they are not there, or damaged."""
        group, table = self._groups[name, kinds]
        segment, *place = table[index].tolist()
        if not segment:
            return None
        data = self._reader.read(self._name(segment - 1), Record(*place))
        if data is not None:
            try:
                return decode(data, kinds, group.request.resolution, self._coding)
            except ValueError:
                pass
        table[index, 0] = 0
        return None

    def put(self, name: str, index: int, face: Prepared) -> Prepared:
        """Keeps a face, if there is room; returns it as it will be read."""
        kinds = tuple(face)
        group, table = self._groups[name, kinds]
        data = encode(face, self._coding)
        if not self._stopped[0]:
            faceset = self._facesets[name]
            key = key_of(group.prefix(self._coding), _place(faceset.folder), faceset, index)
            try:
                self._append(key, data, table[index])
            except OSError as error:
                self._stopped[0] = error.errno or errno.EIO
        return face if self._coding.exact else decode(data, kinds, group.request.resolution, self._coding)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _append(self, key: bytes, data: bytes, row: npt.NDArray[np.int64]) -> None:
        if self._written.sum() + len(data) + LINE > self._room:
            self._stopped[0] = _LIMIT
            return
        if self._since >= _LOOK_EVERY:
            self._since = 0
            if reason := self._look():
                self._stopped[0] = reason
                return
        if self._writer.size > MAX_SEGMENT:
            self._begin()
        record = self._writer.append(key, data)
        self._since += len(data)
        self._written[self._counter] += len(data) + LINE
        row[1:] = record.at, record.length, record.check
        row[0] = self._own + 1  # after the rest is there

    def _look(self) -> int:
        """What changed that this process did not do; why no more may be written, else 0. Raises OSError."""
        if self._writer.gone:  # whoever deleted it goes on without what is written into it now
            self._begin()
        if folder_size(self._folder) > self._limit:  # another training writes here too
            return _LIMIT
        return _NO_ROOM if shutil.disk_usage(self._folder).free < self._spare else 0

    def _begin(self) -> None:
        """The next segment."""
        self._writer.close()
        self._own += _PIDS
        self._writer = Writer(self._folder, self._name(self._own))

    def _name(self, segment: int) -> str:
        """Of a segment's files."""
        if segment < _OWN:
            return self._segments[segment]
        number, pid = divmod(segment - _OWN, _PIDS)
        return f"{self._run}-{pid}-{number}"
