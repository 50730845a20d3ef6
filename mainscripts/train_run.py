"""Runs a prepared training: start the samples, listen to terminal and window, tell every sink, leave cleanly."""

from __future__ import annotations

import argparse
import contextlib
import functools
import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from core.backups import BackupRules
from core.batch import Side
from core.device import describe
from core.distributed import Lost
from core.events import Commands, Event, Failed, Noted, Previewed, Stepped, Stopped, Warned
from core.guard import Guard
from core.mainmemory import MainMemory
from core.memory import out_of_memory, size, usage
from core.modeldir import ModelDir, ModelError
from core.options import Values
from core.runlog import RunLog, log_sink
from core.saver import BackgroundSaver
from core.stages import BUSY, COMPILED, COMPILING, FACES, MODEL, WORKERS, Pulse, Stages
from core.summary import summary
from core.trainer import Cadence, Trainer
from core.upload import Upload, alongside
from mainscripts.samples import AnyLoader, as_arrays, device_budget, open_on_device
from mainscripts.train_change import Changes
from mainscripts.train_commands import CommandFile
from mainscripts.train_faces import face_cache
from mainscripts.train_history import HistoryFaces, count_anew, next_command
from mainscripts.train_memory import Room, Samples, asker, figures
from mainscripts.train_profile import profiled
from mainscripts.train_setup import Setup
from mainscripts.train_sinks import Sinks
from mainscripts.train_stop import Stops
from mainscripts.train_web import web_of
from mainscripts.train_world import accounts, again, begin
from mainscripts.verb import EXIT_COLLAPSED, EXIT_FAILED, EXIT_LEFT, EXIT_OK, message_of, show_traceback
from models import Task
from models.running import faces_per_iteration, history_every
from samplelib.diskcache import DiskSettings
from samplelib.loader import Loader, LoaderError, default_workers

CACHE_UNKNOWN = 1 << 30  # where the system does not tell what is free


