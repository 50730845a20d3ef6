"""How long a training takes to start, from the command line to the end of the first iteration, and what goes into it:

    python main.py bench start --resolution 128

Real processes on made-up faces (`--faces` a side, so many that the folders get an index of ours). `new` is a new model
in a new folder, with no index yet; `again` is the same model opened once more, with the index written and the weights
to be read. What the system itself keeps of files in memory is left alone: disks are as quick as after a first look.
Times are taken when a line of the start arrives, so the parts add up to the whole. `--help` is timed too.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from core.child import ROOT, environment
from mainscripts.bench_common import Column, Row, in_turn, json_flag, plain, ranged, report, spread
from mainscripts.bench_faces import made_up_faces
from mainscripts.flags import whole
from mainscripts.verb import EXIT_FAILED, EXIT_OK, refuse

ENDS = {
    "python_s": r"Running trainer",
    "torch_s": r"Loading samples\.\.\.",
    "faces_s": r"Loading \S+ model\.\.\.",
    "options_s": r"Initializing models\.\.\.",
    "build_s": r"Loading weights\.\.\.|Starting sample workers\.\.\.",
    "load_s": r"Starting sample workers\.\.\.",
    "first_batch_s": r"First preview\.\.\.",
    "preview_s": r"First iteration\.\.\.",
    "first_step_s": r"\[\d\d:\d\d:\d\d\]\[#",
}
"""Part of the start, in order -> what is printed when the next one begins. A new model has no weights to load."""
HELPS = {"--help": [], "train --help": ["train"], "bench step --help": ["bench", "step"]}
DRAWN, SIZE = 24, 256  # faces that are drawn, for the others copies
COLUMNS: tuple[Column, ...] = (
    plain("what", "what"), plain("faces a side", "faces"), ranged("all, s", "s"),
    *(plain(title, key) for title, key in (
        ("Python", "python_s"), ("PyTorch", "torch_s"), ("faces", "faces_s"), ("options", "options_s"),
        ("build", "build_s"), ("load", "load_s"), ("first batch", "first_batch_s"),
        ("preview", "preview_s"), ("first iteration", "first_step_s"),
    )),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--resolution", type=whole(64, 640), default=128, metavar="N", help="of a df-ud (%(default)s)")
    add("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE", help="any other option")
    add("--faces", type=whole(1, 100_000), default=1200, metavar="N", help="faces a side (%(default)s)")
    add("--workers", type=whole(0, 64), metavar="N", help="sample processes (as a training has)")
    add("--gpu", action="store_true", help="train on the best graphics card (default: on the processor)")
    add("--rounds", type=whole(1, 1000), default=3, metavar="N", help="starts to take the median of (%(default)s)")
    json_flag(parser)


def run(args: argparse.Namespace) -> int:
    try:
        report(rows(args), COLUMNS, args.json)
    except StartError as error:
        return refuse(str(error), EXIT_FAILED)
    return EXIT_OK


class StartError(Exception):
    """A training did not start. Says what it printed."""


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """Starts of a new model, of the same model again, then --help of some verbs. Raises StartError."""
    drawn = min(DRAWN, args.faces)
    times: dict[str, list[dict[str, float]]] = {"new": [], "again": []}
    with made_up_faces(drawn, SIZE, copies=-(-args.faces // drawn)) as folders:
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory(prefix="facesmith-start-") as model:
                for taken in times.values():
                    taken.append(start(command(folders, Path(model), args)))
            for folder in folders.values():
                (folder / ".facesmith_index").unlink(missing_ok=True)
        count = len(list(folders["src"].glob("*.jpg")))
    for what, starts in times.items():
        yield {"bench": "start", "what": what, "resolution": args.resolution, "faces": count, **parts(starts)}
    helps = in_turn({name: lambda words=words: helped(words) for name, words in HELPS.items()}, args.rounds)  # type: ignore[misc]
    for name, taken_ms in helps.items():
        yield {"bench": "start", "what": name, **spread("s", [ms / 1e3 for ms in taken_ms], 3)}


def parts(starts: list[dict[str, float]]) -> Row:
    """Median, least and most of the whole; medians of its parts."""
    wholes = [sum(one.values()) for one in starts]
    middle = {key: round(statistics.median(one[key] for one in starts), 3) for key in ENDS}
    return {**spread("s", wholes, 3), **middle}


def command(folders: Mapping[str, Path], model: Path, args: argparse.Namespace) -> list[str]:
    """A training of one iteration more."""
    target = 2 if any(model.glob("*_data.dat")) else 1
    sizes = {"resolution": args.resolution, "archi": "df-ud", "face_type": "wf", "batch_size": 4, "ae_dims": 128,
             "e_dims": 48, "d_dims": 48, "d_mask_dims": 16}  # fmt: skip
    sets = [word for key, value in sizes.items() for word in ("--set", f"{key}={value}")] if target == 1 else []
    return [
        sys.executable, str(ROOT / "main.py"), "train", "--model", "SAEHD", "--force-model-name", "bench",
        "--training-data-src-dir", str(folders["src"]), "--training-data-dst-dir", str(folders["dst"]),
        "--model-dir", str(model), "--no-preview", "--no-override", "--target-iter", str(target), "--exit-at-target",
        *([] if args.gpu else ["--cpu-only"]), *([] if args.workers is None else ["--workers", str(args.workers)]),
        *sets, *(word for pair in args.sets for word in ("--set", pair)),
    ]  # fmt: skip


def start(words: list[str]) -> dict[str, float]:
    """Seconds of each part of one start. Raises StartError where it fails."""
    last = time.perf_counter()
    found: dict[str, float] = {}
    said, waiting = "", list(ENDS)
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=environment(PYTHONUNBUFFERED="1"),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while some := os.read(process.stdout.fileno(), 1 << 16):  # not by lines: a stage begins in the midst of one
            now = time.perf_counter()
            said += some.decode("utf-8", "replace")
            while waiting and re.search(ENDS[waiting[0]], said):
                found[waiting.pop(0)], last = now - last, now
        code = process.wait()
    if code or waiting:
        raise StartError(f"A training did not start (exit code {code}). It ended with:\n{said[-1000:]}")
    return found


def helped(words: list[str]) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *words, "--help"], cwd=ROOT, stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip
