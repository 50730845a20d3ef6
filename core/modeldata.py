"""A model's record: iterations, options and losses, as DFL keeps them in data.dat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from core import dflfile
from core.runstate import LIMITS
from core.shown import shown

ITERATIONS = LIMITS["iteration"]
RECENT = 100  # iterations: their mean loss is told in lists of models and backups


class ModelError(Exception):
    """A model that cannot be opened, locked or saved. The message says which file, why, and what to do."""


class LossHistory:
    """Every iteration's losses. Appended values may be 0-d device tensors: they are read when somebody looks."""

    def __init__(self, rows: Iterable[Iterable[Any]] = ()) -> None:
        self._pending: list[list[Any]] = [list(row) for row in rows]
        self._buffer = np.empty((0, 0), np.float64)
        self._count = 0

    def append(self, losses: Iterable[Any]) -> None:
        self._pending.append(list(losses))

    def copy(self) -> LossHistory:
        """A snapshot that later appends do not change."""
        twin = LossHistory()
        twin._buffer, twin._count = self.array().copy(), len(self)
        return twin

    def __len__(self) -> int:
        return self._count + len(self._pending)

    def array(self) -> np.ndarray:
        """(iterations, losses) float64; NaN where an old row has fewer losses. A view: do not write."""
        if self._pending:
            width = max(self._buffer.shape[1], *(len(row) for row in self._pending))
            need = self._count + len(self._pending)
            if need > len(self._buffer) or width > self._buffer.shape[1]:
                grown = np.full((max(need, 2 * len(self._buffer)), width), np.nan)
                grown[: self._count, : self._buffer.shape[1]] = self._buffer[: self._count]
                self._buffer = grown
            for row in self._pending:
                self._buffer[self._count, : len(row)] = [float(loss) for loss in row]
                self._count += 1
            self._pending = []
        return self._buffer[: self._count]

    def columns(self, count: int) -> np.ndarray:
        """(iterations, count) float64, a copy: cut, or filled with NaN, where a record has more or fewer losses."""
        held = self.array()
        result = np.full((len(held), count), np.nan)
        width = min(count, held.shape[1])
        result[:, :width] = held[:, :width]
        return result

    def recent(self) -> tuple[float | None, ...]:
        """Mean of each loss over the last RECENT iterations; None where none of them is finite."""
        held = self.array()[-RECENT:]
        finite = np.isfinite(held)
        sums, counts = np.where(finite, held, 0).sum(0), finite.sum(0)
        return tuple(float(total / count) if count else None for total, count in zip(sums, counts, strict=True))

    def rows(self) -> list[list[float]]:
        """As data.dat holds it: a list per iteration."""
        rows: list[list[float]] = self.array().tolist()
        return rows


@dataclass
class ModelData:
    """What DFL keeps in data.dat. `unknown` holds top-level keys that are not ours, written back as they were."""

    iter: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    loss_history: LossHistory = field(default_factory=LossHistory)
    sample_for_preview: Any = None
    unknown: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The dictionary DFL pickles, in DFL's order of keys."""
        return self._record(self.loss_history.rows())

    def chunks(self) -> Iterable[bytes | memoryview]:
        """The pickle of `to_dict()`, made without holding up other threads."""
        return dflfile.chunks(self._record(dflfile.Rows(self.loss_history.array())))

    def _record(self, history: Any) -> dict[str, Any]:
        return {
            "iter": int(self.iter),
            "options": dict(self.options),
            "loss_history": history,
            "sample_for_preview": self.sample_for_preview,
            "choosed_gpu_indexes": None,
            **self.unknown,
        }

    def copy(self) -> ModelData:
        """A snapshot: later iterations do not change it. The preview sample is shared, as nobody writes to it."""
        return replace(
            self, options=dict(self.options), loss_history=self.loss_history.copy(), unknown=dict(self.unknown)
        )

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ModelData:
        """Raises ValueError, TypeError or OverflowError for a record that cannot be believed."""
        known = ("iter", "options", "loss_history", "sample_for_preview")
        iteration, options = stored.get("iter"), stored.get("options")
        if not isinstance(iteration, (int, np.integer)) or not 0 <= iteration <= ITERATIONS:
            raise ValueError(f"iter is {shown(iteration)}, where a whole number from 0 counts the iterations")
        named = isinstance(options, dict) and all(isinstance(key, str) for key in options)
        if iteration and not named:
            raise ValueError("it holds no options, so nobody can tell what network the weights belong to")
        rows = stored.get("loss_history") or ()
        widths = [len(row) for row in rows]
        if len(widths) * max(widths, default=0) > 4 * sum(widths) + 4096:
            raise ValueError("its losses are no table")  # one long row among short ones would fill the memory
        kinds = set(map(type, chain.from_iterable(rows)))
        if not all(issubclass(kind, (int, float, np.integer, np.floating)) for kind in kinds):
            raise ValueError("its losses are no numbers")
        history = LossHistory(rows)
        history.array()  # raises for a number that no float can be
        return cls(
            iter=int(iteration),
            options=dict(options) if named and options else {},
            loss_history=history,
            sample_for_preview=stored.get("sample_for_preview"),
            unknown={key: value for key, value in stored.items() if key not in known},
        )
