"""How long a training iteration takes, beside what its network's layers alone cost:

    python main.py bench step --archi df-ud liae-ud --resolution 64 128
    python main.py bench step --preset df-ud-128 liae-ud-128 df-ud-192 --precision full bfloat

The floor is every convolution and matrix product of the network by itself, forward and backward, in the same precision,
without activations, losses, metrics or optimizer (`bench_floor.py`). Step and floor are timed in turn, so that whatever
else the machine does falls on both; figures are medians over the rounds, with the least and the most.

`--data` trains on samples of made-up people too, as a training does, and tells which share of the time it waits for
them; `--updates` times the optimizer by itself, beside PyTorch's fused Adam. Memory is the most that iterations take at
a time, from the making of the model on, of what PyTorch's allocator handed out.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.options import OptionError
from core.values import parse_sets
from mainscripts.bench_common import Column, Row, answer, in_turn, json_flag, known_device, plain, ranged, ratio, spread
from mainscripts.bench_faces import warn
from mainscripts.flags import whole
from mainscripts.verb import EXIT_USAGE, refuse

if TYPE_CHECKING:
    from core.batch import Batch
    from models import ModelSpec, Task

SIZES = ("ae_dims", "e_dims", "d_dims", "d_mask_dims")
DIMS = dict(zip(SIZES, (128, 48, 48, 16), strict=True))
WIDE = dict(zip(SIZES, (256, 64, 64, 22), strict=True))
MODEL, ARCHI, RESOLUTION, BATCH = "SAEHD", "df-ud", 128, 4
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "df-ud-64": ("SAEHD", {"archi": "df-ud", "resolution": 64, "ae_dims": 64, "e_dims": 32, "d_dims": 32}),
    "df-ud-128": ("SAEHD", {"archi": "df-ud", "resolution": 128}),
    "liae-ud-128": ("SAEHD", {"archi": "liae-ud", "resolution": 128}),
    "df-ud-192": ("SAEHD", {"archi": "df-ud", "resolution": 192, **WIDE}),
    "df-ud-256": ("SAEHD", {"archi": "df-ud", "resolution": 256, **WIDE}),
    "SAEHDBW": ("SAEHDBW", {"archi": "df-ud", "resolution": 128}),
    "AMP": ("AMP", {"resolution": 128, "inter_dims": 256}),
    "Quick96": ("Quick96", {}),
    "Quick64": ("Quick64", {}),
    "XSeg": ("XSeg", {}),
}
"""Name -> model and options, besides DIMS; batches of BATCH faces a side."""
WARM_UP = 2  # rounds: allocators and kernel choices settle
FACES, CACHE = 24, 1 << 30  # of the made-up people, and bytes to keep them in
COLUMNS: tuple[Column, ...] = (
    plain("model", "model"), plain("archi", "archi"), plain("px", "resolution"), plain("batch", "batch"),
    plain("precision", "precision"), plain("options", "options"), plain("device", "device"),
    ranged("ms/iteration", "ms"),
    ranged("floor", "floor_ms"), plain("ratio", "ratio"), plain("share of the matrix rate", "matrix_share"),
    ranged("update", "update_ms"), ranged("fused Adam", "adam_ms"), plain("update's ratio", "update_ratio"),
    plain("processes", "processes"), ranged("ms together", "together_ms"), plain("waiting", "waiting_percent", " %"),
    plain("peak", "peak_mb", " MB"), plain("of", "peak_of"), plain("waits for samples", "data_wait_percent", " %"),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    several = "; several allowed"
    add("--preset", nargs="+", default=[], choices=(*PRESETS, "all"), metavar="NAME",
        help=f"well-known sizes: {', '.join(PRESETS)}; all. Instead of --model, --archi, --resolution")  # fmt: skip
    add("--model", nargs="+", metavar="CLASS", help=f"the kind of model ({MODEL}){several}")
    add("--archi", nargs="+", metavar="NAME", help=f"architecture, of models that have one ({ARCHI}){several}")
    add("--resolution", type=int, nargs="+", metavar="N", help=f"pixels ({RESOLUTION}){several}")
    add("--batch-size", type=int, nargs="+", metavar="N", help=f"faces of each side ({BATCH}){several}")
    for key, size in DIMS.items():
        add(f"--{key.replace('_', '-')}", type=int, metavar="N", help=f"{key} ({size})")
    add("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE", help="any other option")
    add("--device", default="cpu", help="PyTorch's name of the device (%(default)s)")
    add("--precision", nargs="+", default=["full"], metavar="MODE", help=f"mp_mode of step and floor (full){several}")
    add("--threads", type=whole(1, 4096), metavar="N", help="processor threads (PyTorch's choice)")
    add("--processes", type=whole(2, 64), metavar="N", help="also share each batch among N processes: on the CPU its "
        "cores, else a card each")  # fmt: skip
    add("--rounds", type=whole(1, 100_000), default=10, metavar="N", help="measurements to take the median of")
    add("--data", action="store_true", help="train on made-up people too, and tell how long it waits for samples")
    add("--updates", action="store_true", help="also time the optimizer's updates, beside PyTorch's fused Adam")
    add("--workers", type=whole(0, 64), metavar="N", help="with --data: sample processes (as a training has)")
    json_flag(parser)


def run(args: argparse.Namespace) -> int:
    # here and not above: --help answers at once
    import numpy  # noqa: F401  # before PyTorch, so that what is wrong with it is told as its own

    from models import MODELS

    unknown = [name for name in args.model or () if name not in MODELS]
    if unknown:
        return refuse(f"--model: got {unknown[0]!r}, allowed is {' / '.join(MODELS)}.", EXIT_USAGE)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    return answer(rows(args), COLUMNS, args.json)


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """A row for each size and precision. Raises OptionError and ValueError for options that cannot be."""
    from models import MODELS

    known_device(args.device)
    if mode := parse_sets(args.sets).get("mp_mode"):
        raise OptionError(f"--set mp_mode: say --precision {mode}, which counts for step and floor.")
    cases = list(choices(args))
    for precision, (name, given) in itertools.product(args.precision, cases):
        yield measure(MODELS[name], given, precision, args)


def choices(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Model and options of each case. Flags that a model does not have are left out where others of the call have
    them; raises OptionError where none has."""
    from models import MODELS

    sized = {key: getattr(args, key) for key in SIZES if getattr(args, key) is not None}
    extra = parse_sets(args.sets)
    if args.preset:
        for flag in ("model", "archi", "resolution"):
            if getattr(args, flag):
                raise OptionError(f"--{flag}: --preset has its own. Give one of them.")
        for name in PRESETS if "all" in args.preset else args.preset:
            model, own = PRESETS[name]
            for batch in args.batch_size or [BATCH]:
                yield model, complete(MODELS[model], {**own, **sized, "batch_size": batch}) | extra
        return
    names = args.model or [MODEL]
    specs = [MODELS[name] for name in names]
    for key in ("archi", "resolution"):
        if getattr(args, key) and not any(spec.takes(key) for spec in specs):
            raise OptionError(f"--{key}: {key!r} is not an option of this model ({', '.join(names)}).")
    for spec in specs:
        archis = (args.archi or [ARCHI]) if spec.takes("archi") else [""]
        sides = (args.resolution or [RESOLUTION]) if spec.takes("resolution") else [0]
        for archi, side, batch in itertools.product(archis, sides, args.batch_size or [BATCH]):
            wanted = {"archi": archi, "resolution": side, "batch_size": batch, **sized}
            yield spec.name, complete(spec, wanted) | extra


