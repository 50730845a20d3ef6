"""Training without a terminal: real processes, resumed runs, answers from standard input, broken input."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from sample_faces import make_folder
from training import command, digest, here, run

from core import dflfile
from core.backups import BackupRules
from core.modeldir import ModelDir
from mainscripts.train_run import backup_rules
from models import MODELS

LINE = r"\[\d\d:\d\d:\d\d\]\[#(\d{6})\]\[\d{4}ms\](?:\[\d+\.\d{4}\]){2}"


def test_headless_run_leaves_dfls_files(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    parts = {f"new_SAEHD_{stem}.npy" for stem in ("encoder", "inter", "decoder_src", "decoder_dst", "src_dst_opt")}
    previews = {"new_SAEHD_preview_SAEHD.jpg", "new_SAEHD_preview_SAEHD masked.jpg"}
    ours = ("facesmith_state.json", "facesmith_manifest.json", "facesmith_log.txt")
    records = {f"new_SAEHD_{ending}" for ending in ("data.dat", "summary.txt", *ours)}
    assert names == parts | previews | records | {"SAEHD_default_options.dat"}
    data = ModelDir(trained, "new", "SAEHD").read_data()
    assert data.iter == 3 and len(data.loss_history) == 3 and data.options["resolution"] == 64
    assert dflfile.load(trained / "SAEHD_default_options.dat")["archi"] == "df-ud"
    assert b"\x00numpy._core" not in (trained / "new_SAEHD_encoder.npy").read_bytes()


def test_history_faces_leave_the_order_of_the_samples_alone(faces: Path, trained: Path, tmp_path: Path) -> None:
    words = ["--no-preview", "--exit-at-target", "--seed", "7", "--set", "write_preview_history=y", "--target-iter"]
    assert here(command(faces, tmp_path, *words, "3")).returncode == 0
    for stem in ("encoder", "decoder_dst", "src_dst_opt"):
        name = f"new_SAEHD_{stem}.npy"
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes(), name


def test_resumed_headless_with_another_option(faces: Path, copy: Path) -> None:
    done = run(command(faces, copy, "--no-preview", "--set", "batch_size=3", "--target-iter", "4", small=False))
    assert done.returncode == 0, done.stderr  # nobody can give a command: it ends at the target by itself
    assert re.search(LINE, done.stdout) and "Reached target iteration." in done.stdout
    data = ModelDir(copy, "new", "SAEHD").read_data()
    assert (data.iter, data.options["batch_size"], data.options["resolution"]) == (4, 3, 64)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--set", "resolution=128"], 2, "made with 64"),
        (["--set", "batch_size=0"], 2, "batch_size: got '0', allowed is a whole number from 1"),
        (["--set", "batchsize=4"], 2, "Did you mean batch_size"),
        (["--set", "gan_power=10.1"], 2, "gan_power: got '10.1', allowed is a number from 0 to 10"),
        (["--force-gpu-idxs", "9"], 2, "allowed"),
        (["--model", "SAEHDX"], 2, "SAEHD"),
        (["--execute-program", "1", "print()"], 2, "refused|not supported"),
        (["--reinit", "inter_AB"], 2, "encoder / inter"),
        (["--reinit", "GAN"], 2, "got GAN, allowed is encoder / .* / src_dst_opt"),
        (["--training-data-src-dir", "/nowhere/at all"], 1, "nowhere"),
        (["--force-model-name", "a/b"], 2, "allowed"),
        (["--force-model-name", "n" * 101], 2, "101 letters"),
        (["--seed", "99999999999999999999"], 2, "whole number from 0"),
        (["--workers", "1000000"], 2, "from 0 to 64"),
        (["--model-dir", ""], 2, "empty path"),
        (["--target-iter", "-4"], 2, "target_iter"),
    ],
)
def test_wrong_arguments_change_nothing(faces: Path, trained: Path, more: list[str], code: int, message: str) -> None:
    before = digest(trained)
    words = command(faces, trained, "--no-preview", *more, small=False)
    if "--force-gpu-idxs" in more:
        words.remove("--cpu-only")
    done = run(words)
    assert done.returncode == code and re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr and digest(trained) == before


def test_broken_models_are_refused_by_name(faces: Path, copy: Path) -> None:
    encoder = copy / "new_SAEHD_encoder.npy"
    sound = encoder.read_bytes()
    part = dflfile.load(encoder)
    first = next(iter(part))
    for content, message in [
        (b"\0" * len(sound), r"new_SAEHD_encoder\.npy"),
        (dflfile.dumps({**part, first: part[first][..., :-1]}), re.escape(first)),
        (dflfile.dumps({key: part[key] for key in list(part)[1:]}), re.escape(first)),
        (None, r"new_SAEHD_encoder\.npy missing.*--reinit encoder"),
    ]:
        encoder.unlink(missing_ok=True)
        if content is not None:
            encoder.write_bytes(content)
        before = digest(copy)
        done = here(command(faces, copy, "--no-preview", small=False))
        assert done.returncode == 1 and re.search(message, done.stderr, re.S), done.stderr
        assert "Traceback" not in done.stderr and digest(copy) == before
    done = here(command(faces, copy, "--no-preview", "--reinit", "encoder", "--target-iter", "4", small=False))
    assert done.returncode == 0 and "encoder starts anew" in done.stdout


def test_a_record_without_iterations_does_not_cost_the_weights(faces: Path, copy: Path) -> None:
    """Other programs may count a model from 0 again, or its weights are passed on alone."""
    path, encoder = copy / "new_SAEHD_data.dat", copy / "new_SAEHD_encoder.npy"
    record, weights = dflfile.load(path), dflfile.load(encoder)["down1/downs_0/conv1/weight:0"]
    path.write_bytes(dflfile.dumps({}))
    before = digest(copy)
    done = here(command(faces, copy, "--no-preview", "--target-iter", "1", small=False))
    assert done.returncode == 1 and "cannot be read" in done.stderr and digest(copy) == before, done.stderr
    path.unlink()
    named = ("--no-preview", "--target-iter", "1", "--force-model-name", "new")
    done = here(command(faces, copy, *named, "--set", "e_dims=32", small=False))
    assert done.returncode == 1 and "expected (" in done.stderr and "new_SAEHD_encoder.npy" in done.stderr
    assert not path.exists()
    for stored, small, told in ((record, False, "counts 0 iterations"), (None, True, "and no new_SAEHD_data.dat")):
        path.unlink(missing_ok=True)
        if stored is not None:
            path.write_bytes(dflfile.dumps({**stored, "iter": 0}))
        done = here(command(faces, copy, *named, small=small))
        assert done.returncode == 0 and told in done.stdout, done.stderr
        moved = np.mean(dflfile.load(encoder)["down1/downs_0/conv1/weight:0"] - weights)
        assert abs(moved) < 1e-3 and ModelDir(copy, "new", "SAEHD").read_data().iter == 1
    for stem in ("encoder", "inter", "decoder_src", "decoder_dst"):
        (copy / f"new_SAEHD_{stem}.npy").unlink()
    path.unlink()
    done = here(command(faces, copy, *named))
    assert done.returncode == 1 and "of its network none" in done.stderr


def test_usage_errors_make_no_folder(faces: Path, tmp_path: Path) -> None:
    for more in (["--set", "batch_size=x"], ["--ask"], ["--reinit", "foo"]):
        done = here(command(faces, tmp_path / "m", "--no-preview", *more, small=more != ["--ask"]))
        assert done.returncode == 2, done.stderr
        assert not (tmp_path / "m").exists()


def test_a_name_with_an_underscore_finds_its_model(faces: Path, copy: Path) -> None:
    for path in list(copy.glob("new_SAEHD_*")):
        path.rename(path.with_name("my_" + path.name))
    words = command(faces, copy, "--no-preview", "--force-model-name", "my_new", "--target-iter", "4", small=False)
    done = here(words)
    assert done.returncode == 0 and ModelDir(copy, "my_new", "SAEHD").read_data().iter == 4, done.stderr


def test_useless_facesets_are_told_before_anything_is_made(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    half = make_folder(tmp_path / "half", 2, face_type="half_face")
    for folder, message in [(tmp_path / "empty", "empty"), (half, "half_face.*whole_face|whole_face.*half_face")]:
        words = command(faces, tmp_path / "model", "--no-preview", "--training-data-dst-dir", str(folder))
        words[words.index("face_type=f")] = "face_type=wf"
        done = here(words)
        assert done.returncode == 1 and re.search(message, done.stderr), done.stderr
        assert not list((tmp_path / "model").glob("*")) and "Traceback" not in done.stderr


NETWORK = ["64", "f", "df-ud", "32", "16", "16", "16"]  # answers from resolution to d_mask_dims


def test_answers_from_standard_input(faces: Path, tmp_path: Path) -> None:
    # From eyes_mouth_prio on everything is left as it is, with a look at one help text; then GAN, off again.
    rest = ["", "", "", "", "", "?", "", "", "", "0.1", "9", "4", "0", "", "", "", "", "n"]
    answers = ["mine", "0", "n", "2", "n", "y", "2", *NETWORK, *rest]
    words = command(faces, tmp_path, "--ask", "--no-preview", "--exit-at-target", small=False)
    done = here(words, "\n".join(answers) + "\n")
    assert done.returncode == 0, done.stdout + done.stderr
    options = ModelDir(tmp_path, "mine", "SAEHD").read_data().options
    assert (options["ae_dims"], options["gan_power"], options["gan_patch_size"], options["gan_dims"]) == (32, 0.1, 9, 4)
    before = digest(tmp_path)
    wrong = here(words, "other\n25\n")
    assert wrong.returncode == 2 and "Autobackup every N hour" in wrong.stderr and "0 to 24" in wrong.stderr
    few = here(words, "other\n0\n")
    assert few.returncode == 2 and "Write preview history" in few.stderr and digest(tmp_path) == before


def test_what_is_set_is_not_asked_and_survives_the_questions(faces: Path, tmp_path: Path) -> None:
    """Values from --set, 'off' among them, next to answers; defaults that follow wait for the answers they follow."""
    given = ["gan_power=0.2", "ct_mode=none", "face_style_power=0", "pretrain=n", "random_warp=n", "resolution=80"]
    sets = [word for pair in given for word in ("--set", pair)]
    words = command(faces, tmp_path, "--ask", "--no-preview", *sets, small=False)
    answers = ["mine", "0", "n", "1", "n", "y", "2", "f", "df", "32", "16", "16", "16", *[""] * 6]
    done = here(words, "\n".join([*answers, "", "", "4", "", "", ""]) + "\n")
    assert done.returncode == 0, done.stdout + done.stderr
    for label in ("GAN power", "Color transfer", "Face style power", "Enable pretraining", "random warp", "Resolution"):
        assert f"{label} (" not in done.stdout
    assert "[10] GAN patch size" in done.stdout
    options = ModelDir(tmp_path, "mine", "SAEHD").read_data().options
    wanted = {"gan_power": 0.2, "ct_mode": "none", "face_style_power": 0.0, "pretrain": False, "random_warp": False}
    assert {**options, **wanted, "resolution": 80, "gan_patch_size": 10} == options


@pytest.mark.parametrize("where", ["cpu", "device"])
def test_debug_shows_samples_and_trains_nothing(faces: Path, tmp_path: Path, where: str) -> None:
    done = run(command(faces, tmp_path / "m", "--debug", "--no-preview", "--force-model-name", "look",
                       "--set", f"augment_on={where}"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "m").iterdir())
    assert names == [f"look_SAEHD_preview_samples {side}.jpg" for side in ("dst", "src")]


def test_backups_by_option() -> None:
    spec = MODELS["SAEHD"]
    assert backup_rules(spec.resolve({})) == BackupRules("time", 24, 0)
    chosen = spec.resolve({"backup_naming": "numbers", "max_backups": "3", "max_backups_gb": "1.5"})
    assert backup_rules(chosen) == BackupRules("numbers", 3, 1_500_000_000) and "max_backups" not in chosen.chosen
