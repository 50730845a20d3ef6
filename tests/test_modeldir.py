"""The model folder: names, data.dat both ways, staged writes, backups, lock, summary."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from core import dflfile
from core.backups import BackupRules
from core.modeldir import LossHistory, ModelData, ModelDir, ModelError, saved_models
from core.options import Values
from core.previewsample import from_stored, to_stored
from core.runstate import RunState
from core.summary import summary

MANIFEST = "facesmith_manifest.json"
VALUES = Values({"resolution": 64}, {"resolution": 64})


def model(folder: Path, name: str = "face") -> ModelDir:
    return ModelDir(folder, name, "SAEHD")


def data(iterations: int) -> ModelData:
    return ModelData(iterations, {"resolution": 64}, LossHistory([[1.0, 2.0]] * iterations), unknown={"fork": "kept"})


def parts(value: float) -> dict[str, dict[str, np.ndarray]]:
    return {"encoder": {"conv1/weight:0": np.full((3, 3, 3, 4), value, np.float32)}}


def test_write_and_read_back(tmp_path: Path) -> None:
    directory = model(tmp_path / "mödel dir")
    directory.write(parts(0.5), data(3), VALUES)
    names = sorted(path.name for path in directory.folder.iterdir())
    assert names == [f"face_SAEHD_{ending}" for ending in ("data.dat", "encoder.npy", MANIFEST, "summary.txt")]
    part = directory.read_part("encoder")
    assert part is not None and (part["conv1/weight:0"] == 0.5).all()
    stored = directory.read_data()
    assert (stored.iter, stored.options, stored.unknown["fork"]) == (3, {"resolution": 64}, "kept")
    assert stored.loss_history.rows() == [[1.0, 2.0]] * 3
    raw = dflfile.load(directory.data_path)
    assert list(raw)[:4] == ["iter", "options", "loss_history", "sample_for_preview"] and type(raw["iter"]) is int


def test_options_of_a_record_without_iterations_are_optional(tmp_path: Path) -> None:
    directory = model(tmp_path)
    directory.write({}, ModelData(0, {"resolution": 64}), VALUES)
    assert directory.read_data().options == {"resolution": 64}
    for options in (None, 5, {1: 2}):
        assert ModelData.from_dict({"iter": 0, "options": options}).options == {}


def test_genuine_data_is_written_back_whole(shared: Path, tmp_path: Path) -> None:
    genuine = ModelDir(shared / "golden" / "genuine_saehd_df", "saehd-df-64-rmsprop", "SAEHD")
    before = dflfile.load(genuine.data_path)
    after = genuine.read_data().to_dict()
    assert before.keys() == after.keys()
    assert before["options"] == after["options"] and before["loss_history"] == after["loss_history"]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    directory = model(tmp_path)
    with pytest.raises(ModelError, match="No model 'face'"):
        directory.read_data()
    directory.data_path.write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match=r"face_SAEHD_data\.dat cannot be read"):
        directory.read_data()
    directory.part_path("encoder").write_bytes(b"")
    with pytest.raises(ModelError, match=r"face_SAEHD_encoder\.npy"):
        directory.read_part("encoder")
    directory.part_path("encoder").write_bytes(dflfile.dumps([1]))
    with pytest.raises(ModelError, match="not a table of arrays"):
        directory.read_part("encoder")
    assert directory.read_part("inter") is None


def test_what_to_do_is_what_there_is(tmp_path: Path) -> None:
    directory = model(tmp_path / "my models")
    directory.write(parts(1), data(3), VALUES)
    backup = directory.backup(BackupRules(links=False))
    part = directory.part_path("encoder")
    for path, read in [(directory.data_path, directory.read_data), (part, lambda: directory.read_part("encoder"))]:
        sound = path.read_bytes()
        for content, reason in [(bytes(3 << 20), "only zeros"), (bytes(3 << 20) + b"x", "begins with zeros")]:
            path.write_bytes(content)
            with pytest.raises(
                ModelError, match=rf"{re.escape(path.name)}: {reason}, as after a power cut.*\n"
            ) as caught:
                read()
            command = shlex.split(str(caught.value).partition("Restore a backup: ")[2])
            assert command[:4] == ["python", "main.py", "model", "restore"]
            where = ["--model-dir", str(directory.folder), "--model", "SAEHD", "--force-model-name", "face"]
            assert command[4:] == where
        path.write_bytes(sound)
    shutil.rmtree(backup)
    directory.data_path.write_bytes(bytes(30))
    with pytest.raises(ModelError, match=r"There is no backup in .*: put another copy of face_SAEHD_data\.dat in its"):
        directory.read_data()


def test_a_file_is_no_folder_of_models(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert saved_models(tmp_path / "not there", "SAEHD") == []
    for folder in (file, file / "models"):
        with pytest.raises(ModelError, match=rf"--model-dir: {file} is a file, and a folder is needed"):
            saved_models(folder, "SAEHD")


def test_the_run_state_goes_with_the_files_it_belongs_to(tmp_path: Path) -> None:
    directory, state = model(tmp_path), RunState(iteration=2, seed=2**31 - 1, position=5)
    assert directory.read_state() is None
    directory.write(parts(2), data(2), VALUES, state=state)
    assert directory.read_state() == state and directory.state_path.name == "face_SAEHD_facesmith_state.json"
    backup = ModelDir(directory.backup(), "face", "SAEHD")
    assert backup.read_state() == state and {path.name for path in directory.files()} <= {
        path.name for path in backup.folder.iterdir()
    }
    directory.write(parts(3), data(2), VALUES)  # as Task.save does, which knows no position
    assert directory.read_state() is None and not directory.state_path.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no JSON"), (b"\xff\0", "no JSON"), (b"[" * 4000, "no JSON"), (b"9" * 4000, "no JSON|not of format 1"),
        (b"[1, 2, 3]", "not of format 1"), (b'{"format": 2, "seed": 1}', "not of format 1"),
        (b'{"format": true, "iteration": 1, "seed": 1, "position": 1}', "not of format 1"),
        (b'{"format": 1, "iteration": 1, "seed": 1}', "its position is NoneType"),
        (b'{"format": 1, "iteration": true, "seed": 1, "position": 1}', "its iteration is True"),
        (b'{"format": 1, "iteration": 1, "seed": 1.0, "position": 1}', r"its seed is 1\.0"),
        (b'{"format": 1, "iteration": 1, "seed": "7", "position": 1}', "its seed is '7'"),
        (b'{"format": 1, "iteration": 1, "seed": [[1]], "position": 1}', "its seed is list"),
        (b'{"format": 1, "iteration": 1, "seed": 2147483648, "position": 1}', "its seed is 2147483648"),
        (b'{"format": 1, "iteration": 1, "seed": 1, "position": -1}', "its position is -1"),
        (b'{"format": 1, "iteration": 1, "seed": 1, "position": NaN}', "its position is nan"),
        (b'{"format": 1, "iteration": 1, "seed": 1, "position": 1' + b"0" * 99 + b"}", "its position is 10"),
        (b'{"format": 1, "iteration": 1, "seed": 1, "position": 1, "options": []}', "its options are no table"),
        (b'{"format": 1, "iteration": 1, "seed": 1, "position": 1, "options": {"a": [1]}}', "its options hold"),
        (b'{"format": 1, "iteration": 1, "seed": 1, "position": 1, "options": {"a": null}}', "its options hold"),
        (b'{"format": 1, "iteration": 1, "seed": 1, "position": 1}' + b" " * 65536, "larger than 65,536"),
    ],
)  # fmt: skip
def test_run_states_that_cannot_be_believed_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    directory = model(tmp_path)
    directory.state_path.write_bytes(content)
    line = rf"^face_SAEHD_facesmith_state\.json cannot be read: (it is )?({reason})[^\n]*\.$"
    with pytest.raises(ModelError, match=line):
        directory.read_state()


def test_a_run_state_that_cannot_be_opened_is_an_error_of_the_model(tmp_path: Path) -> None:
    directory = model(tmp_path)
    directory.state_path.mkdir()
    with pytest.raises(ModelError, match=r"face_SAEHD_facesmith_state\.json cannot be read"):
        directory.read_state()


def test_saved_models_newest_first(tmp_path: Path) -> None:
    import os

    for age, name in enumerate(("new", "middle one", "old")):
        path = model(tmp_path, name).data_path
        path.write_bytes(b"x")
        os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "x_AMP_data.dat").write_bytes(b"x")
    assert saved_models(tmp_path, "SAEHD") == ["new", "middle one", "old"]
    assert saved_models(tmp_path / "absent", "SAEHD") == []


def test_loss_history_takes_tensors_lazily_and_survives_ragged_rows() -> None:
    history = LossHistory([[1.0], [2.0, 3.0]])
    history.append([np.float32(4), np.float32(5)])
    assert len(history) == 3
    assert np.isnan(history.array()[0, 1]) and history.array()[2].tolist() == [4, 5]
    twin = history.copy()
    history.append([6, 7])
    assert len(twin) == 3 and len(history.rows()) == 4


@pytest.mark.parametrize("rows", [[], [[]], [[1.0]], [[1.0, 2.0]] * 3, [[0.5, -2.0]] * 40000, [[1.0], [2.0, 3.0, 4.0]]])
def test_long_histories_are_written_in_pieces_and_to_the_same_bytes(rows: list[list[float]]) -> None:
    data = ModelData(3, {"resolution": 64}, LossHistory(rows))
    whole = dflfile.dumps(data.to_dict())
    pieces = list(data.chunks())
    assert b"".join(pieces) == whole and all(len(piece) < 1 << 20 for piece in pieces)
    assert np.array_equal(dflfile.load(whole)["loss_history"], data.loss_history.rows(), equal_nan=True)


def test_summary_matches_dfls_layout(shared: Path) -> None:
    genuine = ModelDir(shared / "golden" / "genuine_saehd_df", "saehd-df-64-rmsprop", "SAEHD")
    stored = genuine.read_data()
    assert summary(genuine.full_name, stored.iter, stored.options, {}) == genuine.summary_path.read_text()
    assert "override: False" in summary("m", 1, {"random_warp": True}, {"random_warp": False})


def test_preview_sample_round_trip() -> None:
    from core.batch import ARRAYS, Batch, SampleRequest, Side

    request = SampleRequest(16, "whole_face")
    rng = np.random.default_rng(0)
    side = Side(**{name: rng.random((2, ARRAYS[name], 16, 16), np.float32) for name in request.names})
    stored = to_stored(Batch(src=side, dst=side))
    assert stored[0][0].shape == (2, 16, 16, 3)
    requests = {"src": request, "dst": request}
    back = from_stored(stored, requests)
    assert back is not None and (back.dst.mask == side.mask).all()
    from_gpu = [[np.moveaxis(array, -1, 1) for array in arrays] for arrays in stored]
    assert (from_stored(from_gpu, requests).src.target == side.target).all()  # type: ignore[union-attr]
    assert from_stored(stored, {"src": request, "dst": SampleRequest(32, "whole_face")}) is None
    assert from_stored("junk", requests) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"iter": None}, {"iter": -5}, {"iter": float("inf")}, {"options": None}, {"options": {1: 2}},
        {"loss_history": [["a", "b"]]},
    ],
)  # fmt: skip
def test_records_that_cannot_be_believed_are_refused(tmp_path: Path, damage: dict[str, object]) -> None:
    directory = model(tmp_path)
    directory.data_path.write_bytes(dflfile.dumps({**data(3).to_dict(), **damage}))
    with pytest.raises(ModelError, match=r"face_SAEHD_data\.dat cannot be read"):
        directory.read_data()


def test_histories_of_another_width_fit_the_losses() -> None:
    history = LossHistory([[1.0], [2.0, 3.0, 4.0], []])
    assert history.columns(2).shape == (3, 2) and history.columns(2)[1].tolist() == [2, 3]
    assert LossHistory().columns(2).shape == (0, 2)
