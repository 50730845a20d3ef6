"""A process of a training that process 0 leads: it makes its rows of every batch, steps when it is told to, and neither
asks, shows nor writes anything."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from core.batch import Batch
from core.device import CPU, Device, gpus
from core.distributed import Group, Lost, World, outer_store
from core.modeldir import ModelDir, ModelError
from core.options import Values
from core.upload import Upload
from mainscripts.train_beat import Beat
from mainscripts.train_faces import choose_faces, face_cache, open_folders
from mainscripts.train_place import LEASH, Place
from mainscripts.train_run import cache_budget, start_loader, uploads
from mainscripts.train_setup import Setup, find_spec
from mainscripts.train_world import fit_threads, own, signature
from mainscripts.verb import EXIT_FAILED, EXIT_OK, message_of
from models import Task
from models.running import faces_per_iteration

COMES_S = 1800.0  # for process 0 to have looked at all faces
LINGERS_S = 60.0


def follow(args: argparse.Namespace, place: Place) -> int:
    """Follows process 0 until it ends the training; returns the exit code."""
    heed_signals(args.stop_within)
    started_here = LEASH in os.environ
    if started_here:
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    device = _device(args, place)
    fit_threads(device, place.local)
    store = outer_store()
    with contextlib.ExitStack() as stack:
        beat = None if started_here else stack.enter_context(Beat(store, place.rank, place.size))
        check = beat.check if beat is not None else lambda: ""
        try:
            world = Group(store, place.rank, place.size, place.local, device.torch_name, check, COMES_S)
            stack.callback(world.close)
            return _follow(args, world, device)
        except Lost as error:
            # Whoever was lost first is to be found out by process 0, which saves and then ends this one.
            print(f"Lost: {error}", flush=True)
            time.sleep(LINGERS_S)
            return EXIT_FAILED
        except Exception as error:
            if beat is not None:
                beat.failed(message_of(error))
            raise


def heed_signals(within: float) -> None:
    """Ctrl-C is for process 0. A polite kill of all of them gives it time to save and to end this one; of this one
    alone it means what it says, a little later."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave(number: int, frame: object) -> None:
        threading.Timer(within or 60.0, os._exit, (128 + number,)).start()

    signal.signal(signal.SIGTERM, leave)
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, leave)


def _end_with_parent() -> None:
    # os.read and not sys.stdin: a daemon thread inside a buffered reader upsets the interpreter's exit
    while os.read(0, 64):
        pass
    os._exit(EXIT_FAILED)


def _device(args: argparse.Namespace, place: Place) -> Device:
    """The one that process 0 has chosen, or the one of its own that torchrun's number says."""
    if args.cpu_only or os.environ.get("FACESMITH_DEVICE") == CPU.key:
        return CPU
    found = gpus()
    if key := os.environ.get("FACESMITH_DEVICE"):
        return {device.key: device for device in found}[key]
    return own(place, args, found)[0]


def _say(text: str) -> None:
    print(text, flush=True)


def _tick(done: int, total: int) -> None:
    pass


def _follow(args: argparse.Namespace, world: World, device: Device) -> int:
    told = world.hear()
    if told is None or told["word"] != "begin":  # process 0 has ended before it began
        return EXIT_OK
    folders = open_folders(args, _say, _tick)
    spec = find_spec(args.model)
    setup = Setup(
        spec, ModelDir(args.model_dir, "of process 0", spec.name), None, Values({}, {}), device, {}, {}, told["seed"],
        0, folders,
    )  # fmt: skip
    setup.world = world
    _agree(setup, told)
    task = spec.build(setup.values, device=device.torch_name, seed=setup.seed)
    task.join(world)
    while True:
        with contextlib.ExitStack() as stack:
            word = _steps(setup, task, _batches(args, setup, stack))
        if word["word"] == "end":
            return EXIT_OK
        _agree(setup, word)  # it begins anew, with other options
        task.rebuild(setup.values)
        task.join(world)


def _agree(setup: Setup, told: dict[str, Any]) -> None:
    """The options and faces of process 0. Raises ModelError where this process sees other faces."""
    values = Values(told["values"], told["chosen"], told["kept"])
    setup.values, setup.requests, setup.position = values, setup.spec.requests(values), told["position"]
    setup.facesets = choose_faces(setup.folders, values, setup.requests, _say, _tick)
    if (own_faces := signature(setup.facesets)) != told["faces"]:
        counts = ", ".join(f"{side} {count[0]} and {told['faces'][side][0]}" for side, count in own_faces.items())
        raise ModelError(f"This process sees other faces than process 0 ({counts}): all need the same folders.")


def _batches(args: argparse.Namespace, setup: Setup, stack: contextlib.ExitStack) -> Iterator[Batch]:
    from mainscripts.samples import device_budget

    device, local = setup.device.torch_name, setup.world.local
    room = device_budget(args.device_cache_mb, device) if setup.values["augment_on"] == "device" else None
    loader = start_loader(
        setup, args.workers, _say, rows=setup.world.rows(faces_per_iteration(setup.values)),
        cache_bytes=cache_budget(args.cache_mb) // local, device_bytes=room,
        disk=face_cache(setup.directory.folder, setup.values, set()),
    )  # fmt: skip
    stack.callback(loader.close)
    return iter(Upload(loader, device) if uploads(setup) else loader)


def _steps(setup: Setup, task: Task, batches: Iterator[Batch]) -> dict[str, Any]:
    """Steps until something else is said; that."""
    batch: Batch | None = None
    while True:
        told = setup.world.hear()
        if told is None:
            if batch is None or not task.repeats:  # as core.trainer has it
                batch = next(batches)
            task.step(batch)
        elif told["word"] == "reload":
            if told["softer"]:
                task.soften()
            task.join(setup.world)
        else:
            return told
