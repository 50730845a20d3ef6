"""Geometry of landmarks against what DFL recorded, and the JPG segments that carry the metadata."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from facelib import landmarks as lm
from facelib.dfljpg import (
    CutOffError,
    DflJpgError,
    aligned_metadata,
    embed,
    encode_mask,
    image_size,
    read_header,
    read_metadata,
)
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


@pytest.fixture(scope="module")
def jpg() -> bytes:
    return cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()


@pytest.fixture(scope="module")
def metadata(recorded: dict[str, np.ndarray]) -> dict[str, object]:
    points = recorded["syn_landmarks"]
    return aligned_metadata(
        "whole_face",
        points,
        source_filename="00001.png",
        source_rect=(1, 2, 3, 4),
        source_landmarks=points + 10,
        image_to_face_mat=np.eye(3)[:2],
        xseg_mask=recorded["syn_hull_128"],
        eyebrows_expand_mod=1.5,
        some_fork_key="kept",
    )


def test_metadata_come_back_and_every_other_byte_is_kept(jpg: bytes, metadata: dict[str, object]) -> None:
    extra = b"\xff\xe1\x00\x06Exif" + b"\xff\xfe\x00\x04hi"
    given = jpg[:20] + extra + jpg[20:] + b"behind the end"
    data = embed(given, metadata)
    found = read_metadata(data)
    assert list(found) == list(metadata)
    for key, value in metadata.items():
        np.testing.assert_array_equal(found[key], value)
        assert type(found[key]) is type(value)
    assert data[:20] == jpg[:20]  # APP0 stays first
    assert data.endswith(given[20:])
    assert image_size(data) == (48, 64)
    assert embed(embed(data, {"face_type": "head"}), metadata) == data  # one segment, replaced


def test_of_several_segments_the_last_counts(jpg: bytes) -> None:
    one, two = embed(jpg, {"face_type": "head"}), embed(jpg, {"face_type": "full_face"})
    segment = two[20 : len(two) - len(jpg) + 20]
    both = one[: len(one) - len(jpg) + 20] + segment + jpg[20:]
    assert read_metadata(both) == {"face_type": "full_face"}


def test_fill_bytes_between_segments_are_stepped_over(jpg: bytes) -> None:
    assert image_size(jpg[:20] + b"\xff\xff" + jpg[20:]) == (48, 64)


def test_every_cut_is_found(jpg: bytes, metadata: dict[str, object]) -> None:
    data = embed(jpg, metadata)
    scan = read_header(data).scan
    for length in range(2, scan):
        with pytest.raises(CutOffError):
            read_header(data[:length])
    assert read_header(data[:scan]) == read_header(data)


def test_what_is_no_jpeg_with_face_data_is_refused(jpg: bytes) -> None:
    png = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    for data, reason in (
        (b"", "empty"),
        (png, "PNG"),
        (b"text", "no picture"),
        (jpg, "without DeepFaceLab"),
        (jpg[:20] + b"\xff\xef\x00\x05abc" + jpg[20:], "its face data"),
        (jpg[:20] + b"\xff\xef\x00\x00" + jpg[20:], "damaged"),
        (jpg[:20] + b"junk" + jpg[20:], "damaged"),
        (jpg[:2] + jpg[jpg.index(b"\xff\xda") :], "no size"),
    ):
        with pytest.raises(DflJpgError, match=reason):
            read_metadata(data)
    with pytest.raises(DflJpgError, match="do not fit"):
        embed(jpg, {"xseg_mask": np.zeros(70_000, np.uint8)})


def test_masks_are_png_and_large_ones_jpeg() -> None:
    mask = np.zeros((64, 64, 1), np.float32)
    mask[20:40] = 1
    coded = encode_mask(mask)
    assert coded.dtype == np.uint8 and coded.ndim == 1 and coded[:4].tobytes() == b"\x89PNG"
    np.testing.assert_array_equal(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), mask[..., 0] * 255)
    noise = np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8)
    coded = encode_mask(noise)
    assert coded[:2].tobytes() == b"\xff\xd8" and len(coded) <= 50_000


def test_genuine_files_keep_their_metadata(shared: Path) -> None:
    for path in [*(shared / "faces/masked/odd").iterdir(), *(shared / "faces/types/head").iterdir()]:
        data = path.read_bytes()
        metadata = read_metadata(data)
        again = embed(data, metadata)
        assert cv2.imdecode(np.frombuffer(again, np.uint8), 1).shape[:2] == image_size(data)
        for key, value in read_metadata(again).items():
            assert key == "seg_ie_polys" or np.array_equal(value, metadata[key])
