"""Saves and backups behind the loop: a snapshot is taken at once, a thread writes it, one after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.events import BackedUp, Event, Saved, Saving, Warned
from core.modeldir import ModelData, ModelDir, Part
from core.options import Values
from core.runstate import RunState


@dataclass(frozen=True)
class _Save:
    parts: Mapping[str, Part]
    data: ModelData
    losses: dict[str, float] | None
    state: RunState


@dataclass(frozen=True)
class _Backup:
    iteration: int


class BackgroundSaver:
    """Writes a task's files to `directory`, with the seed and position of the run. A failed save is a warning while
    training goes on; `close` tells."""

    def __init__(
        self,
        task: Any,
        directory: ModelDir,
        values: Values,
        device: str,
        emit: Callable[[Event], None],
        clock: Callable[[], float],
        seed: int,
    ) -> None:
        self._task, self._directory, self._values, self._device = task, directory, values, device
        self._emit, self._clock, self._seed = emit, clock, seed
        # One waiting job: a disk slower than the cadence makes the loop wait rather than fill the memory.
        self._jobs: queue.Queue[_Save | _Backup | None] = queue.Queue(1)
        self._saved_ok = True
        self._thread = threading.Thread(target=self._work, name="saver", daemon=True)
        self._thread.start()

    def save(self, losses: dict[str, float] | None, position: int) -> None:
        """position: batches trained on so far."""
        data = self._task.data.copy()
        self._emit(Saving(data.iter))
        self._jobs.put(_Save(self._task.parts(), data, losses, RunState(data.iter, self._seed, position)))

    def backup(self) -> None:
        self._jobs.put(_Backup(self._task.data.iter))

    def wait(self) -> None:
        """Returns when everything asked for is written or reported."""
        self._jobs.join()

    def close(self) -> bool:
        """Waits for what is under way; whether the last save reached the disk."""
        self._jobs.put(None)
        self._thread.join()
        return self._saved_ok

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._do(job)
            finally:
                self._jobs.task_done()

    def _do(self, job: _Save | _Backup) -> None:
        try:
            if isinstance(job, _Save):
                self._write(job)
            else:
                self._emit(BackedUp(job.iteration, self._directory.backup()))
        except (OSError, ValueError, TypeError, MemoryError) as error:
            what = "save" if isinstance(job, _Save) else "back up"
            self._saved_ok = self._saved_ok and not isinstance(job, _Save)
            self._emit(
                Warned(
                    f"Could not {what} in {self._directory.folder}: {getattr(error, 'strerror', None) or error}. "
                    "The files saved before are untouched; training goes on and tries again at the next save."
                )
            )

    def _write(self, job: _Save) -> None:
        start = self._clock()
        self._directory.write(job.parts, job.data, self._values, self._device, job.state)
        self._saved_ok = True
        self._emit(Saved(job.data.iter, job.losses, (self._clock() - start) * 1e3, self._directory.folder))
