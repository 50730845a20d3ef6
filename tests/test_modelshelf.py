"""Renaming a model and throwing it away: all of it, nothing else, and finished after an interruption at any step."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest
from broken_disk import BrokenDisk, StopHere

from core.disk import DISK, Disk
from core.modeldir import ModelDir, ModelError, saved_models
from core.modelshelf import NOTE, TRASH, ModelShelf
from core.options import OptionError
from models import MODELS

FILES = ("data.dat", "encoder.npy", "decoder_src.npy", "summary.txt", "facesmith_manifest.json", "facesmith_log.txt",
         "configuration_file.yaml")  # fmt: skip
OTHERS = (
    "mine_SAEHDBW_data.dat", "mine_SAEHDBW_encoder.npy", "mine too_SAEHD_data.dat", "SAEHD_default_options.dat",
    "mine_XSeg_256.npy",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Made-up models: their content does not matter to a move, and names the file it was."""
    folder = tmp_path / "my models ü"
    folder.mkdir()
    for name in (*(f"mine_SAEHD_{ending}" for ending in FILES), *OTHERS):
        (folder / name).write_text(name)
    for place in ("mine_SAEHD_autobackups/01", "mine_SAEHD_history/SAEHD"):
        (folder / place).mkdir(parents=True)
        (folder / place / "0000010.jpg").write_text(place)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def named(before: dict[str, str], old: str, new: str) -> dict[str, str]:
    return {new + path[len(old) :] if path.startswith(old) else path: text for path, text in before.items()}


def shelf(folder: Path, disk: Disk = DISK) -> ModelShelf:
    return ModelShelf(folder, "SAEHD", disk, lambda: datetime(2026, 11, 21, 12, 30, 5))


def test_a_rename_takes_all_of_a_model_and_nothing_else(folder: Path) -> None:
    before = content(folder)
    assert shelf(folder).rename("mine", "her_face") == "mine is called her face now."
    assert content(folder) == named(before, "mine_SAEHD_", "her face_SAEHD_")
    assert set(saved_models(folder, "SAEHD")) == {"her face", "mine too"}


@pytest.mark.parametrize(
    ("new", "why"), [("mine", "its name already"), ("mine too", "There is mine too_SAEHD_data.dat already"),
                     ("MINE TOO", "already"), ("a/b", "allowed is a name"), ("r", "not just r or d")]
)  # fmt: skip
def test_names_that_cannot_be(folder: Path, new: str, why: str) -> None:
    before = content(folder)
    with pytest.raises(OptionError, match=why):
        shelf(folder).rename("mine", new)
    assert content(folder) == before


def test_only_the_case_of_a_name_may_change(folder: Path) -> None:
    shelf(folder).rename("mine", "Mine")
    assert set(saved_models(folder, "SAEHD")) == {"Mine", "mine too"}


def test_what_is_thrown_away_can_come_back(folder: Path) -> None:
    before = content(folder)
    told = shelf(folder).delete("mine")
    trash = folder / TRASH / "mine_SAEHD_2026-11-21_12-30-05"
    assert str(trash) in told and saved_models(folder, "SAEHD") == ["mine too"]
    assert {path for path in content(folder) if not path.startswith(TRASH)} == set(OTHERS)
    for path in trash.iterdir():
        path.rename(folder / path.name)
    assert content(folder) == before


def test_a_model_in_training_stays(folder: Path) -> None:
    before = content(folder)
    with ModelDir(folder, "mine", "SAEHD").lock():
        for move in (lambda: shelf(folder).rename("mine", "yours"), lambda: shelf(folder).delete("mine")):
            with pytest.raises(OptionError, match="is being trained"):
                move()
    assert content(folder) == before


def test_about(folder: Path) -> None:
    assert shelf(folder).about("mine") == "mine_SAEHD: 0.0 MB, 0 backups."


@pytest.mark.parametrize("trash", [False, True])
@pytest.mark.parametrize("how", ["stop", "fail"])
def test_an_interruption_at_any_step_is_made_up_for(tmp_path: Path, folder: Path, trash: bool, how: str) -> None:
    """Either nothing has happened, or the next look at the list does the rest."""
    before, finished, step = content(folder), 0, 0
    moved = named(before, "mine_SAEHD_", "yours_SAEHD_")
    if trash:
        moved = named(before, "mine_SAEHD_", f"{TRASH}/mine_SAEHD_2026-11-21_12-30-05/mine_SAEHD_")
    while True:
        step += 1
        copy = tmp_path / f"copy {step}"
        shutil.copytree(folder, copy)
        shelves = shelf(copy, BrokenDisk(copy, step, how))
        try:
            shelves.delete("mine") if trash else shelves.rename("mine", "yours")
            done = True
        except (StopHere, OptionError):
            done = False
        lines = shelf(copy).finish()
        finished += bool(lines)
        after = {path: text for path, text in content(copy).items() if not path.endswith(f"{NOTE}.part")}
        assert after == moved if done or lines else after in (before, moved)
        assert shelf(copy).finish() == []
        if done:
            break
    assert finished >= 8


@pytest.mark.parametrize(
    "note", [b"", b"[]", b'{"format": 2}', b'{"format": 1, "name": "../x"}',
             b'{"format": 1, "name": "x", "trash": ".."}', b'{"format": 1, "name": "x", "trash": "a/b"}']
)  # fmt: skip
def test_a_note_that_is_none_of_ours_moves_nothing(folder: Path, note: bytes) -> None:
    (folder / f"mine_SAEHD_{NOTE}").write_bytes(note)
    before = content(folder)
    with pytest.raises(ModelError, match="Delete it"):
        shelf(folder).finish()
    assert content(folder) == before


def test_a_renamed_model_trains_on_with_its_backups(tmp_path: Path) -> None:
    spec = MODELS["SAEHD"]
    dims = {"ae_dims": 32, "e_dims": 16, "d_dims": 16, "d_mask_dims": 16}
    values = spec.resolve({"resolution": 64, "archi": "df", **dims})
    task = spec.build(values)
    task.save(tmp_path, "mine")
    model = ModelDir(tmp_path, "mine", "SAEHD")
    with model.lock():
        model.backup()
    shelf(tmp_path).rename("mine", "yours")
    renamed = ModelDir(tmp_path, "yours", "SAEHD")
    assert renamed.recover() == [] and renamed.about() is not None
    assert [backup.prefix for backup in renamed.backups()] == ["mine"]
    assert spec.build(values).load(tmp_path, "yours") is not None
    assert not list(tmp_path.glob("mine_SAEHD*")) and "1 backup." in shelf(tmp_path).about("yours")
    assert json.loads(renamed.journal.manifest_path.read_bytes())["format"]
