"""Geometry of landmarks against what DFL recorded, and the JPG segments that carry the metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facelib import landmarks as lm
from facelib.facetype import FACE_TYPES, NAMES, PADDING, SHORT


@pytest.fixture(scope="module")
def recorded(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "samples" / "landmarks.npz"))


def test_umeyama_meets_the_recording(golden: Path) -> None:
    data = np.load(golden / "samples" / "umeyama.npz")
    a, b = data["a"], data["b"]
    for key, target, scaling in (("scale", b, True), ("noscale", b, False), ("reflect", a * [-1, 1], True)):
        np.testing.assert_allclose(lm.umeyama(a, target, scaling), data[key], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("face_type", PADDING)
@pytest.mark.parametrize(("size", "scale"), [(64, 1.0), (256, 1.0), (256, 1.3)])
def test_matrices_meet_the_recording(recorded: dict[str, np.ndarray], face_type: str, size: int, scale: float) -> None:
    key = f"syn_mat_{face_type}_{size}" + (f"_scale{scale}" if scale != 1 else "")
    mat = lm.transform_matrix(recorded["syn_landmarks"], size, face_type, scale)
    # Where the recording and this put the corners and the middle of the picture, in pixels of the aligned one.
    points = np.array([(0, 0), (256, 0), (0, 256), (256, 256), (128, 128)])
    np.testing.assert_allclose(
        lm.transform_points(points, mat), lm.transform_points(points, recorded[key]), atol=size * 2e-6 + 2e-4
    )


def test_points_come_back_from_an_inverse(recorded: dict[str, np.ndarray]) -> None:
    mat = lm.transform_matrix(recorded["syn_landmarks"], 256, "whole_face")
    there = lm.transform_points(recorded["syn_landmarks"], mat)
    np.testing.assert_allclose(lm.transform_points(there, mat, invert=True), recorded["syn_landmarks"], atol=1e-9)


@pytest.mark.parametrize("size", [128, 256])
def test_masks_meet_the_recording(recorded: dict[str, np.ndarray], size: int) -> None:
    points = recorded["syn_landmarks"] * (size / 256)
    shape = (size, size)
    np.testing.assert_array_equal(lm.hull_mask(shape, points), recorded[f"syn_hull_{size}"])
    np.testing.assert_array_equal(lm.hull_mask(shape, points, 1.5), recorded[f"syn_hull_{size}_eb1.5"])
    np.testing.assert_allclose(lm.eyes_mask(shape, points), recorded[f"syn_eye_{size}"], atol=1e-6)
    np.testing.assert_allclose(lm.mouth_mask(shape, points), recorded[f"syn_mouth_{size}"], atol=1e-6)


def test_brows_pose_and_mirror_meet_the_recording(recorded: dict[str, np.ndarray]) -> None:
    points = recorded["syn_landmarks"]
    np.testing.assert_array_equal(lm.expand_eyebrows(points), recorded["syn_expand_eyebrows"])
    np.testing.assert_array_equal(lm.expand_eyebrows(points, 1.5), recorded["syn_expand_eyebrows_1.5"])
    np.testing.assert_allclose(lm.mirror(points, 256), recorded["syn_mirror_256"], atol=1e-9)
    for size in (256, 512):
        np.testing.assert_allclose(lm.pose(points, size), recorded[f"syn_pyr_{size}"], atol=2e-4)


def test_coinciding_landmarks_and_unaligned_types_are_refused() -> None:
    with pytest.raises(ValueError, match="coincide"):
        lm.transform_matrix(np.full((68, 2), 7.0), 256, "full_face")
    with pytest.raises(ValueError, match="mark_only"):
        lm.transform_matrix(np.random.default_rng(0).random((68, 2)), 256, "mark_only")


def test_face_types_agree_with_each_other() -> None:
    assert set(PADDING) | {"mark_only"} == set(FACE_TYPES)
    assert {NAMES[value] for value in FACE_TYPES.values()} == set(FACE_TYPES)
    assert set(SHORT.values()) < set(FACE_TYPES)
