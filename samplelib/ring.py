"""The batches made ahead: memory for some, of which no more is used than keeps the trainer from waiting.

Memory is set aside batch by batch, as more are wanted, and a batch takes the place that was given back last: a trainer
that is slower than the workers keeps to a few places, which stay in the processor's cache.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from core.sharedbuf import Layout, SharedBuffer, SharedBufferError

RING_BYTES = 128 << 20
MIN_DEPTH, MAX_DEPTH = 3, 16
NOTICED = 0.02
"""What part of the time between two batches may be waiting before it counts."""

_CALM = 200
_FADING = 1 / 16


class Depth:
    """How many batches to have ordered. One more after a wait, unless most batches are late: then the workers are too
    slow, and making more at once makes none sooner. One less after `_CALM` batches with two to spare each time."""

    def __init__(self, low: int, high: int) -> None:
        self.value, self._low, self.high = low, low, max(low, high)
        self._late, self._calm, self._first = 1.0, 0, True

    def taken(self, waited: float, since_last: float, ready: int) -> None:
        """A batch was taken after `waited` seconds, `since_last` seconds after the one before was; `ready` further
        ones lay there."""
        if self._first:  # nothing can be made ahead of the first
            self._first = False
            return
        late = waited > NOTICED * since_last
        if late and self._late < 0.5:
            self.value = min(self.value + 1, self.high)
        self._late += _FADING * (late - self._late)
        self._calm = self._calm + 1 if ready >= 2 else 0
        if self._calm == _CALM:
            self._calm = 0
            self.value = max(self.value - 1, self._low)


class Ring:
    """Places for up to `most` batches in one buffer: `take` one, `give` it back."""

    def __init__(self, batch: Layout) -> None:
        self._batch = batch
        self.most = max(MIN_DEPTH, min(MAX_DEPTH, RING_BYTES // batch.size))
        self.buffer = SharedBuffer(self.most * batch.size, first=MIN_DEPTH * batch.size)
        self._made = MIN_DEPTH
        self._free = list(reversed(range(MIN_DEPTH)))

    def take(self) -> int | None:
        """A free place; None where there is no memory for another."""
        if not self._free and self._made < self.most:
            try:
                self.buffer.reserve((self._made + 1) * self._batch.size)
            except SharedBufferError:
                self.most = self._made
                return None
            self._made += 1
            return self._made - 1
        return self._free.pop() if self._free else None

    def give(self, place: int) -> None:
        self._free.append(place)

    def views(self, place: int) -> dict[str, npt.NDArray[Any]]:
        """The arrays of the batch in a place."""
        return self._batch.views(self.buffer.map, place * self._batch.size)
