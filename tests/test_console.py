"""Transcripts of the console sink, and the background queue all sinks can run behind."""

from __future__ import annotations

import io
import queue
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from core.console import ERASE_BELOW, ConsoleSink, columns, iteration_line, overwrites
from core.events import (
    Advanced,
    BackedUp,
    Command,
    Event,
    Failed,
    Noted,
    Previewed,
    Saved,
    Saving,
    Staged,
    Started,
    Stepped,
    Stopped,
    TargetReached,
    Warned,
)
from core.sinks import Background, Every, ask


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    @property
    def text(self) -> str:
        return time.strftime("%H:%M:%S", time.localtime(self.now))


def step(iteration: int, src: float, dst: float, ms: float = 123.9) -> Stepped:
    return Stepped(iteration, {"src_loss": src, "dst_loss": dst}, ms)


def started(iteration: int = 0, target: int = 0) -> Started:
    return Started("new", iteration, target, ("src_loss", "dst_loss"), np.zeros((0, 2), np.float32))


def test_terminal_transcript() -> None:
    stream, clock = Terminal(), Clock()
    sink = ConsoleSink(stream, clock)
    sink(started())
    sink(step(1, 1.5, 2.25))
    sink(step(2, 0.5, 0.25, 12_345.6))
    sink(Saving(2))
    sink(Saved(2, {"src_loss": 1.0, "dst_loss": 1.25}, 40.0, Path("model")))
    sink(step(3, 0.5, 0.5))
    sink(Warned("one\ntwo"))
    sink(Stopped(3, "command"))
    t = clock.text
    first = f"[{t}][#000001][0123ms][1.5000][2.2500][avg 1.5000 2.2500][8.07 it/s]"
    second = f"[{t}][#000002][12.34s][0.5000][0.2500][avg 0.9949 1.2399]"
    third = f"[{t}][#000003][0123ms][0.5000][0.5000][avg 0.8266 0.9883]"
    second, third = f"{second}[6.30 s/it]", f"{third}[4.20 s/it]"
    assert stream.getvalue() == (
        'Starting. Press "Enter" to stop training and save model.\n'
        "Trying to do the first iteration. If an error occurs, reduce the model parameters.\n"
        f"\r{first}\r\r{second.ljust(len(first))}\r\r{'Saving....'.ljust(len(second))}\r"
        f"\r[{t}][#000002][12.34s][1.0000][1.2500]\n"
        f"\r{third}\r\r{'Warning: one'.ljust(len(third))}\ntwo\n"
        "Done.\n"
    )


def test_plain_stream_gets_few_lines_and_no_carriage_return() -> None:
    stream, clock = io.StringIO(), Clock()
    sink = ConsoleSink(stream, clock, every=10.0)
    sink(started(100, 500))
    for i in range(101, 131):
        sink(step(i, 1.0, 1.0))
        clock.now += 1.0
    clock.now = 1_700_000_100.0
    sink(Saving(130))
    sink(Saved(130, None, 1.0, Path("model")))
    lines = stream.getvalue().split("\n")
    assert lines[0] == 'Starting. Target iteration: 500. Press "Enter" to stop training and save model.'
    assert [line[11:18] for line in lines[1:-2]] == ["#000101", "#000111", "#000121"]
    assert lines[-2] == f"[{clock.text}][#000130][0123ms] Saved."
    assert "\r" not in stream.getvalue()


def test_the_line_shows_what_part_of_the_time_is_waiting_for_samples() -> None:
    stream = Terminal()
    sink = ConsoleSink(stream, Clock())
    for iteration, waited in ((1, 0.4), (2, 50.0), (3, 99.0)):
        sink(Stepped(iteration, {"loss": 1.0}, 100.0, waited))
    lines = stream.getvalue().split("\r\r")
    assert "data" not in lines[0] and "[data 25%]" in lines[1] and "[data 50%]" in lines[2]
    for iteration in range(400):
        sink(Stepped(iteration, {"loss": 1.0}, 100.0, 0.2))
    sink(Saved(400, {"loss": 1.0}, 1.0, Path("model")))
    assert "data" not in stream.getvalue()[-60:]
    sink(Stepped(401, {"loss": 1.0}, 100.0, 5000.0))  # of another clock: never more than all of it
    assert "[data 2%]" in stream.getvalue()[-60:]


