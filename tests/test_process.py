"""Warp, masks and whole samples, against DFL's recordings and against what they must mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sample_faces import make_folder, mean_landmarks, noise, write_face

from core.batch import SampleRequest
from core.imagelib import color, color_transfer, warp
from core.imagelib.draw import add_soft_hulls
from facelib import landmarks as lm
from samplelib.faceset import FaceReadError, Faceset, FacesetError
from samplelib.prepare import Pixels, kinds, load, load_image, prepared
from samplelib.process import check, check_colours, process, suitable
from samplelib.sampling import Order, generator, yaw_bins

STILL = {"rotation": 0.0, "scale": 0.0, "shift": 0.0}


def silent(text: str) -> None:
    raise AssertionError(f"unexpected warning: {text}")


def open_face(folder: Path, image: np.ndarray, landmarks: np.ndarray, face_type: str = "whole_face", **more: object):
    folder.mkdir(parents=True, exist_ok=True)
    write_face(folder / "face.jpg", image, landmarks, face_type, **more)
    return Faceset.open(folder, silent).samples[0]


def run(
    sample, pixels: Pixels, request: SampleRequest, number: int = 0, reference: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    face = prepared(sample, pixels, kinds(request), request)
    other = {}
    if reference is not None:
        size = (request.resolution, request.resolution)
        other["colours"] = np.asarray(cv2.resize(reference, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    return process(face, request, lambda purpose: generator(1, purpose, "src", number), other)


def compare_with_recording(path: Path, size: int) -> None:
    recorded = np.load(path)
    for seed in sorted({int(key[1]) for key in recorded if key[0] == "s"}):
        rng, bend_rng = np.random.RandomState(seed), np.random.RandomState(seed)
        drawn = warp.draw(rng, bend_rng, size, flip=True)
        assert drawn.maps is not None
        assert np.array_equal(drawn.maps[0], recorded[f"s{seed}_mapx"])
        assert np.array_equal(drawn.maps[1], recorded[f"s{seed}_mapy"])
        assert np.allclose(drawn.matrix, recorded[f"s{seed}_rmat"], rtol=0, atol=1e-12)
        assert drawn.flip == bool(recorded[f"s{seed}_flip"])
        assert [rng.uniform(), bend_rng.uniform()] == recorded[f"s{seed}_next_rand"].tolist()
        close = {"rtol": 0, "atol": 0.03}
        made = warp.apply(drawn, recorded["img"], bend=True)
        assert np.allclose(made, recorded[f"s{seed}_img_warp_transform"], **close)
        assert np.allclose(warp.apply(drawn, recorded["img"], bend=False), recorded[f"s{seed}_img_transform"], **close)
        made = warp.apply(drawn, recorded["mask"], bend=False, mask=True)
        assert np.allclose(made, recorded[f"s{seed}_mask_transform"], **close)


@pytest.mark.parametrize("size", [32, 64])
def test_warp_is_the_recorded_one(golden: Path, size: int) -> None:
    compare_with_recording(golden / "samples" / f"warp_{size}.npz", size)


@pytest.mark.parametrize("size", [32, 64, 96, 128])
def test_warp_is_every_recorded_one(shared: Path, size: int) -> None:
    compare_with_recording(shared / "golden" / "samples" / f"warp_{size}.npz", size)


def test_truncated_normal_is_the_recorded_one(golden: Path) -> None:
    recorded = np.load(golden / "samples" / "random_normal.npz")
    rng = np.random.RandomState(0)
    assert np.array_equal(warp.truncated_normal(rng, 200).reshape(50, 4), recorded["x"])
    assert rng.uniform() == recorded["next_rand"]


def test_draws_are_spread_as_asked() -> None:
    drawn = [warp.draw(generator(3, "affine", "src", n), None, 100, flip=True) for n in range(4000)]
    matrices = np.stack([d.matrix for d in drawn])
    angles = np.degrees(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0]))
    scales = np.hypot(matrices[:, 0, 0], matrices[:, 0, 1])
    centre = matrices[:, :, :2] @ np.array([50.0, 50.0]) + matrices[:, :, 2] - 50
    x, y = centre.T
    for values, low, high in ((angles, -10, 10), (scales, 1 / 1.15, 1.15), (x, -5, 5), (y, -5, 5)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.02 * (high - low)
    assert abs(np.mean([d.flip for d in drawn]) - 0.4) < 0.03
    assert not any(warp.draw(generator(3, "affine", "src", n), None, 100).flip for n in range(50))


def test_bends_are_symmetric_about_the_diagonal_and_centred() -> None:
    still = np.stack(np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5))
    shifts = []
    for number in range(300):
        maps = warp.draw(generator(3, "affine", "src", 0), generator(3, "bend", "src", number), 64).maps
        assert maps is not None
        assert np.allclose(maps[0], maps[1].T, atol=1e-4)
        shifts.append(np.stack(maps) - still)
    assert abs(np.mean(shifts)) < 0.1
    assert 3 < np.abs(shifts).max() < 2 * 0.24 * 32 + 1  # two jitters of at most 0.24 cells


def test_apply_refuses_another_size() -> None:
    with pytest.raises(ValueError, match="64x64 px, the image has 32x32"):
        warp.apply(warp.draw(np.random.RandomState(0), None, 64), np.zeros((32, 32, 3), np.float32), bend=False)


@pytest.mark.parametrize("size", [48, 64, 130])
def test_one_interpolation_shows_what_two_do(size: int) -> None:
    """On a smooth picture there is no difference; on noise one is sharper. No picture is moved against its mask."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    smooth = np.dstack([x, y, (np.sin(5 * x) * np.cos(4 * y) + 1) / 2]).astype(np.float32)
    rough = np.random.default_rng(0).random((size, size, 3), np.float32)
    inner = np.s_[size // 5 : -size // 5, size // 5 : -size // 5]
    sharpness = {"once": 0.0, "twice": 0.0}
    for number in range(40):
        drawn = warp.draw(generator(3, "affine", "src", number), generator(3, "bend", "src", number), size, flip=True)
        for bend in (False, True):
            once, twice = warp.apply_once(drawn, smooth, bend=bend), warp.apply(drawn, smooth, bend=bend)
            assert np.abs(once - twice)[inner].max() < (0.02 if bend else 0.004)
        mask = warp.apply_once(drawn, smooth[..., 0], bend=False, mask=True)
        assert np.abs(mask - warp.apply(drawn, smooth[..., 0], bend=False, mask=True))[inner].max() < 0.004
        for name, make in (("once", warp.apply_once), ("twice", warp.apply)):
            sharpness[name] += float(cv2.Laplacian(make(drawn, rough, bend=True), cv2.CV_32F)[inner].var())
    assert sharpness["once"] >= sharpness["twice"] * (1.2 if size >= warp.MIN_SIZE else 1)


@pytest.mark.parametrize("size", [64, 97, 256])
def test_soft_hulls_equal_the_masks_on_the_whole_canvas(size: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        points = mean_landmarks(size) * rng.uniform(0.2, 1.3) + rng.uniform(-0.4, 0.4, 2) * size
        eyes, mouth = np.zeros((2, size, size), np.float32)
        add_soft_hulls(eyes, [points[36:42], points[42:48]])
        add_soft_hulls(mouth, [points[60:68]])
        assert np.allclose(eyes, lm.eyes_mask((size, size), points)[..., 0], atol=1e-6)
        assert np.allclose(mouth, lm.mouth_mask((size, size), points)[..., 0], atol=1e-6)


def test_a_sample_has_what_was_asked_for(tmp_path: Path) -> None:
    sample = open_face(tmp_path, noise(0, 96), mean_landmarks(96))
    made = run(sample, load(sample), SampleRequest(64, "whole_face", flip=True))
    assert {name: (a.shape, a.dtype.name) for name, a in made.items()} == {
        "warped": ((3, 64, 64), "float32"), "target": ((3, 64, 64), "float32"),
        "mask": ((1, 64, 64), "float32"), "mask_em": ((1, 64, 64), "float32"),
    }  # fmt: skip
    assert all(a.min() >= 0 and a.max() <= 1 for a in made.values())
    assert not np.array_equal(made["warped"], made["target"])
    assert made["mask_em"].max() == 1
    assert not (made["mask_em"] * (made["mask"] == 0)).any()
    for names in (("warped",), ("mask_em", "target"), ("mask",)):
        only = run(sample, load(sample), SampleRequest(64, "whole_face", names=names, flip=True))
        assert list(only) == list(names)
        assert all(np.array_equal(only[name], made[name]) for name in names)


def test_without_random_warp_the_input_is_the_target(tmp_path: Path) -> None:
    sample = open_face(tmp_path, noise(0, 96), mean_landmarks(96))
    bent = run(sample, load(sample), SampleRequest(64, "whole_face"))
    made = run(sample, load(sample), SampleRequest(64, "whole_face", random_warp=False))
    assert np.array_equal(made["warped"], made["target"])
    assert np.array_equal(made["target"], bent["target"])  # the affine does not depend on the bend


@pytest.mark.parametrize("mode", color_transfer.MODES)
def test_colours_come_before_the_bend_and_leave_geometry_and_masks_alone(tmp_path: Path, mode: str) -> None:
    sample = open_face(tmp_path, noise(0, 96), mean_landmarks(96))
    reference = noise(5, 80)[:, :70] // 2 + 60  # another size: it is only resized
    plain = SampleRequest(96, "whole_face", flip=True)
    request = replace(plain, ct_mode=mode, ct_from="dst")
    before, made = run(sample, load(sample), plain, 3), run(sample, load(sample), request, 3, reference)
    assert np.array_equal(made["mask"], before["mask"]) and np.array_equal(made["mask_em"], before["mask_em"])
    small = cv2.resize(reference, (96, 96), interpolation=cv2.INTER_LINEAR)
    face, small = (x.astype(np.float32) * np.float32(1 / 255) for x in (load(sample).image, small))
    params = color_transfer.draw(mode, generator(1, "colour", "src", 3))
    coloured = color_transfer.apply(mode, face, small, params)
    drawn = warp.draw(generator(1, "affine", "src", 3), generator(1, "bend", "src", 3), 96, flip=True)
    for name, bend in (("target", False), ("warped", True)):
        wanted = np.clip(warp.apply_once(drawn, coloured, bend=bend), 0, 1).transpose(2, 0, 1)
        assert np.allclose(made[name], wanted, atol=1e-5)
        assert np.abs(made[name] - before[name]).max() > 0.05


@pytest.mark.parametrize("random_warp", [True, False])
def test_an_hsv_shift_is_for_the_input_only(tmp_path: Path, random_warp: bool) -> None:
    sample = open_face(tmp_path, noise(0, 96), mean_landmarks(96))
    plain = SampleRequest(96, "whole_face", flip=True, random_warp=random_warp)
    before, made = (run(sample, load(sample), replace(plain, hsv_power=power), 2) for power in (0.0, 0.3))
    for name in ("target", "mask", "mask_em"):
        assert np.array_equal(made[name], before[name])
    face = load(sample).image.astype(np.float32) / 255
    shifted = color.apply(color.draw(generator(1, "hsv", "src", 2), 0.3), face)
    bend = generator(1, "bend", "src", 2) if random_warp else None
    drawn = warp.draw(generator(1, "affine", "src", 2), bend, 96, flip=True)
    wanted = np.clip(warp.apply_once(drawn, shifted, bend=True), 0, 1).transpose(2, 0, 1)
    assert np.allclose(made["warped"], wanted, atol=1e-5)
    assert np.abs(made["warped"] - before["warped"]).max() > 0.02


def test_any_arrays_may_be_asked_for_with_other_colours(tmp_path: Path) -> None:
    sample, reference = open_face(tmp_path, noise(0, 96), mean_landmarks(96)), noise(5, 96)
    request = SampleRequest(64, "whole_face", random_warp=False, ct_mode="rct", ct_from="dst", hsv_power=0.2)
    made = run(sample, load(sample), request, 1, reference)
    for names in (("warped",), ("target",), ("mask", "warped")):
        only = run(sample, load(sample), replace(request, names=names), 1, reference)
        assert list(only) == list(names)
        assert all(np.array_equal(only[name], made[name]) for name in names)
    with pytest.raises(ValueError, match="ct_mode rct needs a picture"):
        run(sample, load(sample), request)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ct_mode": "hist", "ct_from": "dst"}, "src: ct_mode 'hist' is unknown; allowed are none, rct, lct, mkl"),
        ({"ct_mode": "rct", "ct_from": "bob"}, "got ct_from 'bob'; allowed are src, dst"),
        ({"ct_mode": "rct"}, "got ct_from ''; allowed are src, dst"),
        ({"hsv_power": 1.5}, "src: hsv_power 1.5 is outside 0 to 1"),
    ],
)
def test_colours_that_cannot_be_given_are_refused(changes: dict[str, Any], words: str) -> None:
    plain = SampleRequest(64, "whole_face")
    with pytest.raises(ValueError, match=words):
        check_colours({"src": replace(plain, **changes), "dst": plain})
    check_colours({"src": replace(plain, ct_mode="sot", ct_from="src", hsv_power=0.3), "dst": plain})


