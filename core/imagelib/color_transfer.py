"""Colour transfer: a picture in the colours of another, by DFL's five modes.

rct   mean and spread of each Lab channel (Reinhard)
lct   mean and covariance in BGR, through the square roots of both covariances
mkl   the same by the Monge-Kantorovich map, which moves colours least
idt   iterative distribution transfer: histograms matched along the axes of 20 random rotations
sot   sliced optimal transport: pixels and reference sorted along 50 random directions and matched; the change is
      smoothed by a bilateral filter

Chance is drawn apart (`draw`) from the work (`apply`), so that recordings can pin the latter: golden
samples/color_transfer (met within 1e-5; idt 3e-5). Two things differ from DFL's for speed, both in sot: projections are
sorted at 16 bits, and equal ones, common in flat parts, in a scattered order (DFL: in the order its sort routine leaves
them, which is another on other processors); and the bilateral filter is `wide_bilateral`. idt is ill-conditioned where
many pixels are equal: on real faces DFL's own answer changes by up to 16/255 in such parts when the picture changes by
1e-7, so there only distributions can agree.
"""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from core.imagelib.bilateral import wide_bilateral

Array = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

MODES = ("rct", "lct", "mkl", "idt", "sot")
BY_MATRIX = ("lct", "mkl")
"""The modes that multiply a picture by a matrix (`matrix_of`) made of what is known of both (`measure`)."""

IDT_ROTATIONS, IDT_BINS = 20, 256
SOT_STEPS, SOT_DIRECTIONS = 10, 5
SOT_SIGMA_COLOUR, SOT_SIGMA_SPACE = 5.0, 16.0

MIN_LAB_STD = 0.1  # below is only OpenCV's rounding: a and b of a grey picture have 0.02
_LCT_RIDGE = 1e-5
_LAST_PLACE = np.nextafter(np.float32(IDT_BINS), np.float32(0))
_FLAT = 1e-20  # a range that cannot be divided into bins
_RANKS = 65535
_EPSILON = float(np.finfo(np.float64).eps)
_PARAMS: dict[str, tuple[int, ...]] = {"idt": (IDT_ROTATIONS, 3, 3), "sot": (SOT_STEPS * SOT_DIRECTIONS, 3)}


def check_mode(mode: str) -> None:
    """Raises ValueError for a mode that is none of MODES."""
    if mode not in MODES:
        raise ValueError(f"{mode!r} is no colour transfer; allowed are {', '.join(MODES)}")


def draw(mode: str, rng: np.random.RandomState) -> Array | None:
    """What `apply` needs of chance: idt (20, 3, 3) uniform rotations, sot (50, 3) uniform unit vectors, else None.

    Raises ValueError for an unknown mode.
    """
    check_mode(mode)
    if mode == "idt":
        return _rotations(_unit(rng.normal(size=(IDT_ROTATIONS, 4))))
    if mode == "sot":
        return _unit(rng.normal(size=(SOT_STEPS * SOT_DIRECTIONS, 3))).astype(np.float32)
    return None


def apply(mode: str, image: Array, reference: Array, params: Array | None) -> Array:
    """image (H, W, 3) float32 BGR in [0, 1] in the colours of reference, which has the same shape; in [0, 1].

    params: what `draw` gave for the mode (directions of any length will do). Finite whatever the pictures show.
    Raises ValueError for an unknown mode, pictures of unlike shapes, or params of another mode.
    """
    check_mode(mode)
    if image.shape != reference.shape or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"both pictures must be (H, W, 3) of one size, got {image.shape} and {reference.shape}")
    drawn = np.empty(0, np.float32) if params is None else np.asarray(params, np.float32)
    if drawn.shape != _PARAMS.get(mode, (0,)):
        raise ValueError(f"{mode} was given params of shape {drawn.shape}; give what draw({mode!r}, rng) returns")
    image, reference = np.ascontiguousarray(image, np.float32), np.ascontiguousarray(reference, np.float32)
    if mode == "rct":
        out = _rct(image, reference)
    elif mode == "idt":
        out = _idt(image, reference, drawn)
    elif mode == "sot":
        out = _sot(image, reference, drawn)
    else:
        out = _linear(image, reference, mode)
    return np.clip(out, 0, 1, out=out)


