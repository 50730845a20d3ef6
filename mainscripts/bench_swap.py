"""How well a model learns to swap, measured against the true swap, which only made-up people have:

    python main.py bench swap --iterations 1000 --set archi=df-ud --set resolution=64

Trains on the demo pair and draws, at regular marks, held-out scenes of dst with src's face. Two figures, inside the
face, in percent of full scale: `error`, the mean absolute difference to the same scene rendered with src, and `form`,
the same after the drawn face got the true one's mean and spread of colour (Reinhard's transfer, as at merging): what
is left when light and skin tone, which a model trained without colour transfer takes from dst, do not count. The first
row leaves dst's face as it is: what a swap must beat.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.batch import Batch
from core.options import OptionError
from core.values import parse_sets
from mainscripts.bench_common import Row, json_flag, tell

HELD_OUT_SEED = 1_000_003


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="SAEHD", metavar="CLASS", help="the kind of model (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets", help="a model option")
    parser.add_argument("--iterations", type=int, default=1000, metavar="N", help="iterations to train (%(default)s)")
    parser.add_argument("--marks", type=int, default=10, metavar="N", help="how often to measure (%(default)s)")
    parser.add_argument("--faces", type=int, default=200, metavar="N", help="training faces a side (%(default)s)")
    parser.add_argument("--held-out", type=int, default=32, metavar="N", help="scenes to measure on (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="start weights and samples (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="sample processes (%(default)s)")
    json_flag(parser)


def swap_errors(drawn: np.ndarray, truth: np.ndarray, face: np.ndarray) -> dict[str, float]:
    """`error` and `form` (see above) of (N, C, H, W) pictures in [0, 1], where `face` (N, 1, H, W) is set."""
    weight = np.broadcast_to(face, drawn.shape)
    area = np.maximum(weight.sum((2, 3), keepdims=True), 1e-6)

    def moments(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = (pictures * weight).sum((2, 3), keepdims=True) / area
        return mean, np.sqrt(((pictures - mean) ** 2 * weight).sum((2, 3), keepdims=True) / area + 1e-8)

    (mean, spread), (true_mean, true_spread) = moments(drawn), moments(truth)
    coloured = (drawn - mean) / spread * true_spread + true_mean
    return {
        name: round(float((np.abs(picture - truth) * weight).sum() / weight.sum() * 100), 3)
        for name, picture in (("error", drawn), ("form", coloured))
    }


def run(args: argparse.Namespace) -> int:
    try:
        for row in rows(args):
            tell(row, args.json)
    except OptionError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """A row for dst's own face and one for each mark; it trains as they are asked for. Raises OptionError."""
    import torch

    from core.torchcolor import in_channels
    from facelib.facetype import SHORT
    from models import MODELS
    from models.running import faces_per_iteration
    from models.swap import SwapTask
    from samplelib.faceset import Faceset
    from samplelib.loader import Loader
    from samplelib.synthetic import truth
    from samplelib.synthetic_faceset import write_demo_workspace
    from samplelib.synthetic_person import identity

    if args.model not in MODELS:
        raise OptionError(f"--model: got {args.model!r}, allowed is {' / '.join(MODELS)}.")
    spec = MODELS[args.model]
    values = spec.resolve({**({"face_type": "wf"} if spec.takes("face_type") else {}), **parse_sets(args.sets)})
    resolution, face_type = values["resolution"], SHORT[values["face_type"]]
    exact = truth(identity(0), identity(1), HELD_OUT_SEED, args.held_out, resolution, face_type)
    face = exact.dst_mask * exact.swap_mask
    task = spec.build(values, seed=args.seed)
    if not isinstance(task, SwapTask):
        raise OptionError(f"--model: {spec.name} swaps no faces. For XSeg there is bench xseg.")
    dst, swap = (
        in_channels(torch.from_numpy(pictures), task.net.channels).numpy() for pictures in (exact.dst, exact.swap)
    )
    base = {"bench": "swap", "model": spec.name, "archi": values.get("archi", ""), "resolution": resolution}
    yield {**base, "iteration": 0, "drawn": "unswapped", **swap_errors(dst, swap, face)}
    with tempfile.TemporaryDirectory() as folder:
        write_demo_workspace(Path(folder), args.faces, max(128, resolution), face_type=face_type)
        facesets = {side: Faceset.open(Path(folder, f"data_{side}", "aligned"), print) for side in ("src", "dst")}
        with Loader(
            facesets, spec.requests(values), faces_per_iteration(values), seed=args.seed, workers=args.workers,
            warn=print,
        ) as batches:  # fmt: skip
            batch: Batch | None = None
            for mark in range(1, args.marks + 1):
                while task.iteration < args.iterations * mark // args.marks:
                    batch = batch if batch is not None and task.repeats else next(batches)
                    task.step(batch)
                drawn = task.swap(dst).face.numpy(force=True)
                recent = task.data.loss_history.array()[-100:].mean(0)
                losses = dict(zip(task.loss_names, np.round(recent, 4).tolist(), strict=True))
                measured = swap_errors(drawn, swap, face)
                yield {**base, "iteration": task.iteration, "drawn": "swap", **measured, **losses}
