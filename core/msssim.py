"""MS-SSIM (Wang, Simoncelli and Bovik 2003) as a loss, alone and mixed with L1 (Zhao et al. 2016).

Notable choices:
- Contrast and structure are compared at every scale, luminance at the coarsest alone; scales on which the window does
  not fit are left out and the powers of the others brought to a sum of 1 (the fork MVE), so 64 px have three scales.
- A power below 1 of a number near 0 has no bound on its slope, and of a negative one no value. So a scale counts as
  LEAST at least; below that it has no gradient, and the others, and the L1 or the squares beside it, pull it up.
- As in `core.losses`, windows are products with banded matrices and a map's gradient comes with its value.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from core import losses
from core.losses import C2, _same_bands, _spread, dssim

WINDOW = 11
POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, the finest first (Wang et al. 2003)."""
LEAST = 1e-3
MIX = 0.84
"""How much of the mixed loss is MS-SSIM's (Zhao et al. 2016); the rest is L1's."""


class _Contrast(torch.autograd.Function):
    """Mean over space of SSIM's contrast and structure, (N, C), with its gradient, as `losses._Dssim`."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        n, c, h, w = b.shape
        (a_, b_, *_), (mean_a, mean_b, mean_ab, mean_squares) = losses.local_means(a, b, WINDOW)
        contrast = mean_ab.addcmul_(mean_a, mean_b, value=-1).mul_(2).add_(C2)
        divisor = mean_squares.addcmul_(mean_a, mean_a, value=-1).addcmul_(mean_b, mean_b, value=-1).add_(C2)
        contrast.div_(divisor)
        if ctx.needs_input_grad[1]:
            gradient = torch.empty((3, *contrast.shape), dtype=contrast.dtype, device=contrast.device)
            torch.reciprocal(divisor, out=divisor)
            torch.mul(contrast, divisor, out=gradient[2]).neg_()  # of mean_squares
            torch.mul(divisor, 2, out=gradient[1])  # of mean_ab
            torch.mul(gradient[1], mean_a, out=gradient[0]).neg_().addcmul_(gradient[2], mean_b, value=-2)
            spread = _spread(gradient.view(-1, *contrast.shape[1:]), WINDOW).view(3, n * c, h, w)
            result = spread[0].addcmul_(spread[1], a_).addcmul_(spread[2], b_, value=2)
            ctx.save_for_backward(result.mul_(1 / contrast[0].numel()).view(b.shape))
        return contrast.mean((1, 2)).view(n, c)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (slope,) = ctx.saved_tensors
        return None, slope * gradient[:, :, None, None]


def powers(side: int) -> tuple[float, ...]:
    """The powers of the scales on which the window fits, for pictures whose shorter side is `side`; they sum up to 1.
    Raises ValueError where it fits on none."""
    fitting = [power for scale, power in enumerate(POWERS) if side >> scale >= WINDOW]
    if not fitting:
        raise ValueError(f"MS-SSIM: got a picture of {side} px, allowed are {WINDOW} and more.")
    return tuple(power / sum(fitting) for power in fitting)


def ms_ssim_loss(a: Tensor, b: Tensor) -> Tensor:
    """1 - MS-SSIM per sample and channel, (N, C): 0 for equal pictures, below 1. Gradients flow into `b` only: `a` is
    the target, (N, C, H, W) in [0, 1] like b. Raises ValueError for pictures smaller than the window."""
    if a.requires_grad:
        raise ValueError("ms_ssim_loss: the first image is the target and cannot have a gradient; swap the two")
    *upper, last = powers(min(b.shape[2:]))
    product: Tensor | None = None
    for power in upper:
        like: Tensor = _Contrast.apply(a, b).clamp(LEAST, 1) ** power
        product = like if product is None else product * like
        a, b = (torch.nn.functional.avg_pool2d(image, 2) for image in (a, b))
    like = (1 - 2 * dssim(a, b, WINDOW)).clamp(LEAST, 1) ** last
    return 1 - (like if product is None else product * like)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept for later calls that may need gradients
def _central(height: int, width: int, device: torch.device) -> Tensor:
    """(height, width): how much of the windows of the coarsest scale, a Gaussian about every pixel, falls on each."""
    sigma = 1.5 * 2 ** (len(powers(min(height, width))) - 1)
    rows, columns = (_same_bands(length, sigma, device).sum(1) for length in (height, width))
    return torch.outer(rows, columns)


def gaussian_l1(a: Tensor, b: Tensor) -> Tensor:
    """(N,): mean absolute difference in Gaussian windows as wide as the coarsest scale's, about every pixel. Windows
    see zeros beyond the border, so what lies there counts less: half at an edge, a quarter in a corner."""
    return ((a - b).abs() * _central(*b.shape[2:], b.device)).mean((1, 2, 3))


def image_loss(function: str, target: Tensor, drawn: Tensor, resolution: int, both_scales: bool = False) -> Tensor:
    """(N,): the image term by the loss function of the option `loss_function`, 10 of each share. The other arguments as
    `losses.image_loss`, which is SSIM's. Raises ValueError for another function."""
    if function == "SSIM":
        return losses.image_loss(target, drawn, resolution, both_scales)
    if function == "MS-SSIM":
        return 10 * ms_ssim_loss(target, drawn).mean(1) + 10 * losses.mean_square(target, drawn)
    if function == "MS-SSIM+L1":
        return 10 * ms_ssim_l1_loss(target, drawn)
    raise ValueError(f"loss_function: got {function!r}, allowed is SSIM / MS-SSIM / MS-SSIM+L1.")


def ms_ssim_l1_loss(a: Tensor, b: Tensor) -> Tensor:
    """(N,): 0.84 MS-SSIM loss + 0.16 L1 in Gaussian windows (Zhao et al. 2016). Arguments as `ms_ssim_loss`."""
    return MIX * ms_ssim_loss(a, b).mean(1) + (1 - MIX) * gaussian_l1(a, b)
