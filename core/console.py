"""The terminal: a sink that prints DFL's lines.

On a terminal the line of the running iteration is overwritten until a save makes it permanent, then holding the means
since the save before; elsewhere (file, pipe) lines stay, and come at a modest rate. The cursor rests at the beginning
of that line: what is typed shows there until the line is written anew, and never wraps. Put `ConsoleSink` behind
`core.sinks.Background`: a terminal may be slow, or stopped with Ctrl-S.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from core.events import (
    Advanced,
    BackedUp,
    Event,
    Failed,
    Noted,
    Saved,
    Saving,
    Staged,
    Started,
    Stepped,
    Stopped,
    TargetReached,
    Warned,
)
from core.liveline import LiveLine
from core.sinks import Every

LONG_S = 5.0
PLAIN_WIDTH = 200
BAR = 20
ERASE_BELOW = "" if sys.platform == "win32" else "\x1b[J"
"""Old Windows consoles would print it."""


class ConsoleSink:
    """Sink: one line of text for what happens.

    clock: seconds since the epoch, shown as local time. width: columns of the terminal, asked before every overwritten
    line. live: whether lines can be overwritten (default: where the stream is a terminal). stays: after the target the
    program waits for keys (it does not with --exit-at-target). every: seconds between lines of iterations where they
    cannot. key: what stops training, as told to the user; empty where nothing reads keys. keys: what shows the other
    keys. memory: see `core.liveline.LiveLine`.
    """

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float] = time.time,
        *,
        width: Callable[[], int] = lambda: 80,
        stays: bool = True,
        every: float = 10.0,
        key: str = "Enter",
        keys: str = "",
        live: bool | None = None,
        memory: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._stream, self._clock, self._width = stream, clock, width
        self._stays, self._key, self._keys = stays, key, keys
        self._live = stream.isatty() if live is None else live
        self._due = Every(every, clock)
        self._pending = 0  # length of the text a carriage return would overwrite
        self._room = 0  # columns there were then
        self._open = ""  # the stage whose line waits for its seconds
        self._bar = ""  # the stage whose bar is the line to be overwritten
        self._ms = 0.0
        self._slow = Every(every, clock)
        self._saving = ""  # how far the save is, while training goes on
        self._more = LiveLine(clock, memory)
        self._past = False  # the run began at or beyond its target
        self._gone = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self._ms = event.ms
            self._more.stepped(event)
            line = iteration_line(self._clock(), event.iteration, event.ms, event.losses) + self._saving
            if self._live and len(line) >= self._width():
                line = line[len("[12:34:56]") :]  # rather the losses than the time
            if self._live:
                self._overwrite(line + self._more.fields(self._columns() - len(line)))
            elif self._due():
                self._print(line + self._more.fields(PLAIN_WIDTH))
        elif isinstance(event, Saving):
            if self._live:
                self._overwrite("Saving....")
        elif isinstance(event, Advanced):
            self._advanced(event)
        elif isinstance(event, Saved):
            self._saving = ""
            # without a step since the save before there is no mean: say what was done instead
            text = iteration_line(self._clock(), event.iteration, self._ms, event.losses or {}) + self._more.waiting()
            self._print(text if event.losses else f"{text} Saved.")
        elif isinstance(event, Started):
            self._started(event)
        elif isinstance(event, TargetReached):
            if not self._past:
                self._print("Reached target iteration.")
                if self._stays:
                    self._print("You can use preview now.")
        elif isinstance(event, BackedUp):
            self._print(f"Backup made: {event.folder}")
        elif isinstance(event, Staged):
            self._staged(event)
        elif isinstance(event, Noted):
            if not event.aside and (event.text or self._pending):  # an empty one ends the line that is overwritten
                self._print(event.text)
        elif isinstance(event, Warned):
            self._saving = ""  # a save that failed tells itself by one
            self._print(f"Warning: {event.text}")
        elif isinstance(event, Failed):
            self._print(f"Error: {event.text}")
        elif isinstance(event, Stopped) and event.reason in ("command", "target"):
            self._print("Done.")

    def _started(self, event: Started) -> None:
        self._more.started(event)
        how = f' Press "{self._key}" to stop training and save model.' if self._key else ""
        how += f' "{self._keys}" shows the other keys.' if self._keys else ""
        if event.target and event.iteration >= event.target:
            self._past = True
            self._print("Model already trained to target iteration." + (" You can use preview." if self._stays else ""))
            return
        self._print(f"Starting. Target iteration: {event.target}.{how}" if event.target else f"Starting.{how}")
        if event.iteration == 0:
            self._print("Trying to do the first iteration. If an error occurs, reduce the model parameters.")

    def _staged(self, event: Staged) -> None:
        """`Initializing models... 1.2 s` on one line; where others came between, the seconds are left to the log,
        unless they are many."""
        if event.seconds is None:
            self._print(f"{event.name}...", end="\r" if self._live else "")
            self._open = event.name
        elif event.failed:
            self._close_line()  # why is told by others
        elif self._open == event.name:
            self._open = ""
            done = f" {event.seconds:.1f} s\n"
            self._write(f"{event.name}...{done}" if self._live else done)
        elif self._bar == event.name:
            self._print(f"{event.name}... {event.seconds:.1f} s")
        elif event.seconds >= LONG_S:
            self._print(f"{event.name}: {event.seconds:.1f} s")

    def _advanced(self, event: Advanced) -> None:
        """On a terminal a bar, or what is behind the iteration; elsewhere a stage gets a line now and then."""
        if not event.name:
            self._saving = f"[saving {event.done}/{event.total}]"
            if self._live:
                self._overwrite(f"Saving.... {event.done}/{event.total}")
        elif self._live:
            if self._open == event.name:  # the bar takes the place of its line
                self._open, self._pending = "", len(event.name) + 3
            self._overwrite(progress_line(event))
            self._bar = event.name
        elif self._slow():
            self._print(f"{event.name}: {event.done:,} of {event.total:,}")

    def _close_line(self) -> None:
        if self._open:
            self._open = ""
            self._write("\n")

    def _columns(self) -> int:
        """Those of a line that does not wrap, as it could not be overwritten."""
        return max(1, self._width() - 1)

    def _overwrite(self, text: str) -> None:
        self._close_line()
        room = self._columns()
        # Where the terminal has become narrower, it may have broken the line in two.
        wipe = ERASE_BELOW if self._pending > room < self._room else ""
        text = text[:room]
        self._write(f"\r{wipe}{text.ljust(min(self._pending, room))}\r")
        self._pending, self._room = len(text), room

    def _print(self, text: str, end: str = "\n") -> None:
        self._close_line()
        self._bar = ""
        start = "\r" if self._pending else ""
        first, *rest = text.split("\n")
        self._write(start + "\n".join([first.ljust(min(self._pending, self._columns())), *rest]) + end)
        self._pending = 0

    def _write(self, text: str) -> None:
        if self._gone:
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        except (OSError, ValueError):  # the terminal or the reader of the pipe is gone; training goes on
            self._gone = True


def progress_line(event: Advanced) -> str:
    """`Loading samples...  53% |##########          | 10,600/20,000`"""
    part = min(1.0, event.done / event.total) if event.total > 0 else 0.0
    bar = "#" * int(BAR * part)
    return f"{event.name}... {int(100 * part):3d}% |{bar:{BAR}}| {event.done:,}/{event.total:,}"


def iteration_line(now: float, iteration: int, ms: float, losses: Mapping[str, float]) -> str:
    """DFL's line: `[12:34:56][#001234][0120ms][0.1234][0.2345]`; from ten seconds on the time is in seconds."""
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    took = f"{int(ms):04d}ms" if ms < 10_000 else f"{ms / 1000:.4f}"[:5] + "s"
    return f"[{clock}][#{iteration:06d}][{took}]" + "".join(f"[{value:.4f}]" for value in losses.values())


def overwrites(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a line of the stream can be written over: not in a file, a pipe, or a terminal that says it is dumb."""
    return stream.isatty() and environ.get("TERM") != "dumb"


def columns(stream: TextIO) -> int:
    """How wide the terminal is now. The variable COLUMNS only counts where it cannot be asked: it may be of before."""
    with contextlib.suppress(OSError, ValueError):  # not a terminal, not a file at all, closed
        if wide := os.get_terminal_size(stream.fileno()).columns:
            return wide
    return shutil.get_terminal_size().columns
