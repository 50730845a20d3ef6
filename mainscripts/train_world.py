"""Several processes that train one model: which there are, how they are started, and what process 0 tells the others.

    python main.py train ... --force-gpu-idxs 0,1          this process starts the other
    python main.py train ... --cpu-only --processes 4
    torchrun --nproc-per-node 2 main.py train ...          started from outside, on any number of machines

A process that this one has started ends with it, however that ends: its standard input then does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from core.child import ROOT, detached, ending
from core.device import CPU, Device
from core.distributed import Group, World, open_store, outer_store
from core.events import Event, Noted, Stepped
from core.options import OptionError, Values
from core.stages import BUSY
from mainscripts.train_place import LEASH, Place, environment
from models.running import faces_per_iteration
from samplelib.loader import usable_cores

if TYPE_CHECKING:
    import torch.distributed as dist

    from core.stages import Stages
    from mainscripts.train_setup import Setup
    from models import Task
    from samplelib.faceset import Faceset

COMES_S = 600.0  # for a process to load PyTorch, also on a machine that is busy
LEAVES_S = 10.0
TOLD_AFTER = 50  # iterations


def chosen(keys: str, table: Mapping[str, Device], processes: int, flag: str) -> list[Device]:
    """The devices of a list such as `0,1`, each for a process of its own; the CPU may have several. Raises
    OptionError."""
    names = [key.strip().upper() for key in keys.split(",")]
    if unknown := [name for name in names if name not in table]:
        raise OptionError(f"{flag}: got {unknown[0]!r}, allowed is one of {', '.join(table)}, or several of the cards.")
    if len(set(names)) < len(names) or (len(names) > 1 and CPU.key in names):
        raise OptionError(f"{flag}: got {keys!r}; several are different cards. --processes N shares the CPU.")
    devices = [table[name] for name in names]
    return shared(devices, processes)


def shared(devices: list[Device], processes: int) -> list[Device]:
    """The CPU for so many processes. Raises OptionError where it is not the CPU."""
    if processes == 1:
        return devices
    if devices != [CPU]:
        raise OptionError(f"--processes: got {processes}; only the CPU is shared. Cards: --force-gpu-idxs 0,1.")
    return [CPU] * processes


def own(place: Place, args: argparse.Namespace, found: list[Device]) -> list[Device]:
    """The device of this process where torchrun has started it, as often as there are processes. Raises OptionError
    where a machine has fewer cards than processes."""
    if args.force_gpu_idxs is not None:
        found = chosen(args.force_gpu_idxs, {device.key: device for device in found}, 1, "--force-gpu-idxs")
    if args.cpu_only or not found:
        return [CPU] * place.size
    if place.local_rank >= len(found):
        raise OptionError(
            f"This machine has {len(found)} cards for {place.local} processes: torchrun --nproc-per-node {len(found)}, "
            "or --cpu-only."
        )
    return [found[place.local_rank]] * place.size


def check_split(devices: list[Device], values: Values, debug: bool) -> None:
    """Raises OptionError for what several processes cannot do."""
    if len(devices) < 2:
        return
    if debug:
        raise OptionError("--debug shows the samples of one process: choose one device.")
    if values.get("mp_mode") == "float16":
        raise OptionError(
            "mp_mode: float16 scales its loss by what one process sees, so it is for one device. With several choose "
            "bfloat, full or full_t."
        )
    if values["batch_size"] < len(devices):
        raise OptionError(
            f"batch_size: got {values['batch_size']} for {len(devices)} processes, which need a face each. "
            f"Give --set batch_size={len(devices)} or more, or choose fewer devices."
        )


def signature(facesets: Mapping[str, Faceset]) -> dict[str, list[int]]:
    """Number and checksum of the names of each side's faces: another process must have the same."""
    return {
        side: [len(faces), zlib.crc32("\n".join(sample.filename for sample in faces.samples).encode())]
        for side, faces in facesets.items()
    }


def begin(setup: Setup, task: Task) -> None:
    """The others, at the beginning of a run and after a change of options: faces, options, weights. Raises Lost."""
    if setup.world.size > 1:
        setup.world.say(terms(setup))
        task.join(setup.world)


def again(setup: Setup, task: Task, softer: bool) -> None:
    """The others, after the weights have become others than a moment ago. Raises Lost."""
    if setup.world.size > 1 and not setup.world.broken:
        setup.world.say({"word": "reload", "softer": softer})
        task.join(setup.world)


