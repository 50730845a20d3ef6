"""What is known of many faces, in a few flat arrays of numbers, so that processes can share them and files hold them.

Arrays of one row a face are in `PER_FACE`; texts and bytes of different lengths lie one after another, `<name>` holding
the bytes and `<name>_at` where each begins. A mask stays in the picture's file: only where it lies is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from facelib.facetype import FACE_TYPES
from samplelib.facedata import Array, FaceData, Polygons

Arrays = dict[str, Array]
Stamp = tuple[int, int, int]
"""What tells that a file was changed: size in bytes, time of its content and time of its change, both in ns. The second
time is the system's own, which no program can set; Windows has when the file was made in its place."""

TYPES = list(FACE_TYPES)
PER_FACE: dict[str, tuple[str, tuple[int, ...]]] = {
    "landmarks": ("<f4", (68, 2)),
    "shapes": ("<i4", (2,)),
    "types": ("|u1", ()),
    "eyebrows": ("<f4", ()),
    "yaws": ("<f4", ()),
    "offsets": ("<i8", ()),
    "sizes": ("<i8", ()),
    "person": ("<i4", ()),
    "stamps": ("<i8", (3,)),
    "mask_at": ("<i8", (3,)),
}
"""Name -> type and shape of a row. types: index into `TYPES`. yaws: NaN where not computed. person: index into the
table `persons`, or -1. stamps: of the face's file. mask_at: offset, length (0: no mask) and CRC-32 of the mask in that
file."""

HOME = "home"
"""(N,) uint8: in which of several folders a face lies. Absent where all lie in one."""

TABLES = ("names", "sources", "masks", "polys")
"""Tables of one entry a face; `persons` is another. masks: only those that do not lie in the file as they are."""


@dataclass(frozen=True, slots=True)
class Found:
    """One face as it was read. mask_at: where face.xseg_mask lies in the file, None where it does not as it is."""

    filename: str
    offset: int
    size: int
    face: FaceData
    stamp: Stamp
    mask_at: tuple[int, int, int] | None = None
    yaw: float = np.nan


class Table:
    """Byte strings of different lengths in one array."""

    @staticmethod
    def arrays(name: str, items: Sequence[bytes]) -> Arrays:
        ends = np.cumsum([0, *map(len, items)], dtype=np.int64)
        return {name: np.frombuffer(b"".join(items), np.uint8), f"{name}_at": ends}

    def __init__(self, arrays: Mapping[str, Array], name: str) -> None:
        self.bytes, self.at = arrays[name], arrays[f"{name}_at"]

    def __len__(self) -> int:
        return len(self.at) - 1

    def __getitem__(self, index: int) -> bytes:
        return self.bytes[self.at[index] : self.at[index + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        data, at = self.bytes.tobytes(), self.at.tolist()
        return (data[start:end] for start, end in pairwise(at))

    def text(self, index: int) -> str:
        return self[index].decode("utf-8", "surrogateescape")

    def texts(self) -> list[str]:
        return [item.decode("utf-8", "surrogateescape") for item in self]

    def filled(self) -> Array:
        """(N,) bool: which entries are not empty."""
        return np.asarray(np.diff(self.at) > 0)


def coded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def polygon_bytes(polygons: Polygons) -> bytes:
    return b"".join(np.array([kind, len(p)], "<i4").tobytes() + p.astype("<f4").tobytes() for kind, p in polygons)


def polygons_of(raw: bytes) -> Polygons:
    """The reverse of `polygon_bytes`. Raises ValueError for bytes that it did not make."""
    found, at = [], 0
    while at < len(raw):
        kind, count = np.frombuffer(raw, "<i4", 2, at).tolist()
        if kind not in (0, 1) or count < 1:
            raise ValueError("no polygons")
        found.append((kind, np.frombuffer(raw, "<f4", 2 * count, at + 8).reshape(count, 2)))
        at += 8 + 8 * count
    return tuple(found)


def arrays_of(faces: Sequence[Found]) -> Arrays:
    """Those faces as arrays."""
    persons = sorted({f.face.person_name for f in faces if f.face.person_name is not None})
    number = {name: index for index, name in enumerate(persons)}
    values = {
        "landmarks": [f.face.landmarks for f in faces],
        "shapes": [f.face.shape for f in faces],
        "types": [TYPES.index(f.face.face_type) for f in faces],
        "eyebrows": [f.face.eyebrows_expand_mod for f in faces],
        "yaws": [f.yaw for f in faces],
        "offsets": [f.offset for f in faces],
        "sizes": [f.size for f in faces],
        "person": [-1 if f.face.person_name is None else number[f.face.person_name] for f in faces],
        "stamps": [f.stamp for f in faces],
        "mask_at": [f.mask_at or (0, 0, 0) for f in faces],
    }
    return {
        **{name: np.array(values[name], kind).reshape(-1, *shape) for name, (kind, shape) in PER_FACE.items()},
        **Table.arrays("names", [coded(f.filename) for f in faces]),
        **Table.arrays("sources", [coded(f.face.source_filename) for f in faces]),
        **Table.arrays("persons", [coded(name) for name in persons]),
        **Table.arrays("masks", [b"" if f.mask_at else f.face.xseg_mask or b"" for f in faces]),
        **Table.arrays("polys", [polygon_bytes(f.face.seg_ie_polys) for f in faces]),
    }


def joined(parts: Sequence[Mapping[str, Array]]) -> Arrays:
    """The faces of all parts, one part after the other."""
    persons = sorted({name for part in parts for name in Table(part, "persons")})
    number = {name: index for index, name in enumerate(persons)}
    found = {name: np.concatenate([part[name] for part in parts]) for name in PER_FACE if name != "person"}
    new = [np.array([*(number[name] for name in Table(part, "persons")), -1], np.int32) for part in parts]
    found["person"] = np.concatenate([table[part["person"]] for table, part in zip(new, parts, strict=True)])
    for name in TABLES:
        lengths = np.concatenate([np.diff(part[f"{name}_at"]) for part in parts])
        found[name] = np.concatenate([part[name] for part in parts])
        found[f"{name}_at"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return {**found, **Table.arrays("persons", persons)}


def taken(arrays: Mapping[str, Array], indices: Sequence[int]) -> Arrays:
    """The faces at those places, in that order; whatever is not of one face stays."""
    places = np.asarray(indices, np.int64)
    found = {**arrays, **{name: arrays[name][places] for name in (*PER_FACE, HOME) if name in arrays}}
    for name in TABLES:
        data, at = arrays[name].tobytes(), arrays[f"{name}_at"].tolist()
        found |= Table.arrays(name, [data[at[i] : at[i + 1]] for i in places.tolist()])
    return found
