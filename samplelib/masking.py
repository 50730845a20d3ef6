"""Masks and labels in the face data of a folder's JPGs: put in, taken out, copied. No pixel is ever changed.

A file is replaced as a whole or not at all. Applying masks takes long, so what is done is noted beside the faces: who
is interrupted and starts again with the same model goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from core import ownjson
from core.batch import SampleRequest
from core.dflfile import DflFileError, write_bytes
from core.shown import printable
from facelib.dfljpg import DflJpgError, embed, encode_mask, parse_metadata, read_header
from facelib.landmarks import transform_matrix
from samplelib import pack
from samplelib.faceset import JPEG, MAX_FILE, FaceReadError, Faceset, FacesetError, Sample, read_bytes
from samplelib.pixels import decode, hushed
from samplelib.prepare import Pixels, prepared

Array = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
Warn = Callable[[str], object]
MaskOf = Callable[[Array], Array]
"""Pictures (N, 3, S, S) float32 BGR [0, 1] -> how sure it is that a pixel is face, (N, S, S) in [0, 1]."""

MASK, LABELS = "xseg_mask", "seg_ie_polys"
DONE = ".facesmith_xseg_applied"
_FORMAT, _MAX_LINE = 1, 4096


@dataclass
class Outcome:
    """How many faces were changed, how many need not be, and lines about those that could not be."""

    changed: int = 0
    same: int = 0
    problems: list[str] = field(default_factory=list)


def refuse_pack(folder: Path) -> None:
    """Raises FacesetError where the faces of a folder lie in a pack, or there is no such folder."""
    if not folder.is_dir():
        raise FacesetError(f"{folder}: no such folder. Give the folder that holds aligned JPGs.")
    if (folder / pack.NAME).is_file():
        raise FacesetError(
            f"{folder / pack.NAME}: masks are kept in JPGs. Unpack it first (main.py util --input-dir ... "
            "--unpack-faceset), and pack the faces again afterwards."
        )


def jpegs(folder: Path) -> list[Path]:
    """The JPGs of a folder. Raises as `refuse_pack`."""
    refuse_pack(folder)
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in JPEG and path.is_file())


def holding(paths: Sequence[Path], key: str, warn: Warn, progress: Progress) -> list[Path]:
    """The JPGs whose face data hold something under `key`."""
    found = []
    for number, path in enumerate(paths):
        progress(number, len(paths))
        try:
            if _holds(_metadata(_content(path)), key):
                found.append(path)
        except DflJpgError as error:
            warn(f"{printable(path.name)}: {error}; left as it is")
    return found


def remove(paths: Sequence[Path], key: str, progress: Progress) -> Outcome:
    """Takes what stands under `key` out of the face data of those JPGs. Raises OSError."""
    outcome = Outcome()
    for number, path in enumerate(paths):
        progress(number, len(paths))
        try:
            data = _content(path)
            metadata = _metadata(data)
            if not _holds(metadata, key):
                outcome.same += 1
                continue
            write_bytes(path, embed(data, {name: value for name, value in metadata.items() if name != key}))
            outcome.changed += 1
        except (DflJpgError, DflFileError) as error:
            outcome.problems.append(f"{printable(path.name)}: {error}; left as it is")
    progress(len(paths), len(paths))
    return outcome


def fetch(paths: Sequence[Path], target: Path, progress: Progress) -> Outcome:
    """Copies JPGs into a folder, byte for byte; one that is there with other bytes is a problem and stays. Raises
    OSError."""
    outcome = Outcome()
    target.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        progress(number, len(paths))
        place = target / path.name
        if not place.exists():
            write_bytes(place, path.read_bytes())
            outcome.changed += 1
        elif place.read_bytes() == path.read_bytes():
            outcome.same += 1
        else:
            outcome.problems.append(f"{printable(path.name)}: another file of that name is in {target}; left as it is")
    progress(len(paths), len(paths))
    return outcome


def apply(
    faces: Faceset, mask_of: MaskOf, side: int, face_type: str | None, batch: int, done: Done, progress: Progress
) -> Outcome:
    """Gives every face the mask that `mask_of` sees, 0 or 1, `side` pixels a side.

    face_type: of the model, to which faces are brought for it; None: as they are. batch: faces at a time. Raises
    OSError.
    """
    outcome = Outcome()
    waiting: list[tuple[Sample, bytes, Array]] = []

    def flush() -> None:
        masks = mask_of(np.stack([picture for _, _, picture in waiting]))
        for (sample, data, _), mask in zip(waiting, masks, strict=True):
            try:
                _put(sample, data, as_stored(mask, sample, face_type), outcome)
                done.add(sample.path)
            except (DflJpgError, DflFileError) as error:
                outcome.problems.append(f"{sample.filename}: {error}; left as it is")
        waiting.clear()

    for number, sample in enumerate(faces):
        progress(number, len(faces))
        if done.has(sample.path):
            outcome.same += 1
            continue
        try:
            data = read_bytes(sample)
            waiting.append((sample, data, _picture(sample, data, side, face_type)))
        except (FaceReadError, FileNotFoundError) as error:
            reason = "it is gone" if isinstance(error, FileNotFoundError) else str(error)
            outcome.problems.append(f"{sample.filename}: {reason}; left as it is")
        if len(waiting) == batch:
            flush()
    if waiting:
        flush()
    progress(len(faces), len(faces))
    return outcome


def _picture(sample: Sample, data: bytes, side: int, face_type: str | None) -> Array:
    """(3, side, side) float32: the face as the model wants it. Raises FaceReadError."""
    request = SampleRequest(side, face_type or sample.face_type, names=("plain",))
    with hushed():
        pixels = Pixels(np.asarray(decode(data), np.uint8), None)
    image = prepared(sample, pixels, ("image",), request)["image"]
    return np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) * np.float32(1 / 255)


def as_stored(mask: Array, sample: Sample, face_type: str | None) -> npt.NDArray[np.uint8]:
    """A mask (S, S) of the model's face type as it lies over the whole picture of a face: (S, S), 0 or 255."""
    side = len(mask)
    if face_type is not None and face_type != sample.face_type:
        height, width = sample.shape
        across, down = width / side, height / side
        # From the middles of the stored mask's pixels to the picture's, and from there to the model's.
        grow = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
        matrix = transform_matrix(sample.landmarks, side, face_type) @ grow
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        mask = np.asarray(cv2.warpAffine(mask, matrix, (side, side), flags=flags), np.float32)
    return np.asarray((mask >= 0.5) * np.uint8(255), np.uint8)


