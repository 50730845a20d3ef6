"""Watches a training for collapse: from each step's losses and signs of life to one of three states.

Plain numbers in, so that it can be tested without a network; the trainer reads the numbers one step late, as it reads
losses, and nothing waits for a device. What is done about a state is the trainer's business.

- A step whose loss or gradient was not finite has been discarded by the task; so many in a row are a collapse.
- A smoothed loss far above its running median is suspicious at once and a collapse when it lasts. The median is of
  healthy steps only, so that a bad stretch cannot become the norm.
- Drawn faces with hardly any contrast left, after the first iterations, are suspicious and a collapse when they stay.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class State(Enum):
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    COLLAPSED = "collapsed"


@dataclass(frozen=True)
class GuardRules:
    """When to worry. Counts are iterations.

    skips: discarded steps in a row that are a collapse. factor: how far above its median a smoothed loss must be.
    patience: how long it must stay there. history: over how many healthy losses the median is taken; learning: how many
    there must be before it counts. contrast: the least share of the targets' contrast that drawn faces must have, from
    iteration `contrast_from` on. Parts that begin anew draw grey at first, whatever the iteration: where they never had
    twice that much yet, as many iterations must have been observed.
    """

    skips: int = 20
    factor: float = 2.0
    patience: int = 100
    history: int = 500
    learning: int = 100
    smoothing: int = 20
    contrast: float = 0.1
    contrast_from: int = 1000


@dataclass
class _Watched:
    """One loss: its healthy past and its smoothed present."""

    past: deque[float]
    smooth: float = math.nan
    median: float = math.nan
    since: int = field(default=0)


class Guard:
    """`observe` every step; `state` and `reason` say what to think of it. `skipped` counts discarded steps."""

    def __init__(self, rules: GuardRules | None = None) -> None:
        self.rules = rules or GuardRules()
        self.skipped = 0
        self._observed, self._had_contrast = 0, False  # also after a roll-back: the good state had it
        self.restart()

    def restart(self) -> None:
        """Forgets the losses: when an option changed what they mean."""
        self._watched: dict[str, _Watched] = {}
        self.go_on()

    def go_on(self) -> None:
        """After a roll-back: healthy again, and what was usual stays. Else a model that collapses once more would
        have its bad losses taken for the usual ones at once, and be saved."""
        self.state, self.reason = State.HEALTHY, ""
        self._row = self._bad = 0
        for watched in self._watched.values():
            watched.smooth = watched.median

    def observe(
        self, iteration: int, losses: Mapping[str, float], updated: bool = True, contrast: float = math.nan
    ) -> State:
        """The state after a step. losses by name; updated: whether the step moved the weights; contrast: standard
        deviation of the drawn faces over that of their targets (NaN: not measured)."""
        rules = self.rules
        if not updated or not all(math.isfinite(loss) for loss in losses.values()):
            self.skipped += 1
            self._row += 1
            if self._row >= rules.skips:
                self._say(State.COLLAPSED, f"{self._row} steps in a row were not finite")
            return self.state
        self._row = 0
        worries = [text for name, loss in losses.items() if (text := self._rise(name, loss))]
        self._observed += 1
        self._had_contrast |= contrast >= 2 * rules.contrast
        armed = self._had_contrast or self._observed >= rules.contrast_from
        if armed and iteration >= rules.contrast_from and contrast < rules.contrast:
            worries.append(f"drawn faces have {contrast:.1%} of the contrast they should have")
        self._bad = self._bad + 1 if worries else 0
        if not worries:
            self._say(State.HEALTHY, "")
            for name, loss in losses.items():
                self._learn(name, loss)
        elif self.state is not State.COLLAPSED:
            self._say(State.COLLAPSED if self._bad >= rules.patience else State.SUSPECT, "; ".join(worries))
        return self.state

    def _say(self, state: State, reason: str) -> None:
        self.state, self.reason = state, reason

    def _rise(self, name: str, loss: float) -> str:
        """What is wrong with a loss, or nothing; smooths it on the way."""
        rules = self.rules
        watched = self._watched.setdefault(name, _Watched(deque(maxlen=rules.history)))
        step = 1 / rules.smoothing
        watched.smooth = loss if math.isnan(watched.smooth) else watched.smooth + step * (loss - watched.smooth)
        if len(watched.past) < rules.learning or not watched.smooth > rules.factor * watched.median:
            return ""
        return f"{name} {watched.smooth:.3g} is far above its usual {watched.median:.3g}"

    def _learn(self, name: str, loss: float) -> None:
        watched = self._watched[name]
        watched.past.append(loss)
        watched.since += 1
        # A median of 500 numbers is quick, but not worth its time every iteration.
        if math.isnan(watched.median) or watched.since % 10 == 0:
            watched.median = statistics.median(watched.past)
