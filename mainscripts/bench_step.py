"""How long a training iteration takes, beside what its network alone costs:

    python main.py bench step --archi df-ud --resolution 128 --ae-dims 128 --e-dims 48 --d-dims 48 --d-mask-dims 16

The floor is the same network, forward and backward, in PyTorch's own operations (channels_last, both sides in one
batch through shared parts), with no loss, no metrics and no optimizer. Step and floor are timed in turn, so that
whatever else the machine does falls on both; figures are medians over the rounds. A ratio below 1 is possible: the
product's network is leaner than the plain one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from functools import partial

from core.options import OptionError
from mainscripts.verb import EXIT_USAGE, refuse

SIZES = ("ae_dims", "e_dims", "d_dims", "d_mask_dims")
ARCHI = "df-ud"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="SAEHD", metavar="CLASS", help="the kind of model (%(default)s)")
    parser.add_argument("--archi", help=f"architecture, of models that have several ({ARCHI})")
    parser.add_argument("--resolution", type=int, default=128, metavar="N", help="pixels (%(default)s)")
    for key, size in zip(SIZES, (128, 48, 48, 16), strict=True):
        flag = f"--{key.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=size, metavar="N", help=f"{key} (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="faces of each side (%(default)s)")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE", help="any other option")
    parser.add_argument("--device", default="cpu", help="PyTorch's name of the device (%(default)s)")
    parser.add_argument("--precision", default="full", help="mp_mode (%(default)s); the floor computes in it too")
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads (PyTorch's choice)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="measurements to take the median of")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(args: argparse.Namespace) -> int:
    # here and not above: --help answers at once
    from mainscripts.bench_floor import Floor, measure, random_batch, step
    from models import MODELS
    from models.swap import SwapTask

    if args.model not in MODELS:
        return refuse(f"--model: got {args.model!r}, allowed is {' / '.join(MODELS)}.", EXIT_USAGE)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    spec = MODELS[args.model]
    sizes = {key: getattr(args, key) for key in (*SIZES, "resolution", "batch_size")}
    given = {key: value for key, value in {**sizes, "face_type": "wf", "archi": ARCHI}.items() if spec.takes(key)}
    given |= {"archi": args.archi} if args.archi else {}
    try:
        given |= dict(_split(text) for text in args.sets)
        values = spec.resolve(given)
        task = spec.build(values, device=args.device, precision=args.precision)
    except (OptionError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    if not isinstance(task, SwapTask):
        return refuse(f"--model: {spec.name} draws no faces. For XSeg there is bench xseg.", EXIT_USAGE)
    batch = random_batch(values["resolution"], values["batch_size"], task.net.channels)
    steps, floors = measure(partial(step, task, batch), Floor(task, batch), args.rounds)
    result = {
        "bench": "step",
        "model": spec.name,
        "archi": values.get("archi", ""),
        "resolution": values["resolution"],
        "batch": values["batch_size"],
        "precision": args.precision,
        "device": args.device,
        "ms": round(statistics.median(steps), 1),
        "ms_min": round(min(steps), 1),
        "ms_max": round(max(steps), 1),
        "floor_ms": round(statistics.median(floors), 1),
        "ratio": round(statistics.median(steps) / statistics.median(floors), 3),
    }
    if args.json:
        print(json.dumps(result), flush=True)
    else:
        print(
            "{model}{kind} {resolution} px, batch {batch}, {precision}, {device}: {ms} ms an iteration "
            "({ms_min} to {ms_max}), floor {floor_ms} ms, ratio {ratio}".format(
                kind=f" {result['archi']}" if result["archi"] else "", **result
            ),
            flush=True,
        )
    return 0


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise OptionError(f"--set: got {text!r}, allowed is KEY=VALUE.")
    return key, value
