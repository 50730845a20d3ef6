"""Losses against DFL's recordings and against their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from core import losses


def nchw(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def check_blurs(recorded: np.lib.npyio.NpzFile) -> None:
    for name in recorded.files:
        if name.startswith("y"):
            image, radius = recorded["m" if name.startswith("ym") else "x"], float(name.partition("_r")[2])
            drawn = losses.gaussian_blur(nchw(image), radius).numpy().transpose(0, 2, 3, 1)
            assert np.abs(drawn - recorded[name]).max() < 2e-5 * np.abs(recorded[name]).max(), name


def check_dssim(recorded: np.lib.npyio.NpzFile, size: int) -> None:
    a, b = (nchw(recorded[f"{letter}_{size}"].astype(np.float32) / 255) for letter in "ab")
    for name in recorded.files:
        if name.startswith(f"dssim_{size}_fs"):
            # DFL's own float32 window is up to 2e-5 off the exact value; ours is 5e-7 off.
            np.testing.assert_allclose(losses.dssim(a, b, int(name.split("_fs")[1])), recorded[name], rtol=3e-5)
    two = 5 * losses.dssim(a, b.requires_grad_(), int(size / 11.6)).mean(1)
    two = two + 5 * losses.dssim(a, b, int(size / 23.2)).mean(1)
    np.testing.assert_allclose(two.detach(), recorded[f"saehd_two_scale_{size}"], rtol=2e-5)
    expected = recorded[f"grad_b_two_scale_{size}"]
    if expected.size:
        two.sum().backward()
        assert b.grad is not None
        difference = b.grad - nchw(expected)
        assert difference.norm() < 5e-5 * np.linalg.norm(expected)


def test_gaussian_blur(golden: Path) -> None:
    check_blurs(np.load(golden / "ops" / "gaussian_blur.npz"))


def test_dssim(golden: Path) -> None:
    check_dssim(np.load(golden / "ops" / "dssim.npz"), 64)


def test_every_recorded_blur_and_dssim(shared: Path) -> None:
    check_blurs(np.load(shared / "golden" / "ops" / "gaussian_blur.npz"))
    for size in (64, 96, 128, 256):
        check_dssim(np.load(shared / "golden" / "ops" / "dssim.npz"), size)


@pytest.mark.parametrize("size", [2, 5, 8])
def test_dssim_is_the_textbook_formula(size: int) -> None:
    """A plain two-dimensional window in float64, its gradient by autograd."""
    a, b = random(2, 3, 24, 90).double(), random(2, 3, 24, 90, seed=1).double().requires_grad_()
    offset = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    window = torch.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / 4.5)
    window = (window / window.sum()).expand(3, 1, size, size)
    ea, eb, eab, ess = (F.conv2d(x, window, groups=3) for x in (a, b, a * b, a * a + b * b))
    luminance = (2 * ea * eb + 1e-4) / (ea**2 + eb**2 + 1e-4)
    contrast = (2 * eab - 2 * ea * eb + 9e-4) / (ess - ea**2 - eb**2 + 9e-4)
    expected = (1 - (luminance * contrast).mean((2, 3))) / 2
    weights = random(2, 3, seed=2).double()
    (slope,) = torch.autograd.grad((expected * weights).sum(), b)
    for dtype, tolerance in ((torch.float64, 1e-7), (torch.float32, 1e-5)):
        drawn = b.detach().to(dtype).requires_grad_()
        value = losses.dssim(a.to(dtype), drawn, size)
        torch.testing.assert_close(value.double(), expected, rtol=tolerance, atol=tolerance)
        (ours,) = torch.autograd.grad((value * weights.to(dtype)).sum(), drawn)
        assert (ours - slope).norm() < tolerance * slope.norm()


def test_losses_are_per_sample_and_zero_for_a_perfect_drawing() -> None:
    image, mask = random(3, 3, 64, 64), random(3, 1, 64, 64, seed=2)
    for resolution in (64, 256):
        assert losses.image_loss(image, image, resolution).abs().max() < 1e-5
    assert torch.equal(losses.mask_loss(mask, mask), torch.zeros(3))
    assert torch.equal(losses.eyes_mouth_loss(image, image, mask), torch.zeros(3))
    worse = image.clone()
    worse[1] = 1 - worse[1]
    value = losses.image_loss(image, worse, 64)
    assert value.shape == (3,)
    assert value[1] > 1
    assert value[[0, 2]].max() < 1e-5


def test_two_scales_from_256_pixels_on() -> None:
    a, b = random(1, 3, 256, 256), random(1, 3, 256, 256, seed=1)
    square = 10 * (a - b).square().mean((1, 2, 3))
    fine, coarse = losses.dssim(a, b, 22).mean(1), losses.dssim(a, b, 11).mean(1)
    torch.testing.assert_close(losses.image_loss(a, b, 256), 5 * fine + 5 * coarse + square)
    torch.testing.assert_close(losses.image_loss(a, b, 255), 10 * losses.dssim(a, b, 21).mean(1) + square)


def test_mask_blur_is_full_inside_and_never_above_one() -> None:
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 40:90, 30:100] = 1
    soft = losses.mask_blur(mask, 128)
    assert soft.max() == 1
    assert soft[0, 0, 43:87, 33:97].min() > 0.99
    assert 0 < soft[0, 0, 60, 27] < 1, "blurred outwards"
    assert soft[0, 0, 5, 5] == 0


def test_blur_out_mask_keeps_the_inside_and_takes_nothing_from_it() -> None:
    target, mask = random(1, 3, 128, 128), torch.zeros(1, 1, 128, 128)
    mask[..., 40:90, 30:100] = 1
    result = losses.blur_out_mask(target, mask, 128)
    inside = mask.expand_as(target) == 1
    assert torch.equal(result[inside], target[inside])
    changed = target.clone()
    changed[inside] = 0
    torch.testing.assert_close(losses.blur_out_mask(changed, mask, 128)[~inside], result[~inside])


def test_losses_read_any_memory_layout() -> None:
    a, b = random(2, 3, 64, 64), random(2, 3, 64, 64, seed=1)
    last = losses.image_loss(a.to(memory_format=torch.channels_last), b.to(memory_format=torch.channels_last), 64)
    torch.testing.assert_close(last, losses.image_loss(a, b, 64))


def test_a_window_made_without_gradients_serves_a_later_backward_pass() -> None:
    a, b = random(1, 3, 71, 71), random(1, 3, 71, 71, seed=1)
    with torch.inference_mode():
        losses.image_loss(a, b, 71)
    losses.image_loss(a, b.requires_grad_(), 71).sum().backward()
    assert b.grad is not None
