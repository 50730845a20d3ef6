"""What to do about a face that cannot be read: wait until its folder is there again, try again, or give it up.

A network drive, a USB disk or a sleeping disk that is away for a moment says nothing about the faces on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from samplelib.faceset import FaceReadError, Sample

T = TypeVar("T")
PAUSES = (0.1, 0.4, 1.0)
"""Seconds before a file whose folder is there is tried again."""

LOOK_S = 0.5


class Stopped(Exception):
    """Whoever waited was asked to stop."""


class Patience:
    """tell: gets one line when a folder is away, not again before something could be read. stopping: asked while it
    is waited for."""

    def __init__(
        self,
        tell: Callable[[str], object],
        stopping: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._tell, self._stopping, self._sleep, self._told = tell, stopping, sleep, False

    def tell(self, line: str) -> None:
        """Tells what is not about a folder, to the same listener."""
        self._tell(line)

    def read(self, sample: Sample, work: Callable[[], T]) -> T:
        """What work returns. Raises FaceReadError where the face is broken, is gone or cannot be read, though its
        folder is there; Stopped."""
        pauses = iter(PAUSES)
        while True:
            try:
                result = work()
            except OSError as error:
                if sample.path.parent.is_dir():
                    pause = next(pauses, None)
                    if pause is None:
                        what = "is gone" if isinstance(error, FileNotFoundError) else "cannot be read"
                        raise FaceReadError(f"{what} ({error.strerror or error})") from error
                    self._sleep(pause)
                    continue
                self._wait(sample)
                pauses = iter(PAUSES)
            else:
                self._told = False
                return result

    def _wait(self, sample: Sample) -> None:
        folder = sample.path.parent
        if not self._told:
            self._told = True
            self._tell(f"{folder} is away: training waits until it is there again")
        while not folder.is_dir():
            if self._stopping():
                raise Stopped
            self._sleep(LOOK_S)
