"""A faceset: a folder of aligned JPGs or a faceset.pak, known face by face without decoding a pixel.

What is known lies in a few flat arrays (`samplelib.facetable`), so that worker processes can map the same memory
instead of each holding a hundred thousand objects; `Sample` is a view of one row, made when asked for. Large sets keep
an index, so that only files that were changed are read (`samplelib.faceindex`). Masks stay in their files.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from core.disk import DISK, Disk
from core.shown import printable
from facelib import landmarks as geometry
from facelib.dfljpg import DflJpgError
from samplelib import faceindex, pack
from samplelib.facedata import Array, FaceReadError, Polygons
from samplelib.facescan import (
    JPEG,
    MAX_FILE,
    META,
    PICTURES,
    Known,
    Stamp,
    Tick,
    read_loose,
    scan_folder,
    scan_pack,
    stamp_of,
)
from samplelib.facetable import HOME, TYPES, Table, coded, polygons_of, taken
from samplelib.pixels import decode, decode_mask_bytes

__all__ = [
    "JPEG", "MAX_FILE", "META", "PICTURES", "FaceReadError", "Faceset", "FacesetError", "Sample", "decode",
    "decode_mask", "read_bytes", "read_face",
]  # fmt: skip

Warn = Callable[[str], None]

_MAX_LINES = 50
_IDENTITY = ("landmarks", "shapes", "types", "eyebrows", "offsets", "sizes", "stamps", "mask_at")


class FacesetError(ValueError):
    """A folder has no faces to offer. Says which, what was found there, what to do."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything known of one face but its pixels and its mask; arrays are read-only.

    face_type: DFL's long name. shape: (height, width). landmarks: (68, 2) float32 in pixels. seg_ie_polys: (0 exclude /
    1 include, (n, 2) float32) polygons. person_name: in packs of several persons. filename: for messages. path, offset,
    size: the JPEG's bytes; size 0 means the whole file. stamp: of that file, when it was looked at. mask_at: offset,
    length (0: none there) and CRC-32 of its mask in that file; mask: one that does not lie there as it is.
    """

    face_type: str
    shape: tuple[int, int]
    landmarks: Array
    seg_ie_polys: Polygons
    eyebrows_expand_mod: float
    source_filename: str
    person_name: str | None
    filename: str
    path: Path
    offset: int
    size: int
    stamp: Stamp
    mask_at: tuple[int, int, int]
    mask: bytes | None

    @property
    def masked(self) -> bool:
        """Whether an XSeg mask was applied to it."""
        return self.mask is not None or self.mask_at[1] > 0

    @property
    def xseg_mask(self) -> bytes | None:
        """The mask as PNG or JPEG bytes, read from the file. Raises FaceReadError, OSError."""
        start, length, check = self.mask_at
        if self.mask is not None or not length:
            return self.mask
        found = _read_part(self.path, start, length)
        if zlib.crc32(found) != check:
            return self._moved_mask()
        return found

    def _moved_mask(self) -> bytes | None:
        """The mask of a face whose file was changed since."""
        if self.size:
            raise FaceReadError("its xseg_mask is not where it was: the pack was changed meanwhile")
        try:
            return read_loose(self.path, self.filename, self.stamp).face.xseg_mask
        except DflJpgError as error:
            raise FaceReadError(str(error)) from None

    @property
    def pose(self) -> tuple[float, float, float]:
        """(pitch, yaw, roll) in radians, computed on every access."""
        return geometry.pose(self.landmarks, self.shape[1])

    @property
    def yaw(self) -> float:
        return self.pose[1]


class Faceset(Sequence[Sample]):
    """The usable faces of a folder, in order of their names (of a pack: in its order)."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.news = ""
        self.use(arrays)
        folders = arrays["folder"].tobytes().decode("utf-8", "surrogateescape").split("\0")
        self.folder, self._folders = Path(folders[0]), [Path(folder) for folder in folders]
        self._packed: list[bool] = arrays["packed"].astype(bool).tolist()

    def use(self, arrays: Mapping[str, Array]) -> None:
        """Look at these arrays, equal to its own, from now on: a shared copy takes the place of a private one."""
        self._arrays = {name: array.view() for name, array in arrays.items()}
        for array in self._arrays.values():
            array.flags.writeable = False
        self._names, self._sources, self._persons, self._masks, self._polys = (
            Table(arrays, name) for name in ("names", "sources", "persons", "masks", "polys")
        )

    @classmethod
    def open(
        cls, folder: Path, warn: Warn, tick: Tick = lambda done, total: None, *,
        index_from: int = faceindex.FROM, disk: Disk = DISK, now: Callable[[], int] = time.time_ns,
    ) -> Faceset:  # fmt: skip
        """Reads the heads of all faces; `warn` gets one line for each that is skipped, with the reason; `tick` is
        called for each that is looked at, with how many were and of how many.

        Sets of `index_from` faces and more keep an index in the folder, and only what was changed is read; `news` then
        says what, empty where nothing was. now: ns of the clock that times files. A faceset.pak wins over the JPGs
        beside it, as in DFL. Raises FacesetError if no face is usable.
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
        before = _index(folder, packed, warn)
        try:
            known, tally = (scan_pack if packed else scan_folder)(folder, before, refuse, tick, now)
        except pack.PackError as error:
            raise FacesetError(
                f"{folder / pack.NAME}: {error}. Pack the faces again, or take the file away to use the pictures "
                "beside it."
            ) from None
        if len(reasons) > _MAX_LINES:
            warn(f"{folder}: {len(reasons) - _MAX_LINES:,} more are skipped ({_counted(reasons[_MAX_LINES:])})")
        count = len(known.arrays["types"])
        if not count:
            raise FacesetError(_useless(folder, packed, reasons))
        place = {"folder": np.frombuffer(coded(str(folder)), np.uint8), "packed": np.array([packed], np.uint8)}
        faces = cls({**place, **known.arrays})
        faces.news = tally.words()
        if count >= index_from and (before is None or tally.read or tally.gone):
            known.arrays["yaws"] = faces.yaws(tick)
            _keep(folder, known, disk, warn)
        return faces

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
        home = int(a[HOME][index]) if HOME in a else 0
        height, width = a["shapes"][index].tolist()
        person = int(a["person"][index])
        size, modified, changed = a["stamps"][index].tolist()
        start, length, check = a["mask_at"][index].tolist()
        return Sample(
            face_type=TYPES[a["types"][index]],
            shape=(height, width),
            landmarks=a["landmarks"][index],
            seg_ie_polys=polygons_of(self._polys[index]),
            eyebrows_expand_mod=float(a["eyebrows"][index]),
            source_filename=self._sources.text(index),
            person_name=None if person < 0 else self._persons.text(person),
            filename=printable(name),
            path=self._folders[home] / (pack.NAME if self._packed[home] else name),
            offset=int(a["offsets"][index]),
            size=int(a["sizes"][index]),
            stamp=(size, modified, changed),
            mask_at=(start, length, check),
            mask=self._masks[index] or None,
        )

    def name(self, index: int) -> bytes:
        """A face's name in its folder or pack."""
        return self._names[index]

    def identity(self, index: int) -> bytes:
        """Everything that is known of a face and its file: another one where that changed."""
        rows = b"".join(self._arrays[name][index].tobytes() for name in _IDENTITY)
        return b"\0".join((rows, self._names[index], self._masks[index]))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def yaws(self, tick: Tick = lambda done, total: None) -> Array:
        """(N,) float32, radians; computed once, about 0.15 ms a face, where no index has them."""
        yaws = self._arrays["yaws"]
        if np.isnan(yaws).any():
            yaws = yaws.copy()
            unknown = np.flatnonzero(np.isnan(yaws)).tolist()
            for done, index in enumerate(unknown):
                landmarks, width = self._arrays["landmarks"][index], int(self._arrays["shapes"][index, 1])
                yaws[index] = geometry.pose(landmarks, width)[1]
                tick(done, len(unknown))
            self._arrays["yaws"] = yaws
        return yaws

    def types(self) -> list[str]:
        """The face type of each face."""
        return [TYPES[kind] for kind in self._arrays["types"].tolist()]

    def persons(self) -> list[str]:
        """Names of the persons in a pack of several, else empty."""
        return [self._persons.text(index) for index in range(len(self._persons.at) - 1)]

    def summary(self) -> list[str]:
        """What there is, for the lines at the start: face types with sizes, masks, persons."""
        kinds = Counter(
            (TYPES[kind], width, height)
            for kind, (height, width) in zip(
                self._arrays["types"].tolist(), self._arrays["shapes"].tolist(), strict=True
            )
        )
        named = ", ".join(f"{count:,} {kind} {width}x{height}" for (kind, width, height), count in kinds.most_common(4))
        more = "" if len(kinds) <= 4 else f", {len(kinds) - 4} other sizes"
        lines = [f"{len(self):,} faces: {named}{more}"]
        masked = (self._arrays["mask_at"][:, 1] > 0) | self._masks.filled()
        for have, what in ((masked, "applied XSeg masks"), (self._polys.filled(), "labelled polygons")):
            if count := int(np.count_nonzero(have)):
                lines.append(f"{count:,} with {what}")
        if persons := self.persons():
            lines.append(f"{len(persons):,} persons")
        return lines

    def subset(self, indices: Sequence[int]) -> Faceset:
        """The faceset of these faces only, in this order."""
        return Faceset(taken(self._arrays, indices))

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


