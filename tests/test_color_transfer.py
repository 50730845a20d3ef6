"""Colour transfer and HSV shift, against DFL's recordings, plain versions of the same formulas, and what they mean."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from core.imagelib import color
from core.imagelib import color_transfer as ct
from core.imagelib.bilateral import wide_bilateral

EDGES = [(1, 1), (1, 2), (7, 5), (70, 66)]


def smooth(seed: int, size: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """(size, size, 3) float32: blurred noise between low and high, hardly two pixels alike."""
    coarse = np.random.default_rng(seed).uniform(0.15, 0.85, (6, 6, 3)).astype(np.float32)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    image += np.random.default_rng(seed + 1).normal(0, 0.02, image.shape).astype(np.float32)
    return np.clip(image, 0, 1) * np.float32(high - low) + np.float32(low)


def transferred(mode: str, image: np.ndarray, reference: np.ndarray, seed: int = 0) -> np.ndarray:
    return ct.apply(mode, image, reference, ct.draw(mode, np.random.RandomState(seed)))


@pytest.mark.parametrize(
    ("mode", "tolerance"), [("rct", 1e-5), ("lct", 1e-5), ("mkl", 1e-5), ("idt", 2e-4), ("sot", 2e-4)]
)
def test_the_recorded_transfers(shared: Path, mode: str, tolerance: float) -> None:
    recorded = np.load(shared / "golden" / "samples" / "color_transfer.npz")
    params = recorded[{"idt": "idt_rotations", "sot": "sot_dirs"}[mode]] if mode in ("idt", "sot") else None
    made = ct.apply(mode, recorded["src"], recorded["trg"], params)
    assert np.abs(made - recorded[mode]).max() < tolerance


def plain_idt(image: np.ndarray, reference: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """The formula with numpy's own histogram and interpolation."""
    pixels, wanted = image.reshape(-1, 3).T, reference.reshape(-1, 3).T
    for rotation in rotations:
        rows, others = rotation @ pixels, rotation @ wanted
        moved = np.empty_like(rows)
        for axis in range(3):
            both = np.concatenate([rows[axis], others[axis]])
            limits = (both.min(), both.max())
            have, edges = np.histogram(rows[axis], 256, limits)
            want = np.histogram(others[axis], 256, limits)[0]
            ends = np.interp(have.cumsum() / have.sum(), want.cumsum() / want.sum(), edges[1:])
            moved[axis] = np.interp(rows[axis], edges[1:], ends, left=0, right=256)
        pixels = pixels + np.linalg.solve(rotation, moved - rows) / len(rotations)
    return np.clip(pixels.T.reshape(image.shape), 0, 1)


