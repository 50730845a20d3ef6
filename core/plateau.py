"""Tells when a loss has stopped falling: a line fitted through its means of a thousand iterations each."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from core.events import Event, Noted, Started, Stepped

BIN = 1000
MOVED = 0.01
"""What part of its mean a loss must have changed over the whole stretch to count as moving."""


class Plateau:
    """Sink: `emit` gets one line for each loss that has not moved over the last `thousands` thousand iterations, and
    again after as many more."""

    def __init__(self, thousands: int, emit: Callable[[Event], None]) -> None:
        self._length, self._emit = max(3, thousands), emit
        self._means: dict[str, list[float]] = {}
        self._now: dict[str, list[float]] = {}
        self._told: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._begin(event)
        elif isinstance(event, Stepped):
            for name, loss in event.losses.items():
                self._add(name, loss)

    def _begin(self, event: Started) -> None:
        """What was trained before counts; a loss that is told about at a start would be told at every one."""
        self._means, self._now, self._told = {}, {}, {}
        for name, column in zip(event.loss_names, np.asarray(event.history, np.float64).T, strict=False):
            whole = len(column) // BIN * BIN
            binned = column[len(column) - whole :].reshape(-1, BIN)[-self._length :]
            self._means[name] = [float(np.mean(row)) for row in binned]
            self._told[name] = max(0, len(self._means[name]) - self._length + 1)

    def _add(self, name: str, loss: float) -> None:
        now = self._now.setdefault(name, [])
        now.append(loss)
        if len(now) < BIN:
            return
        means = self._means.setdefault(name, [])
        means.append(sum(now) / BIN)
        now.clear()
        if len(means) - self._told.get(name, 0) >= self._length:
            self._judge(name, means)

    def _judge(self, name: str, means: list[float]) -> None:
        last = np.array(means[-self._length :])
        if not np.isfinite(last).all() or not (mean := float(last.mean())) > 0:
            return
        slope = float(np.polyfit(np.arange(len(last)), last, 1)[0])  # a thousand iterations
        if math.fabs(slope) * len(last) >= MOVED * mean:
            return
        self._told[name] = len(means)
        self._emit(
            Noted(
                f"{name} has hardly moved for {len(last) * BIN:,} iterations: {mean:.4f}, {slope:+.2g} every 1,000. If "
                "the preview is not sharp yet, the usual next steps are random_warp off, then lr_dropout, then a GAN."
            )
        )