def terms(setup: Setup) -> dict[str, Any]:
    """What the others must know of a run that begins."""
    values = setup.values
    # What is emptied once at a start, process 0 has emptied.
    effective = {**values, "force_recache": False} if "force_recache" in values else dict(values)
    return {
        "word": "begin", "values": effective, "chosen": values.chosen, "kept": values.kept,
        "seed": setup.seed, "position": setup.position, "faces": signature(setup.facesets),
    }  # fmt: skip


@contextlib.contextmanager
def joined(setup: Setup, args: argparse.Namespace, stages: Stages) -> Iterator[None]:
    """The other processes of a training, from here on until they have ended; `setup.world` is all of them. Raises
    core.distributed.Lost where one does not come."""
    if len(setup.devices) < 2:
        yield
        return

    with contextlib.ExitStack() as stack:
        count = len(setup.devices)
        with stages.stage(f"Starting {count} processes", BUSY):
            place = Place.of(os.environ)
            if place is None:
                crew = stack.enter_context(Crew(setup, args))
                store: dist.Store = crew.store
                check, local = crew.check, count
            else:
                from mainscripts.train_beat import Beat

                store = outer_store()
                beat = stack.enter_context(Beat(store, 0, count))
                check, local = beat.check, place.local
            fit_threads(setup.device, local)
            world = Group(store, 0, count, local, setup.device.torch_name, check, COMES_S)
            setup.world = world
            stack.callback(world.close)
        shares = [len(range_of(world, rank, faces_per_iteration(setup.values))) for rank in range(count)]
        stages.say(f"{count} processes train together, with {' + '.join(map(str, shares))} faces of each batch.")
        yield


def range_of(world: World, rank: int, batch_size: int) -> range:
    """The rows of another process."""
    other = World()
    other.rank, other.size = rank, world.size
    return other.rows(batch_size)


def fit_threads(device: Device, local: int) -> None:
    """Processes that compute on one CPU share its cores."""
    import torch

    if device.key == CPU.key and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, usable_cores() // local))


class Crew:
    """The processes that this one starts on this machine, one for each further device. Their output goes to a log each
    beside the model, which stays where they have said anything."""

    def __init__(self, setup: Setup, args: argparse.Namespace) -> None:
        self._setup = setup
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[tuple[Path, IO[bytes]]] = []
        self.store = open_store()
        count = len(setup.devices)
        for rank in range(1, count):
            path = setup.directory.path(f"facesmith_process{rank}_log.txt")
            self._logs.append((path, path.open("wb")))
            self._processes.append(self._start(rank, count, setup.devices[rank], args, self._logs[-1][1]))

    def _start(
        self, rank: int, count: int, device: Device, args: argparse.Namespace, log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        threads = device.key == CPU.key and "OMP_NUM_THREADS" not in os.environ
        env = {
            **os.environ, **environment(rank, count, self.store.port, usable_cores() if threads else 0),
            LEASH: str(os.getpid()), "FACESMITH_DEVICE": device.key, "PYTHONUNBUFFERED": "1",
            "FACESMITH_TRACEBACK": "1",
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), "train", *args.words],  # here, as its paths may be relative
            stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=env, **detached(),
        )  # fmt: skip

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        end = time.monotonic() + (0.0 if self._setup.world.broken else LEAVES_S)
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        for (path, file), process in zip(self._logs, self._processes, strict=True):
            file.close()
            if process.returncode == 0:
                path.unlink(missing_ok=True)

    def check(self) -> str:
        """Which process has ended, and its last words."""
        for rank, process in enumerate(self._processes, 1):
            if (code := process.poll()) is not None:
                path = self._logs[rank - 1][0]
                said = _error_in(path)
                return f"Process {rank} (pid {process.pid}) has ended ({ending(code)}). {said}Its log: {path}"
        return ""


def _error_in(log: Path) -> str:
    """The error that a process has told last; empty where it has not."""
    said = log.read_bytes()[-8000:].decode(errors="replace").splitlines()
    errors = [line for line in said if line.startswith("Error: ")]
    return f"{errors[-1]} " if errors else ""


def accounts(world: World, emit: Callable[[Event], object]) -> Callable[[Event], None]:
    """An `emit` that also tells, after some iterations, what the work together costs."""
    seen = 0

    def hear(event: Event) -> None:
        nonlocal seen
        emit(event)
        if isinstance(event, Stepped):
            seen += 1
            if seen == TOLD_AFTER and (line := world.account()):
                emit(Noted(line))

    return hear
