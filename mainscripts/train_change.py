"""Other options in the midst of a training: settled between two iterations, then the run goes on with them as if it had
been stopped and started again, from the files it has just saved, while window and terminal stay."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from core import memory, prompts
from core.batch import SampleRequest
from core.events import Noted, Waits, Warned
from core.options import Option, OptionError, Values, by_key, defaults, resolve, rounded, settle
from core.precision import Precision
from core.prompts import Back, Leave
from core.shortage import FAILURES
from core.stages import BUSY, MODEL, Stages
from core.terminal import while_training
from mainscripts.train_faces import choose_faces
from mainscripts.train_setup import Setup
from mainscripts.train_sinks import Sinks
from mainscripts.train_world import check_split
from models import Task
from samplelib.faceset import Faceset, FacesetError

PATIENCE = 600.0  # seconds: a key pressed by mistake must not cost the night


class Changes:
    """What may become of a run's options. stdin, stdout: where they are asked for; gone: whether the training is to end
    meanwhile."""

    def __init__(
        self, setup: Setup, task: Task, sinks: Sinks, stages: Stages, stdin: TextIO, stdout: TextIO,
        gone: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._setup, self._task, self._sinks, self._stages = setup, task, sinks, stages
        self._stdin, self._stdout, self._gone = stdin, stdout, gone
        self._next: tuple[Values, dict[str, SampleRequest], dict[str, Faceset]] | None = None

    def choose(self, given: Mapping[str, Any] | None) -> bool:
        """Settles options, those given or, without any, those that a person at the terminal answers; whether anything
        changes. Nothing is changed yet."""
        emit, setup = self._sinks.emit, self._setup
        try:
            values = self._asked() if given is None else self._given(given)
            if values is not None:
                check_split(setup.devices, values, debug=False)
            for note in values.notes if values is not None else []:
                emit(Noted(note))
            if values is None or all(setup.values[key] == value for key, value in values.items()):
                emit(Noted("The options stay as they are."))
                return False
            Precision(values["mp_mode"], setup.device.torch_name)  # refused now, while the model is whole
            requests = setup.spec.requests(values)
            faces = setup.facesets
            if requests != setup.requests or values.get("pretrain") != setup.values.get("pretrain"):
                faces = choose_faces(setup.folders, values, requests, self._stages.say, self._stages.advance)
        except (OptionError, FacesetError) as error:
            emit(Warned(f"The options stay as they are. {error}"))
            return False
        emit(Noted(f"Other options: {_differences(self._rows(), setup.values, values)}."))
        self._next = values, requests, faces
        return True

    def make(self, position: int) -> None:
        """The settled options, in the model and for the samples; position: how many batches were trained on. The model
        is loaded from its last save. Raises ModelError, OSError."""
        assert self._next is not None
        setup, (values, requests, faces) = self._setup, self._next
        before = setup.values
        setup.position = position
        try:
            self._rebuild(values)
        except FAILURES as error:
            if not memory.out_of_memory(error):
                raise
            self._sinks.emit(Warned("There is not enough memory for these options: they stay as they were."))
            short = True
        else:
            short = False
        if short:  # the error is gone, and with its traceback what it held
            self._rebuild(before)
            return
        setup.values, setup.requests, setup.facesets = values, requests, faces

    def _rebuild(self, values: Values) -> None:
        setup, task = self._setup, self._task
        iteration = task.iteration
        with self._stages.stage("Changing the model", BUSY):
            task.rebuild(values)
        with self._stages.stage("Loading weights", MODEL):
            notes = task.load(setup.directory.folder, setup.directory.name, report=self._stages.advance)
        for note in notes:
            self._stages.say(note)
        if task.iteration != iteration:  # pretraining was switched off: a new count, on other faces
            setup.position = task.iteration
        setup.data = task.data

    def _current(self) -> dict[str, Any]:
        """The present options as the user chose them."""
        setup = self._setup
        rows, chosen = self._rows(), setup.values.chosen
        known = defaults(rows, chosen, {})
        return known | {row.key: setup.values[row.key] for row in rows if not row.stored and row.ask == "advance"}

    def _asked(self) -> Values | None:
        """None where nobody can be asked, or who is leaves."""
        if not (self._stdin.isatty() and self._stdout.isatty()):
            text = "Options are asked for in a terminal, and there is none. --commands FILE takes them from a file."
            self._sinks.emit(Warned(text))
            return None
        emit = self._sinks.emit
        emit(Waits("Training waits: options are asked in the terminal"))
        try:
            with self._sinks.quiet(), self._stages.waiting(), contextlib.suppress(Back, Leave):
                terminal = while_training(self._stdin, self._stdout, self._gone, PATIENCE)
                terminal.say(
                    "Training waits, 10 minutes at most for a key. < at the first question leaves, as Esc does: then "
                    "nothing changes."
                )
                return self._ask(terminal)
        finally:
            emit(Waits(""))
        return None

    def _ask(self, terminal: prompts.Terminal) -> Values:
        """DFL's questions, then the offer to ask the others."""
        rows = self._rows()
        questions = (*prompts.usual(rows), *prompts.further(rows, first_run=False, offered=True))
        known = {**self._current(), prompts.FURTHER.key: False}
        answers = prompts.ask_rows(terminal, questions, known, {}, first_run=False, back=True)
        answers.pop(prompts.FURTHER.key)
        values = settle(rows, answers)
        values.notes = rounded(rows, answers, answers)
        return values

    def _given(self, given: Mapping[str, Any]) -> Values:
        current, given = self._current(), by_key(self._rows(), given)
        kept = {row.key: current[row.key] for row in self._rows() if not row.stored and row.key in current}
        return resolve(self._rows(), {**kept, **given}, current, {})

    def _rows(self) -> tuple[Option, ...]:
        """Those that can change now: what a model is when it is opened cannot."""
        return tuple(row for row in self._setup.spec.rows if row.ask != "again")


def _differences(rows: tuple[Option, ...], before: Values, after: Values) -> str:
    """`batch_size 4 -> 8, random_warp y -> n, session_name nothing -> gan`"""
    return ", ".join(
        f"{row.key} {row.show(before[row.key]) or 'nothing'} -> {row.show(after[row.key]) or 'nothing'}"
        for row in rows
        if before[row.key] != after[row.key]
    )

