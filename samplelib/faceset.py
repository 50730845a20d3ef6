"""A faceset: a folder of aligned JPGs or a faceset.pak, known face by face without decoding a pixel.

What is known lies in a few flat arrays, so that worker processes can map the same memory instead of each holding
a hundred thousand objects; `Sample` is a view of one row, made when asked for. Masks stay compressed in there.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from core.shown import printable, shorten
from facelib import landmarks as geometry
from facelib.dfljpg import CutOffError, DflJpgError, Header, LostMetadataError, parse_metadata, read_header
from facelib.facetype import FACE_TYPES
from samplelib import pack
from samplelib.facedata import LONGEST_NAME, FaceData, FaceReadError, Polygons, check_face
from samplelib.pixels import decode, decode_mask_bytes

__all__ = [
    "FaceReadError", "Faceset", "FacesetError", "Sample", "decode", "decode_mask", "read_bytes", "read_face",
]  # fmt: skip

Array = np.ndarray[Any, Any]
Warn = Callable[[str], None]

_TYPES = list(FACE_TYPES)
JPEG = {".jpg", ".jpeg"}
PICTURES = {*JPEG, ".png", ".webp", ".tif", ".tiff", ".bmp"}
_HEAD = 24 << 10  # what one read of a file's head asks for: holds most face data
_MAX_HEAD = 16 << 20
MAX_FILE = 256 << 20
META = "meta.dat"
"""Face data of the folder's pictures, kept while they are edited (`samplelib.metafile`)."""

_MAX_LINES = 50


class FacesetError(ValueError):
    """A folder has no faces to offer. Says which, what was found there, what to do."""


@dataclass(frozen=True, slots=True)
class Sample(FaceData):
    """Everything known of one face but its pixels; arrays are read-only.

    filename: for messages. path, offset, size: the JPEG's bytes; size 0 means the whole file.
    """

    filename: str
    path: Path
    offset: int
    size: int

    @property
    def pose(self) -> tuple[float, float, float]:
        """(pitch, yaw, roll) in radians, computed on every access."""
        return geometry.pose(self.landmarks, self.shape[1])

    @property
    def yaw(self) -> float:
        return self.pose[1]


class _Table:
    """Byte strings of different lengths in one array."""

    @staticmethod
    def arrays(name: str, items: Sequence[bytes]) -> dict[str, Array]:
        ends = np.cumsum([0, *map(len, items)], dtype=np.int64)
        return {name: np.frombuffer(b"".join(items), np.uint8), f"{name}_at": ends}

    def __init__(self, arrays: Mapping[str, Array], name: str) -> None:
        self.bytes, self.at = arrays[name], arrays[f"{name}_at"]

    def __getitem__(self, index: int) -> bytes:
        return self.bytes[self.at[index] : self.at[index + 1]].tobytes()

    def text(self, index: int) -> str:
        return self[index].decode("utf-8", "surrogateescape")


def _polygon_bytes(polygons: Polygons) -> bytes:
    return b"".join(np.array([kind, len(p)], "<i4").tobytes() + p.astype("<f4").tobytes() for kind, p in polygons)


def _polygons(raw: bytes) -> Polygons:
    found, at = [], 0
    while at < len(raw):
        kind, count = np.frombuffer(raw, "<i4", 2, at).tolist()
        found.append((kind, np.frombuffer(raw, "<f4", 2 * count, at + 8).reshape(count, 2)))
        at += 8 + 8 * count
    return tuple(found)


