"""How long colour transfer takes, on one processor:

    python main.py bench color --size 128 256

For each mode of `core.imagelib.color_transfer` the median of calls on one face of a made-up person in the colours of
another's. What is drawn at random is drawn anew for every call and counted: that is what a sample worker does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

WARM_UP = 2
MIN_SIZE = 16  # of a made-up face


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, nargs="+", default=[128], metavar="N", help="pixels; several allowed")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="calls to take the median of (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(args: argparse.Namespace) -> int:
    from core.imagelib import color_transfer  # here, as all that reads pictures: --help is to answer at once

    if min(args.size) < MIN_SIZE:
        print(f"--size: got {min(args.size)}, allowed is {MIN_SIZE} and above.", file=sys.stderr)
        return 2
    with one_processor():
        for size in args.size:
            image, reference = _faces(size)
            for mode in color_transfer.MODES:
                times = measure(mode, image, reference, max(1, args.rounds))
                row = {"bench": "color", "mode": mode, "size": size, "ms": round(statistics.median(times), 3)}
                row |= {"ms_min": round(min(times), 3), "ms_max": round(max(times), 3)}
                plain = "{size:4d} px  {mode}  {ms:8.3f} ms  ({ms_min:.3f} to {ms_max:.3f})".format(**row)
                print(json.dumps(row) if args.json else plain, flush=True)
    return 0


def measure(
    mode: str,
    image: np.ndarray,
    reference: np.ndarray,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Milliseconds of each of `rounds` calls; the warm-up is not counted."""
    import numpy as np

    from core.imagelib import color_transfer

    rng, times = np.random.RandomState(0), []
    for _ in range(WARM_UP + rounds):
        started = clock()
        color_transfer.apply(mode, image, reference, color_transfer.draw(mode, rng))
        times.append((clock() - started) * 1e3)
    return times[WARM_UP:]


def _faces(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole faces of two made-up people in different scenes, (size, size, 3) float32 in [0, 1]."""
    import numpy as np

    from samplelib.synthetic import aligned, scenes
    from samplelib.synthetic_person import identity

    two = [aligned(identity(who), next(iter(scenes(who, 1))), size, "whole_face").image for who in range(2)]
    return two[0].astype(np.float32) / 255, two[1].astype(np.float32) / 255


@contextlib.contextmanager
def one_processor() -> Iterator[None]:
    """Keep OpenCV to one thread and, where the system offers that, the whole process to one processor."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    processors = os.sched_getaffinity(0) if sys.platform == "linux" else set()
    if processors:
        os.sched_setaffinity(0, {max(processors)})
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        if processors:
            os.sched_setaffinity(0, processors)