def _unit(vectors: Matrix) -> Matrix:
    """(n, d) vectors scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _rotations(quaternions: Matrix) -> Array:
    """(n, 3, 3) rotations of unit quaternions (n, 4): uniform (Haar) if those are uniform on their sphere."""
    w, x, y, z = quaternions.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1).astype(np.float32)


def _rct(image: Array, reference: Array) -> Array:
    lab = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2LAB))
    mean, std = (values[:, 0] for values in cv2.meanStdDev(lab))
    wanted_mean, wanted_std = (v[:, 0] for v in cv2.meanStdDev(cv2.cvtColor(reference, cv2.COLOR_BGR2LAB)))
    scale = wanted_std / np.maximum(std, MIN_LAB_STD)
    lab = cv2.transform(lab, np.column_stack([np.diag(scale), wanted_mean - mean * scale]))
    low, high = np.array([[0, -127, -127], [100, 127, 127]], np.float32)
    np.clip(lab, low, high, out=lab)
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR), np.float32)


def measure(image: Array) -> Matrix:
    """What lct and mkl need to know of a picture (H, W, 3): (4, 3), the mean of each channel above the covariance."""
    covariance, mean = _covariance(np.ascontiguousarray(image))
    return np.vstack([mean, covariance])


def matrix_of(mode: str, own: Matrix, wanted: Matrix, pixels: int) -> Matrix:
    """(3, 3): what lct and mkl multiply a picture by, its mean taken off. own, wanted: what `measure` says of the
    picture and the reference, both of so many `pixels`."""
    if mode == "lct":
        return np.asarray(_root(wanted[1:]) @ np.linalg.inv(_root(own[1:])), np.float64)
    bias = pixels / max(1, pixels - 1)  # sample covariances
    return _monge(own[1:] * bias, wanted[1:] * bias)


def _linear(image: Array, reference: Array, mode: str) -> Array:
    """lct and mkl: the reference's covariance and mean by a matrix."""
    own, wanted = measure(image), measure(reference)
    matrix = matrix_of(mode, own, wanted, image.size // 3)
    # In double: where a picture has fewer than three colour dimensions the matrix has entries of 1e7 that cancel.
    moved = cv2.transform(image.astype(np.float64) - own[0], np.column_stack([matrix, wanted[0]]))
    return np.asarray(moved, np.float32).reshape(image.shape)


def _covariance(image: Array) -> tuple[Matrix, Matrix]:
    """(3, 3) and mean (3,) of the channels, over all pixels."""
    flags = cv2.COVAR_NORMAL | cv2.COVAR_ROWS | cv2.COVAR_SCALE
    covariance, mean = cv2.calcCovarMatrix(image.reshape(-1, 3), np.empty((1, 3)), flags, ctype=cv2.CV_64F)
    return np.asarray(covariance, np.float64), np.asarray(mean, np.float64)[0]


def _root(covariance: Matrix) -> Matrix:
    """Symmetric square root of the covariance with DFL's ridge."""
    values, vectors = np.linalg.eigh(covariance + _LCT_RIDGE * np.eye(3))
    return (vectors * np.sqrt(values)) @ vectors.T


def _monge(a: Matrix, b: Matrix) -> Matrix:
    """The symmetric matrix T with T a T = b (Pitie and Kokaram, 2007), eigenvalues floored."""
    values, u = np.linalg.eigh(a)
    d = np.sqrt(np.maximum(values, _EPSILON))
    values, v = np.linalg.eigh(d[:, None] * (u.T @ b @ u) * d)
    root = (v * np.sqrt(np.maximum(values, _EPSILON))) @ v.T
    return u @ (root / d[:, None] / d) @ u.T


def _idt(image: Array, reference: Array, rotations: Array) -> Array:
    pixels, wanted = _planes(image), _planes(reference)
    for rotation in rotations:
        turned = rotation @ pixels
        change = _match_histograms(turned, rotation @ wanted)
        change -= turned
        pixels += rotation.T @ change * np.float32(1 / len(rotations))
    return np.ascontiguousarray(pixels.T).reshape(image.shape)


def _match_histograms(rows: Array, wanted: Array) -> Array:
    """Each row (n,) given the distribution of the one in `wanted`, by histograms over the range of both.

    A value takes the fraction of its row below it, linearly between bins, to where that fraction of `wanted` lies
    below. Values in the lowest bin become 0: DFL's, which shows only in a few darkest or lightest pixels.
    """
    low = np.minimum(rows.min(1), wanted.min(1))
    high = np.maximum(rows.max(1), wanted.max(1))
    flat = high - low < _FLAT
    low, high = np.where(flat, low - 0.5, low), np.where(flat, high + 0.5, high)  # numpy.histogram's answer to that
    out = np.empty_like(rows)
    for axis, (row, other) in enumerate(zip(rows, wanted, strict=True)):
        place, bins = _binned(row, low[axis], high[axis])
        fraction, target = _cumulative(bins), _cumulative(_binned(other, low[axis], high[axis])[1])
        edges = np.linspace(low[axis], high[axis], IDT_BINS + 1)[1:]
        ends = np.interp(fraction, target, edges)  # where the upper edge of each bin goes
        start, slope = np.zeros((2, IDT_BINS), np.float32)
        start[1:], slope[1:] = ends[:-1], np.diff(ends)
        place -= bins
        place *= cv2.LUT(bins, slope).ravel()
        np.add(cv2.LUT(bins, start).ravel(), place, out=out[axis])
    return out


def _binned(row: Array, low: np.float32, high: np.float32) -> tuple[Array, npt.NDArray[np.uint8]]:
    """Where each value lies in units of bins from `low`, and its bin, (1, n)."""
    place = row - low
    place *= np.float32(IDT_BINS / (high - low))
    np.minimum(place, _LAST_PLACE, out=place)
    return place, place.astype(np.uint8)


def _cumulative(bins: npt.NDArray[np.uint8]) -> Matrix:
    """Fraction of the values up to the upper edge of each bin."""
    return np.cumsum(np.bincount(bins, minlength=IDT_BINS)) / len(bins)


def _sot(image: Array, reference: Array, directions: Array) -> Array:
    directions = _unit(directions.astype(np.float64)).astype(np.float32)
    scatter = scattered(image.size // 3)
    start = _planes(image)[:, scatter]
    pixels, wanted = start.copy(), _planes(reference)
    moves = np.empty((SOT_DIRECTIONS, pixels.shape[1]), np.float32)
    for step in range(SOT_STEPS):
        chosen = directions[step * SOT_DIRECTIONS : (step + 1) * SOT_DIRECTIONS]
        for row, source, target in zip(moves, chosen @ pixels, chosen @ wanted, strict=True):
            ranks, _, _ = _ranks(source)
            row[np.argsort(ranks, kind="stable")] = _sorted(target)
            row -= source
        pixels += chosen.T @ moves * np.float32(1 / SOT_DIRECTIONS)
    pixels -= start
    change = np.empty((pixels.shape[1], 3), np.float32)
    change[scatter] = pixels.T
    return image + wide_bilateral(change.reshape(image.shape), SOT_SIGMA_COLOUR, SOT_SIGMA_SPACE)


def _sorted(values: Array) -> Array:
    """The values in order, each to half a step of `_ranks`."""
    ranks, low, step = _ranks(values)
    ordered = np.sort(ranks, kind="stable").astype(np.float32)
    ordered *= step
    ordered += low
    return ordered


def _ranks(values: Array) -> tuple[npt.NDArray[np.uint16], np.float32, np.float32]:
    """Values as 0..65535 over their range (numpy sorts these by radix, ten times as fast), the minimum, the step."""
    low = values.min()
    step = max((values.max() - low) / np.float32(_RANKS), np.finfo(np.float32).tiny)
    scaled = values - low
    scaled *= 1 / step
    scaled += np.float32(0.5)
    return scaled.astype(np.uint16), low, step


@functools.lru_cache(maxsize=4)
def scattered(count: int) -> npt.NDArray[np.intp]:
    """One order of `count` pixels for good, in which neighbours lie far apart: equal colours must not be sorted from
    the top of the picture to the bottom, which would give them a gradient."""
    order = np.random.RandomState(0).permutation(count)
    order.flags.writeable = False
    return order


def _planes(image: npt.NDArray[Any]) -> Array:
    """(3, H*W) of (H, W, 3)."""
    return np.ascontiguousarray(image.reshape(-1, 3).T)
