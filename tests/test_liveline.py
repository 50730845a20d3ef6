"""The fields behind DFL's line, the hint that a loss stands still, and the files for other programs."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from core.eventlog import EventLog, LossTable
from core.events import Event, Noted, Previewed, Saved, Started, Stepped, Warned
from core.liveline import LiveLine
from core.plateau import BIN, Plateau


def started(history: np.ndarray, target: int = 0, iteration: int = 0) -> Started:
    return Started("mine", iteration, target, ("src_loss", "dst_loss"), history.astype(np.float32))


def step(iteration: int, src: float = 0.5, dst: float = 0.25, ms: float = 200.0, waited: float = 0.0) -> Stepped:
    return Stepped(iteration, {"src_loss": src, "dst_loss": dst}, ms, waited)


def test_fields_from_the_most_to_the_least_important() -> None:
    now = [0.0]
    asked: list[float] = []

    def memory() -> int:
        asked.append(now[0])
        return 1_540_000_000

    line = LiveLine(lambda: now[0], memory)
    line.started(started(np.full((300, 2), (0.5, 0.25)), target=1_000_000, iteration=300))
    for iteration in range(301, 401):
        now[0] += 0.2
        line.stepped(step(iteration, waited=50.0))
        text = line.fields(100)
    assert text == "[avg 0.5000 0.2500][data 25%][5.00 it/s][2 d 7:32:00 left][1.5 GB]"
    assert len(asked) == 10 and min(np.diff(asked)) >= 2
    assert line.fields(45) == "[avg 0.5000 0.2500][data 25%][5.00 it/s]"
    assert line.fields(10) == ""


def test_speeds_and_what_is_not_known() -> None:
    line = LiveLine(lambda: 0.0)
    assert line.fields(100) == ""
    line.started(started(np.zeros((0, 2))))
    line.stepped(step(1, math.nan, 0.5, ms=2500.0))
    assert line.fields(100) == "[avg 0.5000][2.50 s/it]"
    line.stepped(step(2, 0.25, 0.5, ms=0.0))
    assert line.fields(100).startswith("[avg 0.2500 0.5000]")


def noise(count: int, level: float, slope: float = 0.0) -> np.ndarray:
    """Losses of a training: level falling by `slope` every thousand, with the noise of batches."""
    random = np.random.RandomState(1).normal(0, 0.05, count)
    return level - slope * np.arange(count) / BIN + random * level


def test_a_loss_that_stands_still_is_told_once_a_stretch() -> None:
    told: list[Event] = []
    plateau = Plateau(5, told.append)
    plateau(started(np.zeros((0, 2))))
    for iteration, (src, dst) in enumerate(zip(noise(12_000, 0.305), noise(12_000, 0.4, 0.01), strict=True), 1):
        plateau(step(iteration, src, dst))
    lines = [event.text for event in told if isinstance(event, Noted)]
    assert len(lines) == 2
    assert all(line.startswith("src_loss has hardly moved for 5,000 iterations: 0.3") for line in lines)


def test_what_was_trained_before_counts_but_is_not_told_at_once() -> None:
    told: list[Event] = []
    plateau = Plateau(5, told.append)
    plateau(started(np.stack([noise(9_500, 0.3)] * 2, 1), iteration=9_500))
    for iteration in range(BIN - 1):
        plateau(step(iteration, 0.3, 0.3))
    assert told == []
    plateau(step(BIN, 0.3, 0.3))
    assert len(told) == 2


def test_collapsed_and_short_histories_are_not_judged() -> None:
    told: list[Event] = []
    plateau = Plateau(3, told.append)
    plateau(started(np.full((2_500, 2), np.nan)))
    for iteration in range(4 * BIN):
        plateau(step(iteration, math.nan, 0.0))
    assert told == []


def test_events_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path, lambda event: None, lambda: 12.34567)
    log(started(np.zeros((5, 2)), 100, 5))
    log(step(6, math.nan))
    log(Previewed(6, [("SAEHD", [[np.zeros((2, 2, 3), np.uint8)]])]))
    log(Saved(6, {"src_loss": np.float32(0.5)}, 3.0, Path("model")))
    log.close()
    log(step(7))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["event"] for row in rows] == ["Started", "Stepped", "Previewed", "Saved"]
    assert rows[0] == {
        "event": "Started", "time": 12.346, "name": "mine", "iteration": 5, "target": 100,
        "loss_names": ["src_loss", "dst_loss"],
    }  # fmt: skip
    assert rows[1]["losses"] == {"src_loss": None, "dst_loss": 0.25} and rows[2]["pages"] == ["SAEHD"]
    assert rows[3]["losses"] == {"src_loss": 0.5}


def test_losses_as_a_table(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    for first in (1, 3):  # a second run goes on in the same file
        table = LossTable(path, lambda event: None, lambda: 1.0)
        table(started(np.zeros((0, 2))))
        for iteration in (first, first + 1):
            table(step(iteration))
        table.close()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[0] == {
        "iteration": "1", "time": "1.000", "src_loss": "0.5", "dst_loss": "0.25", "ms": "200.0", "data_ms": "0.0",
    }  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_file_that_cannot_be_written_is_told_once() -> None:
    told: list[Event] = []
    log = EventLog(Path("/dev/full"), told.append)
    for iteration in range(3):
        log(step(iteration))
    assert [type(event) for event in told] == [Warned] and "no more is written" in str(told[0])
