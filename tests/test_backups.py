"""Backup folders: names, links, bounds, space."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from broken_disk import BrokenDisk, StopHere
from saved_model import model, save, the_iteration

from core import backups
from core.backups import BackupRules
from core.disk import Disk
from core.modeldir import ModelDir, ModelError

NUMBERS = BackupRules("numbers")


class Calendar:
    """A minute later each time."""

    def __init__(self, step: int = 60) -> None:
        self.now, self.step = datetime(2026, 11, 21, 14, 30, 5), step

    def __call__(self) -> datetime:
        now, self.now = self.now, self.now + timedelta(seconds=self.step)
        return now


class SmallDisk(Disk):
    """One with so many bytes left, and without links if so wished."""

    def __init__(self, left: int, links: bool = True) -> None:
        super().__init__()
        self.left, self.links = left, links

    def free(self, folder: Path) -> int:
        assert folder.is_dir()
        return self.left

    def link(self, source: Path, target: Path) -> None:
        if not self.links:
            raise PermissionError("no hard links here")
        super().link(source, target)


def names(directory: ModelDir) -> list[str]:
    return sorted(path.name for path in directory.backups_folder.iterdir())


def test_named_by_time_with_a_note(tmp_path: Path) -> None:
    directory = model(tmp_path)
    save(directory, 12345)
    folder = directory.backup(now=Calendar())
    assert folder == directory.backups_folder / "2026-11-21_14-30-05"
    note = (folder / "face_SAEHD_facesmith_backup.txt").read_text()
    assert note == (
        "iteration: 12345\nlosses, mean of the last iterations: 1.00000 2.00000\nmade: 2026-11-21 14:30:05\n"
    )
    assert directory.backup(now=Calendar()).name == "2026-11-21_14-30-05-2"
    (backup, _) = directory.backups()
    assert (backup.iteration, backup.losses, backup.prefix) == (12345, (1.0, 2.0), "face") and backup.size > 1000
    assert the_iteration(model(folder)) == 12345 and model(folder).recover() == []


def test_dfls_numbers_shift_and_are_bounded(tmp_path: Path) -> None:
    directory = model(tmp_path)
    for number in range(1, 27):
        save(directory, number)
        assert directory.backup(NUMBERS).name == "01"
    assert names(directory) == [f"{number:02d}" for number in range(1, 25)]
    at = {backup.folder.name: the_iteration(model(backup.folder)) for backup in directory.backups()}
    assert at == {f"{number:02d}": 27 - number for number in range(1, 25)}
    directory.backup(BackupRules("numbers", max_count=3))
    assert names(directory) == ["01", "02", "03"]


def test_each_naming_leaves_the_others_folders_alone(tmp_path: Path) -> None:
    directory, calendar = model(tmp_path), Calendar()
    save(directory, 1)
    (directory.backups_folder / "before the style").mkdir(parents=True)
    for number in ("01", "02"):
        (directory.backups_folder / number).mkdir()
    for _ in range(4):
        directory.backup(BackupRules(max_count=2), calendar)
    mine = ["2026-11-21_14-32-05", "2026-11-21_14-33-05"]
    assert names(directory) == ["01", "02", *mine, "before the style"]
    directory.backup(BackupRules("numbers", max_count=1))
    assert names(directory) == ["01", *mine, "before the style"]


def test_bounded_by_size_where_links_count_once(tmp_path: Path) -> None:
    directory, calendar = model(tmp_path), Calendar()
    for iteration in range(1, 6):
        save(directory, iteration, size=100)  # three parts of 40 KB
        directory.backup(BackupRules(max_count=0, max_bytes=300_000), calendar)
        directory.backup(BackupRules(max_count=0, max_bytes=300_000), calendar)  # costs a few KB only
    assert [backup.iteration for backup in directory.backups()] == [5, 5, 4, 4]
    directory.backup(BackupRules(max_bytes=1000), calendar)
    assert len(names(directory)) == 1  # the newest stays, whatever its size


def test_weights_are_links_and_a_later_save_leaves_them_alone(tmp_path: Path) -> None:
    directory = model(tmp_path)
    save(directory, 1)
    folder = directory.backup()
    for ending, linked in (("encoder.npy", True), ("data.dat", True), ("summary.txt", False)):
        same = directory.path(ending).samefile(folder / directory.path(ending).name)
        assert same == linked, ending
    save(directory, 2)
    directory.summary_path.write_text("written over")
    assert the_iteration(model(folder)) == 1


@pytest.mark.parametrize("rules", [BackupRules(links=False), BackupRules()])
def test_copies_where_there_are_no_links(tmp_path: Path, rules: BackupRules) -> None:
    directory = model(tmp_path, SmallDisk(1 << 40, links=rules.links is False))
    save(directory, 1)
    folder = directory.backup(rules)
    assert not directory.part_path("encoder").samefile(folder / "face_SAEHD_encoder.npy")
    assert the_iteration(model(folder)) == 1 and model(folder).recover() == []
    assert directory.backups()[0].saved == datetime.fromtimestamp(directory.data_path.stat().st_mtime)


@pytest.mark.parametrize(("links", "factor"), [(True, 1), (False, 2)])
def test_too_little_space_is_told_and_nothing_left(tmp_path: Path, links: bool, factor: int) -> None:
    disk = SmallDisk(1 << 40, links)
    directory = model(tmp_path, disk)
    save(directory, 1, size=1000)
    size = sum(path.stat().st_size for path in (*directory.files(), directory.journal.manifest_path))
    disk.left = factor * size - 1
    with pytest.raises(
        ModelError, match=r"^No backup made: [12]\d MB are needed .*, [12]\d MB are free in .*Free some"
    ):
        directory.backup()
    assert directory.backups() == [] and not list(tmp_path.glob("**/unfinished"))
    disk.left += 1
    assert the_iteration(model(directory.backup())) == 1


def test_stopped_at_every_step_no_half_backup_is_listed(tmp_path: Path) -> None:
    save(model(tmp_path), 1)
    model(tmp_path).backup(NUMBERS)
    for at in range(1, 60):
        disk = BrokenDisk(tmp_path, at)
        try:
            model(tmp_path, disk).backup(BackupRules("numbers", max_count=2))
        except StopHere:
            found = model(tmp_path).backups()
            assert found and all(the_iteration(model(backup.folder)) == 1 for backup in found), disk.steps
            continue
        break
    assert 10 < at < 59 and len(model(tmp_path).backups()) == 2


def test_a_deletion_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    directory = model(tmp_path)
    save(directory, 1)
    folder = directory.backup()
    folder.replace(folder.with_name(backups.LEAVING))
    assert directory.backups() == []
    directory.backup()
    assert len(names(directory)) == 1


def test_backups_of_a_model_that_dfl_renamed_are_found(tmp_path: Path) -> None:
    save(model(tmp_path), 4)
    model(tmp_path).backup()
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / f"other_{path.name.split('_', 1)[1]}")
    (backup,) = ModelDir(tmp_path, "other", "SAEHD").backups()
    assert (backup.prefix, backup.iteration) == ("face", 4)


def test_a_model_of_another_program_is_backed_up_without_what_we_know_of_it(tmp_path: Path) -> None:
    directory = model(tmp_path)
    save(directory, 4)
    save(model(tmp_path / "x"), 9, state=False)
    for path in model(tmp_path / "x").files():
        path.replace(tmp_path / path.name)
    folder = directory.backup()
    assert directory.backups()[0].iteration == 9 and not list(folder.glob("*manifest*")) + list(folder.glob("*state*"))
    directory.data_path.write_bytes(b"\0" * 9)
    directory.journal.manifest_path.unlink()
    with pytest.raises(ModelError, match=r"data\.dat cannot be read"):
        directory.backup()
    with pytest.raises(ModelError, match="No model 'face'"):
        model(tmp_path / "absent").backup()
