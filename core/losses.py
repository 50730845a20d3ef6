"""DeepFaceLab's training losses. Every loss returns one value per sample, shape (N,); the caller reduces.

Notable choices:
- A Gaussian window is the outer product of two vectors, so every blur is two products with banded matrices: exact at
  any radius, fast on every device, and differentiable without code of ours.
- Images are (N, C, H, W) in [0, 1], any memory layout; whatever the net runs in, losses run in float32.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

C1, C2 = 0.01**2, 0.03**2  # SSIM's constants (Wang et al. 2004) for a dynamic range of 1


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept for later calls that may need gradients
def _valid_bands(length: int, size: int, device: torch.device) -> Tensor:
    """(length, length - size + 1): DSSIM's window, sigma 1.5 about (size-1)/2, moved over `length` pixels."""
    offset = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return _bands(torch.softmax(-(offset**2) / (2 * 1.5**2), 0), length, 0).to(device)


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


def _blur(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H', W'): x with its rows multiplied by (W, W') and its columns by (H, H')."""
    n, c, h, w = x.shape
    wide = (x.reshape(-1, w) @ rows).view(n * c, h, -1)
    return torch.matmul(columns.t(), wide).view(n, c, columns.shape[1], rows.shape[1])


def gaussian_blur(x: Tensor, radius: float) -> Tensor:
    """Blur of sigma `radius` pixels with zeros beyond the border; radius 0 is no blur. Source: DFL."""
    if radius <= 0:
        return x
    height, width = x.shape[2:]
    return _blur(x, _same_bands(width, radius, x.device), _same_bands(height, radius, x.device))


def dssim(a: Tensor, b: Tensor, size: int) -> Tensor:
    """(1 - SSIM) / 2 per sample and channel, (N, C), over a Gaussian window of `size` pixels, sigma 1.5, valid
    positions only (Wang et al. 2004, as DFL computes it). Gradients flow into `b`; into `a` too if it wants them."""
    n = a.shape[0]
    height, width = a.shape[2:]
    rows, columns = _valid_bands(width, size, a.device), _valid_bands(height, size, a.device)
    a, b = a - 0.5, b - 0.5  # variances do not care, and their subtractions cancel ten times less
    mean_a = _blur(a, rows, columns)
    maps = _blur(torch.cat((b, a * b, a * a + b * b)), rows, columns)
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
