"""Random warp, affine and flip of training samples, as DFL makes them.

Drawing and applying are separate, so that recordings can pin `apply` and a device path can replace it alone.
Two generators are used, one for the affine and flip, one for the bend: a sample's affine does not change when
its bend is switched off. They are `np.random.RandomState` objects, whose streams numpy has frozen: put one over
any bit generator (`RandomState(Philox(...))`) and a seed gives the same samples on every numpy release.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

MIN_SIZE = 64
"""Smaller images are warped at this size and resized back, since cells of a few pixels would only shake them."""

TRUNCATION = 2.5
JITTER = 0.24


@dataclass(frozen=True, slots=True)
class Warp:
    """One drawn augmentation of a square image of `size` pixels, made at `work_size` (see MIN_SIZE).

    matrix: (2, 3) float64, source to destination pixels at work_size. maps: where each pixel of the bent image
    lies in the source, x and y, each (work_size, work_size) float32; None when no bend was drawn.
    """

    size: int
    work_size: int
    matrix: npt.NDArray[np.float64]
    flip: bool
    maps: tuple[Array, Array] | None


@dataclass(frozen=True, slots=True)
class Bend:
    """A drawn bend of a square image of `size` pixels: where the points of a coarse grid lie in the source.

    grid: (P, P) float64, x of every point (y is its transpose, see `draw_bend`); cell: pixels between two of them.
    """

    size: int
    cell: int
    grid: npt.NDArray[np.float64]

    def knots(self) -> Array:
        """(size,) where each pixel lies between the points, 0 to P - 1, along either axis: what `cv2.resize` finds."""
        return _knots(self.size, self.cell)

    def maps(self) -> tuple[Array, Array]:
        """Where each pixel lies in the source, x and y, each (size, size)."""
        size, half = self.size, self.cell // 2
        full, inner = (size + self.cell, size + self.cell), slice(half, half + size)
        x = cv2.resize(self.grid, full)[inner, inner].astype(np.float32)
        y = cv2.resize(self.grid.T.copy(), full)[inner, inner].astype(np.float32)
        return x, y


def truncated_normal(rng: np.random.RandomState, count: int) -> Array:
    """`count` values of N(0, 1) redrawn until |x| <= 2.5, divided by 2.5: within [-1, 1], float32.

    Consumes exactly what drawing one by one would (golden samples/random_normal).
    """
    kept: list[npt.NDArray[np.float64]] = []
    missing = count
    while missing:
        values = rng.normal(size=missing)
        values = values[np.abs(values) <= TRUNCATION]
        kept.append(values)
        missing -= len(values)
    return (np.concatenate(kept) / TRUNCATION).astype(np.float32) if kept else np.empty(0, np.float32)


def draw(
    rng: np.random.RandomState,
    bend_rng: np.random.RandomState | None,
    size: int,
    *,
    flip: bool = False,
    rotation: float = 10.0,
    scale: float = 0.15,
    shift: float = 0.05,
) -> Warp:
    """Draw an augmentation for images of `size` pixels.

    rotation: at most that many degrees either way. scale: from 1/(1+scale) to 1+scale. shift: at most that part
    of the width. flip: mirror with probability 0.4. bend_rng None draws no bend. Draw order of `rng`: rotation,
    scale, x, y, flip (golden samples/warp_*).
    """
    work_size = max(size, MIN_SIZE)
    angle = rng.uniform(-rotation, rotation)
    factor = rng.uniform(1 / (1 + scale), 1 + scale)
    x, y = rng.uniform(-shift, shift), rng.uniform(-shift, shift)
    mirrored = flip and int(rng.randint(10)) < 4
    matrix = np.asarray(cv2.getRotationMatrix2D((work_size // 2, work_size // 2), angle, factor), np.float64)
    matrix[:, 2] += np.array((x, y)) * work_size
    maps = None if bend_rng is None else draw_bend(bend_rng, work_size).maps()
    return Warp(size, work_size, matrix, mirrored, maps)


@functools.lru_cache(maxsize=16)
def _knots(size: int, cell: int) -> Array:
    points = size // cell + 1
    place = (np.arange(size) + cell // 2 + 0.5) * points / (size + cell) - 0.5
    return np.clip(place, 0, points - 1).astype(np.float32)


def draw_bend(rng: np.random.RandomState, size: int) -> Bend:
    """A grid of 2, 4 or 8 cells a side with its inner points jittered.

    DFL jitters one array through two views of it, one transposed, so y is x transposed and every bend is
    symmetric about the diagonal. Kept, since users' models are trained on exactly these.
    """
    cell = size // (2, 4, 8)[int(rng.randint(3))]
    points = size // cell + 1
    grid = np.empty((points, points), np.float64)
    grid[:] = np.linspace(0, size, points)
    inner = points - 2
    for view in (grid, grid.T):
        view[1:-1, 1:-1] += truncated_normal(rng, inner * inner).reshape(inner, inner) * (cell * JITTER)
    return Bend(size, cell, grid)


def once(warp: Warp) -> npt.NDArray[np.float64]:
    """(2, 3): the affine with the flip in it, source to destination pixels at work_size."""
    matrix = warp.matrix.copy()
    if warp.flip:
        matrix[0] *= -1
        matrix[0, 2] += warp.work_size - 1
    return matrix


def bent_maps(warp: Warp) -> tuple[Array, Array, Array]:
    """Where each pixel lies in the source once bent and turned, x and y, and 1 where that is within the picture (else
    the nearest of its border): three (size, size). For a warp with a bend that is made at its own size."""
    if warp.maps is None:
        raise ValueError("no bend was drawn for this warp")
    matrix, size = once(warp), (warp.size, warp.size)
    # Where the affine looks, the bend's map says where to look in the image.
    x, y = cv2.split(cv2.warpAffine(cv2.merge(warp.maps), matrix, size, borderMode=cv2.BORDER_REPLICATE))
    inside = cv2.warpAffine(np.ones(size, np.float32), matrix, size, flags=cv2.INTER_NEAREST)
    return np.asarray(x, np.float32), np.asarray(y, np.float32), np.asarray(inside, np.float32)


def apply_once(warp: Warp, image: Array, *, bend: bool, mask: bool = False) -> Array:
    """What `apply` gives, by one interpolation instead of one for the bend and one for the affine: sharper, and half
    the work. Differs by that, and by continuing a bent image beyond its border instead of seeing 0 there.

    Images below MIN_SIZE are left to `apply`.
    """
    if warp.work_size != warp.size:
        return apply(warp, image, bend=bend, mask=mask)
    size = (warp.size, warp.size)
    matrix = once(warp)
    out: npt.NDArray[Any] = image
    if bend and warp.maps is not None:
        x, y, inside = bent_maps(warp)
        how = cv2.INTER_LINEAR if mask else cv2.INTER_CUBIC
        out = cv2.remap(image, x, y, how, borderMode=cv2.BORDER_CONSTANT if mask else cv2.BORDER_REPLICATE)
        out = np.asarray(out).reshape(image.shape) * inside.reshape(*size, *[1] * (image.ndim - 2)) if mask else out
    elif mask:
        out = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_CONSTANT)
    else:
        out = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out, np.float32).reshape(image.shape)


def apply(warp: Warp, image: Array, *, bend: bool, mask: bool = False) -> Array:
    """The image (S, S, 3) or mask (S, S) or (S, S, 1), float32, after bend (if asked and drawn), affine and flip.

    S is `warp.size`. Images are interpolated cubically (so may leave [0, 1] a little) and continue beyond their
    border under the affine; masks are interpolated linearly and are 0 outside. The bend alone sees 0 outside, for
    images too: that is at most the outermost pixel or two, and DFL's (golden samples/warp_*). Returns the shape given.
    """
    height, width = image.shape[:2]
    if (height, width) != (warp.size, warp.size):
        raise ValueError(f"the warp was drawn for {warp.size}x{warp.size} px, the image has {width}x{height}")
    interpolation = cv2.INTER_LINEAR if mask else cv2.INTER_CUBIC
    border = cv2.BORDER_CONSTANT if mask else cv2.BORDER_REPLICATE
    work = (warp.work_size, warp.work_size)
    out: npt.NDArray[Any] = image
    if warp.work_size != warp.size:
        out = cv2.resize(out, work, interpolation=interpolation)
    if bend and warp.maps is not None:
        out = cv2.remap(out, warp.maps[0], warp.maps[1], interpolation)
    out = cv2.warpAffine(out, warp.matrix, work, flags=interpolation, borderMode=border)
    if warp.work_size != warp.size:
        out = cv2.resize(out, (warp.size, warp.size), interpolation=interpolation)
    if warp.flip:
        out = cv2.flip(out, 1)
    return np.asarray(out, np.float32).reshape(image.shape)
