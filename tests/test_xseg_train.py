"""Training XSeg as a user does: answers, files without a name, stopping and going on, starting anew, pretraining."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from labelled_faces import SIDE, SMALL, make_labelled, use_small_xseg
from training import digest, here

from core import dflfile
from core.batch import ARRAYS, Batch, Side
from core.modeldir import ModelDir, ModelError, saved_models
from core.options import OptionError
from mainscripts.model import find_models
from models.xseg import XSegTask, make_spec


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    make_labelled(folder / "src", 4)
    make_labelled(folder / "dst", 3, kind="plain", first_seed=20)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    use_small_xseg(monkeypatch)
    yield


def train(people: Path, model: Path, *more: str, target: int = 2, stdin: str = "") -> tuple[int, str]:
    done = here(
        ["", "", "train", "--model", "xseg", "--cpu-only", "--workers", "0", "--no-preview", "--seed", "3",
         "--training-data-src-dir", str(people / "src"), "--training-data-dst-dir", str(people / "dst"),
         "--model-dir", str(model), "--target-iter", str(target), "--exit-at-target", *more],
        stdin,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def random_batch(**sides: tuple[str, ...]) -> Batch:
    rng = np.random.default_rng(0)
    return Batch(
        **{
            side: Side(**{name: rng.random((2, ARRAYS[name], SIDE, SIDE), np.float32).round() for name in names})
            for side, names in sides.items()
        }
    )


def test_a_training_that_was_stopped_goes_on_byte_for_byte(people: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    code, said = train(people, whole, "--set", "batch_size=2", target=3)
    assert code == 0, said
    assert "Using 4 segmented samples." in said and "Model name: XSeg" in said
    assert train(people, halves, "--set", "batch_size=2", "--set", "use_cache=y", target=2)[0] == 0
    code, said = train(people, halves, "--no-override", "--set", "use_cache=n", target=3)
    assert code == 0 and "Current iteration: 2" in said
    kept = [".npy", "data.dat", "state.json"]
    one, two = (
        {name: sum_ for name, sum_ in digest(folder).items() if name.endswith(tuple(kept))}
        for folder in (whole, halves)
    )
    assert one == two and set(one) == {
        f"XSeg_{SIDE}.npy", f"XSeg_{SIDE}_opt.npy", "XSeg_data.dat", "XSeg_facesmith_state.json",
    }  # fmt: skip
    assert {path.name for path in whole.glob("*.jpg")} == {
        f"XSeg_preview_XSeg {what} faces.jpg" for what in ("training", "src", "dst")
    }
    options = dflfile.load(whole / "XSeg_data.dat")["options"]
    assert options == {"face_type": "wf", "batch_size": 2, "pretrain": False}


def test_the_questions_are_deepfacelabs(people: Path, tmp_path: Path) -> None:
    """In its order: face type, batch size, pretraining; of a model that is there, first whether to start anew."""
    code, said = train(people, tmp_path, "--ask", stdin="f\n2\nn\n")
    assert code == 0, said
    labels = ["[wf] Face type ( h/mf/f/wf/head", "[4] Batch_size ( 2-16", "[n] Enable pretraining mode ( y/n"]
    places = [said.index(label) for label in labels]
    assert places == sorted(places) and "Choose one of saved models" not in said
    code, said = train(people, tmp_path, "--ask", "--override", target=3, stdin="n\n3\nn\n")
    assert code == 0 and "[n] Restart training? ( y/n" in said and "Face type (" not in said
    assert "Current iteration: 2" in said
    code, said = train(people, tmp_path, "--ask", "--override", target=1, stdin="y\nwf\n2\nn\n")
    assert code == 0 and "[f] Face type (" in said and "starts anew, at iteration 0" in said
    again = said[said.index("The same run again") :].partition("\n")[0]
    assert "restart" not in again and "face_type=wf" in again  # a line that is kept must not throw a model away
    data = ModelDir(tmp_path, "", "XSeg").read_data()
    assert data.iter == 1 and data.options["face_type"] == "wf" and "restart" not in data.options


def test_what_cannot_be_trained_on_is_told(people: Path, tmp_path: Path) -> None:
    nobody = make_labelled(tmp_path / "nobody" / "src", 2, kind="plain").parent
    make_labelled(nobody / "dst", 2, kind="plain")
    code, said = train(nobody, tmp_path / "model")
    assert code == 1 and "No segmented faces found, among 4" in said and not (tmp_path / "model").exists()
    code, said = train(people, tmp_path / "model", "--set", "batch_size=17")
    assert code == 2 and "from 2 to 16" in said


def test_pretraining_draws_grey_faces_and_then_counts_anew(people: Path, tmp_path: Path) -> None:
    faces = str(make_labelled(tmp_path / "crowd", 3, kind="plain", first_seed=40))
    more = ("--pretraining-data-dir", faces)
    code, said = train(people, tmp_path / "model", *more, "--set", "pretrain=y", "--set", "batch_size=2")
    assert code == 0, said
    before = dflfile.load(tmp_path / "model" / f"XSeg_{SIDE}.npy")
    pages = [f"XSeg_preview_XSeg {what} faces.jpg" for what in ("dst", "src", "training")]
    assert [path.name for path in (tmp_path / "model").glob("*.jpg")] == pages[2:]
    for name in ("XSeg_preview_mine.jpg", "XSeg_preview_mine.png"):
        (tmp_path / "model" / name).write_bytes(b"a picture of the user")
    code, said = train(people, tmp_path / "model", *more, "--set", "pretrain=n", target=1)
    assert sorted(path.name for path in (tmp_path / "model").glob("*faces.jpg")) == pages
    assert code == 0 and "Pretraining is over" in said
    data = ModelDir(tmp_path / "model", "XSeg", "XSeg").read_data()
    after = dflfile.load(tmp_path / "model" / f"XSeg_{SIDE}.npy")
    assert data.iter == 1 and data.options["pretrain"] is False
    moved = np.mean(before["conv02/conv/weight:0"] != after["conv02/conv/weight:0"])
    assert 0 < moved < 0.6  # one step of learning rate dropout, not new weights
    assert train(people, tmp_path / "model", *more, "--set", "pretrain=y")[0] == 0
    left = sorted(path.name for path in (tmp_path / "model").glob("*preview*"))
    assert left == ["XSeg_preview_XSeg training faces.jpg", "XSeg_preview_mine.jpg", "XSeg_preview_mine.png"]


def test_pages(tmp_path: Path) -> None:
    task = SMALL.build(SMALL.resolve({}))
    pages = task.preview(random_batch(face=("image", "label"), src=("plain",), dst=("plain",)))
    assert [title for title, _ in pages] == ["XSeg training faces", "XSeg src faces", "XSeg dst faces"]
    assert all(len(rows) == 2 and [cell.shape for cell in rows[0]] == [(SIDE, SIDE, 3)] * 3 for _, rows in pages)
    training = pages[0][1][0][0].astype(int)
    label = random_batch(face=("image", "label")).face.label[0, 0] > 0
    assert (training[~label][:, 1] >= 127).all()  # green where it is no face
    task.rebuild(SMALL.resolve({"pretrain": "y"}))
    batch = random_batch(face=("warped",))
    assert [(title, len(rows[0])) for title, rows in task.preview(batch)] == [("XSeg training faces", 2)]
    assert float(task.step(batch)["loss"]) > 0
    with pytest.raises(ModelError, match="masks faces"):
        task.swap(np.zeros((1, 3, SIDE, SIDE), np.float32))


def test_the_loss_falls() -> None:
    task = SMALL.build(SMALL.resolve({}))
    batch = random_batch(face=("image", "label"))
    batch.face.label[:] = 0
    batch.face.label[:, :, 16:48, 16:48] = 1
    losses = [float(task.step(batch)["loss"]) for _ in range(12)]
    assert losses[-1] < losses[0]
    assert isinstance(task, XSegTask) and task.mask(batch.face.image).shape == (2, 1, SIDE, SIDE)
    assert float(task.health["contrast"]) > 0.1


def test_it_lives_beside_a_model_that_is_called_as_its_class(tmp_path: Path) -> None:
    task = SMALL.build(SMALL.resolve({}))
    task.step(random_batch(face=("image", "label")))
    task.save(tmp_path, "XSeg")
    for name in ("XSeg_SAEHD_encoder.npy", "XSeg_SAEHD_data.dat", "XSeg_default_options.dat"):
        (tmp_path / name).write_bytes(b"other")
    own = ModelDir(tmp_path, "whatever", "XSeg")
    assert {path.name for path in own.files()} == {
        f"XSeg_{SIDE}.npy", f"XSeg_{SIDE}_opt.npy", "XSeg_data.dat", "XSeg_summary.txt",
    }  # fmt: skip
    assert saved_models(tmp_path, "XSeg") == ["XSeg"] and saved_models(tmp_path, "SAEHD") == ["XSeg"]
    assert {model.full_name for model in find_models(tmp_path, None, None)} == {"XSeg", "XSeg_SAEHD"}
    with own.lock():
        folder = own.backup()
    assert {path.name for path in folder.glob("*.npy")} == {f"XSeg_{SIDE}.npy", f"XSeg_{SIDE}_opt.npy"}
    assert [backup.prefix for backup in own.backups()] == ["XSeg"] and own.backups()[0].iteration == 1


def test_only_a_model_that_is_there_can_start_anew() -> None:
    stored = {"face_type": "wf", "batch_size": 4, "pretrain": False}
    with pytest.raises(OptionError, match="this model was made with wf"):
        SMALL.resolve({"face_type": "f"}, stored)
    assert SMALL.resolve({"restart": "y", "face_type": "f"}, stored)["face_type"] == "f"


def test_weights_that_were_passed_on_alone_are_trained_on(people: Path, tmp_path: Path) -> None:
    """`XSeg_256.npy` without record and optimizer; and one whose record counts from 0."""
    task = SMALL.build(SMALL.resolve({"face_type": "f"}), seed=9)
    task.save(tmp_path, "XSeg")
    path = tmp_path / f"XSeg_{SIDE}.npy"
    weights = dflfile.load(path)["conv02/conv/weight:0"]
    code, said = train(people, tmp_path, "--set", "batch_size=2", target=1)
    assert code == 0 and "XSeg_data.dat counts 0 iterations" in said and "Model first run" not in said
    assert ModelDir(tmp_path, "", "XSeg").read_data().options["face_type"] == "f"
    for other in tmp_path.glob("XSeg_*"):
        if other.is_file() and other != path:
            other.unlink()
    code, said = train(people, tmp_path, "--set", "batch_size=2", "--set", "face_type=f", target=1)
    assert code == 0 and f"holds XSeg_{SIDE}.npy and no XSeg_data.dat" in said and "weights only" in said, said
    assert f"{SIDE}_opt: not saved with the model yet, so fresh" in said
    moved = np.abs(dflfile.load(path)["conv02/conv/weight:0"] - weights)
    assert 0 < moved.max() < 1e-2 and ModelDir(tmp_path, "", "XSeg").read_data().iter == 1
    (tmp_path / "XSeg_data.dat").unlink()
    code, said = train(people, tmp_path, "--set", "batch_size=2", "--set", "restart=y", target=1)
    assert code == 0 and "starts anew, at iteration 0" in said and "weights only" not in said
    assert np.abs(dflfile.load(path)["conv02/conv/weight:0"] - weights).max() > 0.02


def test_a_network_of_another_size_is_told_by_its_shapes(people: Path, tmp_path: Path) -> None:
    make_spec(8, SIDE).build(make_spec(8, SIDE).resolve({})).save(tmp_path, "XSeg")
    before = digest(tmp_path)
    code, said = train(people, tmp_path)
    assert code == 1 and digest(tmp_path) == before
    assert f"XSeg_{SIDE}.npy: conv01/conv/weight:0: expected (3, 3, 3, 4) float32, found (3, 3, 3, 8)" in said
