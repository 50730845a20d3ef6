"""meta.dat: face data survive programs that drop them, no pixel is touched, and nothing is ever lost on the way."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sample_faces import make_folder

from core.dflfile import dumps, load
from core.disk import DISK
from facelib.dfljpg import embed, read_header, read_metadata
from samplelib.faceset import Faceset, FacesetError
from samplelib.metafile import restore_metadata, same, save_metadata, scaled


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def aligned(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "aligned", 3, size=64)


def edit(path: Path, width: int = 0, height: int = 0, to: Path | None = None) -> bytes:
    """Saves a picture as another program would: changed, its face data dropped. Returns the file."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    image = cv2.resize(image, (width or image.shape[1], height or image.shape[0]), interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode((to or path).suffix, cv2.add(image, 9))[1].tobytes()
    (to or path).write_bytes(data)
    if to is not None:
        path.unlink()
    return data


def pixels(data: bytes) -> bytes:
    return data[read_header(data).scan :]


def restored(folder: Path, warned: list[str]) -> dict[str, Any]:
    return vars(restore_metadata(folder, warned.append, DISK))


def test_edited_pictures_get_their_data_back(aligned: Path, warned: list[str]) -> None:
    before = {path.name: read_metadata(path.read_bytes()) for path in aligned.iterdir()}
    assert save_metadata(aligned, warned.append) == (3, 0)
    edited = {name: edit(aligned / name) for name in ("00000.jpg", "00001.jpg")}
    untouched = (aligned / "00002.jpg").read_bytes()
    found = restored(aligned, warned)
    assert found == {"mended": 2, "scaled": 0, "whole": 1, "own": 0, "problems": 0, "kept": False}
    for name, metadata in before.items():
        data = (aligned / name).read_bytes()
        assert list(read_metadata(data)) == list(metadata) and same(read_metadata(data), metadata)
        assert name not in edited or pixels(data) == pixels(edited[name])
    assert (aligned / "00002.jpg").read_bytes() == untouched
    assert not (aligned / "meta.dat").exists() and warned == []
    assert len(Faceset.open(aligned, warned.append)) == 3


def test_genuine_faces_of_every_kind_come_back(shared: Path, tmp_path: Path, warned: list[str]) -> None:
    names = ("odd_valid", "masked/odd", "masked/both", "types/mark_only", "types/head")
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        shutil.copytree(shared / "faces" / name, folder, copy_function=shutil.copyfile)
        folder.chmod(0o755)
        before = {path.name: read_metadata(path.read_bytes()) for path in folder.iterdir()}
        assert save_metadata(folder, warned.append) == (len(before), 0)
        for path in folder.glob("*.[jJ]*"):
            edit(path)
        assert restored(folder, warned)["mended"] == len(before)
        for picture, metadata in before.items():
            assert same(read_metadata((folder / picture).read_bytes()), metadata), picture
    assert warned == []


def test_what_dfl_reads_and_writes(aligned: Path, warned: list[str]) -> None:
    """A dictionary from name to (shape, face data); DFL compares the shape with a picture's, so it is a tuple."""
    path = aligned / "meta.dat"
    save_metadata(aligned, warned.append)
    stored = pickle.loads(path.read_bytes())  # noqa: S301
    assert list(stored) == ["00000.jpg", "00001.jpg", "00002.jpg"]
    shape, metadata = stored["00001.jpg"]
    assert shape == (64, 64, 3) and same(metadata, read_metadata((aligned / "00001.jpg").read_bytes()))
    metadata["landmarks"] = np.array(metadata["landmarks"])
    for protocol in (2, 3, 4):
        path.write_bytes(pickle.dumps({**stored, "00001.jpg": ([64, 64, 3], metadata)}, protocol))
        edit(aligned / "00001.jpg")
        assert restored(aligned, warned)["mended"] == 1 and warned == []


