"""The terminal: a sink that prints DFL's lines, and the reader of the key that stops training.

On a terminal the line of the running iteration is overwritten until a save makes it permanent, then holding the means
since the save before; elsewhere (file, pipe) lines stay, and come at a modest rate. Put `ConsoleSink` behind
`core.sinks.Background`: a terminal may be slow, or stopped with Ctrl-S.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TextIO

from core.events import (
    BackedUp,
    Command,
    CommandName,
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
from core.sinks import Every, ask

LONG_S = 5.0
PLAIN_WIDTH = 200
LINES: dict[str, CommandName] = {"s": "save", "b": "backup", "p": "preview", "o": "options"}


class ConsoleSink:
    """Sink: one line of text for what happens.

    clock: seconds since the epoch, shown as local time. width: columns of the terminal, asked before every
    overwritten line. stays: after the target the program waits for keys (it does not with --exit-at-target).
    every: seconds between lines of iterations where the stream is no terminal. key: what stops training, as told to
    the user; empty where nothing reads keys. memory: see `core.liveline.LiveLine`.
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
        memory: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._stream, self._clock, self._width = stream, clock, width
        self._stays, self._key = stays, key
        self._live = stream.isatty()
        self._due = Every(every, clock)
        self._pending = 0  # length of the text a carriage return would overwrite
        self._open = ""  # the stage whose line waits for its seconds
        self._ms = 0.0
        self._more = LiveLine(clock, memory)
        self._past = False  # the run began at or beyond its target
        self._gone = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self._ms = event.ms
            self._more.stepped(event)
            line = iteration_line(self._clock(), event.iteration, event.ms, event.losses)
            if self._live:
                self._overwrite(line + self._more.fields(max(10, self._width() - 1) - len(line)))
            elif self._due():
                self._print(line + self._more.fields(PLAIN_WIDTH))
        elif isinstance(event, Saving):
            if self._live:
                self._overwrite("Saving....")
        elif isinstance(event, Saved):
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
            if not event.aside:
                self._print(event.text)
        elif isinstance(event, Warned):
            self._print(f"Warning: {event.text}")
        elif isinstance(event, Failed):
            self._print(f"Error: {event.text}")
        elif isinstance(event, Stopped) and event.reason in ("command", "target"):
            self._print("Done.")

    def _started(self, event: Started) -> None:
        self._more.started(event)
        how = f' Press "{self._key}" to stop training and save model.' if self._key else ""
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
            self._print(f"{event.name}...", end="")
            self._open = event.name
        elif event.failed:
            self._close_line()  # why is told by others
        elif self._open == event.name:
            self._open = ""
            self._write(f" {event.seconds:.1f} s\n")
        elif event.seconds >= LONG_S:
            self._print(f"{event.name}: {event.seconds:.1f} s")

    def _close_line(self) -> None:
        if self._open:
            self._open = ""
            self._write("\n")

    def _overwrite(self, text: str) -> None:
        self._close_line()
        text = text[: max(10, self._width() - 1)]  # a line that wraps could not be overwritten
        self._write("\r" + text.ljust(self._pending))
        self._pending = len(text)

    def _print(self, text: str, end: str = "\n") -> None:
        self._close_line()
        start = "\r" if self._pending else ""
        first, *rest = text.split("\n")
        self._write(start + "\n".join([first.ljust(self._pending), *rest]) + end)
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


def iteration_line(now: float, iteration: int, ms: float, losses: Mapping[str, float]) -> str:
    """DFL's line: `[12:34:56][#001234][0120ms][0.1234][0.2345]`; from ten seconds on the time is in seconds."""
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    took = f"{int(ms):04d}ms" if ms < 10_000 else f"{ms / 1000:.4f}"[:5] + "s"
    return f"[{clock}][#{iteration:06d}][{took}]" + "".join(f"[{value:.4f}]" for value in losses.values())


class StopKeys:
    """Reads the terminal in a thread: a line that is one of the window's keys (`s`, then Enter) is its command, any
    other is a stop; then, and after `close()`, it leaves what is typed to others. What was typed before is dropped: an
    Enter too many at the questions must not stop the training. Does nothing where `stdin` is no terminal."""

    def __init__(
        self,
        stdin: TextIO | None,
        commands: queue.Queue[Command],
        others: Mapping[str, Callable[[], object]] = MappingProxyType({}),
    ) -> None:
        """others: what further lines do, called in the thread."""
        self._commands, self._others = commands, others
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if stdin is None or stdin.closed or not stdin.isatty():
            return
        self._thread = threading.Thread(target=self._run, args=(stdin.fileno(),), name="stop key", daemon=True)
        self._thread.start()

    @property
    def active(self) -> bool:
        """Whether Enter stops training now."""
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, handle: int) -> None:
        if sys.platform == "win32":
            self._watch_console()
        else:
            self._watch_terminal(handle)

    def _watch_console(self) -> None:
        if sys.platform == "win32":
            import msvcrt

            typed = ""
            while msvcrt.kbhit():
                msvcrt.getwch()
            while not self._closing.wait(0.1):
                while msvcrt.kbhit():
                    typed += msvcrt.getwch()
                    if typed[-1] in "\r\n":
                        if self._told(typed):
                            return
                        typed = ""

    def _watch_terminal(self, handle: int) -> None:
        if sys.platform != "win32":
            import termios

            with contextlib.suppress(termios.error):  # raised where another job owns the terminal
                if not _in_background(handle):
                    termios.tcflush(handle, termios.TCIFLUSH)
            while not self._closing.is_set():
                try:
                    if _in_background(handle):  # reading would stop the whole process (SIGTTIN)
                        self._closing.wait(0.5)
                        continue
                    if not select.select([handle], [], [], 0.1)[0] or self._closing.is_set():
                        continue
                    typed = os.read(handle, 1024)  # the terminal hands out one line at a time
                except OSError:  # the terminal is gone; SIGHUP is the trainer's business
                    return
                if (b"\n" in typed or b"\r" in typed) and self._told(typed.decode("utf-8", "replace")):
                    return
                if not typed:  # Ctrl-D at the start of a line: the terminal would report it for ever
                    self._closing.wait(0.5)


    def _told(self, line: str) -> bool:
        """Hands a typed line on; whether it is a stop."""
        word = line.strip().lower()
        if word in self._others:
            self._others[word]()
            return False
        name = LINES.get(word, "stop")
        ask(self._commands, name)
        return name == "stop"


def _in_background(handle: int) -> bool:
    """Whether another job owns the terminal. A terminal that is not our controlling one is free to read."""
    if sys.platform == "win32":
        return False
    try:
        return os.tcgetpgrp(handle) != os.getpgrp()
    except OSError:
        return False
