"""The index of a faceset: what is known of its faces, kept in a file of its folder so that no face is read twice.

A file of ours, so it may be deleted at any time; a faceset from a stranger may hold one made to mislead, so it is read
like a stranger's: sizes, checksum and every value are checked, and a file that is not as `write` makes it counts for
nothing. It is written beside its name and renamed, so that whoever reads finds a whole one, also while two programs
write. Layout (little-endian): the head of `_HEAD`, then the arrays of `_layout` (docs/formats.md).
"""

from __future__ import annotations

import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from core.disk import Disk
from core.sharedbuf import Layout
from core.version import VERSION as PROGRAM
from samplelib import facedata
from samplelib.facescan import JPEG, MAX_FILE, Known, Refused
from samplelib.facetable import PER_FACE, TABLES, TYPES, Array, Arrays, Table, coded, polygons_of

NAME = ".facesmith_index"
FROM = 1000
"""Faces from which on a set gets an index: fewer are read in less than half a second."""

_MAGIC, _VERSION = b"FSINDEX\0", 1
_HEAD = struct.Struct("<8sIIQ16s")  # magic, version, CRC-32 of all that follows it, size of the file, program
_COUNTS = struct.Struct("<QqqqqQQQ7Q")  # packed, scanned, the pack's stamp, faces, persons, refused, bytes of tables
_BYTES = (*TABLES, "persons", "refused", "reasons")
_MAX_BYTES = 4 << 30
_LONGEST = 4 * facedata.LONGEST_NAME  # bytes of a name
_LONGEST_REASON = 2000
_STALE_S = 3600.0


class IndexFileError(ValueError):
    """Not an index, or a damaged one. The message is the reason."""


def _layout(faces: int, persons: int, refused: int, sizes: Mapping[str, int]) -> Layout:
    counts = {**dict.fromkeys(TABLES, faces), "persons": persons, "refused": refused, "reasons": refused}
    return Layout.of(
        {
            **{name: (kind, (faces, *shape)) for name, (kind, shape) in PER_FACE.items()},
            "refused_stamps": ("<i8", (refused, 3)),
            "refused_lost": ("|u1", (refused,)),
            **{f"{name}_at": ("<i8", (counts[name] + 1,)) for name in _BYTES},
            **{name: ("|u1", (sizes[name],)) for name in _BYTES},
        }
    )


def _program() -> bytes:
    """Faces are checked anew by every version of the program."""
    return PROGRAM.encode()[:16].ljust(16, b"\0")


def write(folder: Path, known: Known, disk: Disk) -> None:
    """Replaces the index of a folder. Raises OSError; the old one stays then."""
    staged = folder / f"{NAME}.{secrets.token_hex(6)}.new"
    try:
        disk.write_file(staged, pieces(known))
        disk.replace(staged, folder / NAME)
    finally:
        with suppress(OSError):
            disk.unlink(staged)
    for litter in folder.glob(f"{NAME}.*.new"):  # of programs that were killed
        with suppress(OSError):
            if time.time() - litter.stat().st_mtime > _STALE_S:
                disk.unlink(litter)


