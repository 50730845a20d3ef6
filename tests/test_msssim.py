"""MS-SSIM and its mixture with L1 against a plain reimplementation of the papers' formulas in numpy."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from small_models import random_batch, small

from core import losses, msssim

Picture = np.ndarray[Any, np.dtype[np.float64]]

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SCALES = {64: 3, 96: 4, 128: 4, 176: 5, 256: 5}


def window(size: int, sigma: float) -> Picture:
    """(size, size), a Gaussian that adds up to 1."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    weights = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum())


def filtered(image: Picture, weights: Picture) -> Picture:
    """At every place where the window fits."""
    size = len(weights)
    height, width = (length - size + 1 for length in image.shape)
    out = np.zeros((height, width))
    for dy in range(size):
        for dx in range(size):
            out += weights[dy, dx] * image[dy : dy + height, dx : dx + width]
    return out


def halved(image: Picture) -> Picture:
    """Means of 2 x 2 pixels; an odd last row or column is left out."""
    height, width = (length // 2 * 2 for length in image.shape)
    rows = image[0:height:2, :width] + image[1:height:2, :width]
    return np.asarray((rows[:, 0::2] + rows[:, 1::2]) / 4)


def slow_ms_ssim(a: Picture, b: Picture, scales: int) -> float:
    """Of one channel (Wang et al. 2003), powers renormalised to the scales."""
    c1, c2, weights, result = 0.01**2, 0.03**2, window(11, 1.5), 1.0
    for scale in range(scales):
        mean_a, mean_b = filtered(a, weights), filtered(b, weights)
        var_a, var_b = filtered(a * a, weights) - mean_a**2, filtered(b * b, weights) - mean_b**2
        compared = (2 * (filtered(a * b, weights) - mean_a * mean_b) + c2) / (var_a + var_b + c2)
        if scale == scales - 1:
            compared = compared * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        result *= max(float(compared.mean()), 1e-3) ** (WEIGHTS[scale] / sum(WEIGHTS[:scales]))
        a, b = (halved(x) for x in (a, b))
    return result


def slow_l1(a: Picture, b: Picture, scales: int) -> float:
    """Of one channel: the absolute difference seen through the coarsest scale's Gaussian (Zhao et al. 2016)."""
    sigma = 1.5 * 2 ** (scales - 1)
    size = int(4 * sigma) // 2 * 2 + 1
    return float(filtered(np.pad(np.abs(a - b), size // 2), window(size, sigma)).mean())


def pair(side: int, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Two samples of something like a face, and of a drawing that is not quite it."""
    generator = torch.Generator().manual_seed(side)
    a = losses.gaussian_blur(torch.rand(2, channels, side, side, generator=generator), side / 40)
    a = (a - a.amin()) / (a.amax() - a.amin())
    noise = torch.rand(2, channels, side, side, generator=generator)
    return a, (0.8 * losses.gaussian_blur(a, 1) + 0.15 * noise).clamp(0, 1)


@pytest.mark.parametrize("side", [64, 96, 176])
def test_values_are_the_papers(side: int) -> None:
    a, b = pair(side, 1 if side == 176 else 3)
    ours, mixed = msssim.ms_ssim_loss(a, b), msssim.ms_ssim_l1_loss(a, b)
    for sample in range(2):
        planes = list(zip(a[sample].double().numpy(), b[sample].double().numpy(), strict=True))
        slow = [1 - slow_ms_ssim(*both, SCALES[side]) for both in planes]
        assert ours[sample].tolist() == pytest.approx(slow, abs=2e-5)
        blunt = np.mean([slow_l1(*both, SCALES[side]) for both in planes])
        assert mixed[sample].item() == pytest.approx(0.84 * np.mean(slow) + 0.16 * blunt, abs=2e-5)


@pytest.mark.parametrize(("side", "scales"), SCALES.items())
def test_scales_that_fit(side: int, scales: int) -> None:
    powers = msssim.powers(side)
    assert len(powers) == scales and sum(powers) == pytest.approx(1)
    assert powers[1] / powers[0] == pytest.approx(WEIGHTS[1] / WEIGHTS[0])


def test_a_picture_smaller_than_the_window_is_refused() -> None:
    assert msssim.powers(11) == (1.0,)
    with pytest.raises(ValueError, match="got a picture of 10 px, allowed are 11 and more"):
        msssim.ms_ssim_loss(torch.rand(1, 3, 10, 64), torch.rand(1, 3, 10, 64))
    with pytest.raises(ValueError, match="cannot have a gradient"):
        msssim.ms_ssim_loss(torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="loss_function: got 'ssim'"):
        msssim.image_loss("ssim", *pair(64), 64)


@pytest.mark.parametrize("function", ["MS-SSIM", "MS-SSIM+L1"])
@pytest.mark.parametrize("side", [64, 112])
def test_equal_pictures_lose_nothing(function: str, side: int) -> None:
    a, b = pair(side)
    assert msssim.image_loss(function, a, a.clone(), side).abs().max() < 1e-4
    value = msssim.image_loss(function, a, b, side)
    assert value.shape == (2,) and value.min() > 0.1
    last = msssim.image_loss(function, *(x.to(memory_format=torch.channels_last) for x in (a, b)), side)
    torch.testing.assert_close(last, value)


def test_ssim_is_the_loss_of_before() -> None:
    a, b = pair(64)
    for both_scales in (False, True):
        assert torch.equal(
            msssim.image_loss("SSIM", a, b, 64, both_scales), losses.image_loss(a, b, 64, both_scales)
        )


@pytest.mark.parametrize("shape", [(23, 24), (11, 13)])
def test_gradients_are_those_of_the_values(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(1, 2, *shape, generator=generator, dtype=torch.float64)
    b = (0.7 * a + 0.3 * torch.rand(a.shape, generator=generator, dtype=torch.float64)).requires_grad_()
    for loss in (msssim.ms_ssim_loss, msssim.ms_ssim_l1_loss):
        assert torch.autograd.gradcheck(partial(loss, a), b, fast_mode=True)


@pytest.mark.parametrize("function", ["MS-SSIM", "MS-SSIM+L1"])
def test_gradients_stay_finite_whatever_is_drawn(function: str) -> None:
    a, _ = pair(64)
    black, noise = torch.zeros_like(a), torch.rand(a.shape, generator=torch.Generator().manual_seed(2))
    for drawn in (black, black + 1, 1 - a, noise, a.clone(), noise * 1e-4):
        drawn = drawn.clone().requires_grad_()
        value = msssim.image_loss(function, a, drawn, 64)
        value.sum().backward()
        assert value.isfinite().all() and drawn.grad is not None and drawn.grad.isfinite().all()


@pytest.mark.parametrize("function", ["MS-SSIM", "MS-SSIM+L1"])
def test_it_can_be_learned_from_anything(function: str) -> None:
    """Also from the negative of the picture, whose structure is the opposite one."""
    a, _ = pair(64)
    drawn = (1 - a).requires_grad_()
    optimizer = torch.optim.Adam([drawn], lr=0.02)
    values = []
    for _ in range(80):
        optimizer.zero_grad()
        total = msssim.image_loss(function, a, drawn, 64).sum()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert values[-1] < 0.1 * values[0]


@pytest.mark.parametrize("name", ["SAEHD", "SAEHDBW", "AMP"])
def test_models_train_by_it(name: str) -> None:
    task = small(name)
    batch = random_batch(task)
    values = {"SSIM": task.step(batch)["dst_loss"].item()}
    for function in ("MS-SSIM", "MS-SSIM+L1"):
        task = small(name, loss_function=function)
        values[function] = task.step(batch)["dst_loss"].item()
        assert all(weight.isfinite().all() for weight in task.net.parameters())  # type: ignore[attr-defined]
    assert len(set(values.values())) == 3 and min(values.values()) > 0