@pytest.mark.parametrize("face_type", ["whole_face", "full_face", "half_face"])
def test_landmarks_and_masks_move_with_the_picture(tmp_path: Path, face_type: str) -> None:
    size, resolution = 256, 96
    points = mean_landmarks(size) + np.array((9, -7))
    hull = lm.hull_mask((size, size), points)
    sample = open_face(tmp_path, np.repeat((hull * 255).astype(np.uint8), 3, axis=2), points)
    dot = np.zeros((size, size, 3), np.float32)
    cv2.circle(dot, [int(v) for v in points[30].round()], 3, (255, 255, 255), -1)
    request = SampleRequest(resolution, face_type, flip=True, random_warp=False)
    to_model = lm.transform_matrix(sample.landmarks, resolution, face_type)
    if face_type == "whole_face":
        to_model = np.array([[resolution / size, 0, 0], [0, resolution / size, 0]])
    flips = 0
    for number in range(20):
        made = run(sample, load(sample), request, number)
        inner = np.s_[16:-16, 16:-16]  # beyond its border a picture goes on, a mask does not
        assert np.abs(made["target"].mean(0) - made["mask"][0])[inner].mean() < 0.02
        seen = run(sample, Pixels(dot.astype(np.uint8), None), request, number)["target"].mean(0)
        drawn = warp.draw(generator(1, "affine", "src", number), None, resolution, flip=True)
        expected = lm.transform_points(lm.transform_points(points[30:31].round(), to_model), drawn.matrix)[0]
        if drawn.flip:
            expected[0] = resolution - 1 - expected[0]
            flips += 1
        found = np.array([(seen * axis).sum() / seen.sum() for axis in np.mgrid[:resolution, :resolution][::-1]])
        assert np.abs(found - expected).max() < 0.5
    assert 0 < flips < 20


