"""The loop with a task of plain numbers: what happens when, in which order, and what it does about commands."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from core.batch import Batch, Captions, Page, Side
from core.events import (
    Advanced,
    Command,
    Commands,
    Event,
    Previewed,
    Saved,
    Started,
    Stepped,
    Stopped,
    TargetReached,
    Warned,
)
from core.modeldir import LossHistory, ModelData, ModelDir, Part
from core.nn import Copy, to_dfl
from core.options import Values
from core.runstate import RunState
from core.saver import BackgroundSaver
from core.trainer import Cadence, Trainer


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeTask:
    """Losses that count down; every step takes a second. `during` runs inside step n."""

    loss_names = ("src_loss", "dst_loss")
    preview_s = 0.0

    def __init__(self, clock: Clock, iteration: int = 0) -> None:
        self.clock = clock
        self.health: dict[str, Any] = {}
        self.repeats = False
        self.data = ModelData(iteration, loss_history=LossHistory([[9.0, 9.0]] * iteration))
        self.during: dict[int, Callable[[], object]] = {}
        self.seen: list[int] = []

    def step(self, batch: Batch) -> dict[str, Any]:
        self.clock.now += 1.0
        self.seen.append(int(batch.src.target))
        self.data.iter += 1
        losses = {"src_loss": np.float32(1 / self.data.iter), "dst_loss": np.float32(2.0)}
        self.data.loss_history.append(losses.values())
        self.during.get(self.data.iter, lambda: None)()
        return losses

    def preview(self, batch: Batch) -> list[Page]:
        self.clock.now += self.preview_s
        return [(f"page of {batch.src.target}", [])]

    def captions(self, batch: Batch) -> Captions:
        return {f"page of {batch.src.target}": [[batch.src.name_of(0)]]}

    def parts(self, copy: Copy = to_dfl) -> dict[str, Part]:
        return {"encoder": {"w:0": np.zeros(2, np.float32)}}


class FakeSaver:
    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.positions: list[int] = []

    def save(self, losses: dict[str, float] | None, position: int) -> None:
        self.calls.append(losses)
        self.positions.append(position)

    def backup(self) -> None:
        self.calls.append("backup")

    def wait(self) -> None:
        pass

    def failed(self) -> bool:
        return False


def numbered(number: int = 0) -> Iterator[Batch]:
    while True:
        yield Batch(src=Side(target=number), dst=Side())
        number += 1


class Run:
    """A trainer with everything around it observable."""

    def __init__(
        self, cadence: Cadence, iteration: int = 0, task: FakeTask | None = None, saver: FakeSaver | None = None,
        **more: Any,
    ) -> None:  # fmt: skip
        self.task = task or FakeTask(Clock(), iteration)
        self.clock = self.task.clock
        self.saver = saver or FakeSaver()
        self.events: list[Event] = []
        self.commands: Commands = queue.Queue()
        self.trainer = Trainer(
            "m", self.task, numbered(more.get("position", 0)), self.events.append, self.commands, self.saver, cadence,
            self.clock, **more,
        )  # fmt: skip

    def at(self, iteration: int, *names: Any) -> None:
        self.task.during[iteration] = lambda: [self.commands.put(Command(name)) for name in names]

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def test_runs_to_the_target_and_ends() -> None:
    run = Run(Cadence(target=5, exit_at_target=True))
    assert run.trainer.run() == "target"
    assert [event.iteration for event in run.of(Stepped)] == [1, 2, 3, 4, 5]
    assert run.of(Stepped)[0].losses == {"src_loss": 1.0, "dst_loss": 2.0} and run.of(Stepped)[2].ms == 1000.0
    assert run.kinds()[0] == "Started" and run.kinds()[-2:] == ["TargetReached", "Stopped"]
    assert run.of(Stopped) == [Stopped(5, "target")]
    assert run.saver.calls[0] == {"src_loss": 1.0, "dst_loss": 2.0}  # at iteration 1
    assert run.saver.calls[1]["src_loss"] == pytest.approx(np.mean([1 / 2, 1 / 3, 1 / 4, 1 / 5]))
    assert len(run.saver.calls) == 2


def test_every_batch_is_trained_on_once_also_the_previewed_one() -> None:
    run = Run(Cadence(target=4, exit_at_target=True))
    run.trainer.run()
    assert run.task.seen == [0, 1, 2, 3]
    assert run.of(Previewed)[0].pages == [("page of 0", [])]


def test_started_past_the_target_trains_nothing() -> None:
    run = Run(Cadence(target=5, exit_at_target=True), iteration=7)
    run.trainer.run()
    assert run.task.seen == [] and run.saver.calls == []
    assert run.of(Started)[0].history.shape == (7, 2) and run.of(TargetReached) == [TargetReached(7)]


def test_paused_at_the_target_it_obeys_and_previews_new_batches() -> None:
    run = Run(Cadence(target=2))
    run.at(2, "preview", "save", "backup", "preview", "stop")
    assert run.trainer.run() == "command"
    assert [event.pages[0][0] for event in run.of(Previewed)][-2:] == ["page of 1", "page of 1"]
    run = Run(Cadence(target=2))
    asked = iter(["preview", "preview", "stop"])
    run.trainer._wait_command = lambda: Command(next(asked))  # type: ignore[arg-type, method-assign]
    run.trainer.run()
    assert [event.pages[0][0] for event in run.of(Previewed)][-2:] == ["page of 2", "page of 3"]


def test_the_position_saved_counts_batches_trained_on_not_those_previewed() -> None:
    run = Run(Cadence(target=5), iteration=2, position=12)
    run.at(3, "preview", "save", "preview")
    asked = iter(["preview", "preview", "save", "stop"])
    run.trainer._wait_command = lambda: Command(next(asked))  # type: ignore[arg-type, method-assign]
    run.trainer.run()
    assert run.task.seen == [12, 13, 14] and run.saver.positions == [13, 15, 15]
    run = Run(Cadence(), iteration=1, position=4)
    run.commands.put(Command("save"))
    run.commands.put(Command("stop"))
    run.trainer.run()
    assert run.task.seen == [] and run.saver.positions == [4]  # the batch of the first preview is still to come


def test_unattended_it_ends_at_the_target() -> None:
    run = Run(Cadence(target=2), attended=lambda: False)
    assert run.trainer.run() == "target"


def test_stop_saves_what_is_not_saved_and_only_that() -> None:
    run = Run(Cadence())
    run.at(1, "stop")
    assert run.trainer.run() == "command"
    assert len(run.saver.calls) == 1 and run.of(Stopped) == [Stopped(1, "command")]
    run = Run(Cadence())
    run.at(3, "stop")
    run.trainer.run()
    assert len(run.saver.calls) == 2


def test_commands_between_iterations() -> None:
    run = Run(Cadence(target=6, exit_at_target=True))
    run.at(3, "save", "backup", "preview")
    run.trainer.run()
    assert run.saver.calls[2] == "backup" and len(run.saver.calls) == 4
    assert [event.iteration for event in run.of(Previewed)] == [0, 1, 3, 6]


def test_saves_by_time_and_by_iterations() -> None:
    run = Run(Cadence(target=10, exit_at_target=True, save_seconds=4))
    run.trainer.run()
    assert len(run.saver.calls) == 1 + 2 + 1  # iterations 1, 5, 9 and the target
    run = Run(Cadence(target=10, exit_at_target=True, save_seconds=0, save_iterations=3))
    run.trainer.run()
    assert len(run.saver.calls) == 1 + 3 + 1  # iterations 1, 3, 6, 9 and the target


def test_backups_by_the_hour_happen_at_saves() -> None:
    run = Run(Cadence(target=9000, exit_at_target=True, save_seconds=1500, backup_hours=1))
    run.trainer.run()
    assert run.saver.calls.count("backup") == 2


def test_previews_are_refreshed_by_time() -> None:
    run = Run(Cadence(target=20, exit_at_target=True, save_seconds=0, preview_seconds=5))
    run.trainer.run()
    assert [event.iteration for event in run.of(Previewed) if event.refreshed] == [6, 11, 16]
    assert [event.iteration for event in run.of(Previewed) if not event.refreshed] == [0, 1, 20]
    assert run.task.seen == list(range(20)), "no batch is drawn for them"
    assert all(event.ms == 1000 for event in run.of(Stepped)), "and their time is not an iteration's"
    run = Run(Cadence(target=50, exit_at_target=True, save_seconds=0))
    run.trainer.run()
    assert not any(event.refreshed for event in run.of(Previewed))


def test_refreshed_previews_cost_a_hundredth_of_the_time() -> None:
    run = Run(Cadence(target=1000, exit_at_target=True, save_seconds=0, preview_seconds=5))
    run.task.preview_s = 0.5
    run.trainer.run()
    assert [event.iteration for event in run.of(Previewed) if event.refreshed] == list(range(51, 1000, 50))
    run = Run(Cadence(target=1000, exit_at_target=True, save_seconds=0, preview_seconds=5))
    run.task.preview_s = 0.5
    run.task.during[500] = lambda: setattr(run.task, "preview_s", 0.01)  # it has become faster
    run.trainer.run()
    assert len([event for event in run.of(Previewed) if event.refreshed and event.iteration > 502]) > 80


def test_history_pages_come_from_the_fixed_faces() -> None:
    fixed = Batch(src=Side(target=-1), dst=Side())
    run = Run(Cadence(target=7, exit_at_target=True, history_every=3), history_batch=fixed)
    run.trainer.run()
    pages = [event for event in run.of(Previewed) if event.history]
    assert [(event.iteration, event.pages[0][0]) for event in pages] == [(3, "page of -1"), (6, "page of -1")]


def test_means_ignore_what_is_not_finite() -> None:
    run = Run(Cadence(target=3, exit_at_target=True))
    run.task.during[2] = lambda: run.task.data.loss_history.append([np.inf, np.nan])
    run.trainer.run()
    assert np.isfinite(list(run.saver.calls[-1].values())).all()


def test_background_saver_writes_a_snapshot_and_reports(tmp_path: Any) -> None:
    clock, events = Clock(), []  # type: ignore[var-annotated]
    task, directory = FakeTask(clock, 4), ModelDir(tmp_path / "m", "a", "SAEHD")
    saver = BackgroundSaver(task, directory, Values({}, {}), "CPU", events.append, clock, seed=7)
    saver.save({"src_loss": 1.0}, 6)
    task.data.iter = 99
    saver.backup()
    assert saver.close() is True
    told = [type(event).__name__ for event in events if not isinstance(event, Advanced)]
    assert told == ["Saving", "Saved", "BackedUp"] and len(events) > len(told)
    for folder in (directory.folder, directory.backups()[0].folder):
        saved = ModelDir(folder, "a", "SAEHD")
        assert saved.read_data().iter == 4 and saved.read_state() == RunState(iteration=4, seed=7, position=6)


def test_a_failed_save_warns_and_the_next_one_heals(tmp_path: Any) -> None:
    clock, events = Clock(), []  # type: ignore[var-annotated]
    blocked = tmp_path / "m"
    blocked.write_text("a file where the folder should be")
    task = FakeTask(clock, 4)
    saver = BackgroundSaver(task, ModelDir(blocked, "a", "SAEHD"), Values({}, {}), "CPU", events.append, clock, seed=7)
    saver.save(None, 4)
    saver.backup()
    assert saver.close() is False
    assert any(isinstance(event, Warned) and "training goes on" in event.text for event in events)
    assert not any(isinstance(event, Saved) for event in events)


def test_a_backup_is_of_what_is_trained_now() -> None:
    run = Run(Cadence(target=5, exit_at_target=True))
    run.at(3, "backup")
    run.trainer.run()
    assert [call if call == "backup" else "save" for call in run.saver.calls] == ["save", "save", "backup", "save"]
    assert run.saver.positions == [1, 3, 5]


class FullDisk(FakeSaver):
    """Every save fails while `full`."""

    full = True
    last_failed = False

    def save(self, losses: dict[str, float] | None, position: int) -> None:
        super().save(losses, position)
        self.last_failed = self.full

    def failed(self) -> bool:
        return self.last_failed


def test_a_save_that_failed_is_tried_again_on_leaving() -> None:
    saver = FullDisk()
    run = Run(Cadence(target=5, exit_at_target=True), saver=saver)
    run.trainer.run()
    assert saver.positions == [1, 5, 5, 5]  # at the target, on leaving, and a last time

    saver = FullDisk()
    run = Run(Cadence(target=5), saver=saver)

    def make_room(event: Event) -> None:
        if isinstance(event, TargetReached):
            saver.full = False
            run.commands.put(Command("stop"))

    run.trainer.emit = make_room
    run.trainer.run()
    assert saver.positions == [1, 5, 5] and not saver.failed()  # by then there is room


def test_a_backup_after_a_failed_save_saves_first() -> None:
    saver = FullDisk()
    run = Run(Cadence(target=3), saver=saver)
    run.at(3, "backup", "stop")
    saver.full = False
    run.task.during[2] = lambda: setattr(saver, "last_failed", True)
    run.trainer.run()
    assert [call if call == "backup" else "save" for call in saver.calls] == ["save", "save", "backup"]