def test_another_size_scales_the_data_and_no_pixel(aligned: Path, warned: list[str]) -> None:
    path = aligned / "00000.jpg"
    polygon = np.array([[1, 2], [60, 4], [30, 50]], np.float32)
    mask = cv2.imencode(".png", np.full((16, 16), 255, np.uint8))[1].ravel()
    old = {
        **read_metadata(path.read_bytes()),
        "xseg_mask": mask,
        "seg_ie_polys": {"polys": [{"type": 1, "pts": polygon}]},
    }
    path.write_bytes(embed(path.read_bytes(), old))
    (small,) = (s for s in Faceset.open(aligned, warned.append) if s.filename == path.name)
    save_metadata(aligned, warned.append)
    edited = edit(path, 256, 256)
    edit(aligned / "00001.jpg", 32, 32)
    found = restored(aligned, warned)
    assert (found["mended"], found["scaled"], found["kept"]) == (2, 2, False) and warned == []
    data = path.read_bytes()
    new = read_metadata(data)
    assert pixels(data) == pixels(edited) and read_header(data).width == 256
    assert type(new["landmarks"]) is list and new["seg_ie_polys"]["polys"][0]["pts"].dtype == np.float32
    np.testing.assert_allclose(new["landmarks"], np.array(old["landmarks"]) * 4)
    np.testing.assert_allclose(new["image_to_face_mat"], old["image_to_face_mat"] * 4)
    np.testing.assert_array_equal(new["seg_ie_polys"]["polys"][0]["pts"], polygon * 4)
    assert same(new["source_landmarks"], old["source_landmarks"]) and same(new["xseg_mask"], mask)
    (large,) = (s for s in Faceset.open(aligned, warned.append) if s.filename == path.name)
    np.testing.assert_allclose(large.landmarks, small.landmarks * 4, rtol=1e-6)
    np.testing.assert_allclose(large.pose, small.pose, atol=1e-3)


def test_restoring_twice_changes_nothing(aligned: Path, warned: list[str]) -> None:
    save_metadata(aligned, warned.append)
    saved = (aligned / "meta.dat").read_bytes()
    edit(aligned / "00000.jpg", 100, 100)
    assert restored(aligned, warned)["mended"] == 1
    once = {path.name: path.read_bytes() for path in aligned.iterdir()}
    (aligned / "meta.dat").write_bytes(saved)
    assert restored(aligned, warned) == {
        "mended": 0, "scaled": 0, "whole": 3, "own": 0, "problems": 0, "kept": False,
    }  # fmt: skip
    assert {path.name: path.read_bytes() for path in aligned.iterdir()} == once


def test_a_program_that_keeps_the_data_but_not_the_size(aligned: Path, warned: list[str]) -> None:
    path = aligned / "00000.jpg"
    save_metadata(aligned, warned.append)
    old = read_metadata(path.read_bytes())
    path.write_bytes(embed(edit(path, 128, 128), old))
    assert restored(aligned, warned)["scaled"] == 1
    np.testing.assert_allclose(read_metadata(path.read_bytes())["landmarks"], np.array(old["landmarks"]) * 2)


def test_what_cannot_be_mended_stays_as_it_is(aligned: Path, warned: list[str]) -> None:
    save_metadata(aligned, warned.append)
    cropped = edit(aligned / "00000.jpg", 64, 40)
    edit(aligned / "00001.jpg", to=aligned / "00001.png")
    (aligned / "00002.jpg").write_bytes(b"\x89PNG of another name")
    shutil.copyfile(aligned / "00000.jpg", aligned / "new.jpg")
    found = restored(aligned, warned)
    assert (found["mended"], found["problems"], found["kept"]) == (0, 4, True)
    assert warned == [
        "00000.jpg: its picture is 64x40 and was 64x64: cropped or stretched, so its face data do not fit; "
        "bring it back to that shape",
        "00002.jpg: not a JPEG (PNG)",
        "new.jpg: it has no face data, and meta.dat has none of its name; if it was renamed, name it back",
        "00001.png: face data can only lie in a JPG; save it as 00001.jpg",
    ]
    assert (aligned / "00000.jpg").read_bytes() == cropped and (aligned / "meta.dat").exists()


def test_data_of_their_own_are_kept_and_so_is_meta_dat(aligned: Path, warned: list[str]) -> None:
    path = aligned / "00000.jpg"
    save_metadata(aligned, warned.append)
    labelled = embed(path.read_bytes(), {**read_metadata(path.read_bytes()), "eyebrows_expand_mod": 2.0})
    path.write_bytes(labelled)
    found = restored(aligned, warned)
    assert (found["own"], found["whole"], found["kept"]) == (1, 2, True)
    assert path.read_bytes() == labelled