def test_the_users_mask_is_used_and_may_have_another_size(tmp_path: Path) -> None:
    mask = np.zeros((48, 48), np.uint8)
    mask[12:36, 12:36] = 255
    packed = np.frombuffer(cv2.imencode(".png", mask)[1].tobytes(), np.uint8)
    sample = open_face(tmp_path, noise(0, 96), mean_landmarks(96), xseg_mask=packed)
    made = run(sample, load(sample), SampleRequest(64, "whole_face", **STILL))
    expected = np.zeros((64, 64), np.float32)
    expected[16:48, 16:48] = 1
    assert np.abs(made["mask"][0] - expected).mean() < 0.03
    assert made["mask_em"][0][:15].max() == 0


def test_a_broken_mask_or_picture_is_told(tmp_path: Path) -> None:
    sample = open_face(tmp_path / "a", noise(0, 96), mean_landmarks(96))
    sample.path.write_bytes(sample.path.read_bytes()[:-900])
    with pytest.raises(FaceReadError):
        load(sample)
    sample.path.unlink()
    for read in (load, load_image):
        with pytest.raises(FileNotFoundError):  # what becomes of that: tests/test_patience.py
            read(sample)


def test_faces_that_show_too_little_are_refused_before_training(tmp_path: Path) -> None:
    make_folder(tmp_path, 3, face_type="full_face")
    write_face(tmp_path / "wide.jpg", noise(9, 96), mean_landmarks(96))
    faceset = Faceset.open(tmp_path, silent)
    check(faceset, SampleRequest(64, "full_face"))
    check(faceset, SampleRequest(64, "half_face"))
    with pytest.raises(FacesetError) as caught:
        check(faceset, SampleRequest(64, "whole_face"))
    for words in ("wants whole_face", "3 of type full_face", "1 of type whole_face", "Extract the faces"):
        assert words in str(caught.value)


