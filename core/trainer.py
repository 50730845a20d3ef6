"""The loop: batch -> task.step -> events, and when to save, preview, back up and stop. No windows, losses or paths.

Losses are read one step late, so that no step waits for a read-back from the device; nothing here waits for a
window, a disk or a print.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from core.batch import Batch, Page
from core.events import Command, Commands, Event, Failed, Previewed, Started, Stepped, Stopped, TargetReached, Warned
from core.guard import Guard, State
from core.memory import out_of_memory
from core.modeldir import ModelError
from core.refresh import Refresh
from core.roles import Relief, Rescue, Saver, Trainable
from core.shortage import FAILURES, LeanPreview


class _Ended(Exception):
    """There are no more batches, because somebody asked to stop while the loop waited for one."""


@dataclass(frozen=True)
class Cadence:
    """When things happen. Seconds or iterations of 0 mean never; history_every counts iterations. preview_seconds: see
    `core.refresh`."""

    target: int = 0
    exit_at_target: bool = False
    save_seconds: float = 25 * 60
    save_iterations: int = 0
    backup_hours: int = 0
    history_every: int = 0
    backup_iterations: int = 0
    preview_seconds: float = 0


class Trainer:
    """Trains until told to stop or, with `exit_at_target`, until the target.

    history_batch: fixed faces for the preview history. attended: whether anybody could still give a command; where
    nobody can, the program ends at the target instead of pausing for ever. commands are obeyed between two iterations.
    position: the number of the first batch; later of the batch after the last one trained on, which a resumed run
    begins with: batches drawn for a preview only do not count. guard: watches for a collapse; while it suspects one
    nothing is saved over the good files, and a collapse is rolled back through `rescue` once, then ends the run.
    relief: what to do where memory runs out; without one that is an error like any other. choose: settles other
    options, given or asked for, and returns whether the run has to end for them (reason `options`).
    """

    def __init__(
        self,
        name: str,
        task: Trainable,
        batches: Iterator[Batch],
        emit: Callable[[Event], None],
        commands: Commands,
        saver: Saver,
        cadence: Cadence,
        clock: Callable[[], float],
        history_batch: Batch | None = None,
        attended: Callable[[], bool] = lambda: True,
        position: int = 0,
        guard: Guard | None = None,
        rescue: Rescue | None = None,
        relief: Relief | None = None,
        choose: Callable[[Mapping[str, Any] | None], bool] | None = None,
    ) -> None:
        self.choose = choose
        self.name, self.task, self.batches, self.emit, self.commands = name, task, batches, emit, commands
        self.saver, self.cadence, self.clock, self.history_batch = saver, cadence, clock, history_batch
        self.attended, self.guard, self.rescue, self.relief = attended, guard, rescue, relief
        self._rolled_back = self._hurried = self._lost = False
        # Counted in batches of the start: a smaller one, later, is a share of one.
        self._position = self._drawn = Fraction(position)
        self._share = Fraction(1)
        self._batch: Batch | None = None
        self._unused = False  # the batch has been previewed, not trained on: a run consumes one per iteration
        self._pending: tuple[int, dict[str, Any], Mapping[str, Any], float, float] | None = None
        self._mark = clock()
        self._saved_at = self._backed_up_at = clock()
        self._refresh = Refresh(cadence.preview_seconds, clock)
        self._saved_iteration = self.iteration
        self._lean = LeanPreview(task.preview, lambda text: emit(Warned(text)), lambda: task.let_go())

    @property
    def iteration(self) -> int:
        return self.task.data.iter

    @property
    def position(self) -> int:
        """Batches trained on, the last of them perhaps in part."""
        return int(self._position)

    def run(self) -> str:
        """Runs to the end; returns the reason: `command`, `options`, `target`, `collapse` or `memory`. Batches that end
        are a command."""
        try:
            return self._loop()
        except _Ended:
            return self.leave("command")

    def _loop(self) -> str:
        data, cadence = self.task.data, self.cadence
        self.emit(Started(self.name, data.iter, cadence.target, self.task.loss_names, self._history()))
        self._draw()
        self._preview()
        announced = False
        while True:
            while (command := self._next_command()) is not None:
                if reason := self._obey(command):
                    return self.leave(reason)
            if not self._at_target():
                if not self._iterate_if_it_fits():
                    return self.leave("memory")
                if self._state() is State.COLLAPSED and not self._roll_back():
                    return self.leave("collapse")
                continue
            if not announced:
                announced = True
                self._finish_target()
            if cadence.exit_at_target or not self.attended():
                return self.leave("target")
            if (command := self._wait_command()) is not None and (reason := self._obey(command, fresh=True)):
                return self.leave(reason)

    def _history(self) -> np.ndarray:
        return self.task.data.loss_history.columns(len(self.task.loss_names))

    def _at_target(self) -> bool:
        return 0 < self.cadence.target <= self.iteration

    def _next_command(self) -> Command | None:
        try:
            return self.commands.get_nowait()
        except queue.Empty:
            return None

    def _wait_command(self) -> Command | None:
        try:
            # A time limit, because a wait without one cannot be interrupted on Windows.
            return self.commands.get(timeout=0.5)
        except queue.Empty:
            return None

    def _obey(self, command: Command, fresh: bool = False) -> str:
        """Does what was asked; why the run ends for it, if it does. fresh: preview a new batch (when training has
        paused)."""
        if command.name == "stop":
            self._hurried = bool(command.arguments.get("quick"))
            return "command"
        if command.name == "save":
            self._save()
        elif command.name == "backup":
            if self._unsaved():
                self._save()
            self.saver.backup()
        elif command.name == "preview":
            if fresh:
                self._draw()
            self._preview()
        elif command.name == "options" and self._options_change(command):
            self._hurried = True
            return "options"
        self._mark = self.clock()
        return ""

    def _options_change(self, command: Command) -> bool:
        if self.choose is None or self._state() is not State.HEALTHY:
            self.emit(Warned("Options cannot be changed now: the model is not known to be well."))
            return False
        if self._unsaved():  # the run will go on from its files
            self._save()
        self.saver.wait()
        if self.saver.failed():
            self.emit(Warned("Options cannot be changed now, as the model cannot be saved."))
            return False
        return self.choose(command.arguments.get("given"))

    def _draw(self) -> None:
        try:
            self._batch, self._unused = next(self.batches), True
        except StopIteration:
            raise _Ended from None
        self._drawn += self._share

    def _iterate_if_it_fits(self) -> bool:
        """One iteration, or room made for the next one. Whether training goes on."""
        try:
            self._iterate()
            return True
        except FAILURES as error:
            if self.relief is None or not out_of_memory(error):
                raise
            self.relief.seen(error)
        # By now the error is gone, and with its traceback the tensors of the failed step.
        return self._make_room(self.relief)

    def _make_room(self, relief: Relief) -> bool:
        self._batch, self._unused = None, False
        self.task.let_go()
        if self._unsaved() and not self.task.torn:  # before a question that may wait for long
            self._save()
            self.saver.wait()
        self.emit(Warned(relief.explain(self.iteration)))
        if self.task.torn and not self._reload():
            return False
        halved = relief.halve(self._position)
        if halved is None:
            return False
        self._position, self._share = halved
        self._drawn = self._position
        self._mark = self.clock()
        return True

    def _reload(self) -> bool:
        """The last save, where an update was cut short; whether there is one."""
        self.saver.wait()
        self._pending = None
        self._lost = True
        text = "Memory ran out in the midst of an update: the weights are of two iterations and are not kept."
        if self.rescue is None:
            self.emit(Warned(text))
            return False
        try:
            notes = self.rescue.reload()
        except (ModelError, OSError) as error:
            self.emit(Warned(f"{text} {error}"))
            return False
        self._lost = False
        self._begin_again([f"{text} Back at the last save, iteration {self.iteration}.", *notes])
        return True

    def _begin_again(self, lines: list[str]) -> None:
        """From weights that are others than a moment ago."""
        for line in lines:
            self.emit(Warned(line))
        if self.guard is not None:
            self.guard.go_on()
        self._saved_iteration = self.iteration
        self.emit(Started(self.name, self.iteration, self.cadence.target, self.task.loss_names, self._history()))

    def _iterate(self) -> None:
        """One iteration and whatever is due after it."""
        start = self.clock()
        if not self._unused and (self._batch is None or not self.task.repeats):
            self._draw()
        batch, self._unused = self._batch, False
        assert batch is not None
        waited = self.clock() - start
        losses = self.task.step(batch)
        # What the next iteration trains on once more is counted with it: a resumed run has to draw it again.
        self._position = self._drawn - (self._share if self.task.repeats else 0)
        self._flush()
        now = self.clock()
        self._pending = (self.iteration, losses, self.task.health, (now - self._mark) * 1e3, waited * 1e3)
        self._mark = now
        self._do_what_is_due(now)

    def _do_what_is_due(self, now: float) -> None:
        cadence, iteration = self.cadence, self.iteration
        if cadence.history_every and self.history_batch is not None and iteration % cadence.history_every == 0:
            self._flush()
            self.emit(Previewed(iteration, self._lean(self.history_batch), history=True))
        due = iteration == 1
        due |= 0 < cadence.save_seconds <= now - self._saved_at
        due |= cadence.save_iterations > 0 and iteration % cadence.save_iterations == 0
        snapshot = cadence.backup_iterations > 0 and iteration % cadence.backup_iterations == 0
        if (due or snapshot) and not self._at_target():
            self._save(quietly=True)
            self._preview()
            period = cadence.backup_hours * 3600
            if 0 < period <= now - self._backed_up_at:
                self._backed_up_at = now - (now - self._backed_up_at) % period
                snapshot = True
            if snapshot:
                self.saver.backup()
            self._mark = self.clock()
        elif self._refresh.due(now) and not self._at_target():
            self._preview(refreshed=True)
            self._mark = self.clock()

    def _flush(self) -> None:
        """Tells the losses of the step before; reading them waits for the device at most until that step ends."""
        if self._pending is not None:
            iteration, held, health, ms, waited = self._pending
            self._pending = None
            losses = {name: float(loss) for name, loss in held.items()}
            self.emit(Stepped(iteration, losses, ms, waited))
            if self.guard is not None:
                self._watch(self.guard, iteration, losses, health)

    def _state(self) -> State:
        return State.HEALTHY if self.guard is None else self.guard.state

    def _watch(self, guard: Guard, iteration: int, losses: dict[str, float], health: Mapping[str, Any]) -> None:
        """Shows the guard a step and says what it thinks when that changes."""
        before, skipped = guard.state, guard.skipped
        state = guard.observe(
            iteration, losses, bool(health.get("updated", True)), float(health.get("contrast", float("nan")))
        )
        if guard.skipped > skipped and skipped == 0:
            self.emit(Warned(f"Iteration {iteration} was not finite and is left out. Further ones are only counted."))
        if state is State.SUSPECT and before is State.HEALTHY:
            self.emit(
                Warned(f"Is it collapsing? {guard.reason}. Nothing is saved over the good files until it is over.")
            )
        elif state is State.HEALTHY and before is State.SUSPECT:
            self.emit(Warned("The losses are back to normal: saving goes on."))

    def _roll_back(self) -> bool:
        """The last good state with milder settings, once; whether training goes on."""
        guard, rescue = self.guard, self.rescue
        if guard is None or rescue is None:
            return False
        text = f"The training has collapsed at iteration {self.iteration}: {guard.reason}."
        if self._rolled_back:
            self.emit(Warned(f"{text} It did so before: training stops."))
            return False
        self.saver.wait()
        self._rolled_back, self._pending = True, None
        self._begin_again([text, *rescue.roll_back()])
        return True

    def _save(self, quietly: bool = False) -> None:
        """Saves, unless the model is suspect; quietly: without a word then."""
        self._flush()
        if self.iteration == 0:  # such a record would have every program take the model for a new one
            self.emit(Warned("Not saved: nothing is trained yet."))
            return
        if self.guard is not None and self.guard.state is not State.HEALTHY:
            if not quietly:
                self.emit(Warned(f"Not saved, the good files stay: {self.guard.reason}."))
            return
        means = None
        if self.iteration > self._saved_iteration:
            rows = self._history()[self._saved_iteration - self.iteration :]
            finite = np.isfinite(rows)
            # Nothing finite at all stays NaN: a mean of 0 would look perfect.
            sums, counts = np.where(finite, rows, 0).sum(0), np.where(finite.any(0), finite.sum(0), np.nan)
            means = dict(zip(self.task.loss_names, (sums / counts).tolist(), strict=True))
        self.saver.save(means, self.position)
        self._saved_iteration, self._saved_at = self.iteration, self.clock()

    def _unsaved(self) -> bool:
        """Whether the disk lacks iterations, also because a save failed."""
        return self.iteration > 0 and (self.iteration > self._saved_iteration or self.saver.failed())

    def _pages(self) -> list[Page]:
        return self._lean(self._batch) if self._batch is not None else []

    def _preview(self, refreshed: bool = False) -> None:
        """Of the latest batch: no sample and no random number is drawn for it, so it leaves no trace in the model."""
        self._flush()
        with self._refresh.drawing():
            captions = self.task.captions(self._batch) if self._batch is not None else {}
            self.emit(Previewed(self.iteration, self._pages(), captions=captions, refreshed=refreshed))

    def _finish_target(self) -> None:
        if self._unsaved():
            self._save()
            self._preview()
        self.saver.wait()
        self.emit(TargetReached(self.iteration))

    def _keep(self) -> None:
        if self._state() is not State.HEALTHY and self.rescue is not None:
            self.emit(Warned(self._keep_suspect(self.rescue)))
        elif self._unsaved():
            self._save()
            if not self._hurried:
                self._preview()

    def _keep_suspect(self, rescue: Rescue) -> str:
        try:
            return f"The suspect state is kept in {rescue.keep_suspect()}; the good files stay."
        except OSError as error:
            return f"The suspect state could not be kept ({error}); the good files stay."

    def leave(self, reason: str) -> str:
        """Saves what is not saved yet, unless it is suspect, and says goodbye; `run` does so itself."""
        self._flush()
        if not self._lost:
            self._keep()
        self.saver.wait()
        if self.saver.failed() and not self._lost and self._state() is State.HEALTHY:
            self._save()  # the last chance: there may be room again by now
            self.saver.wait()
        if reason == "memory":
            model = "The model is what was saved last." if self.iteration else "No model is written."
            self.emit(Failed(f"Training ends, as an iteration does not fit into memory. {model}"))
        self.emit(Stopped(self.iteration, reason))
        return reason
