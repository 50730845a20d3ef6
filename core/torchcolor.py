"""Colours of whole batches in torch: HSV shift and DFL's five transfers, as `core.imagelib` has them for one picture.

Lab and HSV are OpenCV's, of float pictures; OpenCV rounds its Lab to about a quarter step, here it is exact. sot's
change is smoothed by the blur that a bilateral filter of so wide a colour sigma nearly is (`core.imagelib.bilateral`),
without the small correction.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from core.imagelib.color_transfer import (
    BY_MATRIX,
    IDT_BINS,
    MIN_LAB_STD,
    SOT_DIRECTIONS,
    SOT_SIGMA_SPACE,
    check_mode,
    scattered,
)

GREY = (0.114, 0.587, 0.299)
"""What blue, green and red weigh in grey: OpenCV's."""

_WHITE = (0.950456, 1.0, 1.088754)
_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))  # of RGB
_FROM_XYZ = np.linalg.inv(np.array(_TO_XYZ)).tolist()
_EPSILON = 2.0**-23
_RANKS = 65535


def in_channels(images: Tensor, channels: int) -> Tensor:
    """(N, 3, H, W) BGR -> (N, C, H, W): as it is, or grey for 1 channel, weighed as OpenCV does."""
    if channels == images.shape[1]:
        return images
    return sum(weight * plane for weight, plane in zip(GREY, images.split(1, 1), strict=True))


def apply_hsv(images: Tensor, shifts: Tensor) -> Tensor:
    """images (N, 3, H, W) BGR in [0, 1], shifted by (N, 3): hue in degrees, saturation, value; in [0, 1]."""
    blue, green, red = images.unbind(1)
    value = images.amax(1)
    spread = value - images.amin(1)
    turn = 60 / (spread + _EPSILON)
    hue = torch.where(
        value == red,
        (green - blue) * turn,
        torch.where(value == green, (blue - red) * turn + 120, (red - green) * turn + 240),
    )
    shift = shifts[..., None, None].unbind(1)  # three of (N, 1, 1)
    saturation = (spread / (value + _EPSILON) + shift[1]).clamp(0, 1)
    value = (value + shift[2]).clamp(0, 1)
    sector = (hue + shift[0]) / 60
    planes = []
    for start in (1, 3, 5):  # blue, green, red
        place = torch.remainder(sector + start, 6)
        planes.append(value * (1 - saturation * torch.minimum(place, 4 - place).clamp(0, 1)))
    return torch.stack(planes, 1).clamp_(0, 1)


def transfer(mode: str, images: Tensor, references: Tensor, params: Tensor | None) -> Tensor:
    """images (N, 3, H, W) BGR in [0, 1] in the colours of references, alike in shape; in [0, 1].

    params: `core.drawn.Drawn.colour` of the mode, with N rows. Raises ValueError for an unknown mode or without params
    where the mode needs some.
    """
    check_mode(mode)
    if mode == "rct":
        return _rct(images, references)
    if params is None:
        raise ValueError(f"{mode} needs what was drawn or measured for it (core.drawn.Drawn.colour), got nothing")
    if mode in BY_MATRIX:
        return _by_matrix(images, params).clamp_(0, 1)
    pixels, wanted = images.flatten(2), references.flatten(2)  # (N, 3, pixels)
    if mode == "idt":
        return _idt(pixels, wanted, params).reshape(images.shape).clamp_(0, 1)
    change = _sot(pixels, wanted, params).reshape(images.shape)
    return (images + _blurred(change)).clamp_(0, 1)


def _rct(images: Tensor, references: Tensor) -> Tensor:
    (own, own_mean, own_std), (_, mean, std) = (_lab_moments(pictures) for pictures in (images, references))
    lightness, a, b = ((own - own_mean) * (std / own_std.clamp_min(MIN_LAB_STD)) + mean).unbind(1)
    return from_lab(torch.stack([lightness.clamp(0, 100), a.clamp(-127, 127), b.clamp(-127, 127)], 1))