@pytest.mark.parametrize("stays", [True, False])
def test_target(stays: bool) -> None:
    stream = io.StringIO()
    sink = ConsoleSink(stream, Clock(), stays=stays)
    sink(TargetReached(500))
    sink(started(500, 500))
    more = ("You can use preview now.\n", " You can use preview.") if stays else ("", "")
    text = f"Reached target iteration.\n{more[0]}Model already trained to target iteration.{more[1]}\n"
    assert stream.getvalue() == text


def test_other_lines_and_no_key() -> None:
    stream = io.StringIO()
    sink = ConsoleSink(stream, Clock(), key="")
    for event in (started(5), BackedUp(5, Path("b") / "01"), Failed("out of memory")):
        sink(event)
    assert stream.getvalue() == f"Starting.\nBackup made: {Path('b') / '01'}\nError: out of memory\n"


def test_line_does_not_wrap() -> None:
    stream, width = Terminal(), [30]
    sink = ConsoleSink(stream, Clock(), width=lambda: width[0])
    for width[0] in (30, 12, 3, 1, 25):
        sink(step(1, 1.0, 1.0))
    lines = stream.getvalue().replace(ERASE_BELOW, "").split("\r\r")
    assert [len(line.strip("\r")) for line in lines] == [29, 11, 2, 1, 24]


def test_a_terminal_that_became_narrower_is_wiped() -> None:
    stream, width = Terminal(), [100]
    sink = ConsoleSink(stream, Clock(), width=lambda: width[0])
    sink(step(1, 1.0, 1.0))
    assert ERASE_BELOW not in stream.getvalue()
    width[0] = 40
    sink(step(2, 1.0, 1.0))
    assert f"\r\r{ERASE_BELOW}[" in stream.getvalue()
    sink(step(3, 1.0, 1.0))
    assert stream.getvalue().count(ERASE_BELOW) == 1


def test_an_empty_note_ends_the_line() -> None:
    stream = Terminal()
    sink = ConsoleSink(stream, Clock(), width=lambda: 20)
    sink(Noted(""))
    sink(step(1, 1.0, 1.0))
    sink(Noted(""))
    assert stream.getvalue().endswith("\r\r" + " " * 19 + "\n") and stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("terminal", "kind", "live"), [(True, "xterm", True), (True, "dumb", False), (False, "", False)]
)
def test_where_lines_are_written_over(terminal: bool, kind: str, live: bool) -> None:
    assert overwrites(Terminal() if terminal else io.StringIO(), {"TERM": kind}) is live


def test_width_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "123")
    assert columns(io.StringIO()) == 123


def test_unknown_letters_and_closed_stream() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="")
    sink = ConsoleSink(stream, Clock())
    sink(Warned("Ordner für alles"))
    assert raw.getvalue() == b"Warning: Ordner f\\xfcr alles\n"
    stream.close()
    sink(Warned("nobody hears this"))


def test_nan_has_a_line() -> None:
    assert iteration_line(0, 1, 1, {"src_loss": float("nan")}).endswith("[#000001][0001ms][nan]")


def test_every_survives_a_clock_set_back() -> None:
    clock = Clock()
    due = Every(10, clock)
    assert due() and not due()
    clock.now -= 3600
    assert due() and not due()


