"""A training in everybody's hands: real processes, a real terminal, a real window, random commands, kills.

    python -m tests.soak                            30 minutes
    python -m tests.soak --minutes 5 --seed 3       another course of events
    python -m tests.soak --json report.json         figures for programs

Draws the synthetic pair, makes a small model and trains it again and again with other options. In between somebody
saves, backs up, turns pages, kills workers, the window and the trainer itself, closes the terminal. More than half of
the time goes to two long runs, whose memory must stay flat: one as it is, one with a network that hardly computes, for
many iterations (tests/soak/thinned.py). Exit code 1 where anything was found. Needs Linux, Xvfb, xdotool and pexpect.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.screen import virtual_screen
from tests.soak.gauge import MARK
from tests.soak.run import ROOT, Plan, Report, Soak

TINY = (
    "resolution=64", "face_type=f", "archi=df", "ae_dims=32", "e_dims=16", "d_dims=16", "d_mask_dims=16",
    "batch_size=1", "autobackup_hour=0",
)  # fmt: skip
FLAT = 40.0
"""MB in an hour that a long run may grow, besides its losses."""
LOSSES = 130
"""Bytes that the losses of an iteration take for good: in the record, its snapshot, graph and preview files."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Trains under random commands.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0, help="another seed, other commands")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work there, and leave model and log")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so through what tidies up
    mark = secrets.token_hex(8)
    with _folder(args.keep) as folder, contextmanager(virtual_screen)() as screen:
        environ = {
            **screen.environ, MARK: mark, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "TERM": "xterm",
            "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp"),
        }  # fmt: skip
        (folder / "tmp").mkdir(parents=True)
        train = _prepare(folder, environ)
        end = time.monotonic() + args.minutes * 60
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            soak = Soak(folder, train, environ, screen, log, random.Random(args.seed), mark)
            try:
                for plan in plans(random.Random(args.seed + 1), args.minutes * 60):
                    if (left := end - time.monotonic()) < 20:
                        break
                    print(soak.run(plan.shortened(left - 5)), flush=True)
            finally:
                soak.end()
            soak.check_leftovers()
        if args.json:
            args.json.write_text(json.dumps(soak.report.to_json(), indent=1) + "\n")
        return _tell(soak.report, folder if args.keep else None)


def plans(rng: random.Random, seconds: float) -> Iterator[Plan]:
    """Runs for so long and more: two long ones first."""
    yield Plan(seconds * 0.25, {}, "enter")
    yield Plan(seconds * 0.35, {}, "kill", thinned=True)
    ends = ["kill", "enter", "kill at start", "window", "ctrl-c", "hang up", "terminate", "kill"]
    while True:
        for end in rng.sample(ends, len(ends)):
            yield Plan(
                rng.uniform(20, max(25, seconds * 0.06)), _options(rng), end, thinned=rng.random() < 0.25,
                asked=rng.random() < 0.3,
            )  # fmt: skip


def _options(rng: random.Random) -> dict[str, str]:
    choices = {
        "batch_size": "12", "uniform_yaw": "yn", "random_warp": "yn", "lr_dropout": ["y", "n", "cpu"],
        "ct_mode": ["none", "rct", "lct", "mkl", "idt", "sot"], "clipgrad": "yn", "random_hsv_power": ["0", "0.05"],
        "gan_power": ["0", "0", "0.1"], "true_face_power": ["0", "0", "0.01"], "face_style_power": ["0", "0", "1"],
        "blur_out_mask": "yn", "eyes_mouth_prio": "yn", "random_src_flip": "yn", "write_preview_history": "nny",
        "backup_naming": ["time", "numbers"],
    }  # fmt: skip
    return {key: rng.choice(choices[key]) for key in rng.sample(sorted(choices), 3)}


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="facesmith-soak-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(folder: Path, environ: dict[str, str]) -> list[str]:
    """The pair, and a model of a few iterations; returns the command line that goes on with it."""
    main_py = [sys.executable, str(ROOT / "main.py")]
    faces, model = folder / "faces", folder / "model"
    draw = ["demo-faces", "--workspace", "--output-dir", str(faces), "--count", "60", "--size", "128"]
    words = ["train", "--model", "SAEHD", "--cpu-only", "--workers", "2", "--model-dir", str(model)]
    for side in ("src", "dst"):
        words += [f"--training-data-{side}-dir", str(faces / f"data_{side}" / "aligned")]
    words += ["--force-model-name", "soak"]
    sets = [word for pair in TINY for word in ("--set", pair)]
    first = [*words, "--no-preview", "--target-iter", "3", "--exit-at-target", "--seed", "1", *sets]
    for each in (draw, first):
        subprocess.run(
            [*main_py, *each], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environ, cwd=ROOT, check=True
        )
    return words


def _tell(report: Report, kept: Path | None) -> int:
    for run in report.runs:
        if run["first"] and run["seconds"] >= 60:
            for what in ("files", "threads"):
                if run["last"][what] > run["first"][what] + 8:
                    report.faults.append(f"{what} from {run['first'][what]} to {run['last'][what]}: {run['plan']}")
    for run in report.runs:
        kind = "thinned" if run["plan"]["thinned"] else "as it is"
        losses = run["iterations"] / run["seconds"] * 3600 * LOSSES / 2**20
        for role, slope in run["slopes"].items():
            extra = f", of which {losses:.1f} for the losses" if role == "trainer" else ""
            print(f"{run['seconds']:.0f} s {kind}: {role} {slope:+.1f} MB in an hour{extra}")
            if run["seconds"] >= 240 and slope > FLAT + losses * (role == "trainer"):
                report.faults.append(f"the {role} grew by {slope:.0f} MB in an hour")
    print(report.totals())
    for fault in report.faults:
        print(f"FAULT {fault}")
    if kept:
        print(f"Log and model: {kept}")
    return int(bool(report.faults))


if __name__ == "__main__":
    os.environ.pop(MARK, None)
    sys.exit(main())