def _lab_moments(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pictures in Lab, means and standard deviations (N, 3, 1, 1)."""
    lab = to_lab(images)
    mean = lab.mean((2, 3), keepdim=True)
    return lab, mean, (lab - mean).square().mean((2, 3), keepdim=True).sqrt()


def _by_matrix(images: Tensor, rows: Tensor) -> Tensor:
    """lct and mkl, in the precision of rows (N, 5, 3): where a picture has fewer than three colour dimensions the
    matrix has entries of 1e7 that cancel."""
    mean, matrix, added = rows[:, 0], rows[:, 1:4], rows[:, 4]
    centred = images.to(rows.dtype) - mean[..., None, None]
    moved = torch.stack([(centred * matrix[:, row, :, None, None]).sum(1) for row in range(3)], 1)
    return (moved + added[..., None, None]).float()


def to_lab(images: Tensor) -> Tensor:
    """(N, 3, H, W) BGR in [0, 1] -> L 0..100, a, b."""
    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
    blue, green, red = linear.unbind(1)
    xyz = [(row[0] * red + row[1] * green + row[2] * blue) / white for row, white in zip(_TO_XYZ, _WHITE, strict=True)]
    x, y, z = (torch.where(t > 0.008856, t.clamp_min(1e-9) ** (1 / 3), 7.787 * t + 16 / 116) for t in xyz)
    lightness = torch.where(xyz[1] > 0.008856, 116 * y - 16, 903.3 * xyz[1])
    return torch.stack([lightness, 500 * (x - y), 200 * (y - z)], 1)


def from_lab(lab: Tensor) -> Tensor:
    """The reverse of `to_lab`, not clipped below: a colour that BGR does not have comes out beyond [0, 1]."""
    lightness, a, b = lab.unbind(1)
    low = lightness <= 903.3 * 0.008856
    y = torch.where(low, lightness / 903.3, ((lightness + 16) / 116) ** 3)
    root = torch.where(low, 7.787 * y + 16 / 116, (lightness + 16) / 116)
    x, z = (torch.where(t <= 6 / 29, (t - 16 / 116) / 7.787, t**3) for t in (root + a / 500, root - b / 200))
    xyz = (x * _WHITE[0], y, z * _WHITE[2])
    planes = [sum((part * plane for part, plane in zip(row, xyz, strict=True)), torch.zeros_like(y))
              for row in reversed(_FROM_XYZ)]  # fmt: skip
    linear = torch.stack(planes, 1).clamp_(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055)


def _idt(pixels: Tensor, wanted: Tensor, rotations: Tensor) -> Tensor:
    """Histograms (N, 3, pixels) matched along the axes of rotations (N, 20, 3, 3), one after the other."""
    for rotation in rotations.unbind(1):
        turned = rotation @ pixels
        change = _match_histograms(turned, rotation @ wanted) - turned
        pixels = pixels + rotation.transpose(1, 2) @ change / rotations.shape[1]
    return pixels


def _match_histograms(rows: Tensor, wanted: Tensor) -> Tensor:
    """`color_transfer._match_histograms` for (N, 3, pixels)."""
    low = torch.minimum(rows.amin(-1, keepdim=True), wanted.amin(-1, keepdim=True))
    high = torch.maximum(rows.amax(-1, keepdim=True), wanted.amax(-1, keepdim=True))
    flat = high - low < 1e-20
    low, high = torch.where(flat, low - 0.5, low), torch.where(flat, high + 0.5, high)
    place, bins = _binned(rows, low, high)
    below, target = _counted(bins), _counted(_binned(wanted, low, high)[1])
    steps = torch.arange(1, IDT_BINS + 1, device=rows.device, dtype=rows.dtype) / IDT_BINS
    ends = _interpolated(below, target, low + (high - low) * steps)  # where the upper edge of each bin goes
    start = torch.cat([torch.zeros_like(low), ends[..., :-1]], -1)
    slope = torch.cat([torch.zeros_like(low), ends.diff()], -1)
    return start.gather(-1, bins) + (place - bins) * slope.gather(-1, bins)


def _binned(rows: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Where each value lies in units of bins from `low`, and its bin."""
    place = ((rows - low) * (IDT_BINS / (high - low))).clamp_max(IDT_BINS * (1 - 2.0**-24))
    return place, place.to(torch.int64).clamp_(0, IDT_BINS - 1)


def _counted(bins: Tensor) -> Tensor:
    """(N, 3, 256) how many values lie up to the upper edge of each bin: whole numbers, exact in float32."""
    counts = torch.zeros(*bins.shape[:2], IDT_BINS, device=bins.device, dtype=torch.int32)
    return counts.scatter_add_(-1, bins, torch.ones_like(bins, dtype=torch.int32)).cumsum(-1).float()


def _interpolated(at: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """numpy.interp along the last axis."""
    right = torch.searchsorted(known, at, right=True)
    left = (right - 1).clamp_(0, IDT_BINS - 1)
    right = right.clamp_(0, IDT_BINS - 1)
    x0, x1, y0, y1 = known.gather(-1, left), known.gather(-1, right), values.gather(-1, left), values.gather(-1, right)
    part = ((at - x0) / (x1 - x0).clamp_min(1)).clamp(0, 1)  # counts differ by 1 at least, or not at all
    return y0 + part * (y1 - y0)


def _sot(pixels: Tensor, wanted: Tensor, directions: Tensor) -> Tensor:
    """The change (N, 3, pixels) that sliced optimal transport along directions (N, 50, 3) makes."""
    directions = directions / directions.norm(dim=-1, keepdim=True)
    # One order for good, in which neighbours lie far apart: see `color_transfer.scattered`.
    scatter = _scatter(pixels.shape[-1], pixels.device)
    start = pixels[..., scatter]
    moved = start
    for chosen in directions.split(SOT_DIRECTIONS, 1):
        source, target = chosen @ moved, chosen @ wanted  # (N, 5, pixels)
        order = _ranks(source).sort(dim=-1, stable=True).indices
        moves = torch.empty_like(source).scatter_(-1, order, target.sort(-1).values) - source
        moved = moved + chosen.transpose(1, 2) @ moves / SOT_DIRECTIONS
    return torch.empty_like(moved).index_copy_(-1, scatter, moved - start)


def _ranks(values: Tensor) -> Tensor:
    """Values as 0..65535 over their range: nearly equal ones come in the scattered order."""
    low = values.amin(-1, keepdim=True)
    step = ((values.amax(-1, keepdim=True) - low) / _RANKS).clamp_min(torch.finfo(values.dtype).tiny)
    return ((values - low) / step + 0.5).to(torch.int32)


def _blurred(change: Tensor) -> Tensor:
    """(N, 3, H, H) blurred by a Gaussian within a circle, reflected at the border; by Fourier transforms, since the
    circle has 1,810 pixels."""
    radius = round(1.5 * SOT_SIGMA_SPACE)
    size = change.shape[-1]
    whole = size + 2 * radius
    at, disc = _around(radius, SOT_SIGMA_SPACE, size, change.device)
    padded = change.index_select(-1, at).index_select(-2, at)
    made = torch.fft.irfft2(torch.fft.rfft2(padded) * disc, s=(whole, whole))
    return made[..., 2 * radius :, 2 * radius :]


# What is the same for every batch is uploaded once.


@functools.lru_cache(maxsize=2)
def _scatter(count: int, device: torch.device) -> Tensor:
    return torch.from_numpy(scattered(count).astype(np.int64)).to(device)


@functools.lru_cache(maxsize=2)
def _around(radius: int, sigma: float, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which pixel each one of a picture with its reflected border shows, and the transform of the circle's weights."""
    whole = size + 2 * radius
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    weights = np.exp(-(x**2 + y**2) / (2 * sigma**2)) * (np.hypot(x, y) <= radius)
    corner = np.zeros((whole, whole), np.float32)
    corner[: 2 * radius + 1, : 2 * radius + 1] = weights / weights.sum()
    at = torch.from_numpy(np.pad(np.arange(size), radius, mode="reflect")).to(device)
    return at, torch.fft.rfft2(torch.from_numpy(corner).to(device))
