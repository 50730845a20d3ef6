"""What a save wrote, file by file: a model's manifest, and while files are being switched its journal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.ownjson import parse

FORMAT = 1
MAX_BYTES = 1 << 20  # of the file; one of 10 files has 2 KB
ENDING = re.compile(r"(?!facesmith_(new|old|journal|manifest|lock))[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.(npy|dat|txt|json)")
"""A file of a model, named by what follows `<name>_<Class>_`. Nothing here leads out of the model's folder."""


@dataclass(frozen=True)
class Entry:
    """One file as it was written. crc32: None where it could not be read. iteration: of the model when it was written;
    a part that later saves leave alone keeps its own."""

    size: int
    mtime_ns: int
    crc32: int | None
    iteration: int


@dataclass(frozen=True)
class Manifest:
    """What a save wrote, and as `before` what each file it touched was (None: not there); one in `before` alone was
    removed. losses: means of the last iterations, for lists of models."""

    generation: int
    iteration: int
    files: dict[str, Entry]
    before: dict[str, Entry | None] = field(default_factory=dict)
    losses: tuple[float | None, ...] = ()

    def to_json(self) -> bytes:
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Manifest:
        """Raises ValueError with the reason for what `to_json` does not write."""
        stored = parse(raw, FORMAT, MAX_BYTES)
        losses = stored.get("losses")
        if not isinstance(losses, list) or not all(loss is None or isinstance(loss, float) for loss in losses):
            raise ValueError("its losses are no numbers")
        files = {ending: _entry(raw_entry) for ending, raw_entry in _table(stored, "files")}
        before = {ending: None if entry is None else _entry(entry) for ending, entry in _table(stored, "before")}
        return cls(_count(stored, "generation"), _count(stored, "iteration"), files, before, tuple(losses))

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Raises OSError, and ValueError as `from_json` does."""
        with path.open("rb") as file:
            return cls.from_json(file.read(MAX_BYTES + 1))


def _table(stored: Mapping[str, Any], key: str) -> Iterable[tuple[str, Any]]:
    table = stored.get(key)
    if not isinstance(table, dict) or not all(ENDING.fullmatch(ending) for ending in table):
        raise ValueError(f"its {key} are no table of a model's files")
    return table.items()


def _entry(raw: Any) -> Entry:
    if not isinstance(raw, dict):
        raise ValueError("it holds a file without size and checksum")
    crc32 = None if raw.get("crc32") is None else _count(raw, "crc32")
    return Entry(_count(raw, "size"), _count(raw, "mtime_ns"), crc32, _count(raw, "iteration"))


def _count(stored: Mapping[str, Any], key: str) -> int:
    number = stored.get(key)
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise ValueError(f"its {key} is no whole number from 0")
    return number