def pieces(known: Known) -> Iterator[bytes]:
    """The content of an index file."""
    refused = known.refused
    arrays: Arrays = {
        **known.arrays,
        "refused_stamps": np.array([face.stamp for face in refused], "<i8").reshape(-1, 3),
        "refused_lost": np.array([face.lost for face in refused], "|u1"),
        **Table.arrays("refused", [coded(face.name) for face in refused]),
        **Table.arrays("reasons", [coded(face.reason[: _LONGEST_REASON // 4]) for face in refused]),
    }
    sizes = {name: len(arrays[name]) for name in _BYTES}
    faces, persons = len(arrays["types"]), len(arrays["persons_at"]) - 1
    layout = _layout(faces, persons, len(refused), sizes)
    counts = _COUNTS.pack(
        known.packed, known.scanned, *known.stamp, faces, persons, len(refused), *(sizes[name] for name in _BYTES)
    )
    parts, at = [counts], 0
    for name, kind, _, offset in layout.entries:
        data = arrays[name].astype(kind, copy=False).tobytes()
        parts += [bytes(offset - at), data]
        at = offset + len(data)
    parts.append(bytes(layout.size - at))
    size = _HEAD.size + sum(map(len, parts))
    rest = struct.pack("<Q16s", size, _program())
    check = zlib.crc32(rest)
    for part in parts:
        check = zlib.crc32(part, check)
    yield struct.pack("<8sII", _MAGIC, _VERSION, check) + rest
    yield from parts


def read(folder: Path, packed: bool) -> Known | None:
    """The index of a folder; None where there is none, or one of another version or of the folder's other kind.

    Raises IndexFileError for a damaged one, OSError.
    """
    path = folder / NAME
    if path.exists() and not path.is_file():  # opening a pipe may wait for ever
        raise IndexFileError("no ordinary file")
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MAX_BYTES:
                raise IndexFileError(f"{size:,} bytes, at most {_MAX_BYTES:,} are read")
            data = file.read(size)
    except FileNotFoundError:
        return None
    known = parse(data)
    return known if known is not None and known.packed == packed else None


def parse(data: bytes) -> Known | None:
    """The content of an index file; its arrays are views of `data`. None for another version's. Raises
    IndexFileError."""
    if len(data) < _HEAD.size + _COUNTS.size:
        raise IndexFileError("cut off")
    magic, version, check, size, program = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise IndexFileError("no index")
    if version != _VERSION or program != _program():
        return None
    if size != len(data):
        raise IndexFileError(f"{len(data):,} bytes long instead of {size:,}")
    if check != zlib.crc32(memoryview(data)[16:]):
        raise IndexFileError("its checksum is wrong")
    packed, scanned, *numbers = _COUNTS.unpack_from(data, _HEAD.size)
    stamp, (faces, persons, refused), sizes = tuple(numbers[:3]), numbers[3:6], numbers[6:]
    if packed > 1 or max(faces, persons, refused, *sizes) > len(data) or faces < 1:
        raise IndexFileError("its numbers make no sense")
    layout = _layout(faces, persons, refused, dict(zip(_BYTES, sizes, strict=True)))
    start = _HEAD.size + _COUNTS.size
    if start + layout.size != len(data):
        raise IndexFileError("its numbers make no sense")
    arrays = layout.views(memoryview(data), start)
    try:
        known = _known(bool(packed), scanned, stamp, arrays)
    except (ValueError, OverflowError):
        raise IndexFileError("it holds what no face has") from None
    return known


def _known(packed: bool, scanned: int, stamp: tuple[int, ...], arrays: Arrays) -> Known:
    """Raises ValueError for values that no scan finds."""
    for name in _BYTES:
        _require_table(arrays, name, _LONGEST_REASON if name == "reasons" else _LONGEST)
    reasons = zip(Table(arrays, "refused").texts(), Table(arrays, "reasons").texts(), strict=True)
    stamps, lost = arrays["refused_stamps"].tolist(), arrays["refused_lost"].tolist()
    refused = [
        Refused(name, (at[0], at[1], at[2]), reason, bool(gone))
        for (name, reason), at, gone in zip(reasons, stamps, lost, strict=True)
    ]
    if not all(face.reason.isprintable() and (face.name.isprintable() or not packed) for face in refused):
        raise ValueError
    faces = {name: arrays[name] for name in (*PER_FACE, *TABLES, *(f"{name}_at" for name in TABLES))}
    faces |= {"persons": arrays["persons"], "persons_at": arrays["persons_at"]}
    names = Table(faces, "names").texts()
    if not packed and not all(_is_picture(name) for name in names):
        raise ValueError
    texts = [*Table(faces, "sources").texts(), *Table(faces, "persons").texts(), *(names if packed else ())]
    if not all(text.isprintable() and len(text) <= facedata.LONGEST_NAME for text in texts):
        raise ValueError
    for raw in Table(faces, "polys"):
        if not all(np.isfinite(corners).all() for _, corners in polygons_of(raw)):
            raise ValueError
    _require_faces(faces, packed, stamp[0])
    return Known(packed, scanned, (stamp[0], stamp[1], stamp[2]), faces, refused)


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in JPEG and not set(name) & {"\0", "/", os.sep}  # noqa: PTH122


def _require_table(arrays: Arrays, name: str, longest: int) -> None:
    at = arrays[f"{name}_at"]
    lengths = np.diff(at)
    if at[0] != 0 or at[-1] != len(arrays[name]) or (lengths < 0).any() or (at < 0).any():
        raise ValueError
    if name not in ("masks", "polys") and len(lengths) and lengths.max() > longest:
        raise ValueError


def _require_faces(faces: Arrays, packed: bool, size: int) -> None:
    """What `facedata.check_face` asks of a face, of all at once."""
    with np.errstate(invalid="ignore"):  # of numbers that are none
        points = faces["landmarks"].astype(np.float64)
    shapes = faces["shapes"]
    sides = shapes.max(1)
    mask_at, ends = faces["mask_at"], faces["stamps"][:, 0]
    places, sizes = faces["offsets"], faces["sizes"]
    good = [
        faces["types"] < len(TYPES),
        (faces["person"] >= -1) & (faces["person"] < len(faces["persons_at"]) - 1),
        ((shapes >= facedata.MIN_SIDE) & (shapes <= facedata.MAX_SIDE)).all(1),
        np.abs(faces["eyebrows"]) <= 100,
        np.abs(faces["yaws"]) < 4,
        facedata.are_landmarks(points, sides),
        (mask_at >= 0).all(1) & (mask_at[:, 1] <= facedata.MAX_MASK) & (mask_at[:, 0] <= ends - mask_at[:, 1]),
        (ends >= 0) & (ends <= MAX_FILE) & (places == 0) & (sizes == 0)
        if not packed
        else (ends == size) & (sizes > 0) & (sizes <= MAX_FILE) & (places >= 0) & (places <= size - sizes),
    ]
    if not all(bool(np.all(values)) for values in good):
        raise ValueError


__all__ = ["FROM", "NAME", "Array", "IndexFileError", "parse", "pieces", "read", "write"]
