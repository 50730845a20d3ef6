"""DeepFaceLab's faceset.pak: a pickled list of what is known of each face, then all JPEGs one after another.

Layout, little-endian: uint64 version (1), uint64 length of the list, the list, N + 1 uint64 offsets from the start
of the JPEGs, the JPEGs. DFL writes the last offset as a position in the file instead (so do we), which makes it useless
to know where the last JPEG ends: it reaches to the end. But it tells whether the file was cut off.
Only the list is read here, and only pieces are made: `samplelib.packing` packs and unpacks folders.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from core.dflfile import DflFileError, Member, dumps, joined, load
from facelib.dfljpg import Header
from facelib.facetype import FACE_TYPES
from samplelib.facedata import FaceData

NAME = "faceset.pak"
_VERSION = 1
_MAX_CONFIG = 4 << 30
_FACE = 1  # DFL's SampleType


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


NOTHING = Entry("", {}, 0, 0)


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
    return read_entries(path)[0]


def read_entries(path: Path) -> tuple[list[Entry], bool]:
    """The faces of a pack, and whether it is as long as it says. Raises as `read_pack`."""
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
                max_nodes=max(1_000_000, length // 4),  # a face has 216 in some 1,590 bytes
                extra_globals=_ENUMS,
            )
        except DflFileError as error:
            raise PackError(f"its list of faces: {error.reason}") from None
        if not isinstance(faces, list) or not all(isinstance(face, dict) for face in faces):
            raise PackError("its list of faces is none")
        table = _read(file, 8 * (len(faces) + 1), "table of offsets")
    offsets, start = np.frombuffer(table, "<u8").tolist(), 16 + length + len(table)
    return _entries(faces, offsets, start, total), offsets[-1] in (total, total - start)


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


# ---- writing ------------------------------------------------------------------------------------------------------


def entry(filename: str, header: Header, metadata: Mapping[str, Any], face: FaceData, person: str | None) -> bytes:
    """What a pack's list says of a face, as a pickled list of one, with DFL's keys in DFL's order.

    metadata: of the JPEG, as read; face: the same, checked; person: the sub-folder it came from, in packs of several.
    """
    source = metadata.get("source_filename")
    known = {
        "sample_type": Member("samplelib.Sample", "SampleType", _FACE),
        "filename": filename,
        "face_type": Member("facelib.FaceType", "FaceType", FACE_TYPES[face.face_type]),
        "shape": (header.height, header.width, 3),
        "landmarks": np.asarray(metadata["landmarks"], np.float64).tolist(),
        "seg_ie_polys": {"polys": [{"type": kind, "pts": points} for kind, points in face.seg_ie_polys]},
        "xseg_mask": None,
        "xseg_mask_compressed": None if face.xseg_mask is None else np.frombuffer(face.xseg_mask, np.uint8),
        "eyebrows_expand_mod": face.eyebrows_expand_mod,
        "source_filename": source if isinstance(source, str) else None,
        "person_name": person,
    }
    return dumps([known])


def head(entries: Sequence[bytes], sizes: Sequence[int]) -> bytes:
    """Everything of a pack before the JPEGs. entries: what `entry` made, one at least; sizes: of the JPEGs in bytes."""
    config = joined(entries)
    start = 16 + len(config) + 8 * (len(sizes) + 1)
    *offsets, end = accumulate(sizes, initial=0)
    table = np.array([*offsets, start + end], "<u8").tobytes()
    return struct.pack("<QQ", _VERSION, len(config)) + config + table
