"""What the loop needs where memory runs out: which errors may mean that, and previews that get smaller."""

from __future__ import annotations

from collections.abc import Callable

from core.batch import Batch, Page
from core.memory import out_of_memory

FAILURES = (RuntimeError, MemoryError, OSError)
"""The kinds of errors among which `out_of_memory` finds a shortage."""
ROWS = 4  # of a preview as DFL draws it: what a first shortage halves


class LeanPreview:
    """Draws previews; where memory runs out, with half the rows from then on, at last without: training goes on.

    draw: pages of a batch. tell: a line for the user, once. free: gives back what a failed drawing held.
    """

    def __init__(self, draw: Callable[[Batch], list[Page]], tell: Callable[[str], None], free: Callable[[], None]):
        self._draw, self._tell, self._free = draw, tell, free
        self._rows: int | None = None  # None: as many as the task draws

    def __call__(self, batch: Batch) -> list[Page]:
        while self._rows != 0:
            try:
                return self._draw(batch if self._rows is None else batch.map(lambda array: array[: self._rows]))
            except FAILURES as error:
                if not out_of_memory(error):
                    raise
            self._free()
            if self._rows is None:
                self._tell("Too little memory for the preview: it gets fewer rows, or is left out. Training goes on.")
            self._rows = (ROWS if self._rows is None else self._rows) // 2
        return []