class Faceset(Sequence[Sample]):
    """The usable faces of a folder, in order of their names (of a pack: in its order)."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)
        self._names, self._sources, self._persons, self._masks, self._polys = (
            _Table(arrays, name) for name in ("names", "sources", "persons", "masks", "polys")
        )
        self.folder = Path(arrays["folder"].tobytes().decode("utf-8", "surrogateescape"))
        self._packed = bool(arrays["packed"][0])
        self._yaws: Array | None = None

    @classmethod
    def open(cls, folder: Path, warn: Warn, tick: Callable[[], object] = lambda: None) -> Faceset:
        """Reads the heads of all faces; `warn` gets one line for each that is skipped, with the reason; `tick` is
        called after each that is read.

        A faceset.pak wins over the JPGs beside it, as in DFL. Raises FacesetError if no face is usable.
        """
        if not folder.is_dir():
            what = "is a file. Give the folder it lies in." if folder.exists() else "no such folder."
            raise FacesetError(f"{folder}: {what} A faceset is a folder of aligned faces, or one with a faceset.pak.")
        reasons: list[str] = []

        def refuse(name: str, reason: str) -> None:
            reasons.append(reason)
            if len(reasons) <= _MAX_LINES:
                warn(f"{printable(name)}: {reason}; skipped")

        packed = (folder / pack.NAME).is_file()
        faces = []
        for face in _packed_faces(folder, refuse) if packed else _loose_faces(folder, refuse):
            faces.append(face)
            tick()
        if len(reasons) > _MAX_LINES:
            warn(f"{folder}: {len(reasons) - _MAX_LINES:,} more are skipped ({_counted(reasons[_MAX_LINES:])})")
        if not faces:
            raise FacesetError(_useless(folder, packed, reasons))
        return cls(_arrays(folder, packed, faces))

    @property
    def samples(self) -> Sequence[Sample]:
        return self

    def __len__(self) -> int:
        return len(self._arrays["landmarks"])

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        a = self._arrays
        name = self._names.text(index)
        height, width = a["shapes"][index].tolist()
        person = int(a["person"][index])
        return Sample(
            face_type=_TYPES[a["types"][index]],
            shape=(height, width),
            landmarks=a["landmarks"][index],
            xseg_mask=self._masks[index] or None,
            seg_ie_polys=_polygons(self._polys[index]),
            eyebrows_expand_mod=float(a["eyebrows"][index]),
            source_filename=self._sources.text(index),
            person_name=None if person < 0 else self._persons.text(person),
            filename=printable(name),
            path=self.folder / (pack.NAME if self._packed else name),
            offset=int(a["offsets"][index]),
            size=int(a["sizes"][index]),
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def yaws(self) -> Array:
        """(N,) float32, radians; computed once, about 0.1 ms a face."""
        if self._yaws is None:
            widths = self._arrays["shapes"][:, 1].tolist()
            poses = [geometry.pose(*face) for face in zip(self._arrays["landmarks"], widths, strict=True)]
            self._yaws = np.array([yaw for _, yaw, _ in poses], np.float32)
        return self._yaws

    def persons(self) -> list[str]:
        """Names of the persons in a pack of several, else empty."""
        return [self._persons.text(index) for index in range(len(self._persons.at) - 1)]

    def summary(self) -> list[str]:
        """What there is, for the lines at the start: face types with sizes, masks, persons."""
        kinds = Counter(
            (_TYPES[kind], width, height)
            for kind, (height, width) in zip(
                self._arrays["types"].tolist(), self._arrays["shapes"].tolist(), strict=True
            )
        )
        named = ", ".join(f"{count:,} {kind} {width}x{height}" for (kind, width, height), count in kinds.most_common(4))
        more = "" if len(kinds) <= 4 else f", {len(kinds) - 4} other sizes"
        lines = [f"{len(self):,} faces: {named}{more}"]
        for table, what in ((self._masks, "applied XSeg masks"), (self._polys, "labelled polygons")):
            if count := int(np.count_nonzero(np.diff(table.at))):
                lines.append(f"{count:,} with {what}")
        if persons := self.persons():
            lines.append(f"{len(persons):,} persons")
        return lines

    def subset(self, indices: Sequence[int]) -> Faceset:
        """The faceset of these faces only, in this order."""
        per_face = ("landmarks", "shapes", "types", "eyebrows", "offsets", "sizes", "person")
        arrays = {**self._arrays, **{name: self._arrays[name][list(indices)] for name in per_face}}
        tables = {"names": self._names, "sources": self._sources, "masks": self._masks, "polys": self._polys}
        for name, table in tables.items():
            arrays |= _Table.arrays(name, [table[index] for index in indices])
        return Faceset(arrays)

    def to_arrays(self) -> dict[str, Array]:
        """Everything as flat arrays of numbers, for `from_arrays` in another process."""
        return dict(self._arrays)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Faceset:
        """The faceset whose `to_arrays` these are; they are used where they lie and may be read-only."""
        return cls(arrays)

    def save(self, folder: Path) -> None:
        """Writes the arrays as one .npy file each into an existing folder."""
        for name, array in self._arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)

    @classmethod
    def restore(cls, folder: Path) -> Faceset:
        """What `save` wrote, mapped into memory rather than read where it is large."""
        return cls(
            {
                path.stem: np.load(path, "r" if path.stat().st_size > 1 << 16 else None, allow_pickle=False)
                for path in folder.glob("*.npy")
            }
        )


@dataclass(frozen=True, slots=True)
class _Found:
    filename: str
    offset: int
    size: int
    face: FaceData


def _arrays(folder: Path, packed: bool, faces: list[_Found]) -> dict[str, Array]:
    persons = sorted({f.face.person_name for f in faces if f.face.person_name is not None})
    number = {name: index for index, name in enumerate(persons)}

    def coded(text: str) -> bytes:
        return text.encode("utf-8", "surrogateescape")

    arrays: dict[str, Array] = {
        "folder": np.frombuffer(coded(str(folder)), np.uint8),
        "packed": np.array([packed], np.uint8),
        "landmarks": np.array([f.face.landmarks for f in faces], np.float32),
        "shapes": np.array([f.face.shape for f in faces], np.int32),
        "types": np.array([_TYPES.index(f.face.face_type) for f in faces], np.uint8),
        "eyebrows": np.array([f.face.eyebrows_expand_mod for f in faces], np.float32),
        "offsets": np.array([f.offset for f in faces], np.int64),
        "sizes": np.array([f.size for f in faces], np.int64),
        "person": np.array([number.get(f.face.person_name or "", -1) for f in faces], np.int32),
        **_Table.arrays("names", [coded(f.filename) for f in faces]),
        **_Table.arrays("sources", [coded(f.face.source_filename) for f in faces]),
        **_Table.arrays("persons", [coded(name) for name in persons]),
        **_Table.arrays("masks", [f.face.xseg_mask or b"" for f in faces]),
        **_Table.arrays("polys", [_polygon_bytes(f.face.seg_ie_polys) for f in faces]),
    }
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _loose_faces(folder: Path, refuse: Callable[[str, str], None]) -> Iterator[_Found]:
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if suffix not in PICTURES:
            continue
        if not path.is_file():
            refuse(path.name, "a folder, not a picture" if path.is_dir() else "not a file")
        elif suffix not in JPEG:
            refuse(path.name, "aligned faces are JPG files, this is none")
        else:
            try:
                header = _header(path)
                face = check_face(parse_metadata(header.metadata), (header.height, header.width))
            except (DflJpgError, FaceReadError) as error:
                lost = isinstance(error, LostMetadataError) and (folder / META).is_file()
                refuse(path.name, _mend(folder) if lost else str(error))
            except OSError as error:
                refuse(path.name, f"cannot be read ({error.strerror or error})")
            else:
                yield _Found(path.name, 0, 0, face)


def _mend(folder: Path) -> str:
    return (
        f"its face data are lost, {META} may have them: "
        f'python main.py util --input-dir "{printable(str(folder))}" --restore-faceset-metadata'
    )


def _header(path: Path) -> Header:
    """The JPEG header of a file, of which no more is read than that takes."""
    with path.open("rb", buffering=0) as file:
        if (size := os.fstat(file.fileno()).st_size) > MAX_FILE:
            raise FaceReadError(f"a file of {size:,} bytes; up to {MAX_FILE:,} are read")
        head = file.read(_HEAD)
        try:
            return read_header(head)
        except CutOffError:
            rest = file.read(_MAX_HEAD)
            if not rest:
                raise
            return read_header(head + rest)


def _packed_faces(folder: Path, refuse: Callable[[str, str], None]) -> Iterator[_Found]:
    path = folder / pack.NAME
    try:
        entries = pack.read_pack(path)
    except pack.PackError as error:
        raise FacesetError(
            f"{path}: {error}. Pack the faces again, or take the file away to use the pictures beside it."
        ) from None
    total = path.stat().st_size
    for entry in entries:
        name = shorten(printable(entry.filename), LONGEST_NAME)  # a stranger's: only ever shown
        try:
            if entry.size <= 0 or entry.size > MAX_FILE or entry.offset + entry.size > total:
                raise FaceReadError("its picture lies outside the pack")
            shape = entry.metadata.get("shape")
            if not isinstance(shape, (list, tuple)) or not all(type(n) is int for n in (*shape, None, None)[:2]):
                raise FaceReadError("the pack does not say how large its picture is")
            face = check_face(entry.metadata, (shape[0], shape[1]))
        except FaceReadError as error:
            refuse(f"{pack.NAME}/{name}", str(error))
        else:
            yield _Found(name, entry.offset, entry.size, face)


def _counted(reasons: list[str]) -> str:
    return ", ".join(f"{count:,}: {reason}" for reason, count in Counter(reasons).most_common(3))


def _useless(folder: Path, packed: bool, reasons: list[str]) -> str:
    advice = "Extract faces into it first, or give the folder that holds aligned JPGs or a faceset.pak."
    if packed:
        what = (
            f"{len(reasons):,} faces in {pack.NAME}, none usable ({_counted(reasons)})"
            if reasons
            else "it holds no faces"
        )
        return f"{folder / pack.NAME}: {what}. Pack the faces again, or take the file away."
    if reasons:
        return f"{folder}: {len(reasons):,} pictures, none usable ({_counted(reasons)}). {advice}"
    entries = list(folder.iterdir())
    folders = sum(entry.is_dir() for entry in entries)
    return f"{folder}: no pictures, {len(entries) - folders:,} other files, {folders:,} folders. {advice}"


def read_bytes(sample: Sample) -> bytes:
    """The JPEG of a face. Raises OSError, or FaceReadError if its pack has become shorter."""
    with sample.path.open("rb", buffering=0) as file:
        if not sample.size:
            return file.readall()
        file.seek(sample.offset)
        data = file.read(sample.size)
    if len(data) < sample.size:
        raise FaceReadError("its picture is cut off")
    return data


def read_face(sample: Sample) -> Array:
    """(H, W, 3) uint8 BGR of a face, of the size its landmarks belong to. Raises FaceReadError, OSError."""
    image = decode(read_bytes(sample))
    if image.shape[:2] != sample.shape:
        height, width = sample.shape
        raise FaceReadError(f"its picture is {image.shape[1]}x{image.shape[0]}, its face data say {width}x{height}")
    return image


def decode_mask(sample: Sample) -> Array | None:
    """(h, w, 1) float32 0..1 of the applied mask at its own size, None without one. Raises FaceReadError."""
    return None if sample.xseg_mask is None else decode_mask_bytes(sample.xseg_mask)
