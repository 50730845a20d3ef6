"""`main.py xseg`: masks and labels of a folder, with nothing else changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from labelled_faces import SIDE, SMALL, make_labelled, use_small_xseg
from sample_faces import mean_landmarks, noise, write_face
from training import here

from facelib.dfljpg import read_metadata, without_metadata
from facelib.landmarks import transform_matrix, transform_points
from models import MODELS
from samplelib import masking, metafile, pack
from samplelib.faceset import Faceset


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    use_small_xseg(monkeypatch)
    yield


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that is as new, with a record that says that it is for whole faces."""
    task = SMALL.build(SMALL.resolve({"face_type": "wf"}))
    task.data.iter = 5
    task.save(tmp_path / "model", "XSeg")
    return tmp_path / "model"


def xseg(*words: str, stdin: str = "") -> tuple[int, str]:
    done = here(["", "", "xseg", *words], stdin)
    return done.returncode, done.stdout + done.stderr


def contents(folder: Path) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Of each JPG its picture's bytes, and its face data."""
    found = {path.name: path.read_bytes() for path in sorted(folder.glob("*.jpg"))}
    return {name: (without_metadata(data), read_metadata(data)) for name, data in found.items()}


def same(a: dict[str, Any], b: dict[str, Any], *but: str) -> bool:
    one, two = ({key: value for key, value in face.items() if key not in but} for face in (a, b))
    return metafile.same(one, two)


