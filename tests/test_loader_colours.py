"""Samples in the colours of other faces: which face gives them, with any number of workers, and when one is broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from loading import REQUEST, assert_same, damage, open_loader, silent, taken
from sample_faces import make_folder, mean_landmarks, write_face

from samplelib.faceset import Faceset
from samplelib.loader import Loader, LoaderError
from samplelib.sampling import Order


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("faces")
    return {"src": make_folder(base / "src", 7), "dst": make_folder(base / "dst", 9, first_seed=100)}


def colour_loader(folders: dict[str, Path], workers: int, mode: str = "rct", **more: Any) -> Loader:
    """src in the colours of dst."""
    facesets = {side: Faceset.open(folder, silent) for side, folder in folders.items()}
    requests = {"src": replace(REQUEST, ct_mode=mode, ct_from="dst", hsv_power=0.2), "dst": REQUEST}
    options: dict[str, Any] = {"seed": 7, "warn": silent, **more}
    return Loader(facesets, requests, 3, workers=workers, **options)


def test_colours_do_not_depend_on_workers_and_change_nothing_else(folders: dict[str, Path]) -> None:
    with open_loader(folders, 0) as loader:
        wanted = taken(loader, 8)
    with colour_loader(folders, 0, "idt") as loader:
        coloured = taken(loader, 8)
    for workers, position in ((1, 0), (2, 3)):
        with colour_loader(folders, workers, "idt", position=position) as loader:
            assert_same(taken(loader, 8 - position), coloured[position:])
    for made, plain in zip(coloured, wanted, strict=False):
        for name, array in plain.dst.items():
            assert np.array_equal(made.dst[name], array)
        assert np.array_equal(made.src.mask, plain.src.mask)
        assert np.array_equal(made.src.mask_em, plain.src.mask_em)
        assert not np.allclose(made.src.target, plain.src.target, atol=0.02)


def flat_folder(folder: Path, count: int) -> tuple[Path, np.ndarray]:
    """Faces of one colour each, and those colours (count, 3) in [0, 1]."""
    colours = np.linspace(40, 220, count, dtype=np.uint8)[:, None] + np.array((0, 10, 20), np.uint8)
    folder.mkdir()
    for number, colour in enumerate(colours):
        write_face(folder / f"{number:05d}.jpg", np.full((96, 96, 3), colour, np.uint8), mean_landmarks(96))
    return folder, colours / np.float32(255)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_face_gives_its_colours_once_an_epoch(folders: dict[str, Path], tmp_path: Path, workers: int) -> None:
    dst, colours = flat_folder(tmp_path / "flat", 6)
    order = Order(6, 7, "src colours")
    with colour_loader({"src": folders["src"], "dst": dst}, workers, "lct") as loader:
        batches = taken(loader, 4)  # twelve samples of src: two epochs
    means = np.concatenate([batch.src.target.mean((2, 3)) for batch in batches])
    seen = np.abs(means[:, None] - colours).sum(2).argmin(1).tolist()
    assert seen == [order[n] for n in range(12)]
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_broken_face_that_should_give_colours_is_told_once_and_replaced(
    folders: dict[str, Path], tmp_path: Path, workers: int
) -> None:
    dst, colours = flat_folder(tmp_path / "flat", 5)
    data = (dst / "00001.jpg").read_bytes()
    (dst / "00001.jpg").write_bytes(data[: data.rindex(b"\xff\xda") + 40])
    broken_mask = np.frombuffer(b"\x89PNG" + bytes(40), np.uint8)  # its picture still has colours to give
    write_face(dst / "00003.jpg", cv2.imread(str(dst / "00003.jpg")), mean_landmarks(96), xseg_mask=broken_mask)
    told: list[str] = []
    with colour_loader({"src": folders["src"], "dst": dst}, workers, "lct", warn=told.append) as loader:
        batches = taken(loader, 5)
    seen = np.abs(np.concatenate([b.src.target.mean((2, 3)) for b in batches])[:, None] - colours).sum(2).argmin(1)
    order = Order(5, 7, "src colours")
    assert seen.tolist() == [2 if order[n] == 1 else order[n] for n in range(15)]
    assert sorted(text.split(" is skipped")[0] for text in told) == ["00001.jpg of dst", "00003.jpg of dst"]


def test_no_face_to_take_colours_from_is_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    dst = make_folder(tmp_path / "faces", 2)
    damage(dst, 0)
    damage(dst, 1)
    loader = colour_loader({"src": folders["src"], "dst": dst}, 0, warn=lambda text: None)
    with loader, pytest.raises(LoaderError, match="none of the 2 faces of dst can be decoded"):
        next(loader)
    with pytest.raises(ValueError, match="allowed are src, dst"):
        faces = Faceset.open(folders["src"], silent)
        requests = {"src": replace(REQUEST, ct_mode="rct", ct_from="elsewhere"), "dst": REQUEST}
        Loader({"src": faces, "dst": faces}, requests, 1, seed=0, workers=2, warn=silent)
