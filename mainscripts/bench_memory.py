"""What trainings hold at most, beside what is predicted for them:

    python main.py bench memory

Each configuration of a list is predicted (`models.memory`) and then trained for two iterations on noise. Measured are
the bytes that PyTorch's allocator has handed out at a time, from the making of the model on: on a graphics card as it
counts them itself, on the processor by PyTorch's profiler, which hears of every block. `--set`, repeatable, goes over
every configuration.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from core.memory import size
from core.values import parse_sets
from mainscripts.bench_common import known_device
from mainscripts.verb import EXIT_OK, EXIT_USAGE, refuse

SMALL = {"ae_dims": 128, "e_dims": 48, "d_dims": 48, "d_mask_dims": 16, "face_type": "wf"}
CONFIGURATIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SAEHD", {"archi": "df-ud", "resolution": 128, "batch_size": 4, **SMALL}),
    ("SAEHD", {"archi": "df-ud", "resolution": 128, "batch_size": 4, "keep_graph": False, **SMALL}),
    ("SAEHD", {"archi": "df-ud", "resolution": 128, "batch_size": 4, "checkpointing": True, **SMALL}),
    ("SAEHD", {"archi": "df-ud", "resolution": 128, "batch_size": 4, "checkpointing": True, "keep_graph": False,
               **SMALL}),
    ("SAEHD", {"archi": "df-ud", "resolution": 128, "batch_size": 2, "accumulate": 2, **SMALL}),
    ("SAEHD", {"archi": "df-udt", "resolution": 96, "batch_size": 8, "lr_dropout": "y", "clipgrad": True, **SMALL}),
    ("SAEHD", {"archi": "liae-ud", "resolution": 128, "batch_size": 4, "eyes_mouth_prio": True, **SMALL}),
    ("SAEHD", {"archi": "liae", "resolution": 192, "batch_size": 1, "adabelief": False, **SMALL}),
    ("SAEHD", {"archi": "df-ud", "resolution": 128, "batch_size": 4, "gan_power": 0.1, "gan_dims": 16,
               "gan_patch_size": 16, "true_face_power": 0.01, **SMALL}),
    ("SAEHD", {"archi": "df-ud", "resolution": 128, "batch_size": 4, "face_style_power": 1.0, "bg_style_power": 1.0,
               "blur_out_mask": True, **SMALL}),
    ("SAEHD", {"archi": "df-ud", "resolution": 128, "batch_size": 4, "gan_power": 0.1, "gan_dims": 16,
               "gan_patch_size": 16, "keep_graph": False, "accumulate": 2, "checkpointing": True, **SMALL}),
    ("SAEHDBW", {"archi": "liae-ud", "resolution": 128, "batch_size": 4, **SMALL}),
    ("AMP", {"resolution": 96, "batch_size": 4, "inter_dims": 256, "gan_power": 0.1, **SMALL}),
    ("Quick96", {"batch_size": 4}),
    ("XSeg", {"batch_size": 2}),
    ("XSeg", {"batch_size": 2, "accumulate": 2, "checkpointing": True}),
)  # fmt: skip
STEPS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="CLASS", help="only configurations of this kind of model")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE", help="any option")
    parser.add_argument("--device", default="cpu", help="PyTorch's name of the device (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(args: argparse.Namespace) -> int:
    from models import MODELS
    from models.memory import need

    if args.model is not None and args.model not in MODELS:
        return refuse(f"--model: got {args.model!r}, allowed is {' / '.join(MODELS)}.", EXIT_USAGE)
    try:
        device = known_device(args.device)
        extra = parse_sets(args.sets)
        chosen = [(name, {**given, **extra}) for name, given in CONFIGURATIONS if args.model in (None, name)]
        resolved = [(name, given, MODELS[name].resolve(given)) for name, given in chosen]
    except ValueError as error:  # an OptionError is one
        return refuse(str(error), EXIT_USAGE)
    if not device.startswith(("cpu", "cuda", "xpu")):
        return refuse(f"--device: got {device!r}, which does not tell; cpu, cuda and xpu do.", EXIT_USAGE)
    if not args.json:
        print("predicted   measured    error  configuration")
    for name, given, values in resolved:
        predicted = need(MODELS[name], values, card=device != "cpu").total
        measured = most_held(partial(train, name, values, device), device)
        assert measured is not None, device
        error_percent = round(100 * (predicted / measured - 1), 1)
        shown = {key: values[key] for key in given}
        told = {key: value for key, value in shown.items() if SMALL.get(key) != value}
        if args.json:
            row = {"bench": "memory", "model": name, **shown, "device": device, "predicted": predicted}
            print(json.dumps({**row, "measured": measured, "error_percent": error_percent}), flush=True)
        else:
            words = " ".join(f"{key}={value}" for key, value in told.items())
            print(f"{size(predicted):>9}  {size(measured):>9}  {error_percent:>+6.1f}%  {name} {words}", flush=True)
    return EXIT_OK


def train(name: str, values: Any, device: str) -> None:
    """Some iterations on noise, from the making of the model on."""
    import numpy as np

    from core.batch import Batch, Side
    from models import MODELS
    from models.running import faces_per_iteration

    task = MODELS[name].build(values, device=device)
    rng, count, sides = np.random.default_rng(0), faces_per_iteration(values), {}
    for side, request in task.spec.requests(values).items():
        arrays = {array: rng.random((count, *request.shape(array)), np.float32) for array in request.names}
        sides[side] = Side(**arrays)  # numpy's memory, as that of a training is the sample workers'
    batch = Batch(**sides)
    for _ in range(STEPS):
        task.step(batch)


def most_held(work: Callable[[], object], device: str) -> int | None:
    """The most bytes of tensors at a time that were made on the device during the work; None where it does not tell."""
    from core import memory

    if device.startswith("cpu"):
        return of_main_memory(work)
    memory.give_back(device)
    memory.forget_peak(device)
    before = memory.usage(device).held
    work()
    most = memory.usage(device).peak
    return None if most is None or before is None else max(0, most - before)


def of_main_memory(work: Callable[[], object]) -> int:
    """The same of the processor, by its blocks that came and went."""
    from torch.profiler import ProfilerActivity, profile

    from core.profiling import hush

    hush()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        work()
    profiler = told.profiler
    assert profiler is not None and profiler.kineto_results is not None
    blocks = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for block in sorted(blocks, key=lambda event: event.start_ns()):
        held += block.nbytes()
        most = max(most, held)
    return most
