"""Hands, microphones and hair before made-up people: what they cover is known exactly."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from labelled_faces import use_small_xseg
from training import here

from facelib.dfljpg import read_metadata
from facelib.landmarks import transform_points
from mainscripts.bench_xseg import held_out, overlaps
from samplelib.synthetic import Aligned, aligned, identity, scenes
from samplelib.synthetic_faceset import with_occluders
from samplelib.synthetic_occluders import THINGS, place_of


@pytest.fixture(scope="module")
def face() -> Aligned:
    return aligned(identity(3), scenes(1, 1)[0], 128, "whole_face")


@pytest.mark.parametrize("thing", THINGS, ids=lambda draw: draw.__name__)
def test_a_thing_covers_part_of_the_picture(thing, face: Aligned) -> None:
    points = transform_points(face.landmarks, face.matrix)
    place = place_of(face.image, face.mask, points)
    covered = []
    for seed in range(6):
        colour, cover = thing(np.random.default_rng(seed), place, 128)
        assert colour.shape == (128, 128, 3) and cover.shape == (128, 128)
        assert cover.min() >= 0 and cover.max() <= 1 and 0.005 < cover.mean() < 0.6
        covered.append((cover[face.mask > 127] > 0.5).mean())
    assert 0.005 < np.mean(covered) < 0.7, "it is before the face more often than not"


def test_the_mask_is_what_is_left(face: Aligned) -> None:
    """Where nothing is before the face the mask is the same, and it is never more."""
    changed = [with_occluders(face, 5, number) for number in range(12)]
    hidden = [other for other in changed if not np.array_equal(other.mask, face.mask)]
    assert 5 <= len(hidden) <= 12 and any(other is face for other in changed)
    for other in hidden:
        assert (other.mask <= face.mask).all()
        gone = (face.mask > 200) & (other.mask < 50)
        same = (face.mask > 200) & (other.mask > 250)
        assert np.abs(other.image.astype(int) - face.image)[gone].mean() > 8
        assert np.median(np.abs(other.image.astype(int) - face.image)[same]) <= 6
    again = with_occluders(face, 5, 3)
    assert np.array_equal(again.image, changed[3].image) and np.array_equal(again.mask, changed[3].mask)


def test_demo_faces_with_occluders_carry_their_masks(tmp_path: Path) -> None:
    words = ["--output-dir", str(tmp_path), "--count", "3", "--size", "64", "--occluders", "--people", "2"]
    assert here(["", "", "demo-faces", *words]).returncode == 0
    paths = sorted(tmp_path.glob("*.jpg"))
    assert len(paths) == 6
    for path in paths:
        mask = cv2.imdecode(np.asarray(read_metadata(path.read_bytes())["xseg_mask"]), cv2.IMREAD_GRAYSCALE)
        assert mask.shape == (64, 64) and mask.max() > 200


def test_overlaps() -> None:
    masks = np.zeros((3, 4, 4), np.float32)
    masks[0, :2] = masks[1, :, :2] = 1
    np.testing.assert_allclose(overlaps(masks, masks[[0, 0, 2]]), [1, 4 / 12, 1])
    images, true = held_out(2, 64, "whole_face")
    assert images.shape == (2, 3, 64, 64) and true.shape == (2, 64, 64) and true.max() == 1


def test_the_benchmark_reports_a_curve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_small_xseg(monkeypatch)
    done = here(
        ["", "", "bench", "xseg", "--iterations", "3", "--every", "2", "--people", "2", "--faces", "2", "--held-out",
         "2", "--workers", "0", "--set", "batch_size=2", "--json", "--pictures", str(tmp_path / "faces.png")]
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row["iteration"] for row in rows] == [2, 3] and all(0 <= row["iou"] <= 1 for row in rows)
    assert cv2.imread(str(tmp_path / "faces.png")).shape == (64, 4 * 3 * 64, 3)
