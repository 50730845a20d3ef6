"""DeepFaceLab's faceset.pak: a pickled list of what is known of each face, then all JPEGs one after another.

Layout, little-endian: uint64 version (1), uint64 length of the list, the list, N + 1 uint64 offsets from the start
of the JPEGs, the JPEGs. DFL writes the last offset as a position in the file instead,
so it is not read: the last JPEG reaches to the end.
Only the list is read here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from core.dflfile import DflFileError, load

NAME = "faceset.pak"
_VERSION = 1
_MAX_CONFIG = 4 << 30


class PackError(ValueError):
    """A pack as a whole cannot be read. The message is the reason, without the file's name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One face of a pack: its name, what is known of it, and the JPEG's bytes in the file. The range is as stored:
    nothing says yet that it lies inside the file."""

    filename: str
    metadata: dict[str, Any]
    offset: int
    size: int


def _number(value: Any = None) -> int:
    """An enumeration member, by its number."""
    if type(value) is not int:
        raise ValueError("an enumeration member without a number")
    return value


_ENUMS: dict[tuple[str, str], Callable[..., Any]] = {
    ("samplelib.Sample", "SampleType"): _number,
    ("facelib.FaceType", "FaceType"): _number,
}


def _read(file: BinaryIO, size: int, what: str) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise PackError(f"cut off in its {what}")
    return data


def read_pack(path: Path) -> list[Entry]:
    """The faces of a pack. Raises PackError if it cannot be read, OSError if it cannot be opened."""
    total = path.stat().st_size
    with path.open("rb") as file:
        version, length = struct.unpack("<QQ", _read(file, 16, "first 16 bytes"))
        if version != _VERSION:
            raise PackError(f"version {version} of the format, only {_VERSION} is known")
        if length > min(total - 16, _MAX_CONFIG):
            raise PackError(f"its list of faces claims {length:,} bytes, the whole file has {total:,}")
        raw = _read(file, length, "list of faces")
        try:
            faces = load(
                raw,
                max_bytes=_MAX_CONFIG,
                max_nodes=max(1_000_000, length // 8),
                extra_globals=_ENUMS,
            )
        except DflFileError as error:
            raise PackError(f"its list of faces: {error.reason}") from None
        if not isinstance(faces, list) or not all(isinstance(face, dict) for face in faces):
            raise PackError("its list of faces is none")
        table = _read(file, 8 * (len(faces) + 1), "table of offsets")
    return _entries(faces, np.frombuffer(table, "<u8").tolist(), 16 + length + len(table), total)


def _entries(faces: list[dict[str, Any]], offsets: list[int], start: int, total: int) -> list[Entry]:
    if any(low >= high for low, high in pairwise(offsets[:-1])):
        raise PackError("its table of offsets is not in order")
    ends = [*(start + offset for offset in offsets[1:-1]), total]
    entries = []
    for index, (face, offset, end) in enumerate(zip(faces, offsets, ends, strict=False)):
        name = face.get("filename")
        name = name if isinstance(name, str) and name else f"face {index}"
        entries.append(Entry(name, face, start + offset, end - start - offset))
    return entries