def test_applied_masks_are_the_networks_and_nothing_else_changes(tmp_path: Path, model: Path) -> None:
    folder = make_labelled(tmp_path / "faces", 5, kind="both")
    write_face(folder / "odd.jpg", noise(1, 80), mean_landmarks(80), "whole_face", an_unknown_key=[1, 2])
    before = contents(folder)
    code, said = xseg("apply", "--input-dir", str(folder), "--model-dir", str(model), "--cpu-only")
    assert code == 0 and "6 faces got their mask." in said, said
    after = contents(folder)
    task = MODELS["XSeg"].build(MODELS["XSeg"].resolve({}), training=False)
    task.load(model, "XSeg")
    for sample in Faceset.open(folder, print):
        name = sample.path.name
        assert after[name][0] == before[name][0] and same(before[name][1], after[name][1], "xseg_mask")
        stored = cv2.imdecode(np.asarray(after[name][1]["xseg_mask"]), cv2.IMREAD_GRAYSCALE)
        image = cv2.resize(cv2.imread(str(sample.path)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        drawn = task.mask(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)[0, 0].numpy()  # type: ignore[attr-defined]
        assert stored.shape == (SIDE, SIDE)
        assert np.mean((drawn >= 0.5) != (stored >= 128)) < 0.01
    assert not (folder / masking.DONE).exists()
    code, said = xseg("apply", "--input-dir", str(folder), "--model-dir", str(model), "--cpu-only")
    assert code == 0 and "0 faces got their mask, 6 had theirs already." in said


@pytest.mark.parametrize("face_type", ["full_face", "head"])
def test_a_mask_of_another_face_type_lies_where_it_was_seen(face_type: str, tmp_path: Path) -> None:
    """A model of whole faces marks a spot between the eyes: it must be there in the stored mask."""
    path = tmp_path / "face.jpg"
    write_face(path, noise(0, 200), mean_landmarks(200, face_type), face_type)
    (sample,) = Faceset.open(tmp_path, print)
    spot = sample.landmarks[[27]]
    at = transform_points(spot, transform_matrix(sample.landmarks, 256, "whole_face"))[0]
    mask = np.zeros((256, 256), np.float32)
    cv2.circle(mask, (round(float(at[0])), round(float(at[1]))), 12, (1.0,), -1)
    stored = masking.as_stored(mask, sample, "whole_face")
    found = np.argwhere(stored > 0).mean(0)[::-1]
    assert np.abs(found - spot[0] * 256 / 200).max() < 1.5


def test_who_is_interrupted_goes_on(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_labelled(tmp_path / "faces", 6)
    seen: list[int] = []
    task = type(SMALL.build(SMALL.resolve({})))
    whole = task.mask

    def mask(self: Any, images: Any) -> Any:
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(len(images))
        return whole(self, images)

    monkeypatch.setattr(task, "mask", mask)
    words = ("apply", "--input-dir", str(folder), "--model-dir", str(model), "--cpu-only")
    code, said = xseg(*words)
    assert code == 130 and "start it again" in said and (folder / masking.DONE).exists()
    seen[:] = [0, 0]
    code, said = xseg(*words)
    assert code == 0 and "2 faces got their mask, 4 had theirs already." in said and seen == [0, 0, 2]
    assert not (folder / masking.DONE).exists()


def test_faces_that_cannot_be_masked_are_told_and_left(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make_labelled(tmp_path / "faces", 2)
    cut = (folder / "00001.jpg").read_bytes()[:-600]
    (folder / "00001.jpg").write_bytes(cut)
    code, said = xseg("apply", "--input-dir", str(folder), "--model-dir", str(model), "--cpu-only")
    assert code == 1 and "00001.jpg" in said and "left as it is" in said and "1 faces got their mask" in said
    assert said.count("00001.jpg") == 1 and capfd.readouterr() == ("", ""), "libjpeg's own lines"
    assert (folder / "00001.jpg").read_bytes() == cut


def test_a_network_without_its_record_asks_for_the_face_type(tmp_path: Path, model: Path) -> None:
    """Weights that were passed on alone."""
    folder = make_labelled(tmp_path / "faces", 1)
    for path in model.iterdir():
        if path.name != f"XSeg_{SIDE}.npy":
            path.unlink()
    words = ("apply", "--input-dir", str(folder), "--model-dir", str(model), "--cpu-only")
    code, said = xseg(*words, "--ask", stdin="?\nwf\n")
    assert code == 0 and "[same] Face type ( h/mf/f/wf/head/same" in said and "as whole_face" in said
    code, said = xseg(*words)
    assert code == 0 and "as they are" in said
    (model / f"XSeg_{SIDE}.npy").unlink()
    code, said = xseg(*words)
    assert code == 1 and "Train XSeg first" in said
    SMALL.build(SMALL.resolve({"face_type": "f"})).save(model, "XSeg")
    code, said = xseg(*words)
    assert code == 0 and "XSeg_data.dat counts 0 iterations" in said and "as full_face" in said
    assert "It counts 0 iterations: training goes on with these weights" in here(
        ["", "", "model", "verify", "--model-dir", str(model)]
    ).stdout


def test_masks_and_labels_are_removed_apart(tmp_path: Path) -> None:
    folder = make_labelled(tmp_path / "faces", 3, kind="both")
    before = contents(folder)
    assert xseg("remove", "--input-dir", str(folder), "--ask", stdin="n\n")[0] == 0
    assert contents(folder).keys() == before.keys() and "xseg_mask" in contents(folder)["00000.jpg"][1]
    code, said = xseg("remove", "--input-dir", str(folder))
    assert code == 0 and "3 faces with an applied mask." in said and "Removed from 3 faces." in said
    after = contents(folder)
    assert all(
        "xseg_mask" not in face and same(before[name][1], face, "xseg_mask") and data == before[name][0]
        for name, (data, face) in after.items()
    )
    code, said = xseg("remove_labels", "--input-dir", str(folder))
    assert code == 0 and "They stay, as nobody could be asked: --set remove_labels=y removes them." in said
    code, said = xseg("remove_labels", "--input-dir", str(folder), "--set", "remove_labels=y")
    assert code == 0 and "Removed from 3 faces." in said
    assert all("seg_ie_polys" not in face for _, face in contents(folder).values())
    assert "0 faces with labelled polygons." in xseg("remove_labels", "--input-dir", str(folder))[1]


def test_labelled_faces_are_fetched(tmp_path: Path) -> None:
    folder = make_labelled(tmp_path / "faces", 2, kind="polygons")
    write_face(folder / "plain.jpg", noise(7, 96), mean_landmarks(96))
    wanted = {path.name: path.read_bytes() for path in folder.glob("0*.jpg")}
    code, said = xseg("fetch", "--input-dir", str(folder))
    assert code == 0 and "delete_original=y" in said
    target = tmp_path / "faces_xseg"
    assert {path.name: path.read_bytes() for path in target.iterdir()} == wanted and len(list(folder.iterdir())) == 3
    code, said = xseg("fetch", "--input-dir", str(folder), "--ask", stdin="\n")
    assert code == 0 and "Delete original files?" in said and "2 files deleted" in said
    assert [path.name for path in folder.iterdir()] == ["plain.jpg"]


def test_fetching_never_overwrites(tmp_path: Path) -> None:
    folder = make_labelled(tmp_path / "faces", 1)
    (tmp_path / "faces_xseg").mkdir()
    (tmp_path / "faces_xseg" / "00000.jpg").write_bytes(b"mine")
    code, said = xseg("fetch", "--input-dir", str(folder), "--set", "delete_original=y")
    assert code == 1 and "left as it is" in said and (folder / "00000.jpg").exists()
    assert (tmp_path / "faces_xseg" / "00000.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("command", ["apply", "remove", "remove_labels", "fetch"])
def test_packs_are_refused_with_the_way_out(command: str, tmp_path: Path) -> None:
    (tmp_path / pack.NAME).write_bytes(b"")
    model = ("--model-dir", str(tmp_path)) if command == "apply" else ()
    code, said = xseg(command, "--input-dir", str(tmp_path), *model)
    assert code == 1 and "--unpack-faceset" in said
    code, said = xseg(command, "--input-dir", str(tmp_path / "nowhere"), *model)
    assert code == 1 and "no such folder" in said