def start_loader(
    setup: Setup,
    workers: int | None,
    warn: Callable[[str], None],
    seed: int | None = None,
    stopping: Callable[[], bool] = lambda: False,
    size: int | None = None,
    position: int | None = None,
    cache_bytes: int = 0,
    device_bytes: int | None = None,
    disk: DiskSettings | None = None,
    rows: range | None = None,
) -> AnyLoader:
    """The sample generator, with an iteration's faces in a batch and from the run's position on unless others are
    given. device_bytes: makes samples on the device, with so much of its memory for faces. rows: which of each batch
    (default: all)."""
    if workers is None:
        workers = max(1, default_workers(setup.values["cpu_cap"]) // setup.world.local)
    given: dict[str, Any] = {
        "seed": setup.seed if seed is None else seed,
        "workers": workers,
        "position": setup.position if position is None else position,
        "stopping": stopping,
        "cache_bytes": cache_bytes,
        "disk": disk,
        "rows": rows,
    }
    size = faces_per_iteration(setup.values) if size is None else size
    if device_bytes is None:
        return Loader(setup.facesets, setup.requests, size, warn=warn, **given)
    return open_on_device(
        setup.facesets, setup.requests, size, device=setup.device.torch_name, budget=device_bytes, warn=warn, **given
    )


def uploads(setup: Setup) -> bool:
    """Whether batches are brought to the device ahead of the step, rather than by it."""
    made_here = setup.values["augment_on"] == "cpu"
    return made_here and bool(setup.values["pin_samples"]) and alongside(setup.device.torch_name)


def cache_budget(megabytes: int | None, memory: MainMemory | None = None) -> int:
    """Bytes for prepared faces: what was asked for, else a quarter of what is free."""
    if megabytes is not None:
        return megabytes << 20
    free = (memory or MainMemory()).free()
    return CACHE_UNKNOWN if free is None else free // 4


def train(
    setup: Setup, task: Task, args: argparse.Namespace, stages: Stages, log: RunLog, stdin: TextIO, stdout: TextIO
) -> int:
    """Trains until stopped; returns the exit code."""
    commands: Commands = queue.Queue()
    with contextlib.ExitStack() as stack:
        stops = stack.enter_context(Stops(commands, args.stop_within))
        sinks = stack.enter_context(_sinks(setup, commands, args, log, stdin, stdout))
        stack.enter_context(stages.tell_by(sinks.emit))
        stops.emit, stops.let_go = sinks.emit, sinks.let_go
        if args.commands is not None:
            stack.enter_context(CommandFile(args.commands, commands, sinks.emit))
        waits = functools.partial(stop_waits, commands)
        changes = Changes(setup, task, sinks, stages, stdin, stdout, waits)
        ask = asker(sinks, stages, stdin, stdout, waits)
        run = Run(setup, task, args, stages, log, sinks, stops, commands)
        count_anew(setup, task, stages.say)
        while (code := run.until_changed(changes, ask)) is None:
            changes.make(run.position)
            count_anew(setup, task, stages.say)
        stops.code = code
        return code


@dataclass
class Run:
    """A training from one choice of options to the next."""

    setup: Setup
    task: Task
    args: argparse.Namespace
    stages: Stages
    log: RunLog
    sinks: Sinks
    stops: Stops
    commands: Commands
    position: int = 0
    emptied: set[Path] = field(default_factory=set)  # folders of kept faces that force_recache has emptied

    def until_changed(self, changes: Changes, ask: Callable[[int], bool] | None) -> int | None:
        """Trains; returns the exit code, None where it is to go on with other options from `position` on."""
        setup, task, stages, sinks = self.setup, self.task, self.stages, self.sinks
        device = setup.device.torch_name
        begin(setup, task)
        with contextlib.ExitStack() as stack:
            with stages.stage("Starting sample workers", WORKERS):
                samples = stack.enter_context(_samples(setup, self.args, sinks, self.commands, self.emptied))
            if setup.values["write_preview_history"]:
                sinks.keep_history(setup.values["preview_history_keep"])
            alone = setup.world.size == 1
            room = Room(device, task, samples, self.args.on_oom, ask, sinks.emit, alone)
            faces = HistoryFaces(setup, task, sinks, stages, self.commands, self.stops.asked, self._start_plain)
            history_batch = faces.batch()
            stages.say(summary(setup.directory.full_name, task.iteration, task.data.options, setup.values.forced(),
                               describe(setup.device), setup.values["session_name"], setup.values.kept))  # fmt: skip
            saver = BackgroundSaver(
                task, setup.directory, setup.values, describe(setup.device), sinks.emit, time.monotonic, setup.seed,
                backup_rules(setup.values),
            )  # fmt: skip
            self.stops.standing = saver.standing
            task.compiler.tell = lambda text: sinks.emit(Noted(text))
            emit = sinks.emit if setup.data is not None else _keep_answers(setup, sinks.emit)
            batches = Upload(samples, device) if uploads(setup) else samples
            emit = accounts(setup.world, emit)
            pulse = Pulse(stages, batches, emit, _slow_step(setup))
            watched = stack.enter_context(profiled(self.args, setup, task, pulse, saver, sinks.emit))
            self.args.profile = None  # once, whatever options change later
            trainer = Trainer(
                setup.directory.full_name, *watched[:2], pulse.emit, self.commands, watched[2],
                cadence(setup, self.args), time.monotonic, history_batch, sinks.attended, setup.position,
                Guard() if setup.values["collapse_guard"] else None, SavedModel(setup, task), room, changes.choose,
            )  # fmt: skip
            sinks.listen()
            code = _run(trainer, saver, sinks.emit, device, self.log)
            if code == EXIT_OK and (peak := usage(device)).peak is not None:
                sinks.emit(Noted(f"{peak.where}: at most {size(peak.peak)} were held by this process."))
            stages.begin("Saving and leaving", MODEL, shown=False)
            if not saver.close():
                sinks.emit(Failed(f"The last save did not reach the disk. {saver.standing()}"))
                code = EXIT_FAILED
            self.position = trainer.position
            return code

    def _start_plain(self, **settings: Any) -> AnyLoader:
        """Samples that are made in this process."""
        return start_loader(self.setup, 0, lambda text: self.sinks.emit(brief(text)), **settings)


def _slow_step(setup: Setup) -> str:
    """What may hold up an iteration."""
    if setup.values["compile"] != "off":
        return COMPILED
    return COMPILING if setup.device.key != "CPU" else BUSY


def _samples(
    setup: Setup, args: argparse.Namespace, sinks: Sinks, commands: Commands, emptied: set[Path]
) -> Samples:
    def warn(text: str) -> None:
        sinks.emit(brief(text))

    def start(size: int, position: int, lean: bool = False) -> AnyLoader:
        waits = functools.partial(stop_waits, commands)
        room = None
        if setup.values["augment_on"] == "device":
            room = device_budget(0 if lean else args.device_cache_mb, setup.device.torch_name)
        faces = size * setup.values["accumulate"]
        loader = start_loader(
            setup, args.workers, warn, stopping=waits, size=faces, position=position,
            cache_bytes=cache_budget(args.cache_mb) // setup.world.local, device_bytes=room,
            disk=face_cache(setup.directory.folder, setup.values, emptied), rows=setup.world.rows(faces),
        )  # fmt: skip
        sinks.emit(Noted(f"Faces kept in memory: {loader.kept}."))
        if loader.on_disk:
            sinks.emit(Noted(f"Faces kept on disk: {loader.on_disk}."))
        return loader

    return Samples(start, setup.values["batch_size"], setup.position)


def _keep_answers(setup: Setup, emit: Callable[[Event], None]) -> Callable[[Event], None]:
    """An `emit` that makes a new model's answers the defaults of the next one, once they are known to work."""
    kept = threading.Event()

    def hear(event: Event) -> None:
        emit(event)
        if isinstance(event, Stepped) and not kept.is_set():
            kept.set()
            try:
                setup.directory.write_default_options(setup.values.chosen)
            except OSError as error:
                emit(Warned(f"These answers could not be kept as defaults for the next model: {error}"))

    return hear


class SavedModel:
    """The rescue of a model that is no good any more: its own files, as last saved."""

    def __init__(self, setup: Setup, task: Task) -> None:
        self._setup, self._task = setup, task

    def reload(self) -> list[str]:
        notes = self._load()
        again(self._setup, self._task, softer=False)
        return notes

    def _load(self) -> list[str]:
        directory, task = self._setup.directory, self._task
        if not directory.data_path.exists():
            raise ModelError("Nothing was saved before, so there is nothing to go back to.")
        return task.load(directory.folder, directory.name)

    def roll_back(self) -> list[str]:
        task, notes = self._task, self._load()
        softer = task.soften()
        again(self._setup, task, softer=True)
        milder = f"with milder settings: {', '.join(softer)}" if softer else "with the same settings, none being milder"
        return [*notes, f"Back at the last good state, iteration {task.iteration}, {milder}."]

    def keep_suspect(self) -> str:
        directory = self._setup.directory
        beside = ModelDir(directory.path("facesmith_suspect"), directory.name, directory.class_name)
        beside.write(self._task.parts(), self._task.data, self._setup.values, describe(self._setup.device))
        return str(beside.folder)


def brief(text: str) -> Warned:
    """A warning of the sample generator: its first line is for the user, a traceback of a worker for the log."""
    line, _, trace = text.partition("\n")
    return Warned(line, trace)


def _sinks(
    setup: Setup, commands: Commands, args: argparse.Namespace, log: RunLog, stdin: TextIO, stdout: TextIO
) -> Sinks:
    directory = setup.directory
    return Sinks(
        directory.folder / directory.full_name,
        commands,
        stdin,
        stdout,
        window=not args.no_preview,
        stays=not args.exit_at_target,
        log=log_sink(log),
        memory=lambda: usage(setup.device.torch_name).held,
        plateau=args.plateau,
        events=args.events,
        loss_csv=args.loss_csv,
        tensorboard=args.tensorboard,
        web=web_of(args, setup),
    )


def backup_rules(values: Values) -> BackupRules:
    """How backups are called and how many stay."""
    bytes_kept = int(values["max_backups_gb"] * 1e9)
    return BackupRules(values["backup_naming"], values["max_backups"], bytes_kept, session=values["session_name"])


def cadence(setup: Setup, args: argparse.Namespace) -> Cadence:
    """When to save, back up and draw."""
    values = setup.values
    seconds, iterations = args.save_every
    return Cadence(
        target=values["target_iter"],
        exit_at_target=args.exit_at_target,
        save_seconds=seconds,
        save_iterations=iterations,
        preview_seconds=args.preview_every,
        backup_hours=values["autobackup_hour"],
        history_every=history_every(values),
        backup_iterations=values["snapshot_interval"],
    )


def stop_waits(commands: Commands) -> bool:
    """Whether somebody has asked to stop and the loop has not taken it yet."""
    with commands.mutex:
        return any(command.name == "stop" for command in commands.queue)


def show_samples(
    setup: Setup, args: argparse.Namespace, stages: Stages, log: RunLog, stdin: TextIO, stdout: TextIO
) -> int:
    """--debug: what the network would be fed, one page a side; `p` draws the next batch. Nothing is trained."""
    commands: Commands = queue.Queue()
    with contextlib.ExitStack() as stack:
        stops = stack.enter_context(Stops(commands, args.stop_within))
        sinks = stack.enter_context(_sinks(setup, commands, args, log, stdin, stdout))
        stops.let_go = sinks.let_go
        stack.enter_context(stages.tell_by(sinks.emit))
        room = device_budget(args.device_cache_mb, setup.device.torch_name)
        there = room if setup.values["augment_on"] == "device" else None
        loader = start_loader(setup, 0, lambda text: sinks.emit(brief(text)), device_bytes=there)
        stack.callback(loader.close)
        stages.say("Showing samples, training nothing: p draws the next ones, Enter ends.")
        sinks.listen()
        while True:
            stages.iterate("samples", FACES)
            batch = as_arrays(next(loader))
            stages.rest()
            pages = [(f"samples {side}", _sample_rows(arrays)) for side, arrays in batch.items()]
            names = {
                title: [[side.name_of(row)] for row in range(len(rows))]
                for (title, rows), (_, side) in zip(pages, batch.items(), strict=True)
            }
            sinks.emit(Previewed(0, pages, captions=names))
            command = next_command(commands, sinks.attended)
            if command is None or command.name == "stop":
                return EXIT_OK


def _sample_rows(side: Side) -> list[list[np.ndarray]]:
    """A row per sample: its arrays side by side, masks in grey."""
    columns = [np.moveaxis((array * 255 + 0.5).astype(np.uint8), 1, -1) for _, array in side.items()]
    columns = [np.repeat(array, 3, -1) if array.shape[-1] == 1 else array for array in columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _run(
    trainer: Trainer, saver: BackgroundSaver, emit: Callable[[Event], None], device: str, log: RunLog
) -> int | None:
    """The exit code; None where other options are to be made."""
    codes = {"collapse": EXIT_COLLAPSED, "memory": EXIT_FAILED, "options": None}
    try:
        return codes.get(trainer.run(), EXIT_OK)
    except KeyboardInterrupt:
        emit(Failed(f"Aborted by a second Ctrl-C. {saver.standing()}"))
        code = EXIT_LEFT
    except LoaderError as error:
        line, _, trace = str(error).partition("\n")
        emit(Failed(f"No more samples: {line.rstrip(':.')}.{_details(log)}", f"{trace}\n{traceback.format_exc()}"))
        trainer.leave("error")  # between two iterations the model is sound: what was learned is kept
        return EXIT_FAILED
    except Lost as error:
        emit(Failed(f"{error}\nTraining ends, as all processes are needed; what was learned is saved."))
        trainer.leave("error")  # who is gone is noticed before a weight changes
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001  # whatever it is, the saver and the workers are to be ended well
        show_traceback(error)
        short = out_of_memory(error)
        text = f"Out of memory. {figures(error, device)}" if short else message_of(error)
        emit(Failed(f"{text} The files of the last save are untouched.{_details(log)}", traceback.format_exc()))
        code = EXIT_FAILED
    emit(Stopped(trainer.iteration, "error"))
    return code


def _details(log: RunLog) -> str:
    """Where the traceback will be found."""
    path = log.flush()
    return f"\nDetails: {path}" if path is not None else ""
