"""A training that was stopped, or killed after a save, goes on as if it had not been: every byte of the model is the
same. Real processes on the CPU, resumed without naming the seed again, with other numbers of workers."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests_support import ROOT, soon
from training import ENVIRONMENT, command, run

from core.modeldir import ModelDir
from main import main

ENDING = "_facesmith_state.json"
VARIANTS = {
    "df": [
        "lr_dropout=y", "clipgrad=y", "gan_power=0.1", "gan_dims=4", "true_face_power=0.01", "face_style_power=1",
        "bg_style_power=1", "random_hsv_power=0.1", "ct_mode=rct", "write_preview_history=y",
    ],
    "liae": [
        "archi=liae-udtc", "lr_dropout=y", "adabelief=n", "random_warp=n", "gan_power=0.1", "gan_dims=4",
        "accumulate=2", "keep_graph=n", "checkpointing=y",
    ],
    "pretraining": ["pretrain=y", "random_src_flip=n"],
}  # fmt: skip


def train(faces: Path, model: Path, target: int, workers: int, *more: str, new: bool = False) -> str:
    """A process that trains up to the target; returns what it said."""
    words = ["--no-preview", "--exit-at-target", "--target-iter", str(target), "--workers", str(workers), *more]
    words += ["--pretraining-data-dir", str(faces / "data_dst" / "aligned")]
    done = run(command(faces, model, *words, small=new))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sets(variant: str) -> list[str]:
    return [word for pair in VARIANTS[variant] for word in ("--set", pair)]


def saved(model: Path) -> dict[str, bytes]:
    """Every file of the model: parts, optimizers, data.dat, summary, run state."""
    return {path.name: path.read_bytes() for path in ModelDir(model, "new", "SAEHD").files()}


def state(model: Path) -> dict[str, int]:
    return dict(json.loads((model / f"new_SAEHD{ENDING}").read_text()))


@pytest.fixture(scope="module")
def whole(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The model of a variant, trained for ten iterations in one go."""

    @functools.cache
    def model(variant: str) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        train(faces, folder, 10, 0, "--seed", "11", *sets(variant), new=True)
        return folder

    return model


@pytest.mark.slow  # by default tests/test_models.py does so in one process
@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_and_resumed_is_the_same_as_not_stopped(
    faces: Path, whole: Callable[[str], Path], tmp_path: Path, variant: str
) -> None:
    train(faces, tmp_path, 5, 2, "--seed", "11", *sets(variant), new=True)
    said = train(faces, tmp_path, 10, 0)
    assert "facesmith_state" not in said and "Model first run." not in said
    assert state(tmp_path).items() >= {"format": 1, "iteration": 10, "seed": 11, "position": 10}.items()
    assert saved(tmp_path) == saved(whole(variant))


@pytest.mark.slow
def test_killed_after_a_save_and_resumed(faces: Path, whole: Callable[[str], Path], tmp_path: Path) -> None:
    words = command(faces, tmp_path, "--no-preview", "--seed", "11", "--save-every", "9h", *sets("df"))
    trainer = subprocess.Popen(
        words, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        # The only save is that of the first iteration; a history picture tells that nine more have passed.
        assert soon((tmp_path / "new_SAEHD_history" / "SAEHD" / "0000010.jpg").exists)
    finally:
        trainer.kill()
        trainer.wait()
    assert ModelDir(tmp_path, "new", "SAEHD").read_data().iter == 1
    train(faces, tmp_path, 10, 1)
    assert saved(tmp_path) == saved(whole("df"))


@pytest.mark.slow  # its model is that of the slow tests above
def test_adversaries_may_start_anew(
    faces: Path, whole: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = saved(whole("df"))
    more = ["--no-preview", "--exit-at-target", "--reinit", "GAN", "--reinit", "code_discriminator"]
    assert main(command(faces, whole("df"), *more, small=False)[2:]) == 0  # it is at its target: nothing is trained
    said = capsys.readouterr().out
    assert all(f"{stem} starts anew" in said for stem in ("GAN", "code_discriminator")) and "inter starts" not in said
    assert saved(whole("df")) == before


def go_on(faces: Path, model: Path, target: int, *more: str) -> None:
    """A short run within this process: quick, but its numbers may depend on the threads in use here."""
    words = ["--no-preview", "--exit-at-target", "--target-iter", str(target), "--workers", "0", *more]
    assert main(command(faces, model, *words, small=False)[2:]) == 0


def test_a_seed_that_is_named_wins_and_one_drawn_is_kept(
    faces: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert state(copy) == {"format": 1, "iteration": 3, "seed": 7, "position": 3}
    go_on(faces, copy, 4, "--seed", "8")
    assert state(copy) == {"format": 1, "iteration": 4, "seed": 8, "position": 4}
    (copy / f"new_SAEHD{ENDING}").unlink()
    go_on(faces, copy, 5)
    drawn = state(copy)
    said = capsys.readouterr().out
    assert "facesmith_state" not in said and "other samples" not in said
    assert (drawn["iteration"], drawn["position"]) == (5, 5)
    go_on(faces, copy, 6)
    assert state(copy) == {**drawn, "iteration": 6, "position": 6}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"format": 1, "iteration": 2, "seed": 7, "position": 2}', "is of iteration 2, the model of 3"),
        (b"\0" * 100, "cannot be read: it is no JSON"),
    ],
    ids=["of another save", "broken"],
)
def test_a_state_of_another_save_is_dropped_with_one_line(
    faces: Path, copy: Path, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / f"new_SAEHD{ENDING}").write_bytes(content)
    go_on(faces, copy, 4)
    said = capsys.readouterr().out.splitlines()
    lines = [line for line in said if "facesmith_state" in line or "other samples" in line]
    assert len(lines) == 1 and message in lines[0]
    assert state(copy)["position"] == 4 and state(copy)["seed"] != 7