def plain_sot(image: np.ndarray, reference: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The formula with exact sorting and OpenCV's filter."""
    pixels, wanted = image.reshape(-1, 3).copy(), reference.reshape(-1, 3)
    for step in directions.reshape(10, 5, 3):
        moves = np.zeros_like(pixels)
        for direction in step:
            projected = pixels @ direction
            order = np.argsort(projected)
            moves[order] += (np.sort(wanted @ direction) - projected[order])[:, None] * direction
        pixels += moves / 5
    change = pixels.reshape(image.shape) - image
    return np.clip(image + cv2.bilateralFilter(change, 0, 5, 16), 0, 1)


@pytest.mark.parametrize("size", [40, 96])
def test_the_fast_ways_equal_the_plain_ones(size: int) -> None:
    image, reference = smooth(1, size), smooth(5, size, 0.2, 0.7)
    for mode, plain in (("idt", plain_idt), ("sot", plain_sot)):
        params = ct.draw(mode, np.random.RandomState(4))
        assert params is not None
        error = np.abs(ct.apply(mode, image, reference, params) - plain(image, reference, params))
        assert error.max() < 0.5 / 255 and error.mean() < 1e-4, mode


def test_rct_gives_the_means_and_spreads_of_lab() -> None:
    image, reference = smooth(1, 64, 0.2, 0.6), smooth(7, 64, 0.35, 0.6)
    made, wanted = (
        cv2.cvtColor(x, cv2.COLOR_BGR2LAB).reshape(-1, 3) for x in (transferred("rct", image, reference), reference)
    )
    assert np.allclose(made.mean(0), wanted.mean(0), atol=0.2)  # of 100; OpenCV's Lab there and back is 0.1 off
    assert np.allclose(made.std(0), wanted.std(0), atol=0.05)


@pytest.mark.parametrize("mode", ["lct", "mkl"])
def test_lct_and_mkl_give_mean_and_covariance(mode: str) -> None:
    image, reference = smooth(1, 64, 0.2, 0.6), smooth(7, 64, 0.35, 0.6)
    made, wanted = (x.reshape(-1, 3).T for x in (transferred(mode, image, reference), reference))
    assert np.allclose(made.mean(1), wanted.mean(1), atol=1e-4)
    assert np.allclose(np.cov(made), np.cov(wanted), atol=5e-5)


@pytest.mark.parametrize("mode", ct.MODES)
def test_every_mode_brings_the_colours_nearer_and_keeps_the_picture(mode: str) -> None:
    image, reference = smooth(1, 64, 0.1, 0.6), smooth(7, 64, 0.5, 0.9)
    made = transferred(mode, image, reference)

    def distance(x: np.ndarray) -> float:
        """Mean over channels of how far sorted values lie apart."""
        return float(np.abs(np.sort(x.reshape(-1, 3), 0) - np.sort(reference.reshape(-1, 3), 0)).mean())

    assert distance(made) < (0.4 if mode == "idt" else 0.1) * distance(image)  # idt: 0.95 to the 20th is left
    grey = [x.mean(2).ravel() for x in (image, made)]
    assert np.corrcoef(*grey)[0, 1] > 0.9


@pytest.mark.parametrize("mode", ct.MODES)
def test_a_picture_in_its_own_colours_stays(mode: str) -> None:
    image = smooth(1, 64, 0.1, 0.9)
    change = np.abs(transferred(mode, image, image) - image)
    assert change.mean() < 1e-3
    assert change.max() < 5e-3 or mode == "idt"  # DFL's idt moves what lies in the lowest bin


def edge_pictures(height: int, width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    black = np.zeros((height, width, 3), np.float32)
    half, dot = black.copy(), black.copy()
    half[:, : width // 2] = 1
    dot[0, 0] = (1, 0.5, 0.2)
    grey = np.repeat(rng.random((height, width, 1), dtype=np.float32), 3, 2)
    noise = rng.random((height, width, 3), dtype=np.float32)
    return [black, black + 1, black + np.float32((0.2, 0.5, 0.7)), half, dot, grey, noise, noise * np.float32(1e-37)]


@pytest.mark.parametrize("mode", ct.MODES)
def test_no_picture_leads_to_anything_but_numbers(mode: str) -> None:
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        for size in EDGES:
            pictures = edge_pictures(*size)
            for image in pictures:
                for reference in pictures:
                    made = transferred(mode, image, reference)
                    assert made.shape == image.shape and made.dtype == np.float32
                    assert np.isfinite(made).all() and made.min() >= 0 and made.max() <= 1


@pytest.mark.parametrize("mode", ["rct", "lct", "mkl", "sot"])
def test_one_colour_becomes_the_mean_of_the_reference(mode: str) -> None:
    """rct's is the mean in Lab. (idt leaves 0.36 of the way: 20 steps of 1/20.)"""
    reference = smooth(1, 64, 0.2, 0.8)
    wanted = reference.mean((0, 1))
    if mode == "rct":
        lab = cv2.cvtColor(reference, cv2.COLOR_BGR2LAB).mean((0, 1), keepdims=True)
        wanted = cv2.cvtColor(lab, cv2.COLOR_LAB2BGR)[0, 0]
    made = transferred(mode, np.full_like(reference, 0.4), reference)
    assert np.abs(made - wanted).max() < (0.03 if mode == "sot" else 1e-3)


def test_sot_gives_flat_parts_no_gradient() -> None:
    image, reference = smooth(1, 96), smooth(7, 96, 0.2, 0.9)
    image[48:] = 0
    made = transferred("sot", image, reference)[76:]  # farther from the picture than the filter reaches
    assert made.mean((1, 2)).std() < 0.01


def test_what_is_drawn() -> None:
    rng = np.random.RandomState(0)
    rotations = np.concatenate([ct.draw("idt", rng) for _ in range(150)])
    directions = np.concatenate([ct.draw("sot", rng) for _ in range(60)])
    assert rotations.shape == (3000, 3, 3) and directions.shape == (3000, 3)
    assert rotations.dtype == directions.dtype == np.float32
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-6)
    assert np.allclose(np.linalg.det(rotations), 1, atol=1e-6)
    assert np.allclose((directions**2).sum(1), 1, atol=1e-6)
    for vectors in (directions, *rotations.transpose(1, 0, 2)):  # uniform: no mean, covariance I/3, |x| uniform
        assert np.abs(vectors.mean(0)).max() < 0.04
        assert np.abs(np.cov(vectors.T) - np.eye(3) / 3).max() < 0.03
        assert np.allclose(np.quantile(np.abs(vectors), (0.25, 0.5, 0.75)), (0.25, 0.5, 0.75), atol=0.03)
    angles = np.arccos(np.clip((np.trace(rotations, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert abs(angles.mean() - (np.pi / 2 + 2 / np.pi)) < 0.04  # of a uniform rotation
    assert [ct.draw(mode, rng) for mode in ("rct", "lct", "mkl")] == [None] * 3
    again = [ct.draw("sot", np.random.RandomState(5)) for _ in range(2)]
    assert np.array_equal(again[0], again[1])


def test_what_is_refused() -> None:
    image = smooth(1, 16)
    for call in (lambda: ct.draw("hist", np.random.RandomState(0)), lambda: ct.apply("hist", image, image, None)):
        with pytest.raises(ValueError, match="'hist' is no colour transfer; allowed are rct, lct, mkl, idt, sot"):
            call()
    with pytest.raises(ValueError, match="of one size"):
        ct.apply("rct", image, image[:8], None)
    for mode, params in (("sot", None), ("rct", np.ones((50, 3))), ("idt", np.ones((50, 3)))):
        with pytest.raises(ValueError, match=f"{mode} was given params of shape"):
            ct.apply(mode, image, image, params)


@pytest.mark.parametrize("size", [(128, 128), (96, 131), (64, 200)])
def test_the_wide_bilateral_filter_is_opencvs(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    steps = np.zeros((*size, 3), np.float32)
    steps[:, : size[1] // 2] = (0.6, 0.2, -0.5)
    steps[: size[0] // 3, :, 0] -= 0.8
    image = cv2.resize(smooth(3, 64), size[::-1])
    pictures = {
        "smooth": image * np.float32(0.5),
        "faint": image * np.float32(1e-4),
        "noise": rng.uniform(-0.3, 0.3, (*size, 3)).astype(np.float32),
        "edges": steps,
        "wild": rng.choice(np.float32([-1, 1]), (*size, 3)) * rng.random((*size, 3), dtype=np.float32),
        "one": np.full((*size, 3), 0.3, np.float32),
    }
    for name, picture in pictures.items():
        error = np.abs(wide_bilateral(picture, 5.0, 16.0) - cv2.bilateralFilter(picture, 0, 5.0, 16.0))
        assert error.max() < 0.8 / 255, name
        assert error.max() < 0.1 / 255 or name in ("noise", "edges"), name


def test_the_wide_bilateral_filter_on_sots_changes_of_real_faces(shared: Path) -> None:
    faces = [
        cv2.resize(cv2.imread(str(path)), (128, 128)).astype(np.float32) / 255
        for side in ("src", "dst")
        for path in sorted((shared / "faces" / side / "aligned").iterdir())[5:300:80]
    ]
    for image, reference in zip(faces, faces[::-1], strict=True):
        change = transferred("rct", image, reference) - image
        error = np.abs(wide_bilateral(change, 5.0, 16.0) - cv2.bilateralFilter(change, 0, 5.0, 16.0))
        assert error.max() < 0.15 / 255


# ---- HSV


def test_the_recorded_hsv_shift(shared: Path) -> None:
    recorded = np.load(shared / "golden" / "samples" / "filters.npz")
    for seed in range(4):  # XSeg's shift: the same, with the whole circle of hues and power 1
        rng = np.random.RandomState(seed)
        shift = color.HsvShift(int(rng.randint(360)), rng.random_sample() - 0.5, rng.random_sample() - 0.5)
        assert np.allclose(color.apply(shift, recorded["img"]), recorded[f"s{seed}_hsv"], atol=1e-5)


def test_a_shift_turns_hues_and_keeps_its_bounds() -> None:
    red = np.float32([[[0.2, 0.2, 0.8]]])
    assert np.allclose(color.apply(color.HsvShift(120, 0, 0), red), [[[0.2, 0.8, 0.2]]], atol=1e-5)
    assert np.allclose(color.apply(color.HsvShift(-120, 0, 0), red), [[[0.8, 0.2, 0.2]]], atol=1e-5)
    assert np.allclose(color.apply(color.HsvShift(0, -1, 0.1), red), 0.9, atol=1e-5)
    assert np.allclose(color.apply(color.HsvShift(0, 0, -1), red), 0, atol=1e-5)
    made = color.apply(color.HsvShift(33, 0.5, 0.5), smooth(0, 32))
    assert made.dtype == np.float32 and made.min() >= 0 and made.max() <= 1


@pytest.mark.parametrize(("power", "degrees"), [(0.001, 1), (0.05, 9), (0.3, 54)])
def test_shifts_are_spread_as_asked(power: float, degrees: int) -> None:
    rng = np.random.RandomState(1)
    drawn = [color.draw(rng, power) for _ in range(6000)]
    assert {shift.hue for shift in drawn} == set(range(-degrees, degrees + 1))
    for values in ([s.saturation / power for s in drawn], [s.value / power for s in drawn]):
        assert -0.5 <= min(values) < -0.49 and 0.49 < max(values) <= 0.5
        assert abs(np.mean(values)) < 0.02


@pytest.mark.parametrize("power", [0.0, -0.1, 1.5])
def test_powers_that_are_refused(power: float) -> None:
    with pytest.raises(ValueError, match=r"allowed is above 0 to 1"):
        color.draw(np.random.RandomState(0), power)