def test_a_few_faces_that_show_too_little_are_left_out(tmp_path: Path) -> None:
    make_folder(tmp_path, 3)
    write_face(tmp_path / "narrow.jpg", noise(9, 96), mean_landmarks(96, "full_face"), "full_face")
    faceset, lines = Faceset.open(tmp_path, silent), []  # type: ignore[var-annotated]
    kept = suitable(faceset, SampleRequest(64, "whole_face"), lines.append)
    assert lines == ["narrow.jpg (full_face): cannot show whole_face; skipped"]
    assert [sample.filename for sample in kept.samples] == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert (kept.samples[2].landmarks == faceset.samples[2].landmarks).all()
    assert suitable(faceset, SampleRequest(64, "full_face"), lines.append) is faceset


def test_mark_only_frames_are_aligned(tmp_path: Path) -> None:
    frame = np.zeros((200, 300, 3), np.uint8)
    points = mean_landmarks(96) + np.array((150, 60))
    frame[60:156, 150:246] = noise(1, 96)
    sample = open_face(tmp_path, frame, points, "mark_only")
    made = run(sample, load(sample), SampleRequest(96, "whole_face", random_warp=False, **STILL))
    inner = np.s_[:, 8:-8, 8:-8]
    assert np.abs(made["target"].transpose(1, 2, 0)[inner[1:]] * 255 - noise(1, 96)[inner[1:]]).mean() < 8
    assert 0.2 < made["mask"].mean() < 0.8


