"""Samples of labelled faces: the filters against DeepFaceLab's, labels, the order of work, workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from labelled_faces import make_labelled, polygons
from sample_faces import mean_landmarks, noise, write_face

from core.batch import SampleRequest
from core.imagelib import wear
from samplelib import backgrounds, labelled
from samplelib.faceset import Faceset, FacesetError
from samplelib.loader import Loader
from samplelib.prepare import prepare
from samplelib.sampling import generator

REQUEST = SampleRequest(64, "whole_face", names=("image", "label"), flip=True, scale=0.05)


def silent(_: str) -> None:
    """Nobody listens."""


@pytest.mark.parametrize("seed", range(4))
def test_filters(shared: Path, seed: int) -> None:
    """Draws and pictures, as DFL made them with generators of those seeds."""
    recorded = np.load(shared / "golden" / "samples" / "filters.npz")
    image, size = recorded["img"], len(recorded["img"])

    def rng() -> np.random.RandomState:
        return np.random.RandomState(seed)

    def check(name: str, found: np.ndarray, atol: float = 2e-6) -> None:
        np.testing.assert_allclose(found, recorded[f"s{seed}_{name}"].reshape(found.shape), atol=atol, err_msg=name)

    check("hsv", wear.apply_colours(wear.draw_hsv(rng()), image), 1e-5)
    check("rgb_levels", wear.apply_levels(wear.draw_levels(rng()), image), 1e-5)
    sharpen = wear.draw_sharpen(rng())
    check("sharpen", image if sharpen is None else wear.apply_sharpen(sharpen, image), 2e-5)
    motion, blur = wear.draw_motion(rng(), chance=100), wear.draw_blur(rng(), largest=7)
    assert motion is not None
    check("motion", wear.apply_motion(motion, image))
    check("gauss", image if blur is None else wear.apply_blur(blur, image))
    for name, smooth in (("nearest", False), ("bilinear", True)):
        shrink = wear.draw_shrink(rng(), size, smooth, chance=100)
        assert shrink is not None
        check(name, wear.apply_shrink(shrink, image))
    quality = wear.draw_jpeg(rng(), chance=100)
    assert quality is not None
    check("jpeg", wear.apply_jpeg(quality, image), 0.02)
    check("circle_faded", wear.circle_mask(wear.draw_circle(rng(), size), size), 1e-5)


def test_a_change_keeps_to_its_circle() -> None:
    image, changed = np.zeros((64, 64, 3), np.float32), np.ones((64, 64, 3), np.float32)
    mixed = wear.within(wear.Circle(20, 40, 5, 10), image, changed)
    assert mixed[20, 40].min() > 0.999 and mixed[20, 20].max() == 0 and 0.4 < mixed[20, 50, 0] < 0.6


@pytest.mark.parametrize("kernel", [65, 127, 255])
def test_a_flare_is_the_blur_that_it_stands_for(kernel: int) -> None:
    image = noise(3, 256).astype(np.float32) / 255
    part = np.zeros((256, 256), np.float32)
    part[60:200, 40:180] = 1
    exact = image + cv2.GaussianBlur(image * part[..., None], (kernel, kernel), 0)
    assert np.abs(wear.apply_flare(kernel, image, part) - exact).max() < 0.012


def test_polygons_that_exclude_lie_over_those_that_include(tmp_path: Path) -> None:
    folder = make_labelled(tmp_path, 1, 64)
    face = prepare(Faceset.open(folder, silent)[0], ("image", "label"), REQUEST)
    assert face["label"][30, 20] == 255 and face["label"][32, 32] == 0 and face["label"][5, 5] == 0


def test_polygons_count_before_masks_and_masks_where_there_are_no_polygons(tmp_path: Path) -> None:
    said: list[str] = []
    both, masks, plain = (
        Faceset.open(make_labelled(tmp_path / kind, 3, kind=kind), silent) for kind in ("both", "mask", "plain")
    )
    assert len(labelled.choose([plain, both, masks], said.append)) == 3
    fallback = labelled.choose([plain, masks], said.append)
    assert said == ["Using 3 segmented samples.", "Using 3 xseg labeled samples."]
    assert {sample.path.parent.name for sample in fallback} == {"mask"}
    face = prepare(fallback[0], ("label",), REQUEST)
    assert face["label"][10, 32] == 255 and face["label"][50, 32] == 0
    with pytest.raises(FacesetError, match=r"No segmented faces found, among 3 .*editor.*apply"):
        labelled.choose([plain], said.append)


def test_a_label_that_is_gone_is_told(tmp_path: Path) -> None:
    folder = make_labelled(tmp_path, 2, 64)
    faces = Faceset.open(folder, silent)
    write_face(folder / "00000.jpg", noise(0, 64), mean_landmarks(64))
    told: list[str] = []
    with Loader({"face": faces}, {"face": REQUEST}, 2, seed=1, workers=0, warn=told.append) as loader:
        next(loader)
    assert any("not labelled any more" in line for line in told)


def test_a_sample_is_a_face_and_its_label(tmp_path: Path) -> None:
    """The label is of 0 and 1, both are turned alike, and all of it comes in the same bytes again."""
    samples = Faceset.open(make_labelled(tmp_path, 2), silent)
    faces = [prepare(sample, ("image", "label"), REQUEST) for sample in samples]
    image = np.where(faces[0]["label"][..., None] > 0, 255, 0).repeat(3, -1).astype(np.uint8)
    white = {"image": image, "label": faces[0]["label"]}
    for number in range(8):

        def chance(purpose: str, number: int = number) -> np.random.RandomState:
            return generator(5, purpose, "face", number)

        rows = {"image": np.empty((3, 64, 64), np.float32), "label": np.empty((1, 64, 64), np.float32)}
        again = {name: array.copy() for name, array in rows.items()}
        for made in (rows, again):
            labelled.make(white, REQUEST, chance, faces[1], made)
        assert all(np.array_equal(rows[name], again[name]) for name in rows)
        assert set(np.unique(rows["label"])) == {0.0, 1.0}
        assert rows["image"].min() >= 0 and rows["image"].max() <= 1
        inside = rows["label"][0] > 0
        assert rows["image"][:, inside].mean() > rows["image"][:, ~inside].mean()


def test_some_samples_are_left_as_they_are(tmp_path: Path) -> None:
    samples = Faceset.open(make_labelled(tmp_path, 2), silent)
    faces = [prepare(sample, ("image", "label"), REQUEST) for sample in samples]
    image, label = faces[0]["image"].transpose(2, 0, 1) / np.float32(255), faces[0]["label"] >= 128
    kinds = {0.0: {"worn"}, 0.5: {"plain", "flipped", "worn"}, 1.0: {"plain", "flipped"}}
    for share, wanted in kinds.items():
        request = replace(REQUEST, flip=True, plain_share=share)
        seen = []
        for number in range(40):

            def chance(purpose: str, number: int = number) -> np.random.RandomState:
                return generator(5, purpose, "face", number)

            rows = {"image": np.empty((3, 64, 64), np.float32), "label": np.empty((1, 64, 64), np.float32)}
            other = faces[1] if labelled.has_backdrop(request, chance) else None
            labelled.make(faces[0], request, chance, other, rows)
            kind = "worn"
            for name, across in (("plain", 1), ("flipped", -1)):
                if np.allclose(rows["image"], image[..., ::across], atol=1e-6):
                    assert np.array_equal(rows["label"][0], label[:, ::across]), name
                    kind = name
            seen.append(kind)
        assert set(seen) == wanted
        assert abs(1 - seen.count("worn") / len(seen) - share) < 0.2


def test_any_number_of_workers_makes_the_same_samples_of_two_folders(tmp_path: Path) -> None:
    one = Faceset.open(make_labelled(tmp_path / "one", 3), silent)
    two = Faceset.open(make_labelled(tmp_path / "two", 2, first_seed=9), silent)
    faces = labelled.choose([one, two], silent)
    requests = {"face": REQUEST, "src": SampleRequest(64, "whole_face", names=("plain",))}

    def batches(workers: int, cache: int) -> list[dict[str, np.ndarray]]:
        with Loader({"face": faces, "src": one}, requests, 3, seed=4, workers=workers, warn=print,
                    cache_bytes=cache) as loader:  # fmt: skip
            return [
                {f"{side}/{name}": array.copy() for side, arrays in next(loader).items()
                 for name, array in arrays.items()}
                for _ in range(3)
            ]  # fmt: skip

    alone, helped = batches(0, 1 << 20), batches(2, 0)
    for a, b in zip(alone, helped, strict=True):
        assert a.keys() == b.keys() == {"face/image", "face/label", "src/plain"}
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_polygons_beyond_the_picture_are_cut(tmp_path: Path) -> None:
    far = {"seg_ie_polys": {"polys": [{"type": 1, "pts": np.array([[-50, -50], [200, -50], [200, 30], [-50, 30]])}]}}
    write_face(tmp_path / "a.jpg", noise(0, 64), mean_landmarks(64), **far)
    face = prepare(Faceset.open(tmp_path, silent)[0], ("label",), REQUEST)
    assert face["label"][20].min() == 255 and face["label"][40].max() == 0
    assert polygons(64)["seg_ie_polys"]


def test_backgrounds_come_behind_faces(tmp_path: Path) -> None:
    """Red pictures from `aligned/backgrounds`, one of them broken: told, used, the same for any number of workers."""
    place = make_labelled(tmp_path, 2) / "backgrounds"
    place.mkdir()
    for number, shape in enumerate(((1200, 900, 3), (70, 200, 3), (20, 20, 3))):
        cv2.imwrite(str(place / f"{number}.jpg"), np.full(shape, (0, 0, 255), np.uint8))
    (place / "3.jpg").write_bytes(b"no picture")
    (place / "readme.txt").write_text("")
    said: list[str] = []
    faces = labelled.choose([Faceset.open(tmp_path, silent)], said.append)
    assert len(faces) == 2 and "4 backgrounds of" in said[-1] and "1 other file is not read, only JPG is." in said[-1]
    batches: list[np.ndarray] = []
    for workers in (0, 2):
        told: list[str] = []
        with Loader({"face": faces}, {"face": REQUEST}, 16, seed=1, workers=workers, warn=told.append) as loader:
            batches.append(np.concatenate([next(loader)["face"]["image"].copy() for _ in range(2)]))
        assert any(line.startswith("background 3.jpg is skipped: ") for line in told), told
    assert np.array_equal(*batches)
    (place / "3.jpg").unlink()
    plain = Faceset({name: array for name, array in faces.to_arrays().items() if name != backgrounds.ARRAY})
    with Loader({"face": plain}, {"face": REQUEST}, 32, seed=1, workers=0, warn=silent) as loader:
        without = next(loader)["face"]["image"].copy()
    changed = [not np.array_equal(a, b) for a, b in zip(batches[0], without, strict=True)]
    assert 2 <= sum(changed) <= 16, "a quarter of 32"


def test_a_piece_of_a_background(tmp_path: Path) -> None:
    wide = np.zeros((800, 1600, 3), np.uint8)
    wide[:, 800:] = 255
    cv2.imwrite(str(tmp_path / "a.jpg"), wide)
    (tmp_path / "none").mkdir()
    assert backgrounds.find([tmp_path / "none"], silent) == {}
    (tmp_path / backgrounds.FOLDER).mkdir()
    (tmp_path / "a.jpg").rename(tmp_path / backgrounds.FOLDER / "a.jpg")
    scenes = backgrounds.Backgrounds(backgrounds.find([tmp_path], silent)[backgrounds.ARRAY], 64, silent)
    pieces = [scenes.piece(np.random.RandomState(seed)) for seed in range(40)]
    found = [piece for piece in pieces if piece is not None]
    assert 10 <= len(found) <= 30 and all(piece["image"].shape == (64, 64, 3) for piece in found)
    bright = [piece["image"].mean() for piece in found]
    assert min(bright) < 20 and max(bright) > 235, "from all over the picture"
    assert not any(piece["label"].any() for piece in found)
