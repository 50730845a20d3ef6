"""What `main.py bench samples` does, see there: a loader is made and drained, or a sample's time told by its parts."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.batch import Batch, SampleRequest
from core.mainmemory import MainMemory
from facelib.facetype import SHORT
from mainscripts.bench_stages import EVERY, ONCE, measure_stages
from samplelib import labelled
from samplelib.diskcache import DiskSettings
from samplelib.facecoding import Coding
from samplelib.faceset import FaceReadError, Faceset, FacesetError
from samplelib.loader import Loader, LoaderError, default_workers, usable_cores
from samplelib.synthetic_faceset import write_faceset
from samplelib.synthetic_person import identity

if TYPE_CHECKING:
    from mainscripts.samples import AnyLoader

MADE_UP_FACES, MADE_UP_SIZE = 48, 512


@dataclass(frozen=True)
class Result:
    """One measurement: samples per second of the median round, and seconds from construction to the first batch.
    pss_mb: what this process and the workers hold together, None where the system does not tell."""

    resolution: int
    ct_mode: str
    hsv_power: float
    workers: int
    cache_mb: int
    samples_per_s: float
    first_batch_s: float
    pss_mb: float | None
    augment_on: str = "cpu"

    def plain(self) -> dict[str, Any]:
        cores = max(1, min(self.workers, usable_cores()))
        return {
            "bench": "samples",
            "resolution": self.resolution,
            "ct_mode": self.ct_mode,
            "hsv_power": self.hsv_power,
            "augment_on": self.augment_on,
            "workers": self.workers,
            "cache": self.cache_mb,
            "samples_per_s": round(self.samples_per_s, 1),
            "samples_per_s_per_core": round(self.samples_per_s / cores, 1),
            "first_batch_s": round(self.first_batch_s, 3),
            "pss_mb": None if self.pss_mb is None else round(self.pss_mb),
        }


def run(args: argparse.Namespace) -> int:
    try:
        with contextlib.ExitStack() as stack:
            folders = {"src": args.src, "dst": args.dst}
            if None in folders.values():
                scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="facesmith-")))
                for number, (side, given) in enumerate(folders.items()):
                    folders[side] = given or _made_up(scratch / side, number, args.labelled)
            facesets = {side: Faceset.open(folder, _warn) for side, folder in folders.items()}
            if args.labelled:
                facesets = {"face": labelled.choose(list(facesets.values()), _warn)}
            for resolution, ct_mode in itertools.product(args.resolution, args.ct_mode):
                if args.stages:
                    lines = _stage_lines(facesets, resolution, ct_mode, args)
                else:
                    measured = (measure(facesets, resolution, ct_mode, where, args) for where in args.augment_on)
                    lines = (line for result in measured for line in _lines(result, args.json))
                for line in lines:
                    print(line, flush=True)
    except (FacesetError, FaceReadError, LoaderError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:  # colours that cannot be given
        print(error, file=sys.stderr)
        return 2
    return 0


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def _made_up(folder: Path, number: int, masks: bool) -> Path:
    folder.mkdir()
    write_faceset(folder, identity(number), MADE_UP_FACES, MADE_UP_SIZE, seed=number, masks=masks)
    return folder


def measure(
    facesets: Mapping[str, Faceset], resolution: int, ct_mode: str, where: str, args: argparse.Namespace
) -> Result:
    """Time a fresh loader at one resolution, with one colour transfer. where: `cpu` or `device`."""
    workers = default_workers() if args.workers is None else args.workers
    plain = SampleRequest(resolution, SHORT[args.face_type])
    requests = {"src": _request(resolution, ct_mode, args), "dst": plain}
    if args.labelled:
        requests = {"face": replace(plain, names=("image", "label"), flip=True, scale=0.05)}
    samples = args.batch_size * len(facesets)
    if where == "device":
        import mainscripts.samples  # noqa: F401  # PyTorch only where it is needed, and not in the time that is measured
    started = time.perf_counter()
    with _open(facesets, requests, workers, where, args) as loader:
        _wait_for(next(loader))
        first = time.perf_counter() - started
        # What was made ahead was not made in the time that is measured; and every face has been kept by then.
        kept = args.cache_mb or args.disk_cache or where == "device"
        epoch = -(-max(map(len, facesets.values())) // args.batch_size) if kept else 0
        for _ in range(loader.depth + epoch):
            batch = next(loader)
        _wait_for(batch)
        rates = []
        for _ in range(args.rounds):
            started, count = time.perf_counter(), 0
            while time.perf_counter() - started < args.seconds:
                batch = next(loader)
                count += samples
            _wait_for(batch)
            rates.append(count / (time.perf_counter() - started))
        held = MainMemory().held_by([os.getpid(), *loader.pids()])
    rate, megabytes = statistics.median(rates), None if held is None else held / 1e6
    return Result(resolution, ct_mode, args.hsv, workers, args.cache_mb, rate, first, megabytes, where)


def _open(
    facesets: Mapping[str, Faceset],
    requests: Mapping[str, SampleRequest],
    workers: int,
    where: str,
    args: argparse.Namespace,
) -> AnyLoader:
    disk = None if args.disk_cache is None else DiskSettings(args.disk_cache, Coding(args.image_type))
    options: dict[str, Any] = {
        "seed": 0, "workers": workers, "warn": _warn, "cache_bytes": args.cache_mb << 20, "disk": disk,
    }  # fmt: skip
    if where == "cpu":
        return Loader(facesets, requests, args.batch_size, **options)
    from core import device as devices  # PyTorch only where it is needed
    from mainscripts.samples import device_budget, open_on_device

    found = devices.gpus()
    names = [devices.CPU.torch_name, *(card.torch_name for card in found)]
    device = args.device or devices.best(found).torch_name
    if device not in names:
        raise ValueError(f"--device: got {device!r}, allowed is {' / '.join(names)}")
    budget = device_budget(args.device_cache_mb, device)
    loader = open_on_device(facesets, requests, args.batch_size, device=device, budget=budget, **options)
    _warn(f"{device}: faces kept: {loader.kept}")
    return loader


def _wait_for(batch: Batch) -> None:
    """A device may still be at work on a batch: one number of each array is read."""
    for side in batch:
        for _, array in batch[side].items():
            float(array[-1, -1, -1, -1])


def _request(resolution: int, ct_mode: str, args: argparse.Namespace) -> SampleRequest:
    """What is asked of src."""
    plain = SampleRequest(resolution, SHORT[args.face_type])
    return replace(plain, ct_mode=ct_mode, ct_from="dst", hsv_power=args.hsv)


def _stage_lines(
    facesets: Mapping[str, Faceset], resolution: int, ct_mode: str, args: argparse.Namespace
) -> Iterator[str]:
    stages = measure_stages(facesets["src"].samples, _request(resolution, ct_mode, args))
    once, every = stages.total(ONCE), stages.total(EVERY)
    if args.json:
        yield json.dumps({
            "bench": "samples_stages", "resolution": resolution, "ct_mode": ct_mode, "hsv_power": args.hsv,
            "ms": {name: round(ms, 4) for name, ms in stages.ms.items()}, "ms_cached": round(every, 4),
            "ms_uncached": round(once + every, 4), "floor_remap_ms": round(stages.remap_ms, 4),
            "floor_memory_ms": round(stages.memory_ms, 4), "memory_gb_per_s": round(stages.bandwidth, 1),
        })  # fmt: skip
        return
    yield f"{resolution:4d} px, colour transfer {ct_mode}, HSV {args.hsv:g}, one core, ms:"
    for names, total, what in ((EVERY, every, "every sample"), (ONCE, once, "once a face")):
        shares = ", ".join(f"{name} {stages.ms[name]:.3f} ({stages.ms[name] / total:.0%})" for name in names)
        yield f"    {what} {total:.3f}: {shares}"
    yield (
        f"    floor: remap alone {stages.remap_ms:.3f}, copying its bytes {stages.memory_ms:.3f} "
        f"({stages.bandwidth:.1f} GB/s)"
    )


def _lines(result: Result, as_json: bool) -> Iterator[str]:
    plain = result.plain()
    if as_json:
        yield json.dumps(plain)
    else:
        yield (
            f"{result.resolution:4d} px, colour transfer {result.ct_mode}, HSV {result.hsv_power:g}, "
            f"on {result.augment_on}, {result.workers} workers: {plain['samples_per_s']:8.1f} samples/s "
            f"({plain['samples_per_s_per_core']:.1f} per core), first batch after {result.first_batch_s:.2f} s"
            + ("" if result.pss_mb is None else f", {result.pss_mb:.0f} MB in all processes")
        )
