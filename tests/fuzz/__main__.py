"""Fuzzes the readers of files from strangers, for as long as you like:

    python -m tests.fuzz                             all readers, a minute each
    python -m tests.fuzz pickle jpg --minutes 30     some, longer
    python -m tests.fuzz pickle --seed 7 --only 1234 one input again, with its traceback
    python -m tests.fuzz pack --engine atheris       led by coverage (pip install atheris; Linux)

Inputs are numbered: a seed and a number always give the same bytes, so a fault is told as two numbers. Each reader runs
in a process of its own that may grow by 200 MB and work 20 seconds on an input. Exit code 1 where anything was found;
the inputs that did it are kept in a folder that is named.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("pickle", "jpg", "pack", "meta", "options", "model", "part", "weights", "journal", "state", "index")
PATIENCE = 20.0
PREFIX = "facesmith-fuzz-scratch-"


def scratch_root() -> str | None:
    """Where scratch files cost no disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzzes the readers of files.")
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"which: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other inputs")
    parser.add_argument("--only", type=int, metavar="N", help="input N of one reader, in this process")
    parser.add_argument("--engine", choices=("own", "atheris"), default="own")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is in /dev/shm is deleted then too
    names = args.readers or list(NAMES)
    if unknown := set(names) - set(NAMES):
        parser.error(f"{', '.join(sorted(unknown))}: no such reader; there are {', '.join(NAMES)}")
    if args.only is not None or args.engine == "atheris":
        if len(names) != 1:
            parser.error("name one reader")
        return (
            _led(names[0], args.minutes, args.seed) if args.only is None else _again(names[0], args.seed, args.only)
        )
    kept = Path(tempfile.gettempdir(), f"facesmith-fuzz-{secrets.token_hex(4)}")  # made when there is something to keep
    return int(sum(fuzz(name, args.seed, args.minutes * 60, kept) for name in names) > 0)


def fuzz(name: str, seed: int, seconds: float, kept: Path) -> int:
    """Runs a reader for so long and prints what was found; returns the number of faults."""
    end, first = time.monotonic() + seconds, 0
    tried = taken = 0
    grown, slowest = 0, [0.0, 0]
    faults: dict[int, str] = {}
    while (left := end - time.monotonic()) > 0:
        lines, stuck = _child(name, seed, first, left)
        for line in lines:
            if "fault" in line:
                faults[line["fault"]] = line["what"]
            else:
                tried, taken, grown = tried + line["tried"], taken + line["taken"], max(grown, line["grown"])
                slowest = max(slowest, line["slowest"])
        if stuck is None:
            break
        number, why = stuck
        faults[number] = why
        tried, first = tried + number - first + 1, number + 1
    print(
        f"{name:8} {tried:>9,} inputs, {taken:>8,} taken, {len(faults)} faults, slowest {slowest[0]:.2f} s "
        f"(number {slowest[1]}), grew by {grown / 2**20:.0f} MB", flush=True,
    )  # fmt: skip
    for number, what in faults.items():
        kept.mkdir(mode=0o700, exist_ok=True)
        path = kept / f"{name}-{seed}-{number}.bin"
        path.write_bytes(_input(name, seed, number))
        print(f"  {path}: {what}", flush=True)
    return len(faults)


def _child(name: str, seed: int, first: int, seconds: float) -> tuple[list[dict], tuple[int, str] | None]:
    """What one process printed, and, where it ended before its time or was held up, by which input and how."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=scratch_root()) as folder:
        board, output = Path(folder, "board"), Path(folder, "output")
        board.write_bytes(first.to_bytes(8, "little"))
        command = [sys.executable, "-m", "tests.fuzz.child", name, str(seed), str(first), str(seconds), folder]
        with output.open("wb") as out:
            process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=subprocess.DEVNULL)
            why = _watched(process, board)
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        if process.returncode == 0:
            return lines, None
        return lines, (
            int.from_bytes(board.read_bytes(), "little"),
            why or f"the process ended with {process.returncode}",
        )


def _watched(process: subprocess.Popen, board: Path) -> str:
    """Waits for the end of a child; returns why it was killed, empty if it was not."""
    first = last = board.read_bytes()
    since = time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(0.2)
            if (now := board.read_bytes()) != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE + (40 if last == first else 0):
                return f"no end within {PATIENCE:g} s"
    finally:
        process.kill()
        process.wait()
    return ""


def _input(name: str, seed: int, number: int) -> bytes:
    readers = importlib.import_module("tests.fuzz.readers")
    data: bytes = readers.input_number(name, seed, number)
    return data


def _again(name: str, seed: int, number: int) -> int:
    readers = importlib.import_module("tests.fuzz.readers")
    with tempfile.TemporaryDirectory() as scratch:
        taken = readers.check(readers.TARGETS[name], _input(name, seed, number), Path(scratch))
    print("taken" if taken else "refused")
    return 0


def _led(name: str, minutes: float, seed: int) -> int:
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: pip install atheris, or leave --engine out.", file=sys.stderr)
        return 2
    kept = Path(tempfile.mkdtemp(prefix="facesmith-fuzz-"))
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=scratch_root()) as folder:
        command = [sys.executable, "-m", "tests.fuzz.led", name, str(minutes), str(seed), folder, f"{kept}/{name}-"]
        code = subprocess.call(command, cwd=ROOT)
    if not any(kept.iterdir()):
        kept.rmdir()
    return int(code != 0)


if __name__ == "__main__":
    sys.exit(main())
