"""The collapse guard: what it takes for one, what it does not, and what the trainer then does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from core.batch import Batch
from core.events import Command, Started, Stopped, Warned
from core.guard import Guard, GuardRules, State
from core.trainer import Cadence
from tests.test_trainer import Clock, FakeSaver, FakeTask, Run


def steady(guard: Guard, count: int, loss: float = 1.0, start: int = 1, noise: float = 0.2, **more: Any) -> State:
    rng = np.random.default_rng(start)
    for iteration in range(start, start + count):
        guard.observe(iteration, {"src_loss": loss * (1 + noise * rng.standard_normal()), "dst_loss": loss}, **more)
    return guard.state


def test_an_ordinary_training_is_healthy() -> None:
    """Falling, noisy, with single spikes, and jumping to twice as much when an option changed what it means."""
    guard = Guard()
    for iteration in range(1, 3000):
        loss = 4 * iteration**-0.25 * (1 + 0.3 * math.sin(iteration))
        spike = 30.0 if iteration % 700 == 0 else 1.0
        assert guard.observe(iteration, {"src_loss": loss * spike}, contrast=0.9) in (State.HEALTHY, State.SUSPECT)
        assert guard.state is State.HEALTHY or iteration % 700 < 60
    assert steady(guard, 500, 1.2, 3000) is State.HEALTHY and guard.skipped == 0


def test_steps_that_are_not_finite_are_counted_and_many_in_a_row_are_a_collapse() -> None:
    guard = Guard(GuardRules(skips=5))
    steady(guard, 50)
    for iteration in range(51, 55):
        assert guard.observe(iteration, {"src_loss": math.nan}) is State.HEALTHY
    assert guard.observe(55, {"src_loss": 1.0}, updated=False) is State.COLLAPSED and "5 steps in a row" in guard.reason
    assert guard.skipped == 5
    guard.restart()
    for iteration in range(60, 200):  # every other one: training goes on, if slowly
        assert guard.observe(iteration, {"src_loss": math.inf if iteration % 2 else 1.0}) is State.HEALTHY
    assert guard.skipped == 75


def test_a_loss_that_stays_high_is_first_suspect_then_a_collapse() -> None:
    guard = Guard()
    assert steady(guard, 300) is State.HEALTHY
    assert steady(guard, 30, 20.0, 301) is State.SUSPECT and "src_loss" in guard.reason and "far above" in guard.reason
    assert steady(guard, 80, 1.0, 331) is State.HEALTHY, "it came back"
    assert steady(guard, 150, 20.0, 411) is State.COLLAPSED
    guard.restart()
    assert steady(guard, 300, 20.0, 600) is State.HEALTHY, "forgotten: what losses mean has changed"


def test_after_a_roll_back_what_was_usual_stays_usual() -> None:
    guard = Guard()
    steady(guard, 300)
    assert steady(guard, 150, 20.0, 301) is State.COLLAPSED
    guard.go_on()
    assert guard.state is State.HEALTHY and steady(guard, 20, 1.0, 200) is State.HEALTHY
    assert steady(guard, 150, 20.0, 220) is State.COLLAPSED, "at once again"


def test_faces_without_contrast_count_only_later() -> None:
    guard = Guard()
    assert steady(guard, 900, contrast=0.001) is State.HEALTHY, "every training begins grey"
    assert steady(guard, 400, start=901, contrast=0.001) is State.COLLAPSED and "contrast" in guard.reason
    assert steady(Guard(), 3000, contrast=math.nan) is State.HEALTHY, "not measured"


def test_parts_that_begin_anew_in_an_old_model_may_draw_grey_at_first() -> None:
    guard = Guard()
    assert steady(guard, 900, start=50_000, contrast=0.01) is State.HEALTHY
    assert steady(guard, 50, start=50_900, contrast=0.6) is State.HEALTHY
    assert steady(guard, 150, start=50_950, contrast=0.07) is State.COLLAPSED, "what was there is gone"


class SickTask(FakeTask):
    """Losses explode from iteration `ill` on, until rolled back to iteration 1; `again`: then once more."""

    def __init__(self, clock: Clock, ill: int, loss: float = 1000.0) -> None:
        super().__init__(clock)
        self.ill, self.loss = ill, loss

    def step(self, batch: Batch) -> dict[str, Any]:
        losses = super().step(batch)
        return {name: np.float32(self.loss if self.data.iter >= self.ill else 1.0) for name in losses}


class FakeRescue:
    def __init__(self, task: SickTask, cured: bool) -> None:
        self.task, self.cured, self.kept = task, cured, 0

    def roll_back(self) -> list[str]:
        self.task.data.iter = 1
        self.task.ill = 10**9 if self.cured else self.task.ill
        return ["Back at iteration 1."]

    def keep_suspect(self) -> str:
        self.kept += 1
        return "beside"


class Diary(FakeSaver):
    """Notes at which iteration it was asked to save."""

    def __init__(self, task: SickTask) -> None:
        super().__init__()
        self.task = task
        self.iterations: list[int] = []

    def save(self, losses: dict[str, float] | None, position: int) -> None:
        self.iterations.append(self.task.data.iter)


def run_of(cured: bool, target: int = 400) -> tuple[Run, FakeRescue, Diary]:
    task = SickTask(Clock(), 150)
    rescue, saver = FakeRescue(task, cured), Diary(task)
    cadence = Cadence(target=target, exit_at_target=True, save_iterations=20)
    guard = Guard(GuardRules(learning=50, patience=40))
    return Run(cadence, task=task, saver=saver, guard=guard, rescue=rescue), rescue, saver


def test_a_collapse_is_rolled_back_once_and_training_goes_on() -> None:
    run, rescue, _ = run_of(cured=True)
    assert run.trainer.run() == "target" and rescue.kept == 0
    texts = [event.text for event in run.events if isinstance(event, Warned)]
    assert "Is it collapsing?" in texts[0] and "has collapsed" in texts[1] and texts[2] == "Back at iteration 1."
    assert len([event for event in run.events if isinstance(event, Started)]) == 2, "graphs start again from there"


def test_a_second_collapse_ends_the_training_and_keeps_the_good_files() -> None:
    run, rescue, saver = run_of(cured=False)
    assert run.trainer.run() == "collapse" and rescue.kept == 1
    assert isinstance(run.events[-1], Stopped) and run.events[-1].reason == "collapse"
    # Saved at 1, then every 20 iterations, never between the first doubt (just after 150) and the roll-back.
    assert saver.iterations == [1, *range(20, 160, 20), *range(20, 160, 20)]


def test_leaving_while_suspect_keeps_the_good_files() -> None:
    run, rescue, saver = run_of(cured=False, target=170)
    assert run.trainer.run() == "target" and rescue.kept == 1 and saver.iterations[-1] == 140
    assert any("suspect state is kept in beside" in event.text for event in run.events if isinstance(event, Warned))


@pytest.mark.parametrize("loss", [1000.0, math.nan])
def test_without_a_guard_nothing_is_watched(loss: float) -> None:
    task = SickTask(Clock(), 10, loss)
    run = Run(Cadence(target=50, exit_at_target=True), task=task)
    assert run.trainer.run() == "target" and not [event for event in run.events if isinstance(event, Warned)]


def test_before_the_first_iteration_nothing_is_saved() -> None:
    run = Run(Cadence(target=3, exit_at_target=True))
    run.commands.put(Command("save"))
    run.trainer.run()
    warned = next(event for event in run.events if isinstance(event, Warned))
    assert warned.text == "Not saved: nothing is trained yet." and run.saver.calls[0] is not None
