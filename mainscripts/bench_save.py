"""How long a save keeps a training waiting, and how long it takes in all:

    python main.py bench save --preset df-ud-64 df-ud-192 --dir workspace/model

A save copies the model between two iterations (`blocks`), then a thread writes it while training goes on; `written` is
from the call to the last byte on the disk, with checksums, journal and renaming. The floor is what must be done at
least: the same arrays written by `numpy.save`, a file for each of the model's, until the disk has them (fsync), into
files that are new; `bytes` is the same without numpy's heads. All are measured in turn, with the optimizer's moments
and without them (weights alone), in the folder given by --dir: another disk gives other figures.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mainscripts.bench_common import Column, Row, answer, disk_of, json_flag, plain, ranged, ratio, spread
from mainscripts.bench_step import PRESETS, SIZES, choices
from mainscripts.flags import whole
from mainscripts.verb import EXIT_USAGE, refuse

COLUMNS: tuple[Column, ...] = (
    plain("model", "model"), plain("archi", "archi"), plain("px", "resolution"), plain("optimizer", "optimizer"),
    plain("MB", "mb"), ranged("blocks, ms", "blocks_ms"), ranged("written, ms", "ms"),
    ranged("floor, ms", "floor_ms"), ranged("bytes, ms", "bytes_ms"), plain("ratio", "ratio"), plain("disk", "disk"),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--preset", nargs="+", default=["df-ud-64", "df-ud-128", "df-ud-192"], choices=tuple(PRESETS), metavar="NAME",
        help=f"sizes: {', '.join(PRESETS)} (df-ud-64 df-ud-128 df-ud-192)")  # fmt: skip
    add("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE", help="any other option")
    add("--dir", type=Path, metavar="DIR", help="write there, into a folder that is deleted again (the system's "
        "temporary folder)")  # fmt: skip
    add("--rounds", type=whole(1, 1000), default=5, metavar="N", help="saves to take the median of (%(default)s)")
    json_flag(parser)


def run(args: argparse.Namespace) -> int:
    if args.dir is not None and not args.dir.is_dir():
        return refuse(f"--dir: got {args.dir}, allowed is a folder that is there.", EXIT_USAGE)
    return answer(rows(args), COLUMNS, args.json)


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """Two rows for each size: with the optimizer and without. Raises OptionError, OSError."""
    from models import MODELS

    unasked = dict.fromkeys((*SIZES, "model", "archi", "resolution", "batch_size"))
    for name in args.preset:
        asked = argparse.Namespace(**unasked, preset=[name], sets=args.sets)
        ((model, given),) = choices(asked)
        task = MODELS[model].build(MODELS[model].resolve(given))
        task.data.iter = 1  # at iteration 0 every program takes a model for a new one
        for optimizer in (True, False):
            yield measure(task if optimizer else _Weights(task), optimizer, args)


class _Weights:
    """A task whose files are those of its network alone."""

    def __init__(self, task: Any) -> None:
        self._task, self.data, self.spec, self.values = task, task.data, task.spec, task.values

    def parts(self, copy: Callable[[Any], Any]) -> dict[str, Any]:
        parts = self._task.parts(copy)
        return {stem: part for stem, part in parts.items() if stem in self._task.network_parts}


def measure(task: Any, optimizer: bool, args: argparse.Namespace) -> Row:
    """Saves of one model. Raises OSError where the disk refuses one."""
    from core.modeldir import ModelDir
    from core.nn import to_dfl
    from core.saver import BackgroundSaver

    with tempfile.TemporaryDirectory(prefix="facesmith-save-", dir=args.dir) as root:
        folder, plain_files = Path(root, "model"), Path(root, "plain")
        directory = ModelDir(folder, "bench", task.spec.name)
        arrays = task.parts(to_dfl)
        events: list[Any] = []
        saver = BackgroundSaver(task, directory, task.values, "CPU", events.append, time.monotonic, 0)
        blocks, written, times = [], [], {"floor": [], "bytes": []}  # type: ignore[var-annotated]
        for number in range(args.rounds + 1):  # the first makes files, all others replace them
            started = time.perf_counter()
            saver.save(None, 0)
            blocked = time.perf_counter()
            saver.wait()
            done = time.perf_counter()
            if saver.failed():
                raise OSError(f"{folder}: {events[-1]}")
            for name, taken in times.items():
                spent = _plainly(WRITERS[name], arrays, plain_files)
                if number:
                    taken.append(spent)
            if number:
                blocks.append((blocked - started) * 1e3)
                written.append((done - started) * 1e3)
        saver.close()
        size = sum(path.stat().st_size for path in directory.files())
    return {
        "bench": "save",
        "model": task.spec.name,
        "archi": task.values.get("archi", ""),
        "resolution": task.values["resolution"],
        "optimizer": optimizer,
        "mb": round(size / 1e6, 1),
        "rounds": args.rounds,
        **spread("blocks_ms", blocks, 2),
        **spread("ms", written),
        **spread("floor_ms", times["floor"]),
        **spread("bytes_ms", times["bytes"]),
        "ratio": ratio(written, times["floor"]),
        "disk": disk_of(args.dir or Path(tempfile.gettempdir())),
    }


def _plainly(write: Callable[[Any, Mapping[str, Any]], None], parts: Mapping[str, Any], folder: Path) -> float:
    """Milliseconds of writing every part into a file of its own, until the disk has it."""
    folder.mkdir(exist_ok=True)
    started = time.perf_counter()
    for stem, part in parts.items():
        with (folder / f"{stem}.part").open("wb") as file:
            write(file, part)
            file.flush()
            os.fsync(file.fileno())
    spent = (time.perf_counter() - started) * 1e3
    for stem in parts:
        (folder / f"{stem}.part").unlink()
    return spent


def _as_arrays(file: Any, part: Mapping[str, Any]) -> None:
    import numpy as np

    for array in part.values():
        np.save(file, array)


def _as_bytes(file: Any, part: Mapping[str, Any]) -> None:
    for array in part.values():
        file.write(memoryview(array).cast("B"))


WRITERS = {"floor": _as_arrays, "bytes": _as_bytes}
