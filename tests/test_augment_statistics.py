"""Samples are distributed as DeepFaceLab's: what the pictures themselves show, whoever made them. The reference
(`warp.apply`, which recordings pin) has to pass too, so that the limits are known to be right.

Held elsewhere: what is drawn, and bends alike about the diagonal (test_process); the same samples for any number of
workers and at any position (test_loader, test_device_samples); yaw bins (test_process); transfers of OpenCV against
recordings, and the ranges of HSV shifts (test_color_transfer); one way of making samples against another
(test_process, test_augment).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest
import torch
from augmented import WAYS, Pixels, chance

from core.batch import SampleRequest
from core.imagelib import color_transfer, warp
from core.torchcolor import to_lab
from facelib import landmarks as lm
from samplelib.faceset import Faceset
from samplelib.prepare import kinds, load, prepared
from samplelib.synthetic import aligned, scenes
from samplelib.synthetic_faceset import write_faceset
from samplelib.synthetic_person import identity

SIZE = 64
STILL = {"rotation": 0.0, "scale": 0.0, "shift": 0.0}
ways = pytest.mark.parametrize("way", WAYS)


def centroids(planes: np.ndarray) -> np.ndarray:
    """(N, C, 2): x and y of what shines in planes (N, C, H, W)."""
    y, x = np.mgrid[: planes.shape[2], : planes.shape[3]]
    weight = planes.sum((2, 3))
    return np.stack([(planes * axis).sum((2, 3)) / weight for axis in (x, y)], -1)


def spots(points: np.ndarray, size: int, sigma: float = 1.5) -> np.ndarray:
    """(H, W, C) uint8: a soft spot at each of C points, in a channel of its own."""
    y, x = np.mgrid[:size, :size]
    planes = [np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for px, py in points]
    return (np.stack(planes, -1) * 255 + 0.5).astype(np.uint8)


@lru_cache(maxsize=4)
def seen(way: str) -> np.ndarray:
    """(N, 2, 3): the affines that 600 targets show, from three spots each."""
    points = np.array([(24.0, 26.0), (40.0, 27.0), (33.0, 40.0)])
    face = {"image": spots(points, SIZE)}
    request = SampleRequest(SIZE, "whole_face", names=("target",), flip=True, random_warp=False)
    found = centroids(WAYS[way](request, [face] * 600)["target"])
    known = np.column_stack([points, np.ones(3)])
    return np.stack([np.linalg.solve(known, three).T for three in found])


@ways
def test_rotation_scale_shift_and_flip(way: str) -> None:
    """Uniform within DFL's ranges: means, ends and spreads, of what can be seen."""
    affines = seen(way)
    flipped = np.linalg.det(affines[:, :, :2]) < 0
    assert abs(flipped.mean() - 0.4) < 0.06  # three standard errors
    straight = affines.copy()
    straight[flipped, 0] *= -1
    straight[flipped, 0, 2] += SIZE - 1
    turned = np.degrees(np.arctan2(straight[:, 0, 1], straight[:, 0, 0]))
    scales = np.sqrt(np.linalg.det(straight[:, :, :2]))
    middle = np.array([SIZE // 2, SIZE // 2, 1])
    shifts = (straight @ middle - middle[:2]) / SIZE
    shown = [(turned, -10, 10), (scales, 1 / 1.15, 1.15), (shifts[:, 0], -0.05, 0.05), (shifts[:, 1], -0.05, 0.05)]
    for values, low, high in shown:
        width, near = high - low, 0.02 * (high - low)
        assert low - near < values.min() < low + near and high - near < values.max() < high + near
        assert abs(values.mean() - (low + high) / 2) < 3 * width / 12**0.5 / 600**0.5
        assert abs(values.std() - width / 12**0.5) < 0.06 * width / 12**0.5


@ways
def test_landmarks_move_as_the_draws_say(way: str) -> None:
    """Spots at landmarks are where the drawn affine takes them, to a tenth of a pixel."""
    for number, affine in enumerate(seen(way)[:200]):
        drawn = warp.once(warp.draw(chance(number)("affine"), None, SIZE, flip=True))
        points = np.array([(24.0, 26.0), (40.0, 27.0), (33.0, 40.0)])
        assert np.abs(lm.transform_points(points, affine) - lm.transform_points(points, drawn)).max() < 0.1


@ways
@pytest.mark.parametrize("size", [SIZE, 48])
def test_bends_have_no_drift(way: str, size: int) -> None:
    """Pictures whose colours say where a pixel comes from: on average it comes from its own place (DFL's bends: from
    half a pixel beyond, see test_process), everywhere, alike up and down, left and right, and as widely as in the
    reference."""
    y, x = np.mgrid[:size, :size] * (252 // (size - 1))
    face = {"image": np.dstack([x, y, x]).astype(np.uint8)}
    request = SampleRequest(size, "whole_face", names=("warped", "target"), **STILL)
    inner = np.s_[:, :2, 6:-6, 6:-6]
    fields = {}
    for name in {"reference", way}:
        made = WAYS[name](request, [face] * 250)
        fields[name] = (made["warped"] - made["target"])[inner] * (255 / (252 // (size - 1)))
    field, reference = fields[way], fields["reference"]
    half = 0.5 * size / max(size, 64)
    assert abs(field.mean() - half) < 0.15
    assert np.abs(field.mean(0) - half).max() < 5 * field.std(0).max() / 250**0.5
    assert abs(np.percentile(field, 99) - half + np.percentile(field, 1) - half) < 0.1 * np.ptp(field)
    assert np.abs(field - reference).mean() < 0.05 and np.abs(field.std(0) - reference.std(0)).max() < 0.1
    assert np.abs(field[:, 0] - field[:, 1].transpose(0, 2, 1)).max() < 0.3  # about the diagonal


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Faceset:
    """Made-up faces with skin, hair and lashes."""
    folder = tmp_path_factory.mktemp("people")
    write_faceset(folder, identity(3), 6, 256, seed=3)
    return Faceset.open(folder, print)


def drawn_faces(people: Faceset, request: SampleRequest) -> list[Pixels]:
    return [dict(prepared(sample, load(sample), kinds(request), request)) for sample in people.samples]


@ways
def test_masks_lie_on_the_picture(people: Faceset, way: str) -> None:
    """A face painted as its own mask: middle and outline agree to half a pixel (measured: a tenth)."""
    request = SampleRequest(96, "whole_face", names=("target", "mask"), flip=True, random_warp=False)
    faces = drawn_faces(people, request)
    painted = [{"image": np.repeat(face["mask"][..., None], 3, 2), "mask": face["mask"]} for face in faces]
    for first in range(0, 30, 6):
        made = WAYS[way](request, painted, first)
        apart = centroids(made["target"][:, :1]) - centroids(made["mask"])
        assert np.abs(apart).max() < 0.1
        for picture, mask in zip(made["target"][:, 0], made["mask"][:, 0], strict=True):
            outline = cv2.arcLength(cv2.findContours((mask > 0.5).astype(np.uint8), 0, 2)[0][0], True)
            assert np.abs(picture - mask)[4:-4, 4:-4].sum() < 0.25 * outline


@ways
def test_eyes_and_mouth_are_inside_the_face(people: Faceset, way: str) -> None:
    request = SampleRequest(96, "whole_face", flip=True)
    faces = drawn_faces(people, request)
    for first in range(0, 18, 6):
        made = WAYS[way](request, faces, first)
        assert not made["mask_em"][made["mask"] == 0].any()
        assert (made["mask_em"].max((1, 2, 3)) == 1).all()
        share = made["mask_em"].mean((1, 2, 3))
        assert share.min() > 0.01 and share.max() < 0.2


@pytest.mark.parametrize("way", ["opencv", "torch"])
def test_nothing_is_less_sharp_than_the_reference(people: Faceset, way: str) -> None:
    """Variance of the Laplacian of faces. The network's input has one interpolation instead of two."""
    request = SampleRequest(96, "whole_face", names=("warped", "target"))
    faces = drawn_faces(people, request)
    inner = np.s_[16:-16, 16:-16]
    found = {}
    for name in ("reference", way):
        made = [WAYS[name](request, faces, first) for first in range(0, 18, 6)]
        found[name] = {
            array: np.mean(
                [cv2.Laplacian(np.ascontiguousarray(picture.transpose(1, 2, 0)), cv2.CV_32F)[inner].var()
                 for batch in made for picture in batch[array]]
            )
            for array in request.names
        }  # fmt: skip
    assert found[way]["target"] > 0.98 * found["reference"]["target"]  # the same interpolation: it is equal
    assert found[way]["warped"] > 1.03 * found["reference"]["warped"]


@pytest.mark.parametrize("way", ["opencv", "torch"])
@pytest.mark.parametrize("mode", color_transfer.MODES)
def test_colours_become_the_references(way: str, mode: str) -> None:
    """What each mode promises of the result: means and spreads, and how far sorted values lie apart."""
    src, dst = (aligned(identity(n), scenes(n, 1)[0], 96, "whole_face").image for n in (1, 2))
    image, reference = (np.clip(picture * 0.6 + 50, 0, 255).astype(np.uint8) for picture in (src, dst))  # none clipped
    still = SampleRequest(96, "whole_face", names=("target",), random_warp=False, **STILL)
    request = replace(still, ct_mode=mode, ct_from="dst")
    made = WAYS[way](request, [{"image": image, "colours": reference}])["target"]
    before, wanted = (torch.from_numpy(p.transpose(2, 0, 1)[None] / np.float32(255)) for p in (image, reference))
    got = torch.from_numpy(made)
    if mode == "rct":
        a, b = (to_lab(picture)[0].flatten(1) for picture in (got, wanted))
        assert (a.mean(1) - b.mean(1)).abs().max() < 0.3 and (a.std(1) / b.std(1) - 1).abs().max() < 0.02
    if mode in ("lct", "mkl"):
        a, b = (picture[0].flatten(1) for picture in (got, wanted))
        assert (a.mean(1) - b.mean(1)).abs().max() < 0.002
        # lct's ridge leaves a little of what these few colours lack (DFL's).
        assert (torch.cov(a) - torch.cov(b)).abs().max() < {"lct": 0.05, "mkl": 0.005}[mode] * torch.cov(b).abs().max()

    def apart(picture: torch.Tensor) -> float:
        return float((picture.flatten(2).sort(-1).values - wanted.flatten(2).sort(-1).values).abs().mean())

    assert apart(got) < {"idt": 0.5, "sot": 0.3}.get(mode, 0.45) * apart(before)


@pytest.mark.parametrize("way", ["opencv", "torch"])
def test_hsv_shifts_are_spread_as_asked(way: str) -> None:
    """A plain picture shows its shift: hue within 180 degrees times the power, saturation and light half the power."""
    power, colour = 0.3, np.full((SIZE, SIZE, 3), (90, 110, 130), np.uint8)
    request = SampleRequest(SIZE, "whole_face", names=("warped", "target"), random_warp=False, hsv_power=power, **STILL)
    made = WAYS[way](request, [{"image": colour}] * 300)
    assert np.abs(made["target"] * 255 - np.reshape((90, 110, 130), (3, 1, 1))).max() < 0.01
    shown = np.ascontiguousarray(made["warped"][None, :, :, 32, 32])
    after, before = (cv2.cvtColor(p, cv2.COLOR_BGR2HSV) for p in (shown, colour[:1, :1] / np.float32(255)))
    hue, saturation, value = (after - before)[0].T
    hue = (hue + 180) % 360 - 180
    for values, most in ((hue, 54), (saturation, 0.15), (value, 0.15)):
        assert most * 0.95 < np.abs(values).max() < most * 1.02
        assert abs(values.mean()) < 3 * most / 3**0.5 / 300**0.5


def test_what_is_seen_does_not_depend_on_the_bend() -> None:
    """Its generator is another: with and without it, targets and masks are the same."""
    face = {"image": spots(np.array([(24.0, 26.0)] * 3), SIZE), "mask": spots(np.array([(30.0, 30.0)]), SIZE)[..., 0]}
    request = SampleRequest(SIZE, "whole_face", names=("target", "mask"), flip=True)
    for make in WAYS.values():
        bent, still = (make(replace(request, random_warp=bends), [face] * 5) for bends in (True, False))
        assert all(np.array_equal(bent[name], still[name]) for name in request.names)


