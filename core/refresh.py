"""When a preview that nobody asked for is due: every so many seconds, but never for more than 1 % of the time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

SHARE = 0.01
"""Of the time of a training, for such previews."""


class Refresh:
    """seconds: between two previews, asked for or not; 0: none is ever due. clock: seconds, monotonic."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._drawn_at, self._took = clock(), 0.0

    def due(self, now: float) -> bool:
        """Whether one is to be drawn: never before a hundred times what the last one took."""
        return self._seconds > 0 and now - self._drawn_at >= max(self._seconds, self._took / SHARE)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Takes the time of a preview."""
        begun = self._clock()
        yield
        self._drawn_at = self._clock()
        self._took = self._drawn_at - begun
