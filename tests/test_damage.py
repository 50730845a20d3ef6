"""Files that the disk damaged behind everybody's back: another content, the same size and time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from training import command, digest, here

from core import dflfile
from core.modeldir import ModelDir, ModelError
from main import main
from models import MODELS
from tests.test_spec import SMALL, batch

FIRST = ["--no-preview", "--force-model-name", "a", "--target-iter", "1", "--exit-at-target"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of iteration 1."""
    folder = tmp_path_factory.mktemp("saved")
    task = MODELS["SAEHD"].build(MODELS["SAEHD"].resolve(SMALL))
    task.step(batch())
    task.save(folder, "a")
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "m"))


def rot(path: Path) -> None:
    """Other numbers that can still be read: of the largest array, or the iteration."""
    raw, times = path.read_bytes(), path.stat()
    if path.suffix == ".npy":
        number = max(dflfile.load(path).values(), key=lambda array: array.size).tobytes()
        at = raw.index(number) + len(number) // 2
        new = raw[:at] + bytes(byte ^ 1 for byte in raw[at : at + 4]) + raw[at + 4 :]
    else:
        new = raw.replace(b"iterK\1", b"iterK\7")
    assert new != raw and len(new) == len(raw)
    path.write_bytes(new)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def load(folder: Path, *reinit: str, training: bool = True) -> None:
    spec = MODELS["SAEHD"]
    data = ModelDir(folder, "a", "SAEHD").read_data()
    spec.build(spec.resolve({}, data.options), training=training).load(folder, "a", reinit)


@pytest.mark.parametrize("ending", ["encoder.npy", "src_dst_opt.npy", "data.dat"])
def test_damage_is_refused_until_somebody_wants_it(copy: Path, ending: str) -> None:
    path = copy / f"a_SAEHD_{ending}"
    load(copy)
    rot(path)
    before = digest(copy)
    with pytest.raises(ModelError, match=rf'{path.name}: damaged by the disk(.|\n)*no backup(.|\n)*touch "{path}"'):
        load(copy)
    assert digest(copy) == before
    if ending == "src_dst_opt.npy":
        load(copy, training=False)  # what only draws does not read it
        load(copy, "src_dst_opt")
    path.touch()
    load(copy)


def test_what_others_wrote_and_an_open_save_are_not_looked_at(copy: Path) -> None:
    path = copy / "a_SAEHD_encoder.npy"
    rot(path)
    manifest = copy / "a_SAEHD_facesmith_manifest.json"
    manifest.rename(copy / "a_SAEHD_facesmith_journal.json")
    load(copy)
    (copy / "a_SAEHD_facesmith_journal.json").unlink()
    load(copy)  # a model of DeepFaceLab's has no manifest


def test_a_training_does_not_start_on_damage(faces: Path, copy: Path) -> None:
    path = copy / "a_SAEHD_decoder_src.npy"
    rot(path)
    before = digest(copy)
    words = command(faces, copy, *FIRST, small=False)
    words[words.index("--target-iter") + 1] = "2"
    done = here(words)
    assert done.returncode == 1 and f"Error: {path.name}: damaged by the disk" in done.stderr, done.stderr
    assert digest(copy) == before
    assert main(["model", "verify", "--model-dir", str(copy)]) == 1
    path.touch()
    done = here(words)
    assert done.returncode == 0 and "written by another program" in done.stdout, done.stdout + done.stderr
    assert main(["model", "verify", "--model-dir", str(copy)]) == 0
