"""DeepFaceLab's training losses. Every loss returns one value per sample, shape (N,); the caller reduces.

Notable choices:
- A Gaussian window is the outer product of two vectors, so every blur is two products with banded matrices: exact at
  any radius and fast on every device. DSSIM's skip the zeros, and its gradient comes with its value.
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


def _blur_valid(x: Tensor, size: int) -> Tensor:
    """(K, H, W) -> (K, H - size + 1, W - size + 1): DSSIM's window at every place where it fits."""
    count, height, width = x.shape
    bands, margin = _valid_bands(width, size, x.device)
    bands = bands.to(x.dtype)
    wide = x.new_empty(count * height, width - size + 1)
    for rows, columns in _strips(bands, margin):
        torch.mm(x.reshape(-1, width)[:, rows], bands[rows, columns], out=wide[:, columns])
    wide = wide.view(count, height, -1)
    bands, margin = _valid_bands(height, size, x.device)
    bands = bands.to(x.dtype)
    out = x.new_empty(count, height - size + 1, width - size + 1)
    for rows, columns in _strips(bands, margin):
        torch.bmm(bands[rows, columns].t().expand(count, -1, -1), wide[:, rows], out=out[:, columns])
    return out


def _spread(x: Tensor, size: int) -> Tensor:
    """The transpose of `_blur_valid`: (K, H', W') -> (K, H' + size - 1, W' + size - 1)."""
    count, height, width = x.shape
    bands, margin = _valid_bands(height + size - 1, size, x.device)
    bands = bands.to(x.dtype)
    high = x.new_zeros(count, height + size - 1, width)
    for rows, columns in _strips(bands, margin):
        high[:, rows].baddbmm_(bands[rows, columns].expand(count, -1, -1), x[:, columns])
    bands, margin = _valid_bands(width + size - 1, size, x.device)
    bands = bands.to(x.dtype)
    out = x.new_zeros(count * (height + size - 1), width + size - 1)
    for rows, columns in _strips(bands, margin):
        out[:, rows].addmm_(high.view(-1, width)[:, columns], bands[rows, columns].t())
    return out.view(count, height + size - 1, width + size - 1)


def local_means(a: Tensor, b: Tensor, size: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Of images (N, C, H, W): the planes a, b, ab and a^2 + b^2, (4, N * C, H, W), and the means of each around every
    pixel, by a Gaussian window of `size` pixels that lies inside.

    Images lose 0.5 first: variances do not care, and their subtractions then cancel ten times less.
    """
    n, c, h, w = b.shape
    planes = b.new_empty(4, n * c, h, w)
    a_, b_, ab, squares = planes
    torch.sub(a.reshape(-1, h, w), 0.5, out=a_)
    torch.sub(b.reshape(-1, h, w), 0.5, out=b_)
    torch.mul(a_, b_, out=ab)
    torch.mul(a_, a_, out=squares).addcmul_(b_, b_)
    return planes, _blur_valid(planes.view(-1, h, w), size).chunk(4)


class _Dssim(torch.autograd.Function):
    """DSSIM and, in the same pass over its maps, its gradient: a plane's value is one number, so backward scales it."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, size: int) -> Tensor:
        n, c, h, w = b.shape
        (a_, b_, *_), (mean_a, mean_b, mean_ab, mean_squares) = local_means(a, b, size)
        # contrast = (2 mean_ab - 2 mean_a mean_b + C2) / (mean_squares - mean_a^2 - mean_b^2 + C2)
        square_sum = (mean_a * mean_a).addcmul_(mean_b, mean_b)
        contrast = mean_ab.addcmul_(mean_a, mean_b, value=-1).mul_(2).add_(C2)
        divisor = mean_squares.sub_(square_sum).add_(C2)
        contrast.div_(divisor)
        # luminance = (2xy + C1) / (x^2 + y^2 + C1) of the true means x, y = mean + 0.5, as 1 - (x - y)^2 / (...)
        brightness = square_sum.add_(mean_a).add_(mean_b).add_(0.5 + C1)
        difference = mean_a - mean_b
        loss = (difference * difference).div_(brightness)
        luminance = 1 - loss
        value = (1 - (luminance * contrast).mean((1, 2))) / 2
        if ctx.needs_input_grad[1]:
            share = luminance.div_(divisor)
            gradient = torch.empty((3, *share.shape), dtype=share.dtype, device=share.device)
            torch.mul(share, contrast, out=gradient[2]).neg_()  # of mean_squares
            torch.mul(share, 2, out=gradient[1])  # of mean_ab
            by_mean = difference.mul_(2).addcmul_(loss, mean_b, value=2).add_(loss).div_(brightness).mul_(contrast)
            by_mean.addcmul_(gradient[1], mean_a, value=-1).addcmul_(gradient[2], mean_b, value=-2)
            gradient[0] = by_mean
            spread = _spread(gradient.view(-1, *share.shape[1:]), size).view(3, n * c, h, w)
            result = spread[0].addcmul_(spread[1], a_).addcmul_(spread[2], b_, value=2)
            ctx.save_for_backward(result.mul_(-0.5 / share[0].numel()).view(b.shape))
        return value.view(n, c)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        (slope,) = ctx.saved_tensors
        return None, slope * gradient[:, :, None, None], None


def gaussian_blur(x: Tensor, radius: float) -> Tensor:
    """Blur of sigma `radius` pixels with zeros beyond the border; radius 0 is no blur. Source: DFL."""
    if radius <= 0:
        return x
    height, width = x.shape[2:]
    return _same_bands(height, radius, x.device).t() @ x @ _same_bands(width, radius, x.device)


def dssim(a: Tensor, b: Tensor, size: int) -> Tensor:
    """(1 - SSIM) / 2 per sample and channel, (N, C), over a Gaussian window of `size` pixels, sigma 1.5, valid
    positions only (Wang et al. 2004, as DFL computes it). Gradients flow into `b` only: `a` is the target."""
    if a.requires_grad:
        raise ValueError("dssim: the first image is the target and cannot have a gradient; swap the two")
    value: Tensor = _Dssim.apply(a, b, size)
    return value


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference per sample."""
    return (a - b).square().mean((1, 2, 3))


def image_loss(target: Tensor, drawn: Tensor, resolution: int, both_scales: bool = False) -> Tensor:
    """DFL's image term: 10 DSSIM (from 256 px on at two scales, 5 each) + 10 mean squares.

    resolution: the model's, which sets the windows. both_scales: two below 256 px too (AMP)."""
    if resolution < 256 and not both_scales:
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


def style_loss(target: Tensor, drawn: Tensor, radius: float, weight: float) -> Tensor:
    """Distance of the channels' means and standard deviations over space, both images blurred by `radius` before
    (Huang and Belongie 2017, as DFL computes it)."""
    target, drawn = gaussian_blur(target, radius), gaussian_blur(drawn, radius)
    total = drawn.new_zeros(len(drawn))
    for moment in (lambda x: x.mean((2, 3)), lambda x: (x.var((2, 3), correction=0) + 1e-5).sqrt()):
        total = total + (moment(drawn) - moment(target)).square().mean(1)
    return total * weight


def total_variation(x: Tensor) -> Tensor:
    """Sum of squared differences of neighbours in rows and columns (DFL on NHWC arrays)."""
    down, right = x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]
    return down.square().sum((1, 2, 3)) + right.square().sum((1, 2, 3))


def logits_loss(logits: Tensor, real: bool) -> Tensor:
    """Sigmoid cross entropy of a discriminator's map with all ones (real) or all zeros, averaged over the map."""
    return torch.nn.functional.softplus(-logits if real else logits).mean((1, 2, 3))
