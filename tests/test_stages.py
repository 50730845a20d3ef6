"""Stages of a start and the watchdog, with a clock that only moves when told."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from core.batch import Batch
from core.console import ConsoleSink
from core.events import Advanced, Event, Noted, Previewed, Staged, Started, Stepped, TargetReached, Warned
from core.prompts import Kind
from core.runlog import RunLog
from core.stages import Asked, Pulse, Stages
from core.watchdog import Watchdog, whereabouts


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def stages(clock: Clock, told: list[Event]) -> Stages:
    return Stages(told.append, clock)


class Slow:
    """A person who thinks for ten seconds."""

    strict = False

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def say(self, text: str, kind: Kind = "") -> None: ...

    def ask(self, prompt: str, choices: Sequence[str] = ()) -> str:
        self.clock.now += 10
        return "y"

    def enter_within(self, seconds: float, line: Callable[[float], str]) -> bool:
        self.clock.now += 10
        return True


def test_a_stage_is_named_and_timed_without_the_time_of_questions(
    clock: Clock, told: list[Event], stages: Stages
) -> None:
    with stages.stage("Loading samples", "hint"):
        clock.now += 1.5
        assert Asked(Slow(clock), stages).ask("?") == "y" and Asked(Slow(clock), stages).enter_within(2, str)
        clock.now += 0.5
    assert told == [Staged("Loading samples"), Staged("Loading samples", 2.0)]
    assert stages.table() == "Start: 2.0 s (loading samples 2.0)" and stages.doing is None
    with pytest.raises(KeyError), stages.stage("Opening", "hint"):
        raise KeyError
    assert told[-1] == Staged("Opening", 0.0, failed=True)


def test_a_long_stage_tells_how_far_it_is(clock: Clock, told: list[Event], stages: Stages) -> None:
    with stages.stage("Loading samples", "hint"):
        for done in range(40):
            clock.now += 0.125
            stages.advance(done, 40)
    assert [event.done for event in told if isinstance(event, Advanced)] == list(range(8, 40, 2))
    with stages.stage("hidden", "hint", shown=False):
        clock.now += 5
        stages.advance(1, 2)
    stages.advance(1, 2)
    assert told[-1] == Staged("Loading samples", 5.0)


def test_lines_of_stages(clock: Clock) -> None:
    out = io.StringIO()
    console = ConsoleSink(out)
    for event in [
        Staged("A"), Staged("A", 1.25), Staged("B"), Noted("between"), Staged("B", 0.5),
        Staged("C"), Warned("slow"), Staged("C", 7.0), Staged("D"), Staged("D", 1.0, failed=True), Noted("end"),
    ]:  # fmt: skip
        console(event)
    assert out.getvalue() == "A... 1.2 s\nB...\nbetween\nC...\nWarning: slow\nC: 7.0 s\nD...\nend\n"


def batches(clock: Clock) -> Iterator[Batch]:
    while True:
        clock.now += 3
        yield Batch()


def started(iteration: int, target: int = 0) -> Started:
    return Started("a", iteration, target, ("x",), np.zeros((0, 1)))


@pytest.mark.parametrize("resumed", [False, True])
def test_first_samples_preview_and_iteration(clock: Clock, told: list[Event], stages: Stages, resumed: bool) -> None:
    """A new model tells its first iteration at once; otherwise it is over when the second batch is asked for."""
    pulse = Pulse(stages, batches(clock), told.append, "hint")
    pulse.emit(started(7 if resumed else 0))
    next(pulse)
    clock.now += 1
    pulse.emit(Previewed(0, []))
    assert stages.doing is not None and stages.doing.name == "First iteration"
    clock.now += 2
    if resumed:
        next(pulse)
    else:
        pulse.emit(Stepped(1, {}, 1.0))
    names = [(event.name, event.seconds) for event in told if isinstance(event, Staged) and event.seconds is not None]
    assert names == [("First samples", 3.0), ("First preview", 1.0), ("First iteration", 2.0)]
    assert Noted(stages.table(), aside=True) in told and stages.doing.name == f"iteration {8 if resumed else 2}"


def test_pausing_at_the_target_is_not_being_stuck(clock: Clock, told: list[Event], stages: Stages) -> None:
    pulse = Pulse(stages, batches(clock), told.append, "hint")
    pulse.emit(started(5, 5))
    next(pulse)
    pulse.emit(Previewed(5, []))
    pulse.emit(TargetReached(5))
    assert stages.doing is None and Staged("First iteration") not in told and Noted(stages.table(), aside=True) in told
    next(pulse)
    assert stages.doing is not None
    pulse.emit(Previewed(5, []))
    assert stages.doing is None


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(["x"], lambda: datetime(2026, 11, 21), tmp_path / "log.txt")


def warnings(told: list[Event]) -> list[str]:
    return [event.text for event in told if isinstance(event, Warned)]


def test_the_watchdog_tells_at_growing_intervals(
    clock: Clock, told: list[Event], stages: Stages, log: RunLog, tmp_path: Path
) -> None:
    dog = Watchdog(stages, log, 60, clock)
    times: list[float] = []

    def pass_by(seconds: int) -> None:
        for _ in range(seconds):
            clock.now += 1
            before = len(warnings(told))
            dog.look()
            times.extend([clock.now - 100] * (len(warnings(told)) - before))

    stages.begin("Loading samples", "Is the disk away?")
    pass_by(500)
    assert times == [60, 120, 240, 480]
    first = warnings(told)[0]
    assert "Loading samples: no progress for 60 s. It stands at core/watchdog.py:" in first  # it looks at itself here
    assert "Is the disk away?" in first and str(tmp_path / "log.txt") in first
    kept = (tmp_path / "log.txt").read_text()
    assert kept.count("no progress for") == 4
    stages.beat()
    pass_by(59)
    assert told[-1] == Noted("It goes on, after 8 min.") and len(times) == 4
    pass_by(2)
    assert len(times) == 5
    with stages.waiting():
        pass_by(1000)
    assert len(times) == 5


def test_an_iteration_may_take_several_times_as_long_as_usual(
    clock: Clock, told: list[Event], stages: Stages, log: RunLog
) -> None:
    dog = Watchdog(stages, log, 10, clock)
    for _ in range(5):
        stages.took(30.0)
    stages.iterate("iteration 6", "")
    for second in range(300):
        clock.now += 1
        dog.look()
        assert bool(warnings(told)) == (second + 1 >= 240)


def test_a_program_that_was_stopped_is_not_stuck(clock: Clock, told: list[Event], stages: Stages, log: RunLog) -> None:
    """Ctrl-Z, or a machine that slept: the watchdog itself came late."""
    dog = Watchdog(stages, log, 60, clock)
    stages.begin("Loading samples", "")
    clock.now += 1
    dog.look()
    clock.now += 3600
    dog.look()
    assert warnings(told) == []
    for _ in range(61):
        clock.now += 1
        dog.look()
    assert len(warnings(told)) == 1


def test_where_a_thread_stands() -> None:
    ready, end = threading.Event(), threading.Event()

    def stand() -> None:
        ready.set()
        end.wait()

    thread = threading.Thread(target=stand)
    thread.start()
    ready.wait()
    while True:
        text, path = whereabouts(sys._current_frames()[thread.ident or 0])
        if "wait" in text:
            break
    end.set()
    thread.join()
    assert path == "tests/test_stages.py" and "in stand (end.wait()), within " in text and "threading.py:" in text
    assert whereabouts(None) == ("no line of Python", "")
