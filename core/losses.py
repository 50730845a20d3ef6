"""DeepFaceLab's training losses. Every loss returns one value per sample, shape (N,); the caller reduces.

Notable choices:
- A Gaussian window is the outer product of two vectors, so every blur is two products with banded matrices: exact at
  any radius, fast on every device, and differentiable without code of ours.
- Images are (N, C, H, W) in [0, 1], any memory layout; whatever the net runs in, losses run in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

C1, C2 = 0.01**2, 0.03**2  # SSIM's constants (Wang et al. 2004) for a dynamic range of 1
STRIP = 64  # columns of a banded matrix multiplied at a time: few zeros, still a product worth calling


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept for later calls that may need gradients
def _valid_bands(length: int, size: int, device: torch.device) -> tuple[Tensor, int]:
    """(length, length - size + 1): DSSIM's window, sigma 1.5 about (size-1)/2, moved over `length` pixels; and how
    many of its outermost weights are left out on either side."""
    offset = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    window = torch.softmax(-(offset**2) / (2 * 1.5**2), 0)
    # Far below what float32 can add; further out they are denormal numbers, which processors multiply very slowly.
    negligible = window < 1e-9
    window[negligible] = 0
    return _bands(window, length, 0).to(device), int(negligible.sum()) // 2


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept for later calls that may need gradients
def _same_bands(length: int, radius: float, device: torch.device) -> Tensor:
    """(length, length): Gaussian of sigma `radius`, size max(3, int(4 radius)) made odd, zero padding."""
    size = max(3, int(4 * radius))
    size += 1 - size % 2
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    window = torch.exp(-(offset**2) / (2 * radius**2))
    return _bands(window / window.sum(), length, size // 2).to(device)


def _bands(window: Tensor, length: int, padding: int) -> Tensor:
    """The matrix M for which x @ M correlates rows of x, zero padded on both sides, with `window`."""
    padded = torch.nn.functional.pad(torch.eye(length, dtype=torch.float64), (padding, padding))
    return padded.unfold(1, len(window), 1).matmul(window).float()


def _strips(bands: Tensor, margin: int) -> Iterator[tuple[slice, slice]]:
    """The rows and columns of a banded matrix that hold everything but zeros, a strip of columns at a time."""
    length, outputs = bands.shape
    for start in range(0, outputs, STRIP):
        stop = min(start + STRIP, outputs)
        yield slice(start + margin, stop + length - outputs - margin), slice(start, stop)


class _AlongRows(torch.autograd.Function):
    """(R, L) @ bands, leaving out the zeros: a blur then costs what its pixels cost."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bands: Tensor, margin: int) -> Tensor:
        ctx.bands, ctx.margin = bands, margin
        out = x.new_empty(x.shape[0], bands.shape[1])
        for rows, columns in _strips(bands, margin):
            torch.mm(x[:, rows], bands[rows, columns], out=out[:, columns])
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        result = gradient.new_zeros(gradient.shape[0], ctx.bands.shape[0])
        for rows, columns in _strips(ctx.bands, ctx.margin):
            result[:, rows].addmm_(gradient[:, columns], ctx.bands[rows, columns].t())
        return result, None, None


class _AlongColumns(torch.autograd.Function):
    """bands.t() @ each (L, W) of (K, L, W), leaving out the zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bands: Tensor, margin: int) -> Tensor:
        ctx.bands, ctx.margin = bands, margin
        count, _, width = x.shape
        out = x.new_empty(count, bands.shape[1], width)
        for rows, columns in _strips(bands, margin):
            torch.bmm(bands[rows, columns].t().expand(count, -1, -1), x[:, rows], out=out[:, columns])
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        count, _, width = gradient.shape
        result = gradient.new_zeros(count, ctx.bands.shape[0], width)
        for rows, columns in _strips(ctx.bands, ctx.margin):
            result[:, rows].baddbmm_(ctx.bands[rows, columns].expand(count, -1, -1), gradient[:, columns])
        return result, None, None


def _blur_valid(x: Tensor, size: int) -> Tensor:
    """(N, C, H, W) -> (N, C, H - size + 1, W - size + 1): DSSIM's window at every place where it fits."""
    n, c, h, w = x.shape
    wide = _AlongRows.apply(x.reshape(-1, w), *_valid_bands(w, size, x.device))
    blurred: Tensor = _AlongColumns.apply(wide.view(n * c, h, -1), *_valid_bands(h, size, x.device))
    return blurred.view(n, c, h - size + 1, w - size + 1)