def test_background_keeps_what_matters_in_order() -> None:
    """Against a sink that is stuck: only stale steps and previews go."""
    go, stuck = threading.Event(), threading.Event()
    seen: list[Event] = []

    def slow(event: Event) -> None:
        stuck.set()
        assert go.wait(10)
        seen.append(event)

    sink = Background(slow, steps=3, pages=2)
    sink(started())
    assert stuck.wait(10)
    for i in range(1, 11):
        sink(step(i, 1, 1))
        sink(Previewed(i, []))
        sink(Previewed(i, [], history=True))
        sink(Saved(i, None, 1, Path()))
        sink(Warned(str(i)))
    sink(Failed("f"))
    sink(Stopped(10, "error"))
    go.set()
    assert sink.close(10)
    pages = [event for event in seen if isinstance(event, Previewed)]
    assert [event.iteration for event in seen if isinstance(event, Stepped)] == [8, 9, 10]
    assert [page.iteration for page in pages if page.history] == [9, 10]
    assert [page.iteration for page in pages if not page.history] == [10]
    assert sum(isinstance(event, Saved) for event in seen) == sum(isinstance(event, Warned) for event in seen) == 10
    assert [type(e) for e in (seen[0], *seen[-2:])] == [Started, Failed, Stopped]
    sink(Warned("after the end"))
    assert len(seen) == 3 + 3 + 3 + 20


def test_background_close_has_a_limit() -> None:
    go = threading.Event()
    sink = Background(lambda _: go.wait(10))
    sink(Warned("a"))
    sink(Warned("b"))
    assert not sink.close(0.05)
    go.set()
    assert sink.close(10)


def test_background_sink_that_fails_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)

    def broken(event: Event) -> None:
        raise RuntimeError("broken sink")

    sink = Background(broken)
    sink(Warned("a"))
    sink.close(5)
    sink(Warned("b"))
    assert [str(args.exc_value) for args in shown] == ["broken sink"]


def test_ask_does_not_repeat_itself() -> None:
    commands: queue.Queue[Command] = queue.Queue()
    ask(commands, "save")
    ask(commands, "save")
    ask(commands, "stop")
    assert [command.name for command in commands.queue] == ["save", "stop"]


def test_a_long_stage_has_a_bar_and_a_save_its_parts() -> None:
    stream = Terminal()
    sink = ConsoleSink(stream, Clock())
    for event in (
        Staged("Loading samples"), Advanced(500, 2000, "Loading samples"), Advanced(2000, 2000, "Loading samples"),
        Staged("Loading samples", 3.0), Staged("B"), Noted("between"), Advanced(1, 2, "B"), Staged("B", 2.0),
        Saving(7), Advanced(3, 6), step(8, 1.0, 1.0), Saved(7, None, 1.0, Path("model")), step(9, 1.0, 1.0),
    ):  # fmt: skip
        sink(event)
    lines = [line.rstrip(" ") for line in stream.getvalue().replace("\r\r", "\r").replace("\n", "\n\r").split("\r")]
    lines = [line for line in lines if line]
    assert lines[:9] == [
        "Loading samples...", "Loading samples...  25% |#####               | 500/2,000",
        "Loading samples... 100% |####################| 2,000/2,000", "Loading samples... 3.0 s" + " " * 34 + "\n",
        "B...", "\n", "between\n", "B...  50% |##########          | 1/2", "B... 2.0 s" + " " * 26 + "\n",
    ]  # fmt: skip
    assert lines[9:11] == ["Saving....", "Saving.... 3/6"]
    assert "][1.0000][1.0000][saving 3/6][avg" in lines[11] and "saving" not in "".join(lines[12:])


def test_a_long_stage_in_a_file_has_few_lines() -> None:
    stream, clock = io.StringIO(), Clock()
    sink = ConsoleSink(stream, clock)
    sink(Staged("A"))
    for done in range(100):
        sink(Advanced(done, 20_000, "A"))
        clock.now += 0.2
    sink(Saving(1))
    sink(Advanced(3, 6))
    sink(Staged("A", 20.0))
    assert stream.getvalue() == "A...\nA: 0 of 20,000\nA: 50 of 20,000\nA: 20.0 s\n"
