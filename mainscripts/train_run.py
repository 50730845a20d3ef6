"""Runs a prepared training: start the samples, listen to terminal and window, tell every sink, leave cleanly."""

from __future__ import annotations

import argparse
import contextlib
import queue
import threading
import time
import traceback
from collections.abc import Callable
from typing import TextIO

import numpy as np

from core import previewsample
from core.backups import BackupRules
from core.batch import Batch, Side
from core.device import describe
from core.events import Command, Commands, Event, Failed, Previewed, Stopped, Warned
from core.guard import Guard
from core.modeldir import ModelDir
from core.options import Values
from core.saver import BackgroundSaver
from core.summary import summary
from core.trainer import Cadence, Trainer
from mainscripts.train_setup import Setup
from mainscripts.train_sinks import Sinks
from mainscripts.train_stop import Stops
from mainscripts.verb import EXIT_COLLAPSED, EXIT_FAILED, EXIT_LEFT, EXIT_OK
from models import Task
from samplelib.loader import Loader, LoaderError, default_workers

HISTORY_SEED = 0x5EED


def start_loader(
    setup: Setup,
    workers: int | None,
    warn: Callable[[str], None],
    seed: int | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Loader:
    """The sample generator, from the run's position on."""
    return Loader(
        setup.facesets,
        setup.requests,
        setup.values["batch_size"],
        seed=setup.seed if seed is None else seed,
        workers=default_workers() if workers is None else workers,
        position=setup.position,
        warn=warn,
        stopping=stopping,
    )


def train(setup: Setup, task: Task, args: argparse.Namespace, stdin: TextIO, stdout: TextIO) -> int:
    """Trains until stopped; returns the exit code."""
    commands: Commands = queue.Queue()
    with contextlib.ExitStack() as stack:
        stops = stack.enter_context(Stops(commands, args.stop_within))
        sinks = stack.enter_context(_sinks(setup, commands, args, stdin, stdout))
        stops.emit = sinks.emit
        loader = stack.enter_context(
            start_loader(
                setup, args.workers, lambda text: sinks.emit(Warned(text)), stopping=lambda: stop_waits(commands)
            )
        )
        history_batch = _history_batch(setup, task, sinks, commands, stops.asked, stdout)
        print(summary(setup.directory.full_name, task.iteration, task.data.options, setup.values.forced(),
                      describe(setup.device)), file=stdout, flush=True)  # fmt: skip
        saver = BackgroundSaver(
            task, setup.directory, setup.values, describe(setup.device), sinks.emit, time.monotonic, setup.seed,
            backup_rules(setup.values),
        )  # fmt: skip
        stops.standing = saver.standing
        trainer = Trainer(
            setup.directory.full_name, task, loader, sinks.emit, commands, saver, cadence(setup, args),
            time.monotonic, history_batch, sinks.attended, setup.position,
            Guard() if setup.values["collapse_guard"] else None, SavedModel(setup, task),
        )  # fmt: skip
        sinks.listen()
        if setup.data is None:
            setup.directory.write_default_options(setup.values.chosen)
        code = _run(trainer, saver, sinks.emit)
        if not saver.close():
            sinks.emit(Failed(f"The last save did not reach the disk. {saver.standing()}"))
            code = EXIT_FAILED
        stops.code = code
        return code


class SavedModel:
    """The rescue of a collapsed model: its own files, as last saved."""

    def __init__(self, setup: Setup, task: Task) -> None:
        self._setup, self._task = setup, task

    def roll_back(self) -> list[str]:
        directory, task = self._setup.directory, self._task
        notes = task.load(directory.folder, directory.name)
        softer = task.soften()
        milder = f"with milder settings: {', '.join(softer)}" if softer else "with the same settings, none being milder"
        return [*notes, f"Back at the last good state, iteration {task.iteration}, {milder}."]

    def keep_suspect(self) -> str:
        directory = self._setup.directory
        beside = ModelDir(directory.path("facesmith_suspect"), directory.name, directory.class_name)
        beside.write(self._task.parts(), self._task.data, self._setup.values, describe(self._setup.device))
        return str(beside.folder)


def _sinks(setup: Setup, commands: Commands, args: argparse.Namespace, stdin: TextIO, stdout: TextIO) -> Sinks:
    directory = setup.directory
    history = bool(setup.values["write_preview_history"])
    return Sinks(
        directory.folder / directory.full_name,
        commands,
        stdin,
        stdout,
        window=not args.no_preview,
        stays=not args.exit_at_target,
        history=history,
    )


def backup_rules(values: Values) -> BackupRules:
    """How backups are called and how many stay."""
    return BackupRules(values["backup_naming"], values["max_backups"], int(values["max_backups_gb"] * 1e9))


def cadence(setup: Setup, args: argparse.Namespace) -> Cadence:
    """When to save, back up and draw."""
    values = setup.values
    seconds, iterations = args.save_every
    return Cadence(
        target=values["target_iter"],
        exit_at_target=args.exit_at_target,
        save_seconds=seconds,
        save_iterations=iterations,
        backup_hours=values["autobackup_hour"],
        # DFL's interval: sparser for large faces
        history_every=10 * max(1, values["resolution"] // 64) if values["write_preview_history"] else 0,
    )


def stop_waits(commands: Commands) -> bool:
    """Whether somebody has asked to stop and the loop has not taken it yet."""
    with commands.mutex:
        return any(command.name == "stop" for command in commands.queue)


def show_samples(setup: Setup, args: argparse.Namespace, stdin: TextIO, stdout: TextIO) -> int:
    """--debug: what the network would be fed, one page a side; `p` draws the next batch. Nothing is trained."""
    commands: Commands = queue.Queue()
    with contextlib.ExitStack() as stack:
        stack.enter_context(Stops(commands, args.stop_within))
        sinks = stack.enter_context(_sinks(setup, commands, args, stdin, stdout))
        loader = stack.enter_context(start_loader(setup, 0, lambda text: sinks.emit(Warned(text))))
        print("Showing samples, training nothing: p draws the next ones, Enter ends.", file=stdout, flush=True)
        sinks.listen()
        while True:
            batch = next(loader)
            pages = [(f"samples {side}", _sample_rows(arrays)) for side, arrays in batch.items()]
            sinks.emit(Previewed(0, pages))
            command = _next(commands, sinks.attended)
            if command is None or command.name == "stop":
                return EXIT_OK


def _next(commands: Commands, anybody: Callable[[], bool]) -> Command | None:
    """The next `preview` or `stop`, or None once nobody is there to give one."""
    while anybody():
        with contextlib.suppress(queue.Empty):
            command = commands.get(timeout=0.5)
            if command.name in ("preview", "stop"):
                return command
    return None


def _sample_rows(side: Side) -> list[list[np.ndarray]]:
    """A row per sample: its arrays side by side, masks in grey."""
    columns = [np.moveaxis((array * 255 + 0.5).astype(np.uint8), 1, -1) for _, array in side.items()]
    columns = [np.repeat(array, 3, -1) if array.shape[-1] == 1 else array for array in columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _history_batch(
    setup: Setup, task: Task, sinks: Sinks, commands: Commands, asked: threading.Event, stdout: TextIO
) -> Batch | None:
    """The faces of the preview history: those stored with the model, or the first ones, or those the user picks.
    New ones are stored with the model. They are drawn apart from the training's samples, whose order stays."""
    stored = previewsample.from_stored(task.data.sample_for_preview, setup.requests)
    choose = setup.values["choose_preview_history"] and sinks.has_window()
    if not setup.values["write_preview_history"] or (stored is not None and not choose):
        return stored
    if choose:
        print("Choose the faces of the preview history in the window: p shows the next ones, space the next page, "
              "Enter takes them.", file=stdout, flush=True)  # fmt: skip
        sinks.listen()
    with start_loader(setup, 0, lambda text: sinks.emit(Warned(text)), seed=setup.seed ^ HISTORY_SEED) as loader:
        while True:
            batch = next(loader)
            task.data.sample_for_preview = previewsample.to_stored(batch)
            if not choose:
                break
            sinks.emit(Previewed(task.iteration, task.preview(batch)))
            command = _next(commands, sinks.has_window)
            if asked.is_set():
                raise KeyboardInterrupt
            if command is None or command.name == "stop":
                break
    return previewsample.from_stored(task.data.sample_for_preview, setup.requests)


def _run(trainer: Trainer, saver: BackgroundSaver, emit: Callable[[Event], None]) -> int:
    try:
        return EXIT_COLLAPSED if trainer.run() == "collapse" else EXIT_OK
    except KeyboardInterrupt:
        emit(Failed(f"Aborted by a second Ctrl-C. {saver.standing()}"))
        code = EXIT_LEFT
    except LoaderError as error:
        emit(Failed(f"No more samples: {error}."))
        trainer.leave("error")  # between two iterations the model is sound: what was learned is kept
        return EXIT_FAILED
    except (RuntimeError, MemoryError, ArithmeticError, LookupError, TypeError, ValueError, OSError) as error:
        emit(Failed(f"{error}\n{traceback.format_exc()}The files of the last save are untouched."))
        code = EXIT_FAILED
    emit(Stopped(trainer.iteration, "error"))
    return code
