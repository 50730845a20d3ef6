"""Pretraining from the command line: whose faces, what is forced, what is told when faces lack, and the first pair
after it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sample_faces import make_folder
from training import command, digest, here

from core.modeldir import ModelDir
from main import main

FORCED = {  # what a user may have chosen -> what pretraining makes of it
    "lr_dropout=y": "n",
    "random_warp=y": "False",
    "random_hsv_power=0.1": "0.0",
    "gan_power=0.1": "0.0",
    "face_style_power=1": "0.0",
    "bg_style_power=2": "0.0",
    "uniform_yaw=n": "True",
    "random_src_flip=n": "True",
    "random_dst_flip=n": "True",
    "ct_mode=rct": "none",
}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A faceset for pretraining."""
    return make_folder(tmp_path_factory.mktemp("many") / "pretrain faces", 5, first_seed=90)


def state(model: Path) -> dict[str, int]:
    return dict(json.loads((model / "new_SAEHD_facesmith_state.json").read_text()))


def test_from_pretraining_to_a_pair(faces: Path, many: Path, tmp_path: Path) -> None:
    model, nothing = tmp_path / "model", tmp_path / "nothing"
    sets = [word for pair in ("pretrain=y", *FORCED) for word in ("--set", pair)]
    words = ["--no-preview", "--exit-at-target", "--target-iter"]
    done = here(command(nothing, model, *words, "4", *sets, "--pretraining-data-dir", str(many)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"Pretraining on 5 faces of {many}.\n") == 1
    for pair, effect in FORCED.items():
        assert re.search(rf" {pair.partition('=')[0]}: \S+ \(override: {effect}\) ", done.stdout), pair
    seed = state(model)["seed"]
    assert state(model) == {"format": 1, "iteration": 4, "seed": seed, "position": 4}
    options = ModelDir(model, "new", "SAEHD").read_data().options
    assert options["lr_dropout"] == "y" and options["uniform_yaw"] is False  # the choices wait for the pair

    done = here(command(faces, model, *words, "2", "--set", "pretrain=n", small=False))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Pretraining is over" in done.stdout and "inter starts anew" in done.stdout
    assert "(override:" not in done.stdout and "Trying to do the first iteration." in done.stdout
    assert "Current iteration: 0 " in done.stdout and "[#000001]" in done.stdout  # saved as a first iteration is
    data = ModelDir(model, "new", "SAEHD").read_data()
    assert data.iter == 2 and len(data.loss_history) == 2 and data.options["pretrain"] is False
    assert state(model) == {"format": 1, "iteration": 2, "seed": seed, "position": 2}


@pytest.mark.parametrize(
    ("pair", "many", "code", "message"),
    [
        ("good", "", 2, "--pretraining-data-dir is not given. Give a faceset"),
        ("good", "absent", 1, r"--pretraining-data-dir: .*absent: no such folder.*--set pretrain=n"),
        ("good", "empty", 1, r"--pretraining-data-dir: .*empty: no pictures.*--set pretrain=n"),
        ("good", "half", 1, r"--pretraining-data-dir: .*half: .*half_face"),
        ("absent", "empty", 1, r"--pretraining-data-dir: .*empty: no pictures"),
        ("absent", "absent", 1, r"data_src.aligned: no such folder.*--pretraining-data-dir .*absent is no folder"),
    ],
)
def test_faces_that_lack_are_told_before_anything_is_made(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], pair: str, many: str, code: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    make_folder(tmp_path / "half", 2, face_type="half_face")
    before = digest(tmp_path)
    words = command(faces if pair == "good" else tmp_path / "absent", tmp_path / "model", "--set", "pretrain=y")
    if many:
        words += ["--pretraining-data-dir", str(tmp_path / many)]
    assert main(words[2:]) == code
    assert re.search(message, capsys.readouterr().err, re.S) and digest(tmp_path) == before


def test_a_pair_that_lacks_is_told_at_once_and_refused_when_it_is_needed(
    many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tmp_path / "absent", tmp_path / "model", "--pretraining-data-dir", str(many))
    assert main(words[2:]) == 1
    said = capsys.readouterr()
    assert "aligned: no such folder" in said.err and "--pretraining-data-dir" not in said.err
    first = said.out.index("Only pretraining does without.")
    assert first < said.out.index("Loading new_SAEHD model") and not (tmp_path / "model").exists()


def test_the_folder_of_a_fresh_checkout_may_be_absent(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--pretraining-data-dir", str(tmp_path / "absent"), "--debug", "--no-preview"]
    assert main(command(faces, tmp_path / "m", *more)[2:]) == 0
    said = capsys.readouterr()
    told = [line for line in (said.out + said.err).splitlines() if not line.startswith("The same run again: ")]
    assert not any("retrain" in line for line in told)


def test_debug_shows_the_samples_of_pretraining(many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--pretraining-data-dir", str(many), "--set", "pretrain=y", "--debug", "--no-preview"]
    assert main(command(tmp_path / "absent", tmp_path / "m", *more)[2:]) == 0
    assert "Pretraining on 5 faces" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "m").iterdir())
    assert names == [f"new_SAEHD_preview_samples {side}.jpg" for side in ("dst", "src")]