def test_samples_look_like_recorded_ones(shared: Path) -> None:
    recorded = np.load(shared / "golden" / "genuine_saehd_df" / "_io.npz")
    tolerances = {"warped": 0.1, "target": 0.1, "mask": 0.05, "mask_em": 0.03}
    for side, key in (("src", "in_gen0"), ("dst", "in_gen1")):
        faceset = Faceset.open(shared / "faces" / side / "aligned", silent)
        samples = [faceset.samples[i] for i in range(0, len(faceset), 12)]
        made = [run(s, load(s), SampleRequest(64, "half_face"), n) for n, s in enumerate(samples)]
        for place, (name, tolerance) in enumerate(tolerances.items()):
            mean = np.mean([m[name] for m in made])
            assert abs(mean - recorded[f"{key}_{place}"].mean()) < tolerance, (side, name, mean)


def test_each_face_comes_once_an_epoch_in_any_order_of_asking() -> None:
    order = Order(7, 5, "src")
    numbers = [order[n] for n in range(35)]
    for epoch in range(5):
        assert sorted(numbers[epoch * 7 : epoch * 7 + 7]) == list(range(7))
    assert len({tuple(numbers[e * 7 : e * 7 + 7]) for e in range(5)}) > 1
    assert [Order(7, 5, "src")[n] for n in reversed(range(35))] == numbers[::-1]
    assert [Order(7, 5, "dst")[n] for n in range(35)] != numbers
    assert [Order(7, 6, "src")[n] for n in range(35)] != numbers


def test_uniform_yaw_draws_every_bin_equally_often_and_every_face_of_it() -> None:
    yaws = np.concatenate([np.full(50, 0.001), np.full(3, 0.5), [-0.7], [2.0], [-2.0, -1.199]])
    assert [len(b) for b in yaw_bins(yaws)] == [2, 1, 50, 3, 1]
    order = Order(len(yaws), 5, "src", yaws)
    drawn = np.array([order[n] for n in range(5 * 300)])
    counts = [np.isin(drawn, faces).sum() for faces in yaw_bins(yaws)]
    assert counts == [300] * 5
    assert np.bincount(drawn, minlength=len(yaws)).tolist() == [6] * 50 + [100] * 3 + [300, 300, 150, 150]


def test_generators_do_not_overlap() -> None:
    draws = {
        (seed, purpose, side, number): generator(seed, purpose, side, number).uniform(size=4).tobytes()
        for seed in (0, 1, -1) for purpose in ("affine", "bend") for side in ("src", "dst") for number in (0, 1, 2**40)
    }  # fmt: skip
    assert len(set(draws.values())) == len(draws)
