"""Pictures without any face, from the folder `backgrounds` beside labelled faces: surroundings for XSeg's samples.

DFL reads JPGs from there. Here every second sample that gets other surroundings gets a piece of one of them, where
there are any, instead of another face's. What lies there is listed once, at the start of a training.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from core.shown import printable
from facelib.dfljpg import DflJpgError, image_size
from samplelib.facedata import Array, FaceReadError
from samplelib.facescan import JPEG
from samplelib.facetable import coded
from samplelib.prepare import Bytes, Prepared

FOLDER = "backgrounds"
ARRAY = "backgrounds"
"""Among a faceset's arrays: the paths, one behind another. Absent where there are none."""

MAX_PIXELS = 100_000_000
KEPT = 64
"""Pictures that a worker keeps as they are needed: about 20 MB at 256 px."""
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


def find(folders: Sequence[Path], say: Callable[[str], object]) -> dict[str, Array]:
    """The entry `ARRAY` for the backgrounds of these folders of faces; empty where there are none. `say` is told how
    many there are, and of files that are no JPG."""
    found: list[Path] = []
    for place in (folder / FOLDER for folder in folders):
        if not place.is_dir():
            continue
        files = sorted(path for path in place.iterdir() if path.is_file())
        usable = [path for path in files if path.suffix.lower() in JPEG]
        others = len(files) - len(usable)
        left = f"; {others:,} other {'file is' if others == 1 else 'files are'} not read, only JPG is" if others else ""
        say(f"Using {len(usable):,} {'background' if len(usable) == 1 else 'backgrounds'} of {place}{left}.")
        found += usable
    return {ARRAY: np.frombuffer(b"\0".join(coded(str(path)) for path in found), np.uint8)} if found else {}


class Backgrounds:
    """tell: gets one line for each picture that cannot be read; it is not tried again. size: of what `piece` gives."""

    def __init__(self, array: Array, size: int, tell: Callable[[str], object]) -> None:
        self._paths = [Path(part.decode("utf-8", "surrogateescape")) for part in array.tobytes().split(b"\0")]
        self._size, self._tell = size, tell
        self._kept: OrderedDict[int, Bytes] = OrderedDict()
        self._broken: set[int] = set()

    def piece(self, rng: np.random.RandomState) -> Prepared | None:
        """A piece of one of them, as a face that is labelled empty: `image` (size, size, 3), `label` (size, size).
        None for every second sample, and where none can be read: then it is another face's turn."""
        if rng.randint(2):
            return None
        first, along = int(rng.randint(len(self._paths))), float(rng.random_sample())
        for offset in range(len(self._paths)):
            picture = self._picture((first + offset) % len(self._paths))
            if picture is not None:
                top, left = (round(along * (side - self._size)) for side in picture.shape[:2])
                image = picture[top : top + self._size, left : left + self._size]
                return {"image": image, "label": np.zeros((self._size, self._size), np.uint8)}
        return None

    def _picture(self, index: int) -> Bytes | None:
        """A picture whose shorter side is `size`; None where it cannot be read."""
        if index in self._broken:
            return None
        if (known := self._kept.pop(index, None)) is None:
            try:
                known = _decoded(self._paths[index].read_bytes(), self._size)
            except (OSError, FaceReadError) as error:
                self._broken.add(index)
                reason = error.strerror or error if isinstance(error, OSError) else error
                self._tell(f"background {printable(self._paths[index].name)} is skipped: {reason}")
                return None
        self._kept[index] = known
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return known


def _decoded(data: bytes, size: int) -> Bytes:
    """(h, w, 3) BGR, the shorter side `size`; decoded no larger than needed, as photographs take 50 ms in full. Raises
    FaceReadError."""
    try:
        height, width = image_size(data)
    except DflJpgError as error:
        raise FaceReadError(str(error)) from None
    if height * width > MAX_PIXELS or min(height, width) < 1:
        raise FaceReadError(f"a picture of {width}x{height} pixels, {MAX_PIXELS // 1_000_000} megapixels are the most")
    part = next((part for part in _REDUCED if min(height, width) >= part * size), 1)
    flags = _REDUCED.get(part, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise FaceReadError(f"its picture cannot be decoded ({error.err})") from None
    if image is None:
        raise FaceReadError("its picture cannot be decoded")
    height, width = image.shape[:2]
    scale = size / min(height, width)
    whole = max(round(width * scale), size), max(round(height * scale), size)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, whole, interpolation=how), np.uint8)
