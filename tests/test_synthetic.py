"""Made-up people: same numbers give same pictures, landmarks and masks lie where the features are, DFL's files."""

from __future__ import annotations

import argparse
import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from facelib.dfljpg import image_size, read_metadata
from facelib.facetype import FACE_TYPES
from facelib.landmarks import mirror, pose, transform_points
from mainscripts import demo_faces
from samplelib.synthetic import Scene, aligned, frame_for, identity, render, scenes, truth
from samplelib.synthetic_faceset import COMMENT, write_demo_workspace, write_faceset
from samplelib.synthetic_head import head, neutral_landmarks, shape

PLAIN = Scene(light=(0.0, -0.3, -1.0), grain=0.0)


def region(size: int, points: np.ndarray, grow: int = 0) -> np.ndarray:
    """Filled convex outline of landmarks, grown (or shrunk) by some pixels."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(points).astype(np.int32)), 255)
    kernel = np.ones((2 * abs(grow) + 1,) * 2, np.uint8)
    return (cv2.dilate if grow > 0 else cv2.erode)(mask, kernel) > 0


def test_same_arguments_give_the_same_bytes() -> None:
    for who in (identity(0), identity(1), identity(6)):
        scene = scenes(4, 1)[0]
        first, again = render(who, scene, 160), render(who, scene, 160)
        assert np.array_equal(first.image, again.image) and np.array_equal(first.face_mask, again.face_mask)
        assert np.array_equal(first.landmarks, again.landmarks)
    assert scenes(4, 3) == scenes(4, 8)[:3]
    assert scenes(4, 1) != scenes(5, 1)


def test_draws_stay_within_their_ranges() -> None:
    drawn = scenes(1, 400)
    assert max(abs(s.yaw) for s in drawn) <= 60 and max(abs(s.pitch) for s in drawn) <= 25
    assert max(abs(s.yaw) for s in drawn) > 50
    for scene in drawn:
        assert all(0 <= b <= 1 for b in scene.blink) and 0 <= scene.mouth_open <= 1 and scene.smile <= 1


@pytest.mark.parametrize("number", [0, 1, 2, 9])
def test_landmarks_at_rest_are_the_persons_own_points(number: int) -> None:
    who = identity(number)
    moved = shape(head(who), Scene()).landmarks
    off = np.linalg.norm(moved - neutral_landmarks(who), axis=1)
    assert off[:60].mean() < 1.5 and off[:60].max() < 6.0  # mm on a head 146 mm wide


def test_face_is_mirrored_about_its_middle() -> None:
    for number in (0, 1):
        points = render(identity(number), PLAIN, 256).landmarks
        assert np.abs(mirror(points, 256) - points).max() < 0.6


def test_landmarks_frame_eyes_lips_and_brows() -> None:
    size = 384
    open_mouth = render(identity(0), replace(PLAIN, mouth_open=0.9), size)
    shut = render(identity(0), replace(PLAIN, blink=(1.0, 1.0)), size)
    wide = render(identity(0), PLAIN, size)
    skin = np.median(wide.image[wide.face_mask > 250], axis=0)
    for eye in (slice(36, 42), slice(42, 48)):
        inside = wide.image[region(size, wide.landmarks[eye], -1)].astype(float)
        assert np.abs(inside - skin).max() > 90  # pupil, iris and white are unlike skin
        middle = shut.landmarks[eye]
        assert np.ptp(middle[:, 1]) < 0.6 * np.ptp(wide.landmarks[eye][:, 1])
    cavity = open_mouth.image[region(size, open_mouth.landmarks[60:68], -2)]
    assert cavity.mean() < 0.85 * skin.mean() and np.ptp(open_mouth.landmarks[60:68][:, 1]) > 12
    lips = wide.image[region(size, wide.landmarks[48:60], -2)].astype(float).mean(axis=0)
    assert lips[2] - lips[1] > skin[2] - skin[1] + 15  # redder than skin
    dark = render(identity(1), PLAIN, size)
    brow = dark.image[region(size, dark.landmarks[17:22], 1)].mean()
    assert brow < 0.75 * np.median(dark.image[region(size, dark.landmarks[[27, 28, 29, 30]], 1)])


def test_pose_is_recovered_from_the_aligned_landmarks() -> None:
    for scene in scenes(9, 25):
        face = aligned(identity(1), scene, 256, "whole_face")
        pitch, yaw, _ = np.rad2deg(pose(transform_points(face.landmarks, face.matrix), 256))
        assert abs(yaw - scene.yaw) < 8  # the nets' pose assumes a nearer camera than ours
        assert abs(pitch - scene.pitch - 5) < 8


@pytest.mark.parametrize(("face_type", "size"), [("whole_face", 256), ("full_face", 96), ("mark_only", 192)])
def test_aligned_picture_is_what_a_cut_from_the_frame_shows(face_type: str, size: int) -> None:
    for scene in (*scenes(6, 3), replace(PLAIN, roll=20.0, yaw=60.0)):
        for who in (identity(0), identity(1)):
            full = render(who, scene, *frame_for(size, face_type))
            face = aligned(who, scene, size, face_type)
            assert np.abs(face.landmarks - full.landmarks).max() < 1e-3
            cut = cv2.warpAffine(full.image, face.matrix, (size, size), flags=cv2.INTER_LINEAR)
            mask = cv2.warpAffine(full.face_mask, face.matrix, (size, size), flags=cv2.INTER_LINEAR)
            inside = cv2.warpAffine(np.full_like(mask, 255), face.matrix, (size, size), flags=cv2.INTER_NEAREST) > 0
            blurred = [cv2.blur(picture, (5, 5)).astype(int) for picture in (cut, face.image)]
            assert np.abs(blurred[0] - blurred[1])[inside].mean() < 4.0
            assert (np.abs(mask.astype(int) - face.mask) > 128)[inside].mean() < 0.004


def test_mask_is_face_without_hair_neck_and_background() -> None:
    size = 320
    for scene in (PLAIN, replace(PLAIN, yaw=55.0), replace(PLAIN, yaw=-40.0, pitch=20.0, mouth_open=0.8)):
        for who in (identity(0), identity(1)):
            rendered = render(who, scene, size)
            points, mask = rendered.landmarks, rendered.face_mask
            for x, y in np.round(points[[30, 33, 51, 57, 62]]).astype(int):
                assert mask[y, x] == 255
            assert set(np.unique(mask[[0, -1]])) == {0} and 0.03 < (mask > 127).mean() < 0.35
            chin_x, chin_y = np.round(points[8]).astype(int)
            assert mask[min(size - 1, chin_y + 14), chin_x] == 0
            solid = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
            assert ((solid > 200) & (mask < 60)).sum() < 0.01 * (mask > 127).sum()  # no holes
    frontal = render(identity(1), PLAIN, size)
    jaw = region(size, frontal.landmarks[:17], 3)
    lower = np.arange(size)[:, None] > frontal.landmarks[2, 1]
    assert not ((frontal.face_mask > 20) & lower & ~jaw).any()


def test_nose_hides_the_far_eye_of_a_turned_head() -> None:
    turned = replace(PLAIN, yaw=60.0)
    shut = replace(turned, blink=(1.0, 0.0)), replace(turned, blink=(0.0, 1.0))
    plain = render(identity(1), turned, 256).image.astype(int)
    changed = [np.abs(render(identity(1), s, 256).image - plain).sum() for s in shut]
    assert min(changed) < 0.5 * max(changed)


def test_two_people_in_one_scene_differ_and_stay_themselves() -> None:
    seen = scenes(2, 6)
    mean = []
    for number in (0, 1):
        pictures = [render(identity(number), scene, 192) for scene in seen]
        mean.append(np.array([r.image[r.face_mask > 200].mean(axis=0) for r in pictures]))
    assert (np.abs(mean[0] - mean[1]).mean(axis=1) > 20).all()
    chroma = [(m / m.sum(axis=1, keepdims=True)).mean(axis=0) for m in mean]
    assert np.abs(chroma[0] - chroma[1]).max() > 0.02
    assert len({identity(n).skin + identity(n).hair for n in range(12)}) == 12


def test_another_person_in_a_scene_keeps_pose_and_expression() -> None:
    for scene in scenes(3, 6):
        dst, swap = render(identity(1), scene, 256), render(identity(0), scene, 256)
        width = np.ptp(dst.landmarks[:, 0])
        assert np.linalg.norm(dst.landmarks - swap.landmarks, axis=1).mean() < 0.06 * width
        overlap = ((dst.face_mask > 127) & (swap.face_mask > 127)).sum() / (dst.face_mask > 127).sum()
        assert overlap > 0.7


def test_truth_gives_arrays_as_a_net_wants_them() -> None:
    answer = truth(identity(0), identity(1), seed=1, count=3, resolution=64, face_type="whole_face")
    assert answer.dst.shape == answer.swap.shape == (3, 3, 64, 64) and answer.dst_mask.shape == (3, 1, 64, 64)
    for array in answer:
        assert array.dtype == np.float32 and array.flags.c_contiguous and array.min() >= 0 and 0.5 < array.max() <= 1
    assert np.abs(answer.dst - answer.swap).mean() > 0.03


@pytest.mark.parametrize("face_type", FACE_TYPES)
def test_every_face_type_is_a_genuine_aligned_jpg(face_type: str, tmp_path: Path) -> None:
    folder = tmp_path / "gesichter ü"
    paths = write_faceset(folder, identity(1), 2, 128, face_type, seed=3, masks=True, frames=tmp_path / "frames")
    assert [p.name for p in paths] == ["00001_0.jpg", "00002_0.jpg"]
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == ["00001.jpg", "00002.jpg"]
    for path in paths:
        data = path.read_bytes()
        metadata = read_metadata(data)
        assert image_size(data) == (128, 128) and COMMENT in data
        assert metadata["face_type"] == face_type and metadata["source_filename"] == path.name.replace("_0", "")
        points, source = np.array(metadata["landmarks"]), np.array(metadata["source_landmarks"])
        if face_type == "mark_only":
            assert "image_to_face_mat" not in metadata and np.allclose(points, source)
        else:
            assert np.allclose(transform_points(source, metadata["image_to_face_mat"]), points, atol=1e-3)
        left, top, right, bottom = metadata["source_rect"]
        assert left < source[:, 0].min() and right > source[:, 0].max() and top < bottom
        mask = cv2.imdecode(np.asarray(metadata["xseg_mask"], np.uint8), cv2.IMREAD_GRAYSCALE)
        nose_x, nose_y = np.round(points[30]).astype(int)
        assert mask.shape == (128, 128) and mask[nose_y, nose_x] > 200


def test_workspace_has_dfls_layout(tmp_path: Path) -> None:
    write_demo_workspace(tmp_path, 2, 64, seed=1)
    assert (tmp_path / "model").is_dir()
    for side in ("data_src", "data_dst"):
        assert len(list((tmp_path / side / "aligned").glob("*.jpg"))) == 2


def run(*flags: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    demo_faces.add_arguments(parser)
    out = io.StringIO()
    return demo_faces.run(parser.parse_args(list(flags)), Console(file=out, width=200)), out.getvalue()


def test_command_writes_faces_or_says_why_not(tmp_path: Path) -> None:
    code, said = run("--output-dir", str(tmp_path / "a"), "--count", "2", "--size", "64", "--face-type", "f")
    assert code == 0 and "2 faces" in said and len(list((tmp_path / "a").glob("*.jpg"))) == 2
    code, said = run("--output-dir", str(tmp_path / "b"), "--count", "1", "--size", "64", "--workspace")
    assert code == 0 and (tmp_path / "b" / "data_dst" / "aligned" / "00001_0.jpg").is_file()
    for flags, word in ((("--size", "8"), "64"), (("--count", "0"), "1 or more"), (("--identity", "-1"), "0 or more")):
        code, said = run("--output-dir", str(tmp_path / "c"), *flags)
        assert code == 2 and word in said
    assert not (tmp_path / "c").exists()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        identity(-1)
    with pytest.raises(ValueError, match="16 pixels"):
        render(identity(0), PLAIN, 8)
    with pytest.raises(ValueError, match="outside the frame"):
        render(identity(0), replace(PLAIN, offset=(3.0, 0.0)), 256)


def test_a_faceset_of_many_people_for_pretraining(tmp_path: Path) -> None:
    code, out = run("--people", "3", "--count", "2", "--size", "64", "--output-dir", str(tmp_path), "--identity", "5")
    assert code == 0 and "each of 3 made-up people" in out
    faces = sorted(path.name for path in tmp_path.iterdir())
    assert faces == [f"person{who:04d}_{number:05d}_0.jpg" for who in (5, 6, 7) for number in (1, 2)]
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 6
    assert run("--people", "0", "--output-dir", str(tmp_path))[0] == 2
    code, out = run("--people", "2", "--workspace", "--output-dir", str(tmp_path))
    assert code == 2 and "neither --workspace nor --frames" in out
