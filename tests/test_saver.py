"""Saving behind the loop: snapshots, a slow disk, a full one, another program at the same files."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from broken_disk import BrokenDisk
from saved_model import STEMS, VALUES, iterations, model, save, the_iteration
from training import command

from core import dflfile
from core.backups import BackupRules
from core.disk import Disk, remedy
from core.events import BackedUp, Event, Saved, Warned
from core.modeldir import LossHistory, ModelData, ModelDir, Part
from core.nn import Copy, to_dfl
from core.saver import BackgroundSaver
from main import main


class Task:
    """Three parts that all say the iteration, trained in place."""

    def __init__(self) -> None:
        self.weight = torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
        self.data = ModelData(0, {"resolution": 64}, LossHistory())

    def advance(self, iteration: int) -> None:
        self.data.iter = iteration
        self.weight.fill_(iteration)
        self.data.loss_history.append([1.0, 2.0])

    def parts(self, copy: Copy = to_dfl) -> dict[str, Part]:
        return {stem: {"a/weight:0": copy(self.weight)} for stem in STEMS}


class SlowDisk(Disk):
    """Waits before the first file until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go = threading.Event(), threading.Event()

    def create(self, path: Path) -> Any:
        self.reached.set()
        assert self.go.wait(30)
        return super().create(path)


Make = Callable[..., tuple[Task, BackgroundSaver, list[Event]]]


@pytest.fixture
def make() -> Make:
    def build(directory: ModelDir, rules: BackupRules | None = None) -> tuple[Task, BackgroundSaver, list[Event]]:
        task, events = Task(), list[Event]()
        saver = BackgroundSaver(task, directory, VALUES, "CPU", events.append, lambda: 0.0, 7, rules or BackupRules())
        return task, saver, events

    return build


def of(events: list[Event], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_the_loop_never_waits_and_the_newest_save_counts(make: Make, tmp_path: Path) -> None:
    disk = SlowDisk()
    task, saver, events = make(model(tmp_path, disk))
    for iteration in range(1, 6):  # the first is being written all the time
        task.advance(iteration)
        saver.save({"loss": float(iteration)}, iteration)
        assert disk.reached.wait(30)
        saver.backup()
    assert of(events, Saved) == []
    disk.go.set()
    assert saver.close() is True
    assert [event.iteration for event in of(events, Saved)] == [1, 5]
    assert [event.iteration for event in of(events, BackedUp)] == [5]
    assert the_iteration(model(tmp_path)) == 5 and the_iteration(model(of(events, BackedUp)[0].folder)) == 5


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"), (errno.EDQUOT, "Free some space"), (errno.EROFS, "writable"),
        (errno.EACCES, "writable"), (errno.EIO, "copy the model elsewhere"), (errno.ESTALE, "still connected"),
    ],
)  # fmt: skip
def test_a_failing_disk_is_told_with_the_remedy_and_tried_again(
    make: Make, tmp_path: Path, number: int, advice: str
) -> None:
    save(model(tmp_path), 1)
    disk = BrokenDisk(tmp_path, at=8, how="fail", number=number)
    task, saver, events = make(model(tmp_path, disk))
    task.advance(2)
    saver.save(None, 2)
    saver.wait()
    assert the_iteration(model(tmp_path)) == 1  # also: nothing of the attempt is left
    task.advance(3)
    saver.save(None, 3)
    assert saver.close() is True
    (warned,) = of(events, Warned)
    for words in (str(tmp_path), os.strerror(number), advice, "saved before are untouched", "tries again at the next"):
        assert words in warned.text
    assert [event.iteration for event in of(events, Saved)] == [3] and the_iteration(model(tmp_path)) == 3


def test_a_disk_that_dies_in_the_switch_is_told_and_mended_later(make: Make, tmp_path: Path) -> None:
    save(model(tmp_path), 1)
    dry = BrokenDisk(tmp_path)
    save(model(tmp_path, dry), 1)
    switch = [at for at, step in enumerate(dry.steps, 1) if step == "replace"][2]
    disk = BrokenDisk(tmp_path, switch, "dead")
    task, saver, events = make(model(tmp_path, disk))
    task.advance(2)
    saver.save(None, 2)
    saver.wait()
    assert "safe beside the new ones" in of(events, Warned)[0].text
    disk.at = 0
    task.advance(3)
    saver.save(None, 3)
    assert saver.close() is True and the_iteration(model(tmp_path)) == 3


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_may_not_be_written(make: Make, tmp_path: Path) -> None:
    save(model(tmp_path), 1)
    tmp_path.chmod(0o500)
    try:
        task, saver, events = make(model(tmp_path))
        task.advance(2)
        saver.save(None, 2)
        assert saver.close() is False
    finally:
        tmp_path.chmod(0o700)
    assert "writable" in of(events, Warned)[0].text and the_iteration(model(tmp_path)) == 1