def gaussian_blur(x: Tensor, radius: float) -> Tensor:
    """Blur of sigma `radius` pixels with zeros beyond the border; radius 0 is no blur. Source: DFL."""
    if radius <= 0:
        return x
    height, width = x.shape[2:]
    return _same_bands(height, radius, x.device).t() @ x @ _same_bands(width, radius, x.device)


def dssim(a: Tensor, b: Tensor, size: int) -> Tensor:
    """(1 - SSIM) / 2 per sample and channel, (N, C), over a Gaussian window of `size` pixels, sigma 1.5, valid
    positions only (Wang et al. 2004, as DFL computes it). Gradients flow into `b`; into `a` too if it wants them."""
    n = a.shape[0]
    a, b = a - 0.5, b - 0.5  # variances do not care, and their subtractions cancel ten times less
    mean_a = _blur_valid(a, size)
    maps = _blur_valid(torch.cat((b, a * b, a * a + b * b)), size)
    mean_b, mean_ab, mean_squares = maps[:n], maps[n : 2 * n], maps[2 * n :]
    product = 2 * mean_a * mean_b
    squares = mean_a.square() + mean_b.square()
    # (2xy + C1) / (x^2 + y^2 + C1) of the true means x = mean_a + 0.5 and y = mean_b + 0.5
    luminance = 1 - (mean_a - mean_b).square() / (squares + mean_a + mean_b + (0.5 + C1))
    contrast = (2 * mean_ab - product + C2) / (mean_squares - squares + C2)
    return (1 - (luminance * contrast).mean((2, 3))) / 2


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference per sample."""
    return (a - b).square().mean((1, 2, 3))


def image_loss(target: Tensor, drawn: Tensor, resolution: int) -> Tensor:
    """DFL's image term: 10 DSSIM (from 256 px on at two scales, 5 each) + 10 mean squares.

    resolution: the model's, which sets the windows."""
    if resolution < 256:
        structure = 10 * dssim(target, drawn, int(resolution / 11.6)).mean(1)
    else:
        structure = 5 * dssim(target, drawn, int(resolution / 11.6)).mean(1)
        structure = structure + 5 * dssim(target, drawn, int(resolution / 23.2)).mean(1)
    return structure + 10 * mean_square(target, drawn)


def eyes_mouth_loss(target: Tensor, drawn: Tensor, mask_em: Tensor) -> Tensor:
    """DFL's eyes and mouth priority: 300 times the mean absolute difference inside the eyes+mouth mask."""
    return 300 * (target * mask_em - drawn * mask_em).abs().mean((1, 2, 3))


def mask_loss(mask: Tensor, drawn: Tensor) -> Tensor:
    """DFL's mask term: 10 mean squares."""
    return 10 * mean_square(mask, drawn)


@torch.no_grad()
def mask_blur(mask: Tensor, resolution: int) -> Tensor:
    """The soft mask of masked training: grown and blurred outwards, full inside the face. [0, 1]"""
    return gaussian_blur(mask, max(1, resolution // 32)).clamp(0, 0.5) * 2


@torch.no_grad()
def blur_out_mask(target: Tensor, mask: Tensor, resolution: int) -> Tensor:
    """The target with what lies outside the mask replaced by a blur of it that takes nothing from inside."""
    sigma = resolution / 128
    outside = 1 - mask
    spread = gaussian_blur(target * outside, sigma)
    weight = 1 - gaussian_blur(mask, sigma)
    weight = torch.where(weight == 0, torch.ones_like(weight), weight)
    return target * mask + spread / weight * outside
