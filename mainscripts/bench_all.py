"""Runs the benchmarks of a training one after the other, with sizes that take less than ten minutes on two cores:

    python main.py bench all
    python main.py bench all --json > figures.jsonl

Each runs as a process of its own (`bench step`, `samples`, `save`, `start`), so that none leaves memory or threads to
the next. The tables begin with the machine, without which figures are worth nothing. Close what else uses the
processor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence

from core.child import ROOT
from mainscripts import bench_save, bench_start, bench_step
from mainscripts.bench_common import Column, Row, json_flag, machine, machine_words, table
from mainscripts.verb import EXIT_FAILED, EXIT_OK

PLAN: dict[str, list[str]] = {
    "step": ["--preset", "df-ud-64", "df-ud-128", "liae-ud-128", "df-ud-192", "SAEHDBW", "AMP", "Quick96", "XSeg",
             "--rounds", "5", "--data"],
    "samples": ["--resolution", "64", "128", "256", "--ct-mode", "none", "rct", "--cache-mb", "500", "--rounds", "3",
                "--seconds", "1.5"],
    "save": ["--preset", "df-ud-64", "df-ud-192", "--rounds", "3"],
    "start": ["--rounds", "2"],
}  # fmt: skip
QUICK: dict[str, list[str]] = {
    "step": ["--resolution", "64", "--ae-dims", "32", "--e-dims", "16", "--d-dims", "16", "--d-mask-dims", "16",
             "--batch-size", "1", "--rounds", "1"],
    "samples": ["--resolution", "64", "--workers", "1", "--rounds", "1", "--seconds", "0.1", "--batch-size", "2"],
    "save": ["--preset", "df-ud-64", "--rounds", "1"],
    "start": ["--resolution", "64", "--faces", "4", "--rounds", "1", "--workers", "1"],
}  # fmt: skip
TITLES = {
    "step": "An iteration, and the floor below it", "samples": "Samples", "save": "Saves",
    "start": "From the command to the first iteration, seconds",
}  # fmt: skip
Start = Callable[[Sequence[str]], tuple[int, list[Row]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--only", nargs="+", choices=tuple(PLAN), default=list(PLAN), metavar="BENCH", help=f"of {', '.join(PLAN)}")
    add("--precision", nargs="+", metavar="MODE", help="of the iterations (full); several allowed")
    add("--device", metavar="NAME", help="PyTorch's name of the device for the iterations (cpu)")
    add("--quick", action="store_true", help="tiny sizes, one round: whether all of it works")
    json_flag(parser)


def run(args: argparse.Namespace) -> int:
    return run_by(args, child)


def run_by(args: argparse.Namespace, start: Start) -> int:
    """start: runs a benchmark by its words."""
    about = machine()
    print(json.dumps(about) if args.json else machine_words(about), flush=True)
    failed = []
    for bench in args.only:
        words = [bench, *(QUICK if args.quick else PLAN)[bench]]
        if bench == "step":
            words += ["--precision", *args.precision] if args.precision else []
            words += ["--device", args.device] if args.device else []
        code, rows = start(words)
        failed += [bench] if code else []
        if args.json:
            print("\n".join(map(json.dumps, rows)), flush=True)
        else:
            title = f"{TITLES[bench]} (bench {' '.join(words)})"
            print("\n".join(["", title, *table(rows, columns(bench))]), flush=True)
    if failed:
        print(f"Error: failed: {', '.join(failed)}", file=sys.stderr)
    return EXIT_FAILED if failed else EXIT_OK


def columns(bench: str) -> tuple[Column, ...]:
    if bench == "samples":
        from mainscripts import bench_feed  # reads pictures: --help is to answer at once

        return bench_feed.COLUMNS
    return {"step": bench_step, "save": bench_save, "start": bench_start}[bench].COLUMNS


def child(words: Sequence[str]) -> tuple[int, list[Row]]:
    """A benchmark in a process of its own: its exit code and its rows. What it says of errors passes through."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "bench", *words, "--json"], cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]
