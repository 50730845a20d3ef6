"""Which sizes of a model fit into how much card memory, predicted:

    python main.py bench sizes --model SAEHDBW
    python main.py bench sizes --set mp_mode=bfloat --set checkpointing=y

For every size of card the largest resolution that is expected to train: what `models.memory` counts, a tenth more
for what libraries take and blocks too small to use, and 0.7 GB for driver, PyTorch and desktop. Nothing is measured and
no memory is taken; the start of a training says how much it really has. `bench memory` compares the count with what
trainings take.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from core.options import OptionError
from core.values import parse_sets
from mainscripts.verb import EXIT_OK, EXIT_USAGE, refuse

CARDS = (2, 4, 6, 8, 12, 16, 24)  # GB
WIDTHS = {"tiny": (64, 32, 32, 16), "small": (128, 48, 48, 16), "usual": (256, 64, 64, 22), "large": (384, 96, 96, 32)}
"""ae_dims, e_dims, d_dims and d_mask_dims."""
RESOLUTIONS = tuple(range(64, 641, 32))
COUNTED = (64, 128, 224, 256, 384, 640)
"""Memory goes with the square of the resolution, so those between are interpolated; 256 and more have another DSSIM."""
SPARE, FIXED = 1.1, 0.7e9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="SAEHD", metavar="CLASS", help="the kind of model (%(default)s)")
    parser.add_argument("--archi", default="df-ud", help="architecture, where the model has a choice (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="faces of each side (%(default)s)")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE", help="any other option")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(args: argparse.Namespace) -> int:
    from models import MODELS

    spec = MODELS.get(args.model)
    if spec is None or not spec.takes("resolution"):
        sized = [name for name, spec in MODELS.items() if spec.takes("resolution")]
        return refuse(f"--model: got {args.model!r}, allowed is {' / '.join(sized)}.", EXIT_USAGE)
    given = {"batch_size": args.batch_size, **({"archi": args.archi} if spec.takes("archi") else {})}
    try:
        extra = parse_sets(args.sets)
        _refuse_axes(extra)
        table = {name: _needs(args.model, {**given, **_dims(width), **extra}) for name, width in WIDTHS.items()}
    except (OptionError, ValueError) as error:
        return refuse(str(error), EXIT_USAGE)
    if not args.json:
        what = " ".join([args.model, *(str(given[key]) for key in ("archi",) if key in given)])
        options = ", ".join([f"batch {args.batch_size}", *args.sets])
        print(f"{what}, {options}: the largest resolution that should fit")
        print("card    " + "".join(f"{f'{name} {width[0]}/{width[1]}/{width[2]}/{width[3]}':>22}"
                                   for name, width in WIDTHS.items()))  # fmt: skip
    for card in CARDS:
        fitting = {name: _largest(needs, card * 1e9) for name, needs in table.items()}
        if args.json:
            row = {"bench": "sizes", "model": args.model, "archi": given.get("archi", ""), "batch": args.batch_size}
            print(json.dumps({**row, **extra, "card_gb": card, **fitting}), flush=True)
        else:
            print(f"{card:>3} GB  " + "".join(f"{size or '-':>22}" for size in fitting.values()), flush=True)
    return EXIT_OK


def _refuse_axes(extra: Mapping[str, str]) -> None:
    """Raises OptionError for what the table itself varies, or has a flag of its own."""
    own = {"resolution", "archi", "batch_size", *_dims((0, 0, 0, 0))} & set(extra)
    if own:
        raise OptionError(f"--set {min(own)}: the table lists sizes; --archi and --batch-size choose the others.")


def _dims(width: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip(("ae_dims", "e_dims", "d_dims", "d_mask_dims"), width, strict=True))


def _needs(model: str, given: dict[str, object]) -> dict[int, float]:
    """Resolution -> the bytes of a card that a training is expected to take."""
    import numpy as np

    from models import MODELS
    from models.memory import need

    spec = MODELS[model]
    counted = [need(spec, spec.resolve({**given, "resolution": size}), card=True).total for size in COUNTED]
    totals = np.interp(np.square(RESOLUTIONS), np.square(COUNTED), counted)
    return {size: float(total) * SPARE + FIXED for size, total in zip(RESOLUTIONS, totals, strict=True)}


def _largest(needs: dict[int, float], card: float) -> int:
    """The largest resolution that fits, 0 for none."""
    return max((resolution for resolution, bytes_ in needs.items() if bytes_ <= card), default=0)
