"""Helpers for event sinks: run a slow one behind a queue, and put a command into the trainer's queue once.

A sink is `f(event)`. The trainer never waits for one: whatever prints, draws or writes goes behind `Background`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from core.events import Advanced, Command, CommandName, Event, Previewed, Stepped

Sink = Callable[[Event], object]


class Background:
    """A sink that hands events to `sink` in a thread of its own, in order.

    Calling it never waits. Where the sink falls behind, the oldest events that the next ones make stale are dropped: a
    preview or a progress when a newer one comes, preview-history pages beyond `pages`, steps beyond `steps`. All others
    (Saved, Warned, Failed, Stopped and so on) are always delivered.

    An exception of the sink ends the thread and shows by way of `threading.excepthook`; later events are ignored.
    """

    def __init__(self, sink: Sink, *, steps: int = 1000, pages: int = 8, name: str = "sink") -> None:
        self._sink = sink
        self._limits = {"step": steps, "history": pages, "preview": 1, "advance": 1}
        self._waiting: deque[tuple[str, Event]] = deque()
        self._counts = dict.fromkeys(self._limits, 0)
        self._changed = threading.Condition()
        self._closing = self._busy = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        kind = _kind(event)
        with self._changed:
            if self._ended or self._closing:
                return
            if kind in self._limits and self._counts[kind] >= self._limits[kind]:
                del self._waiting[next(i for i, (other, _) in enumerate(self._waiting) if other == kind)]
                self._counts[kind] -= 1
            if kind in self._counts:
                self._counts[kind] += 1
            self._waiting.append((kind, event))
            self._changed.notify()

    def drain(self, timeout: float = 5.0) -> bool:
        """Returns when all events so far are delivered, at the latest after `timeout` seconds; whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended or not (self._waiting or self._busy), timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Deliver what is waiting, for at most `timeout` seconds; say whether all of it was."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        with self._changed:
            return self._ended and not self._waiting

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._closing)
                    if not self._waiting:
                        return
                    kind, event = self._waiting.popleft()
                    self._busy = True
                    if kind in self._counts:
                        self._counts[kind] -= 1
                self._sink(event)
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


def _kind(event: Event) -> str:
    if isinstance(event, Stepped):
        return "step"
    if isinstance(event, Advanced):
        return "advance"
    if isinstance(event, Previewed):
        return "history" if event.history else "preview"
    return ""


def ask(commands: queue.Queue[Command], name: CommandName) -> None:
    """Put a command into the queue unless the same one is still waiting there (a key held down repeats)."""
    command = Command(name)
    with commands.mutex:
        if command in commands.queue:
            return
    commands.put(command)


class Every:
    """True at the first call and then once per `seconds` of `clock`, whatever the clock does."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock, self._last = seconds, clock, float("-inf")

    def __call__(self) -> bool:
        now = self._clock()
        if abs(now - self._last) < self._seconds:
            return False
        self._last = now
        return True
