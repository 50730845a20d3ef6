"""Where the time of a sample goes, and what it could not be less than: `python main.py bench samples --stages`.

One face after the other, in this process, on one core. What every sample pays: draw (random numbers), geometry (the
warps), colour (transfer and HSV, if any) and copy (8 bits to float, clipping, channels first). What a face pays once
where there is memory to keep it, else every sample: read, decode and prepare (to the model's size, with its masks).

The floor is OpenCV alone: two cubic remaps of the picture and two linear ones of masks, float32, with the maps at hand;
and the bytes of a sample copied from one place in memory to another.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from core.batch import SampleRequest
from core.imagelib import warp as warping
from core.mainmemory import keep_freed
from samplelib.faceset import Sample, read_bytes
from samplelib.prepare import Prepared, kinds, load, prepare, prepared
from samplelib.process import Array, process
from samplelib.sampling import generator

ONCE = ("read", "decode", "prepare")
EVERY = ("draw", "geometry", "colour", "copy")


@dataclass(frozen=True)
class Stages:
    """Milliseconds of each stage of a sample, and of the floor: remap and memory copy. bandwidth: GB/s of the copy."""

    ms: dict[str, float]
    remap_ms: float
    memory_ms: float
    bandwidth: float

    def total(self, names: Sequence[str]) -> float:
        return sum(self.ms[name] for name in names)


def measure_stages(samples: Sequence[Sample], request: SampleRequest, count: int = 200) -> Stages:
    """Medians over `count` faces, taken from the front again where there are fewer. Raises FaceReadError, OSError."""
    cv2.setNumThreads(1)
    keep_freed()  # as a worker does
    rows = {name: np.empty(request.shape(name), np.float32) for name in request.names}
    reference = prepare(samples[-1], ("colours",), request)
    floor, takes = _Floor(request), []
    for number in range(count):
        once, face = _once(samples[number % len(samples)], request)
        remap, copy = _ms(floor.remap), _ms(floor.copy)
        takes.append({**once, **_every(face, request, number, reference, rows), "remap": remap, "memory": copy})
    middle = {name: max(0.0, statistics.median(take[name] for take in takes)) for name in takes[0]}
    memory = middle.pop("memory")
    return Stages(middle, middle.pop("remap"), memory, floor.bytes / memory / 1e6)


def _once(sample: Sample, request: SampleRequest) -> tuple[dict[str, float], Prepared]:
    """Milliseconds of what is done once to a face, and what comes out."""
    wanted, pixels = kinds(request), load(sample)
    read, loaded = _ms(partial(read_bytes, sample)), _ms(partial(load, sample))
    ready = _ms(partial(prepared, sample, pixels, wanted, request))
    return {"read": read, "decode": loaded - read, "prepare": ready}, prepared(sample, pixels, wanted, request)


def _every(
    face: Prepared, request: SampleRequest, number: int, reference: Prepared, rows: dict[str, Array]
) -> dict[str, float]:
    """Milliseconds of what is done to a face for every sample: of whole samples with more and more in them."""
    chance = partial(_chance, number)
    plain = replace(request, ct_mode="none", hsv_power=0.0)
    draw = _ms(partial(process, face, replace(plain, names=()), chance))
    whole = _ms(partial(process, face, plain, chance, None, rows))
    coloured = _ms(partial(process, face, request, chance, reference, rows))
    geometry = _geometry(face, request, number)
    return {"draw": draw, "geometry": geometry, "colour": coloured - whole, "copy": whole - draw - geometry}


def _chance(number: int, purpose: str) -> np.random.RandomState:
    return generator(0, purpose, "bench", number)


def _geometry(face: Prepared, request: SampleRequest, number: int) -> float:
    """Milliseconds of the warps alone."""
    warp = warping.draw(
        _chance(number, "affine"),
        _chance(number, "bend") if request.random_warp else None,
        request.resolution,
        flip=request.flip,
    )
    floats = {kind: face[kind].astype(np.float32) for kind in face}

    def warps() -> None:
        for bend in (False, True):
            warping.apply_once(warp, floats["image"], bend=bend)
        for kind in ("mask", "mask_em"):
            warping.apply_once(warp, floats[kind], bend=False, mask=True)

    return _ms(warps)


class _Floor:
    """The least that a sample with these arrays can cost."""

    def __init__(self, request: SampleRequest) -> None:
        size, rng = request.resolution, np.random.RandomState(0)
        self._image, self._mask = rng.rand(size, size, 3).astype(np.float32), rng.rand(size, size).astype(np.float32)
        axis = np.arange(size, dtype=np.float32)
        shift = rng.rand(2, size, size).astype(np.float32)
        self._x, self._y = axis[None, :] + shift[0], axis[:, None] + shift[1]
        channels = sum(request.shape(name)[0] for name in request.names)
        self._from, self._to = np.ones((2, channels, size, size), np.float32)
        self.bytes = 2 * self._from.nbytes  # read and written

    def remap(self) -> None:
        for image, method in ((self._image, cv2.INTER_CUBIC), (self._mask, cv2.INTER_LINEAR)) * 2:
            cv2.remap(image, self._x, self._y, method)

    def copy(self) -> None:
        self._to[...] = self._from


def _ms(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3