def complete(spec: ModelSpec, given: dict[str, Any]) -> dict[str, Any]:
    """What of `given` the model takes, with the usual sizes where none is given."""
    return {key: value for key, value in {**DIMS, "face_type": "wf", **given}.items() if spec.takes(key)}


def measure(spec: ModelSpec, given: dict[str, Any], precision: str, args: argparse.Namespace) -> Row:
    """One model with its options on the device. Raises OptionError, ValueError."""
    from mainscripts.bench_floor import Floor, random_batch, step
    from models.running import faces_per_iteration

    values = spec.resolve({**given, "mp_mode": precision})
    made: list[tuple[Task, Batch]] = []

    def begin() -> None:
        task = spec.build(values, device=args.device)
        made.append((task, random_batch(task, faces_per_iteration(values))))
        for _ in range(WARM_UP):
            step(*made[0])

    peak = _peak(begin, args.device)
    task, batch = made.pop()
    for note in task.precision.notes:
        warn(note)
    floor = Floor(task, batch)
    times = in_turn({"step": partial(step, task, batch), "floor": floor}, args.rounds, WARM_UP)
    row = {
        "bench": "step",
        "model": spec.name,
        "archi": values.get("archi", ""),
        "resolution": values["resolution"],
        "batch": values["batch_size"],
        "precision": task.precision.mode,
        "device": args.device,
        "rounds": args.rounds,
        **({"options": " ".join(args.sets)} if args.sets else {}),
        **spread("ms", times["step"]),
        **spread("floor_ms", times["floor"]),
        "ratio": ratio(times["step"], times["floor"]),
        **peak,
    }
    if args.device != "cpu":
        row["matrix_share"] = round(matrix_share(task, floor, row["ms"], args.device), 3)
    del floor
    if args.updates:
        from mainscripts.bench_update import updates

        step(task, batch)
        row |= updates(task, args.rounds)
    del batch
    return row | (data_wait(task, args) if args.data else {}) | shared(spec, {**given, "mp_mode": precision}, args)


