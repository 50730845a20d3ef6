"""Saves and backups behind the loop: a snapshot is taken at once, a thread writes it, one after the other.

The loop never waits for the disk. A save that is still waiting when the next one comes is replaced by it. The memory
of a snapshot is kept for the next one; a second is used where a save comes before the last is written.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.backups import RULES, BackupRules
from core.disk import remedy
from core.events import Advanced, BackedUp, Event, Saved, Saving, Warned
from core.memory import out_of_memory
from core.modeldir import ModelData, ModelDir, ModelError, Part
from core.options import Values
from core.runstate import RunState
from core.savejournal import WEIGHTY
from core.shortage import FAILURES
from core.snapshot import Snapshot


@dataclass(frozen=True)
class _Save:
    snapshot: Snapshot
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
        rules: BackupRules = RULES,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._task, self._directory, self._values, self._device = task, directory, values, device
        self._emit, self._clock, self._seed, self._rules, self._now = emit, clock, seed, rules, now
        self._turn = threading.Condition()  # guards the four below
        self._waiting: list[_Save | _Backup] = []  # at most one of each
        self._busy = self._closing = False
        self._spare: Snapshot | None = Snapshot()
        self._copy(self._spare)  # fetches the memory now, as the first save would keep the loop waiting for it
        self._saved_ok = True
        self._stamps = self._look()
        self._standing = task.data.iter
        self._thread = threading.Thread(target=self._work, name="saver", daemon=True)
        self._thread.start()

    def save(self, losses: dict[str, float] | None, position: int) -> None:
        """position: batches trained on so far."""
        data = self._task.data.copy()
        self._emit(Saving(data.iter))
        with self._turn:
            snapshot, self._spare = self._spare or Snapshot(), None
        parts = self._copy(snapshot)
        if parts is None:
            self._saved_ok = False
            self._emit(Warned("Not enough memory to save. Close other programs; training goes on and tries again."))
            return
        job = _Save(snapshot, parts, data, losses, RunState(data.iter, self._seed, position, self._values.kept))
        with self._turn:
            for place, other in enumerate(self._waiting):
                if isinstance(other, _Save):  # a backup that waits behind it stays behind
                    self._waiting[place], self._spare = job, other.snapshot
                    break
            else:
                self._waiting.append(job)
            self._turn.notify_all()

    def _copy(self, snapshot: Snapshot) -> Mapping[str, Part] | None:
        """The model as it is now; None where there is no memory for that."""
        snapshot.restart()
        try:
            parts: Mapping[str, Part] = self._task.parts(snapshot)
        except FAILURES as error:
            if not out_of_memory(error):
                raise
            return None
        return parts

    def backup(self) -> None:
        """Of what is saved by then: after a save that was asked for before."""
        with self._turn:
            self._waiting = [other for other in self._waiting if isinstance(other, _Save)]
            self._waiting.append(_Backup(self._task.data.iter))
            self._turn.notify_all()

    def wait(self) -> None:
        """Returns when everything asked for is written or reported."""
        with self._turn:
            # A time limit, because a wait without one cannot be interrupted on Windows.
            while not self._turn.wait_for(lambda: not self._waiting and not self._busy, timeout=0.5):
                pass

    def failed(self) -> bool:
        return not self._saved_ok

    def standing(self) -> str:
        """Which save the folder holds, as a sentence."""
        folder = self._directory.folder
        if self._standing:
            return f"The save of iteration {self._standing:,} stands in {folder}."
        there = self._directory.data_path.exists()
        return f"{folder} holds what it held before this run." if there else "Nothing has been saved yet."

    def close(self) -> bool:
        """Waits for what is under way; whether the last save reached the disk."""
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        self._thread.join()
        return self._saved_ok

    def _work(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                job, self._busy = self._waiting.pop(0), True
            try:
                self._do(job)
            finally:
                with self._turn:
                    self._busy = False
                    if isinstance(job, _Save):
                        self._spare = job.snapshot
                    self._turn.notify_all()

    def _do(self, job: _Save | _Backup) -> None:
        try:
            if isinstance(job, _Save):
                self._write(job)
            else:
                folder = self._directory.backup(self._rules, self._now)
                saved = self._directory.journal.manifest()
                self._emit(BackedUp(saved.iteration if saved else job.iteration, folder))
        except ModelError as error:
            self._emit(Warned(f"{error} Training goes on."))
        except Exception as error:  # noqa: BLE001  # a thread that died would let every later save wait for ever
            saving = isinstance(job, _Save)
            self._saved_ok = self._saved_ok and not saving
            text = f"Could not {'save' if saving else 'back up'} in {self._told(error)}"
            self._emit(Warned(text, traceback.format_exc()))

    def _write(self, job: _Save) -> None:
        start = self._clock()
        now = self._look()
        if changed := [name for name, stamp in now.items() if self._stamps.get(name) != stamp]:
            self._give_way(changed)
        self._directory.write(job.parts, job.data, self._values, self._device, job.state, self._advanced)
        self._saved_ok, self._stamps, self._standing = True, self._look(), job.data.iter
        self._emit(Saved(job.data.iter, job.losses, (self._clock() - start) * 1e3, self._directory.folder))

    def _advanced(self, done: int, total: int) -> None:
        self._emit(Advanced(done, total))

    def _look(self) -> dict[str, tuple[int, int]]:
        """Size and time of every weighty file there is."""
        if not self._directory.folder.is_dir():
            return {}
        files = [path for path in self._directory.files() if path.suffix in WEIGHTY]
        return {path.name: ((status := path.stat()).st_size, status.st_mtime_ns) for path in files}

    def _give_way(self, changed: list[str]) -> None:
        """Another program trains the same model: what it wrote is kept before this save replaces it."""
        try:
            fate = f"They are kept in {self._directory.backup(self._rules, self._now)}, and this save replaces them."
        except (ModelError, OSError) as error:
            fate = f"This save replaces them; they could not be kept: {error}"
        self._emit(Warned(f"Another program wrote {', '.join(changed)} while this one trains. {fate}"))

    def _told(self, error: Exception) -> str:
        """Where it failed, why, what to do, and what that means for the model."""
        folder, number = self._directory.folder, getattr(error, "errno", None)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        untouched = "The files saved before are untouched"
        if self._directory.journal.journal_path.exists():
            untouched = "The files saved before are safe beside the new ones and put back as soon as the disk allows"
        text = f"{folder}: {reason}. {remedy(number, folder)}{untouched}"
        return f"{text}; training goes on and tries again at the next save."
