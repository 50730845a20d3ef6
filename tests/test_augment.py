"""Samples made in torch are those that workers make with OpenCV, within what rounding explains. On the processor: what
runs on a card is the same code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from augmented import Pixels, by_opencv, by_torch, chance
from sample_faces import mean_landmarks, noise, write_face

from core.augment import augment
from core.batch import SampleRequest
from core.drawn import draw
from core.imagelib import color, color_transfer
from core.torchcolor import apply_hsv, from_lab, to_lab, transfer
from samplelib.faceset import Faceset
from samplelib.prepare import load, prepared
from samplelib.sampling import generator

COUNT = 8
# OpenCV looks at multiples of 1/32 px. Noise of 8 px is as steep as pictures get.
CLOSE = {"warped": (0.045, 0.0015), "target": (0.03, 0.001), "mask": (0.035, 0.001), "mask_em": (0.035, 0.001)}


def silent(text: str) -> None:
    raise AssertionError(f"unexpected warning: {text}")


def noisy(size: int) -> list[Pixels]:
    """Faces of noise: colours of others, soft masks."""
    found = []
    for number in range(COUNT):
        mask, both = np.zeros((2, size, size), np.uint8)
        cv2.circle(mask, (size // 2, size // 2), size // 3, 255, -1)
        cv2.circle(both, (size // 2, size // 3), size // 6, 200 - number, -1)
        image = cv2.resize(noise(number, 8 * -(-size // 8)), (size, size))
        other = (noise(number + 50, 8 * -(-size // 8)) * np.array((0.8, 0.5, 0.6)) + 40).astype(np.uint8)
        found.append({"image": image, "mask": mask, "mask_em": both, "colours": cv2.resize(other, (size, size))})
    return found


def smooth(size: int) -> list[Pixels]:
    """Faces on which 1/32 px is nothing."""
    y, x = np.mgrid[:size, :size] / size
    image = np.dstack([x, y, (np.sin(3 * x) * np.cos(2 * y) + 1) / 2])
    mask = np.clip(1.4 - 3 * np.hypot(x - 0.5, y - 0.5), 0, 1)
    found = []
    for number in range(COUNT):
        planes = {"image": image, "mask": mask, "mask_em": mask * 0.6, "colours": image[::-1, :, ::-1] * 0.7}
        found.append({kind: (p * (255 - number)).astype(np.uint8) for kind, p in planes.items()})
    return found


def compare(made: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], close: Mapping[str, Any]) -> None:
    assert list(made) == list(wanted)
    for name, array in wanted.items():
        assert made[name].shape == array.shape and made[name].dtype == np.float32
        assert made[name].min() >= 0 and made[name].max() <= 1
        apart = np.abs(made[name] - array)
        most, mean = close[name]
        assert apart.max() < most and apart.mean() < mean, (name, apart.max(), apart.mean())


PLAIN = SampleRequest(64, "whole_face", flip=True)


@pytest.mark.parametrize("size", [32, 48, 64, 97, 128])
@pytest.mark.parametrize("random_warp", [True, False])
@pytest.mark.parametrize("flip", [True, False])
def test_geometry(size: int, random_warp: bool, flip: bool) -> None:
    request = replace(PLAIN, resolution=size, random_warp=random_warp, flip=flip)
    faces = noisy(size)
    made = by_torch(request, faces)
    compare(made, by_opencv(request, faces), CLOSE)
    assert (made["mask_em"].max((1, 2, 3)) == 1).all()
    assert np.array_equal(made["warped"], made["target"]) != random_warp


@pytest.mark.parametrize("size", [40, 64, 130])
def test_nothing_lies_elsewhere(size: int) -> None:
    """Where 1/32 px is nothing, hardly anything differs: no half pixel, no other border, no other bend. A shift of a
    tenth of a pixel would be 0.002. (Below 64 px OpenCV's bend sees black outside, where 1/32 px is much.)"""
    faces = smooth(size)
    for shape in ({}, {"rotation": 40.0, "scale": 0.5, "shift": 0.3}):  # much of the second lies outside
        request = replace(PLAIN, resolution=size, **shape)
        made, wanted = by_torch(request, faces), by_opencv(request, faces)
        warped = (0.003, 5e-4) if size >= 64 else (0.05, 0.002)
        others = {"target": (0.003, 5e-4), "mask": (0.004, 5e-4), "mask_em": (0.006, 5e-4)}
        compare(made, wanted, {"warped": warped, **others})


@pytest.mark.parametrize("face_type", ["half_face", "midfull_face", "full_face", "whole_face", "head"])
def test_face_types(tmp_path: Path, face_type: str) -> None:
    write_face(tmp_path / "a.jpg", noise(0, 128), mean_landmarks(128, "head"), "head")
    sample = Faceset.open(tmp_path, silent).samples[0]
    request = SampleRequest(96, face_type, flip=True)
    faces = [dict(prepared(sample, load(sample), ("image", "colours", "mask", "mask_em"), request))] * COUNT
    compare(by_torch(request, faces), by_opencv(request, faces), CLOSE)


@pytest.mark.parametrize("names", [("warped",), ("mask_em", "target"), ("mask",), ("target", "warped", "mask")])
def test_any_arrays(names: tuple[str, ...]) -> None:
    request = replace(PLAIN, names=names, hsv_power=0.2)
    compare(by_torch(request, noisy(64)), by_opencv(request, noisy(64)), CLOSE)


STILL = {"rotation": 0.0, "scale": 0.0, "shift": 0.0, "random_warp": False}


@pytest.mark.parametrize(
    ("mode", "most", "mean"),
    # rct: OpenCV's Lab has steps. idt: see core/imagelib/color_transfer.py. sot: the blur instead of the filter.
    [("rct", 0.015, 0.002), ("lct", 1e-5, 1e-6), ("mkl", 1e-5, 1e-6), ("idt", 0.03, 0.002), ("sot", 0.004, 0.0005)],
)
def test_colours(mode: str, most: float, mean: float) -> None:
    request = replace(PLAIN, ct_mode=mode, ct_from="dst", names=("target",), **STILL)
    for faces in (noisy(64), smooth(64)):
        compare(by_torch(request, faces), by_opencv(request, faces), {"target": (most, mean)})
    moved = replace(PLAIN, ct_mode=mode, ct_from="dst", hsv_power=0.1)
    faces = noisy(64)
    compare(by_torch(moved, faces), by_opencv(moved, faces), dict.fromkeys(CLOSE, (0.06, 0.003)))


@pytest.mark.parametrize("mode", color_transfer.MODES)
def test_no_picture_leads_to_anything_but_numbers(mode: str) -> None:
    """One colour, grey, black and white: as for OpenCV's, everything stays finite, and grey ones come out close."""
    request = replace(PLAIN, ct_mode=mode, ct_from="dst", names=("target",), **STILL)
    flat, ramp = np.full((64, 64, 3), 90, np.uint8), np.repeat(np.arange(64, dtype=np.uint8)[:, None] * 4, 64, 1)
    grey = np.repeat(ramp[..., None], 3, 2)
    pictures = [flat, grey, np.zeros_like(flat), np.full_like(flat, 255), noisy(64)[0]["image"]]
    for image in pictures:
        faces = [{"image": image, "mask": ramp, "mask_em": ramp, "colours": other} for other in pictures]
        made, wanted = by_torch(request, faces)["target"], by_opencv(request, faces)["target"]
        assert np.isfinite(made).all() and made.min() >= 0 and made.max() <= 1
        if mode in ("rct", "lct", "mkl"):  # rct: OpenCV gives grey pictures a little colour, which it then spreads
            assert np.abs(made - wanted).mean((1, 2, 3)).max() < (0.05 if mode == "rct" else 0.001)


def test_hsv_is_opencvs() -> None:
    images = np.random.default_rng(0).random((6, 40, 40, 3), np.float32)
    images[0] = 0
    images[1] = images[1, :1, :1]
    images[2] = images[2].mean(-1, keepdims=True)
    images[3] = images[3].round()
    for power in (0.02, 0.3, 1.0):
        shifts = [color.draw(generator(1, "hsv", "src", number), power) for number in range(len(images))]
        wanted = np.stack([color.apply(shift, image) for shift, image in zip(shifts, images, strict=True)])
        rows = torch.tensor([(shift.hue, shift.saturation, shift.value) for shift in shifts])
        made = apply_hsv(torch.from_numpy(images.transpose(0, 3, 1, 2)), rows).numpy().transpose(0, 2, 3, 1)
        assert np.abs(made - wanted).max() < 2e-5


def test_lab_is_opencvs_without_its_steps() -> None:
    images = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    images[0, :8] *= 0.02  # where the curves are straight
    ours = to_lab(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    steps = cv2.cvtColor(images[0], cv2.COLOR_BGR2LAB)
    assert np.abs(ours[0].numpy().transpose(1, 2, 0) - steps).max() < 0.5
    assert np.abs(from_lab(ours).numpy() - images.transpose(0, 3, 1, 2)).max() < 1e-4
    back = cv2.cvtColor(np.ascontiguousarray(ours[0].numpy().transpose(1, 2, 0)), cv2.COLOR_LAB2BGR)
    assert np.abs(from_lab(ours)[0].numpy().transpose(1, 2, 0) - back).max() < 2e-4


def test_what_is_refused() -> None:
    picture = torch.zeros(1, 3, 64, 64)
    with pytest.raises(ValueError, match="mkl needs what was drawn or measured"):
        transfer("mkl", picture, picture, None)
    with pytest.raises(ValueError, match="'hist' is no colour transfer"):
        transfer("hist", picture, picture, picture)
    request = replace(PLAIN, ct_mode="sot", ct_from="dst")
    with pytest.raises(ValueError, match="sot needs a picture to take colours from"):
        augment(request, {"image": torch.zeros(1, 64, 64, 3, dtype=torch.uint8)}, draw(request, [chance(0)]), None)


