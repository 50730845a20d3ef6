"""What a training does about too little memory: says so, asks or obeys --on-oom, and goes on with half the batch.

The smaller batch counts for this run only. What the model keeps is the user's choice: memory is often short because of
another program, and DeepFaceLab reads the same record.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Literal, TextIO

from core import memory, prompts
from core.batch import Batch
from core.devicesamples import DeviceSamples
from core.events import Event, Warned
from core.modeldir import ModelError
from core.options import Option
from core.prompts import Leave
from core.shortage import FAILURES
from core.stages import Stages
from core.terminal import while_training
from mainscripts.samples import AnyLoader
from mainscripts.train_setup import Setup
from mainscripts.train_sinks import Sinks
from models import Task
from models import memory as needs

OnOom = Literal["ask", "halve", "stop"]
ON_OOM: tuple[OnOom, ...] = ("ask", "halve", "stop")


class Samples:
    """The batches of a run, which may become smaller. start(batch_size, position) opens a loader, with `lean=True` one
    that keeps no faces on the device."""

    def __init__(self, start: Callable[..., AnyLoader], size: int, position: int) -> None:
        self._start, self._first, self.size = start, size, size
        self._loader = start(size, position)

    def __enter__(self) -> Samples:
        return self

    def __exit__(self, *_: object) -> None:
        self._loader.close()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._loader)

    @property
    def stored(self) -> int:
        """Bytes of the device that could be had back by keeping no faces there."""
        return self._loader.stored if isinstance(self._loader, DeviceSamples) else 0

    def halve(self, position: Fraction) -> tuple[Fraction, Fraction]:
        """From `position` on, in batches of the start, with half the size: see `core.roles.Relief`. No sample is
        left out; where the sizes do not divide, the few before the position come once more."""
        self.size //= 2
        return self._restart(position)

    def unload(self, position: Fraction) -> tuple[Fraction, Fraction]:
        """The same in batches of the same size, without the faces that lie on the device."""
        self._start = functools.partial(self._start, lean=True)
        return self._restart(position)

    def _restart(self, position: Fraction) -> tuple[Fraction, Fraction]:
        self._loader.close()  # first: its memory is what is short
        share = Fraction(self.size, self._first)
        number = int(position / share)
        self._loader = self._start(self.size, number)
        return number * share, share


class Room:
    """The `Relief` of a training. ask(size) -> whether to go on with batches of that size; None: nobody to ask.
    alone: whether no other process is in the midst of the step that failed."""

    def __init__(
        self, device: str, task: Task, samples: Samples, how: OnOom, ask: Callable[[int], bool] | None,
        emit: Callable[[Event], None], alone: bool = True,
    ) -> None:  # fmt: skip
        self._device, self._task, self._samples, self._alone = device, task, samples, alone
        self._how, self._ask, self._emit = how, ask, emit
        self._figures, self._where = "", device
        memory.forget_peak(device)

    def seen(self, error: BaseException) -> None:
        self._figures, self._where = figures(error, self._device), memory.where(error, self._device)

    def explain(self, iteration: int) -> str:
        size, found = self._samples.size, []
        if self._where == self._device:  # else it is not the network that is too large
            # Counting takes some main memory: too much where it is what is short.
            counted = self._device != "cpu"
            found = needs.changes(self._task, size) if counted else needs.uncounted(self._task, size)
        return f"Out of memory in iteration {iteration + 1} with batch_size {size}. {self._figures}\n{advice(found)}"

    def halve(self, position: Fraction) -> tuple[Fraction, Fraction] | None:
        if not self._alone:
            self._emit(Warned("With several processes the batch is not halved by itself: --set batch_size=N does."))
            return None
        if stored := self._samples.stored:
            room = f"The faces on the device give back {memory.size(stored)} and go up with every batch from now on"
            self._emit(Warned(f"{room}; --device-cache-mb 0 does so from the start. Training goes on."))
            return self._samples.unload(position)
        smaller = self._samples.size // 2
        if not smaller:
            return None
        wanted = self._how == "halve" or (self._how == "ask" and self._ask is not None and self._ask(smaller))
        if not wanted:
            if self._how == "ask" and self._ask is None:
                self._emit(Warned(f"Nobody can be asked. --on-oom halve would go on with batch_size {smaller}."))
            return None
        told = f"Training goes on with batch_size {smaller} for this run; --set batch_size={smaller} would keep it."
        self._emit(Warned(told))
        return self._samples.halve(position)


def figures(error: BaseException, device: str) -> str:
    """How much was asked for and what the memory in question has, in words."""
    used = memory.usage(memory.where(error, device)).words()
    if (wanted := memory.asked(error)) is not None:
        return f"{memory.size(wanted)} more could not be had. {used}"
    reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
    return f"How much more was needed is not told{reason}. {used}"


def advice(changes: list[needs.Change]) -> str:
    """What to do, in lines."""
    close = "Close other programs that use this memory."
    if not changes:
        return f"{close} If that does not help: a new model of lower resolution or dimensions needs less."
    lines = [f"  {change.words()}" for change in changes]
    return "\n".join([f"{close} What helps besides, the least costly first:", *lines])


@contextlib.contextmanager
def told(setup: Setup) -> Iterator[None]:
    """Too little memory to make or load a model, as one ModelError with what would help."""
    device, text = setup.device.torch_name, ""
    try:
        yield
    except FAILURES as error:
        if not memory.out_of_memory(error):
            raise
        text = f"Out of memory before training began. {figures(error, device)}"
        here = memory.where(error, device) == device
    if text:  # the error is gone, and with it what its traceback held
        memory.give_back(device)
        found = needs.changes_before(setup.spec, setup.values, device) if here else []
        raise ModelError(f"{text}\n{advice(found)}\nNo file of the model was written.")


def asker(
    sinks: Sinks, stages: Stages, stdin: TextIO, stdout: TextIO, gone: Callable[[], bool]
) -> Callable[[int], bool] | None:
    """Asks the person at the terminal whether to go on with a smaller batch; None where there is none. Who leaves
    instead (`gone()`: by Ctrl-C, a closed terminal or Enter in the window) does not go on."""
    if not (stdin.isatty() and stdout.isatty()):
        return None

    def ask(size: int) -> bool:
        row = Option(
            "on_oom", "choice", f"Halve the batch to {size}, or stop",
            f"halve goes on with {size} faces of each side per iteration, for this run. stop ends the training; what "
            "was learned is saved. --on-oom halve or stop answers this in advance.",
            default="halve", choices=("halve", "stop"),
        )  # fmt: skip
        with sinks.quiet(), stages.waiting():
            terminal = while_training(stdin, stdout, gone)
            try:
                return bool(prompts.ask_row(terminal, row, "halve") == "halve")
            except Leave:
                return False

    return ask
