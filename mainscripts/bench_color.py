"""How long colour transfer takes, on one processor:

    python main.py bench color --size 128 256

For each mode of `core.imagelib.color_transfer` the median of calls on one face of a made-up person in the colours of
another's. What is drawn at random is drawn anew for every call and counted: that is what a sample worker does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mainscripts.bench_common import Column, Row, json_flag, plain, ranged, report, spread

if TYPE_CHECKING:
    import numpy as np

WARM_UP = 2
MIN_SIZE = 16  # of a made-up face
COLUMNS: tuple[Column, ...] = (plain("px", "size"), plain("mode", "mode"), ranged("ms", "ms"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, nargs="+", default=[128], metavar="N", help="pixels; several allowed")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="calls to take the median of (%(default)s)")
    json_flag(parser)


def run(args: argparse.Namespace) -> int:
    if min(args.size) < MIN_SIZE:
        print(f"--size: got {min(args.size)}, allowed is {MIN_SIZE} and above.", file=sys.stderr)
        return 2
    report(rows(args), COLUMNS, args.json)
    return 0


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """A row for each size and transfer."""
    from core.imagelib import color_transfer  # here, as all that reads pictures: --help is to answer at once

    with one_processor():
        for size in args.size:
            image, reference = _faces(size)
            for mode in color_transfer.MODES:
                times = measure(mode, image, reference, max(1, args.rounds))
                yield {"bench": "color", "mode": mode, "size": size, **spread("ms", times, 3)}


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