def _index(folder: Path, packed: bool, warn: Warn) -> Known | None:
    """What the last start kept; None where there is nothing of use."""
    try:
        return faceindex.read(folder, packed)
    except (faceindex.IndexFileError, OSError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        warn(f"{folder / faceindex.NAME}: {reason}; it is not used, all faces are read anew")
        return None


def _keep(folder: Path, known: Known, disk: Disk, warn: Warn) -> None:
    try:
        faceindex.write(folder, known, disk)
    except OSError as error:
        warn(
            f"{folder / faceindex.NAME}: cannot be written ({error.strerror or error}), so the next start reads all "
            "faces again"
        )


def _read_part(path: Path, start: int, length: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        return file.read(length)


def read_bytes(sample: Sample) -> bytes:
    """The JPEG of a face. Raises OSError, or FaceReadError if its pack has become shorter."""
    if not sample.size:
        return sample.path.read_bytes()
    data = _read_part(sample.path, sample.offset, sample.size)
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


def current(sample: Sample) -> Sample:
    """The sample itself, or, where its file was changed since it was looked at, with the face data it has now. Raises
    FaceReadError, OSError."""
    stamp = stamp_of(sample.path.stat())
    if stamp == sample.stamp:
        return sample
    if sample.size:
        raise FaceReadError("the pack was changed since the start: start the training again")
    try:
        found = read_loose(sample.path, sample.filename, stamp)
    except DflJpgError as error:
        raise FaceReadError(f"was changed since the start: {error}") from None
    face = found.face
    return replace(
        sample, face_type=face.face_type, shape=face.shape, landmarks=face.landmarks, seg_ie_polys=face.seg_ie_polys,
        eyebrows_expand_mod=face.eyebrows_expand_mod, stamp=stamp, mask_at=(0, 0, 0), mask=face.xseg_mask,
    )  # fmt: skip


def decode_mask(sample: Sample) -> Array | None:
    """(h, w, 1) float32 0..1 of the applied mask at its own size, None without one. Raises FaceReadError, OSError."""
    coded_mask = sample.xseg_mask
    return None if coded_mask is None else decode_mask_bytes(coded_mask)