def test_a_backup_that_does_not_fit_is_a_warning_and_no_failed_save(make: Make, tmp_path: Path) -> None:
    class Full(Disk):
        def free(self, folder: Path) -> int:
            return 5

    task, saver, events = make(model(tmp_path, Full()))
    task.advance(1)
    saver.save(None, 1)
    saver.backup()
    assert saver.close() is True
    (warned,) = of(events, Warned)
    assert warned.text.startswith("No backup made") and warned.text.endswith("Training goes on.")
    assert of(events, BackedUp) == []


def test_files_that_another_program_writes_meanwhile_are_kept(make: Make, tmp_path: Path) -> None:
    task, saver, events = make(model(tmp_path))
    task.advance(1)
    saver.save(None, 1)
    saver.wait()
    save(model(tmp_path / "x"), 50, state=False)
    for path in model(tmp_path / "x").files():
        path.replace(tmp_path / path.name)
    task.advance(2)
    saver.save(None, 2)
    assert saver.close() is True
    (warned,) = of(events, Warned)
    assert "Another program wrote face_SAEHD_data.dat" in warned.text
    (backup,) = model(tmp_path).backups()
    assert str(backup.folder) in warned.text and set(iterations(model(backup.folder)).values()) == {50}
    assert the_iteration(model(tmp_path)) == 2


def test_what_was_there_before_the_start_is_no_surprise(make: Make, tmp_path: Path) -> None:
    save(model(tmp_path), 1)
    save(model(tmp_path / "x"), 9, state=False)
    for path in model(tmp_path / "x").files():
        path.replace(tmp_path / path.name)
    task, saver, events = make(model(tmp_path))
    task.advance(10)
    saver.save(None, 10)
    assert saver.close() is True and of(events, Warned) == [] and the_iteration(model(tmp_path)) == 10


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_for_a_snapshot_is_a_warning(make: Make, tmp_path: Path, error: Exception) -> None:
    task, saver, events = make(model(tmp_path))
    task.advance(1)

    def parts(copy: Copy = to_dfl) -> dict[str, Part]:
        raise error

    task.parts, good = parts, task.parts  # type: ignore[method-assign]
    saver.save(None, 1)
    assert "Not enough memory to save" in of(events, Warned)[0].text
    task.parts = good  # type: ignore[method-assign]
    saver.save(None, 1)
    assert saver.close() is True and the_iteration(model(tmp_path)) == 1


def test_other_errors_have_no_remedy(tmp_path: Path) -> None:
    assert remedy(None, tmp_path) == remedy(errno.EBUSY, tmp_path) == ""


def test_trained_on_by_another_program_and_resumed(faces: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stand-in for DFL writes over every file of its own, as a training of 100 iterations would."""
    directory = ModelDir(copy, "new", "SAEHD")
    for path in directory.files():
        if path.suffix == ".npy":
            part = dflfile.load(path)
            path.write_bytes(dflfile.dumps({name: array * array.dtype.type(2) for name, array in part.items()}))
    record = dflfile.load(directory.data_path)
    directory.data_path.write_bytes(dflfile.dumps({**record, "iter": 103}))
    directory.summary_path.write_text("written by DFL")
    theirs = directory.read_part("encoder")
    words = command(
        faces, copy, "--no-preview", "--exit-at-target", "--workers", "0", "--target-iter", "104", small=False
    )
    assert main(words[2:]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "another program" in line or "_facesmith_" in line]
    assert len(said) == 1 and "new_SAEHD_encoder.npy" in said[0] and "other samples" in said[0]
    ours, state = directory.read_part("encoder"), directory.read_state()
    assert ours is not None and theirs is not None and state is not None
    assert directory.read_data().iter == state.iteration == state.position == 104
    assert all(np.allclose(ours[name], theirs[name], atol=1e-3) for name in theirs)
    assert directory.recover() == [] and directory.backups() == []
