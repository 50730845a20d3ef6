"""Whether a model learns as well in a faster precision: trains it as `bench swap` does, in each of several `mp_mode`s
from one seed, and in float32 from others too:

    python main.py bench precision --iterations 5000

A row for each training. `error` and `form` are those of `bench swap`, the mean over the second half of the marks, as
they go up and down; `apart`: how many percent the error is off that of float32 from the same seed. What other seeds of
float32 differ by is what chance alone does.
"""

from __future__ import annotations

import argparse
import sys

from core.options import OptionError
from mainscripts import bench_swap
from mainscripts.bench_common import Row, tell

SIZES = {"archi": "df-ud", "resolution": 64, "ae_dims": 64, "e_dims": 32, "d_dims": 32, "d_mask_dims": 16}
EXACT = "full"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    bench_swap.add_arguments(parser)
    parser.set_defaults(iterations=5000, sets=[])
    parser.add_argument(
        "--modes", nargs="+", default=[EXACT, "bfloat"], metavar="MODE", help="values of mp_mode (full bfloat)"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="trainings in full, from as many seeds (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    modes = [EXACT, *(mode for mode in args.modes if mode != EXACT)]
    runs = [(mode, args.seed) for mode in modes]
    runs += [(EXACT, args.seed + number) for number in range(1, args.seeds)]
    sizes = [f"{key}={value}" for key, value in SIZES.items()] if args.model == "SAEHD" else []
    exact = 0.0
    try:
        for mode, seed in runs:
            row = trained(args, [*sizes, *args.sets, f"mp_mode={mode}"], mode, seed)
            exact = exact or row["error"]
            tell({**row, "apart": round(100 * (row["error"] / exact - 1), 2)}, args.json)
    except OptionError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def trained(args: argparse.Namespace, sets: list[str], mode: str, seed: int) -> Row:
    """The row of one training. Raises OptionError."""
    given = argparse.Namespace(**{**vars(args), "sets": sets, "seed": seed})
    marks = [row for row in bench_swap.rows(given) if row["drawn"] == "swap"]
    last = marks[len(marks) // 2 :]
    measured = {key: round(sum(row[key] for row in last) / len(last), 3) for key in ("error", "form")}
    told = {key: marks[-1][key] for key in ("model", "archi", "resolution", "iteration")}
    return {"bench": "precision", **told, "precision": mode, "seed": seed, **measured}
