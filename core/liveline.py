"""What the terminal's line tells besides DFL's: smoothed losses, waiting for samples, speed, time left, memory.

Fields are left out from the last on where the terminal is too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from core.events import Started, Stepped

FADING = 0.98
"""What is left of an iteration's weight with each one after it: means are over about fifty."""
MEMORY_S = 2.0


class LiveLine:
    """memory: bytes that the training holds, asked every two seconds; None where nobody knows. clock: seconds."""

    def __init__(self, clock: Callable[[], float], memory: Callable[[], int | None] = lambda: None) -> None:
        self._clock, self._memory = clock, memory
        self._target = self._iteration = 0
        self._weight = self._ms = self._waited = 0.0
        self._losses: list[tuple[float, float]] = []  # sum, weight
        self._held: int | None = None
        self._asked = -math.inf

    def started(self, event: Started) -> None:
        """Means begin anew, as options may be others; the smoothed losses from the history."""
        self._target, self._iteration = event.target, event.iteration
        self._weight = self._ms = self._waited = 0.0
        self._losses = [(0.0, 0.0)] * len(event.loss_names)
        for row in event.history[-150:].tolist():
            self._add(row)

    def stepped(self, event: Stepped) -> None:
        self._iteration = event.iteration
        self._weight = FADING * self._weight + 1
        self._ms = FADING * self._ms + event.ms
        self._waited = FADING * self._waited + min(event.data_ms, event.ms)
        self._add(list(event.losses.values()))

    def _add(self, losses: list[Any]) -> None:
        if len(self._losses) != len(losses):
            self._losses = [(0.0, 0.0)] * len(losses)
        for place, loss in enumerate(losses):
            if math.isfinite(loss):
                total, weight = self._losses[place]
                self._losses[place] = (FADING * total + loss, FADING * weight + 1)

    def waiting(self) -> str:
        """`[data 12%]`: the part of the time that training waits for samples; empty below one percent."""
        percent = round(100 * self._waited / self._ms) if self._ms else 0
        return f"[data {percent}%]" if percent else ""

    def parts(self) -> tuple[str, ...]:
        """All fields, the most important first; empty where there is nothing to tell."""
        return self._smooth(), self.waiting(), self._speed(), self._left(), self._memory_held()

    def fields(self, room: int) -> str:
        """As many fields as have room in so many columns."""
        text = ""
        for field in self.parts():
            if len(text) + len(field) > room:
                break
            text += field
        return text

    def _smooth(self) -> str:
        means = [f"{total / weight:.4f}" for total, weight in self._losses if weight]
        return f"[avg {' '.join(means)}]" if means else ""

    def _speed(self) -> str:
        mean = self._ms / self._weight if self._weight else 0.0
        if mean <= 0:
            return ""
        rate = 1000 / mean
        return f"[{_three(rate)} it/s]" if rate >= 1 else f"[{_three(mean / 1000)} s/it]"

    def _left(self) -> str:
        iterations = self._target - self._iteration
        if iterations <= 0 or not self._weight:
            return ""
        seconds = round(iterations * self._ms / self._weight / 1000)
        days, rest = divmod(seconds, 86400)
        time = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
        return f"[{f'{days} d ' if days else ''}{time} left]"

    def _memory_held(self) -> str:
        if self._clock() - self._asked >= MEMORY_S:
            self._asked, self._held = self._clock(), self._memory()
        return "" if self._held is None else f"[{self._held / 1e9:.1f} GB]"


def _three(number: float) -> str:
    """In three digits, so that the line does not jump: 1.90, 12.3, 123."""
    return f"{number:.{max(0, 2 - max(0, math.floor(math.log10(number))))}f}" if number > 0 else "0"