def test_names_that_programs_change(aligned: Path, warned: list[str]) -> None:
    save_metadata(aligned, warned.append)
    edit(aligned / "00000.jpg", to=aligned / "00000.JPG")
    edit(aligned / "00001.jpg", to=aligned / "00001.jpeg")
    found = restored(aligned, warned)
    assert (found["mended"], found["kept"]) == (2, False) and warned == []


def test_pictures_that_are_elsewhere_keep_their_data(aligned: Path, warned: list[str]) -> None:
    save_metadata(aligned, warned.append)
    (aligned / "00000.jpg").rename(aligned.parent / "00000.jpg")
    found = restored(aligned, warned)
    assert found["kept"] and list(load(aligned / "meta.dat")) == ["00000.jpg", "00001.jpg", "00002.jpg"]


def test_saving_again_does_not_forget_what_is_lost_meanwhile(aligned: Path, warned: list[str]) -> None:
    save_metadata(aligned, warned.append)
    edit(aligned / "00001.jpg")
    assert save_metadata(aligned, warned.append) == (3, 1)
    assert (
        len(warned) == 1 and "00001.jpg: a picture without" in warned[0] and "meta.dat has its face data" in warned[0]
    )
    assert restored(aligned, warned)["mended"] == 1


def test_a_faceset_says_how_to_mend_it(aligned: Path, warned: list[str]) -> None:
    edit(aligned / "00001.jpg")
    Faceset.open(aligned, warned.append)
    assert "extract faces, or restore" in warned.pop()
    (aligned / "meta.dat").write_bytes(b"")
    Faceset.open(aligned, warned.append)
    (line,) = warned
    assert line == (
        "00001.jpg: its face data are lost, meta.dat may have them: "
        f'python main.py util --input-dir "{aligned}" --restore-faceset-metadata; skipped'
    )


def test_meta_dat_of_strangers(aligned: Path, warned: list[str]) -> None:
    path = aligned / "meta.dat"
    before = {picture.name: picture.read_bytes() for picture in aligned.glob("*.jpg")}
    for data, reason in (
        (b"", "cut off"), (dumps([1]), "no table of pictures"), (b"cos\nsystem\n.", "os.system"),
    ):  # fmt: skip
        path.write_bytes(data)
        for work in (lambda: restored(aligned, warned), lambda: save_metadata(aligned, warned.append)):
            with pytest.raises(FacesetError, match=f"{reason}.*Move it away"):
                work()
        assert path.read_bytes() == data
    good = ((64, 64, 3), {"landmarks": [[1.0, 2.0]] * 68})
    bad = {"00000.jpg": ((0, 64, 3), {}), "00001.jpg": 5, 7: good, "00002.jpg": ((64, 64), [])}
    entries = {**bad, "../00000.JPG": good, "../x.jpg": good}
    path.write_bytes(dumps(entries))
    found = restored(aligned, warned)
    assert (found["problems"], found["kept"]) == (4, True) and all("unreadable" in line for line in warned)
    assert {picture.name: picture.read_bytes() for picture in aligned.glob("*.jpg")} == before
    assert not (aligned.parent / "x.jpg").exists()
    with pytest.raises(FacesetError, match="written by --save-faceset-metadata"):
        restored(aligned.parent, warned)
    with pytest.raises(FacesetError, match="no picture with face data"):
        save_metadata(aligned.parent, warned.append)


def test_data_that_cannot_be_scaled_are_refused() -> None:
    for broken in (
        {"landmarks": "abc"}, {"landmarks": [[1, 2, 3]]}, {"seg_ie_polys": 5}, {"seg_ie_polys": {"polys": [{}]}},
        {"image_to_face_mat": [1]}, {"landmarks": [[10**400, 1]]}, {"seg_ie_polys": [(1, "x")]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"its size was changed, and its saved .* are unreadable"):
            scaled(broken, 2, 2)
    assert scaled({"landmarks": None, "x": 1}, 2, 2) == {"landmarks": None, "x": 1}
