"""What `main.py bench samples` does, see there: a loader is made and drained, or a sample's time told by its parts."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core.batch import Batch, SampleRequest
from core.mainmemory import MainMemory
from facelib.facetype import SHORT
from mainscripts.bench_common import Column, Row, known_device, plain, ranged, report, spread
from mainscripts.bench_faces import made_up_faces, warn
from mainscripts.bench_stages import EVERY, ONCE, measure_stages
from samplelib import labelled
from samplelib.diskcache import DiskSettings
from samplelib.facecoding import Coding
from samplelib.faceset import FaceReadError, Faceset, FacesetError
from samplelib.loader import Loader, LoaderError, default_workers, usable_cores

if TYPE_CHECKING:
    from mainscripts.samples import AnyLoader

MADE_UP_FACES, MADE_UP_SIZE = 48, 512


COLUMNS: tuple[Column, ...] = (
    plain("px", "resolution"), plain("colour transfer", "ct_mode"), plain("HSV", "hsv_power"),
    plain("made on", "augment_on"), plain("workers", "workers"), plain("memory for faces", "cache", " MB"),
    ranged("samples/s", "samples_per_s"), plain("a core", "samples_per_s_per_core"),
    plain("first batch", "first_batch_s", " s"), plain("all processes", "pss_mb", " MB"),
)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    try:
        with contextlib.ExitStack() as stack:
            folders = {"src": args.src, "dst": args.dst}
            if None in folders.values():
                made_up = stack.enter_context(made_up_faces(MADE_UP_FACES, MADE_UP_SIZE, args.labelled))
                folders = {side: given or made_up[side] for side, given in folders.items()}
            facesets = {side: Faceset.open(folder, warn) for side, folder in folders.items()}
            if args.labelled:
                facesets = {"face": labelled.choose(list(facesets.values()), warn)}
            if args.stages:
                for resolution, ct_mode in itertools.product(args.resolution, args.ct_mode):
                    for line in _stage_lines(facesets, resolution, ct_mode, args):
                        print(line, flush=True)
            else:
                cases = itertools.product(args.resolution, args.ct_mode, args.augment_on)
                report((measure(facesets, *case, args) for case in cases), COLUMNS, args.json)
    except (FacesetError, FaceReadError, LoaderError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:  # colours that cannot be given
        print(error, file=sys.stderr)
        return 2
    return 0


def measure(
    facesets: Mapping[str, Faceset], resolution: int, ct_mode: str, where: str, args: argparse.Namespace
) -> Row:
    """Time a fresh loader at one resolution, with one colour transfer: samples per second of each round, and seconds
    from construction to the first batch. where: `cpu` or `device`. pss_mb: what this process and the workers hold
    together, None where the system does not tell."""
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
    return {
        "bench": "samples",
        "resolution": resolution,
        "ct_mode": ct_mode,
        "hsv_power": args.hsv,
        "augment_on": where,
        "workers": workers,
        "cache": args.cache_mb,
        **spread("samples_per_s", rates),
        "samples_per_s_per_core": round(statistics.median(rates) / max(1, min(workers, usable_cores())), 1),
        "first_batch_s": round(first, 3),
        "pss_mb": None if held is None else round(held / 1e6),
    }


def _open(
    facesets: Mapping[str, Faceset],
    requests: Mapping[str, SampleRequest],
    workers: int,
    where: str,
    args: argparse.Namespace,
) -> AnyLoader:
    disk = None if args.disk_cache is None else DiskSettings(args.disk_cache, Coding(args.image_type))
    options: dict[str, Any] = {
        "seed": 0, "workers": workers, "warn": warn, "cache_bytes": args.cache_mb << 20, "disk": disk,
    }  # fmt: skip
    if where == "cpu":
        return Loader(facesets, requests, args.batch_size, **options)
    from core import device as devices  # PyTorch only where it is needed
    from mainscripts.samples import device_budget, open_on_device

    device = known_device(args.device) if args.device else devices.best(devices.gpus()).torch_name
    budget = device_budget(args.device_cache_mb, device)
    loader = open_on_device(facesets, requests, args.batch_size, device=device, budget=budget, **options)
    warn(f"{device}: faces kept: {loader.kept}")
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