def _put(sample: Sample, data: bytes, mask: npt.NDArray[np.uint8], outcome: Outcome) -> None:
    metadata, coded = _metadata(data), encode_mask(mask)
    before = metadata.get(MASK)
    if isinstance(before, np.ndarray) and np.array_equal(before.reshape(-1), coded):
        outcome.same += 1
        return
    write_bytes(sample.path, embed(data, {**metadata, MASK: coded}))
    outcome.changed += 1


class Done:
    """Which faces of a folder have their mask, in a file beside them; model: what the masks are of. A file of another
    model, or one that cannot be read, is begun anew."""

    def __init__(self, folder: Path, model: str) -> None:
        self._path, self._model = folder / DONE, model
        self._known = dict(self._read())
        with self._path.open("a" if self._known else "w", encoding="utf-8") as file:
            if not self._known:
                file.write(json.dumps({"format": _FORMAT, "model": model}) + "\n")

    def has(self, path: Path) -> bool:
        """Whether it has its mask, and was not changed since."""
        known = self._known.get(path.name)
        return known is not None and known == _stamp(path)

    def add(self, path: Path) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([path.name, *_stamp(path)]) + "\n")

    def over(self) -> None:
        """All have it."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> Iterator[tuple[str, tuple[int, int]]]:
        try:
            with self._path.open("rb") as file:
                first = ownjson.parse(file.readline(_MAX_LINE), _FORMAT, _MAX_LINE)
                if first.get("model") != self._model:
                    return
                for line in file:
                    name, size, modified = json.loads(line)
                    yield str(name), (int(size), int(modified))
        except (OSError, ValueError, TypeError):
            return


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _content(path: Path) -> bytes:
    if (size := path.stat().st_size) > MAX_FILE:
        raise DflJpgError(f"a file of {size:,} bytes; up to {MAX_FILE:,} are read")
    return path.read_bytes()


def _metadata(data: bytes) -> dict[str, Any]:
    return parse_metadata(read_header(data).metadata)


def _holds(metadata: Mapping[str, Any], key: str) -> bool:
    value = metadata.get(key)
    if isinstance(value, dict):
        return bool(value.get("polys"))
    return value is not None and not (isinstance(value, (list, tuple)) and not value)
