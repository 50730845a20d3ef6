"""What becomes of prepared faces on the disk that nobody needs: at each start the folder is brought within its limit.

A record is dead where a newer one has its key, or where its face is wanted in another state: then no training will ever
want it again. What this training does not want otherwise may be another training's, or of a face that was removed:
nobody can tell, so it goes by when a training last used its segment. Segments of which much is dead, or where what is
wanted and what is not lie mixed, are rewritten: what is wanted into new ones, what is not into one that keeps the old
time. A segment goes after all of it was copied, so a kill leaves some records twice, and one that any process has open
(`segments.alone`) is left as it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from samplelib.segments import (
    FACE,
    FACES,
    HEAD,
    LINE,
    LIST,
    MAX_SEGMENT,
    Reader,
    Record,
    Segment,
    Writer,
    alone,
    cost,
    drop,
    read_segments,
)

UNUSED_S = 30 * 86400.0
"""What no training has used for so long is dropped."""
MAX_SEGMENTS = 200

_ORPHAN_S = 600.0  # a younger file without a list may be about to get one
_GOOD = 0.75  # a segment of which so much is of one kind is left as it is
_SPARE = 0.98  # the same where room is short


@dataclass
class _Part:
    """What is to stay of a segment. own: what this training wants; rest: what others may want. bulk: bytes that cannot
    be told apart, of a segment in use or of another version."""

    segment: Segment
    own: dict[bytes, Record]
    rest: dict[bytes, Record]
    free: bool
    bulk: int = 0

    @property
    def kept(self) -> int:
        records = cost(self.own) + cost(self.rest)
        return self.bulk or records + (HEAD if records else 0)

    def worth(self, least: float) -> bool:
        """Whether rewriting it gives room, or keeps apart what is used and what is not."""
        return not self.bulk and max(cost(self.own), cost(self.rest)) + HEAD < least * self.segment.size


def tidy(
    folder: Path, segments: Sequence[Segment], wanted: Set[bytes], limit: int, now: float, name: str, need: int = 0
) -> list[Segment]:
    """Brings the segments of a folder to `limit` bytes, less those `need` that will be written now as far as what
    others use makes room for them, and drops what is dead or long unused. Marks the segments with wanted records as
    used. name: what those of new segments begin with. Returns what stays; what the system refuses is left undone."""
    with contextlib.ExitStack() as stack:
        parts = _parts(segments, wanted, lambda one: alone(stack, folder, one, now))
        _choose(parts, limit, need, now)
        left = []
        for part in parts:
            if part.kept or not part.free or not drop(folder, part.segment):
                left.append(part)
        for part in left:
            if not part.segment.records.keys().isdisjoint(wanted):
                _mark(folder, part.segment.name, now)
        rewriting = _Rewriting(folder, name, now)
        with contextlib.suppress(OSError), contextlib.closing(rewriting):  # a full disk
            for part in _poor(left, limit, need):
                rewriting.take(part)
    _drop_orphans(folder, now)
    return read_segments(folder) if rewriting.done else [part.segment for part in left]


def _parts(segments: Sequence[Segment], wanted: Set[bytes], is_free: Callable[[Segment], bool]) -> list[_Part]:
    """By name."""
    faces, seen, found = {key[:FACE] for key in wanted}, set[bytes](), list[_Part]()
    for segment in reversed(segments):  # the newest record of a key counts
        fresh = {key: record for key, record in segment.records.items() if key not in seen}
        seen |= fresh.keys()
        own = {key: record for key, record in fresh.items() if key in wanted}
        rest = {key: record for key, record in fresh.items() if key not in wanted and key[:FACE] not in faces}
        free = is_free(segment)
        found.append(_Part(segment, own, rest, free, 0 if free and segment.known else segment.size))
    return found[::-1]


def _choose(parts: list[_Part], limit: int, need: int, now: float) -> None:
    """Takes out what is to go."""
    total, count = sum(part.kept for part in parts), sum(part.kept > 0 for part in parts)
    for part in sorted(parts, key=lambda one: one.segment.used):
        if not part.free or not (part.rest or part.bulk):
            continue
        before = part.kept
        if now - part.segment.used > UNUSED_S or total + need > limit or (count > MAX_SEGMENTS and not part.own):
            part.rest, part.bulk = {}, 0
            total -= before - part.kept
            count -= not part.kept
    for part in parts:
        if part.free and total > limit:
            before = part.kept
            part.own = _last(part.own, limit - (total - before) - HEAD)
            total -= before - part.kept


def _last(records: dict[bytes, Record], room: int) -> dict[bytes, Record]:
    """As many of the last ones as fit."""
    kept = dict[bytes, Record]()
    for key, record in reversed(records.items()):
        room -= record.length + LINE
        if room < 0:
            break
        kept[key] = record
    return kept


def _poor(parts: Sequence[_Part], limit: int, need: int) -> list[_Part]:
    """Those to rewrite: most to gain first."""
    size, found = sum(part.segment.size for part in parts), list[_Part]()
    for part in sorted(parts, key=lambda one: one.kept / max(1, one.segment.size)):
        least = 1.0 if size > limit else _SPARE if size + need > limit else _GOOD
        if part.free and part.kept and part.worth(least):
            found.append(part)
            size -= part.segment.size - part.kept
    crowd = sorted((part for part in parts if part.free and part.own and part not in found), key=lambda one: one.kept)
    return found + (crowd[: len(parts) - MAX_SEGMENTS // 2] if len(parts) > MAX_SEGMENTS else [])


class _Rewriting:
    """Copies what stays of segments and drops them. done: whether any was. Raises OSError."""

    def __init__(self, folder: Path, name: str, now: float) -> None:
        self._folder, self._name, self._now = folder, name, now
        self._number, self.done = 0, False
        self._own: tuple[str, Writer] | None = None

    def take(self, part: _Part) -> None:
        self.done = True
        with contextlib.closing(Reader(self._folder)) as reader:
            for key, record in part.own.items():
                if (data := reader.read(part.segment.name, record)) is not None:
                    if self._own is None or self._own[1].size > MAX_SEGMENT:
                        self.close()
                        self._own = self._next()
                    self._own[1].append(key, data)
            if part.rest:
                name, writer = self._next()
                with contextlib.closing(writer):
                    for key, record in part.rest.items():
                        if (data := reader.read(part.segment.name, record)) is not None:
                            writer.append(key, data)
                _mark(self._folder, name, part.segment.used)
        drop(self._folder, part.segment)

    def close(self) -> None:
        if self._own is not None:
            self._own[1].close()
            _mark(self._folder, self._own[0], self._now)
            self._own = None

    def _next(self) -> tuple[str, Writer]:
        self._number += 1
        name = f"{self._name}-{self._number}"
        return name, Writer(self._folder, name)


def _mark(folder: Path, name: str, used: float) -> None:
    with contextlib.suppress(OSError):
        os.utime(folder / f"{name}{LIST}", (used, used))


def _drop_orphans(folder: Path, now: float) -> None:
    """Of processes that were killed before their first line."""
    for path in folder.glob(f"*{FACES}"):
        with contextlib.suppress(OSError):
            if not path.with_suffix(LIST).exists() and now - path.stat().st_mtime > _ORPHAN_S:
                path.unlink()