def matrix_share(task: Task, floor: Callable[[], object], ms: float, device: str) -> float:
    """How much of what the device reaches in plain matrix products of the same precision the step uses, [0, 1]."""
    from mainscripts.bench_rate import matrix_rate, operations, share

    with task.precision.step():  # switches TF32
        return share(operations(floor), ms, matrix_rate(device, task.precision.dtype))


def shared(spec: ModelSpec, options: dict[str, Any], args: argparse.Namespace) -> Row:
    """The same batch with several processes; nothing where that is not asked. Raises OptionError for what they cannot
    share, ValueError with what failed."""
    if args.processes is None:
        return {}
    from core.device import CPU
    from mainscripts.bench_world import together
    from mainscripts.train_world import check_split

    check_split([CPU] * args.processes, spec.resolve(options), debug=False)
    try:
        told = together(spec.name, options, args.processes, args.rounds, args.device.partition(":")[0])
    except RuntimeError as error:
        raise ValueError(f"--processes {args.processes}: {error}") from error
    times = {f"together_{key}": told[key] for key in ("ms", "ms_min", "ms_max")}
    return {"processes": args.processes, **times, "waiting_percent": round(100 * told["waiting"], 1)}


def _peak(work: Callable[[], None], device: str) -> Row:
    """Does the work, and says what it held at most."""
    from mainscripts.bench_memory import most_held

    most = most_held(work, device)
    if most is None:
        return {"peak_mb": None, "peak_of": None}
    return {"peak_mb": round(most / 1e6, 1), "peak_of": "tensors" if device.startswith("cpu") else "allocator"}


def data_wait(task: Task, args: argparse.Namespace) -> Row:
    """Which share of the time training waits for samples of made-up people, made as in a training: median
    milliseconds of waiting and of all, over the rounds; the first batches are not counted."""
    from core.upload import Upload, alongside
    from mainscripts.bench_faces import made_up_faces
    from models.running import faces_per_iteration
    from samplelib import labelled
    from samplelib.faceset import Faceset
    from samplelib.loader import Loader, default_workers

    requests = task.spec.requests(task.values)
    learns_masks = any(request.labelled for request in requests.values())
    workers = default_workers() if args.workers is None else args.workers
    size = max(64, min(512, 2 * task.values["resolution"]))
    with made_up_faces(FACES, size, learns_masks) as folders:
        facesets = {side: Faceset.open(Path(folder), warn) for side, folder in folders.items()}
        if "face" in requests:
            facesets["face"] = labelled.choose([facesets["src"], facesets["dst"]], warn)
        wanted = {side: facesets[side] for side in requests}
        with Loader(
            wanted, requests, faces_per_iteration(task.values), seed=0, workers=workers, warn=warn, cache_bytes=CACHE
        ) as loader:
            batches: Iterator[Batch] = Upload(loader, args.device) if alongside(args.device) else loader
            waits, wholes = [], []
            for number in range(WARM_UP + args.rounds):
                started = time.perf_counter()
                batch = next(batches)
                got = time.perf_counter()
                float(task.step(batch)[task.loss_names[0]])
                if number >= WARM_UP:
                    waits.append((got - started) * 1e3)
                    wholes.append((time.perf_counter() - started) * 1e3)
    return {
        "workers": workers,
        "data_ms": round(statistics.median(waits), 2),
        "fed_ms": round(statistics.median(wholes), 1),
        "data_wait_percent": round(100 * sum(waits) / sum(wholes), 2),
    }
