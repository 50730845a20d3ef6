"""What the benchmarks share: rounds in turn, medians and spread, rows as JSON or as a table, the machine in words.

A row is a dictionary as it stands in a line of JSON. Nothing heavy is imported here: --help answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from core.child import ROOT
from core.mainmemory import MainMemory
from core.options import OptionError
from mainscripts.verb import EXIT_OK, EXIT_USAGE, refuse

Row = dict[str, Any]
PACKAGES = ("torch", "numpy", "opencv-python-headless", "opencv-python")


def json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def in_turn(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds of each function, one call of each a round, so that whatever else the machine does falls on all;
    `warm_up` rounds before them are not counted."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(warm_up + rounds):
        for name, function in functions.items():
            started = clock()
            function()
            if number >= warm_up:
                times[name].append((clock() - started) * 1e3)
    return times


def spread(name: str, times: Sequence[float], digits: int = 1) -> Row:
    """`<name>`, `<name>_min` and `<name>_max`: median, least and most of `times`."""
    found = {name: statistics.median(times), f"{name}_min": min(times), f"{name}_max": max(times)}
    return {key: round(value, digits) for key, value in found.items()}


def ratio(times: Sequence[float], floor: Sequence[float]) -> float:
    """How many times its floor something takes, of both medians."""
    return round(statistics.median(times) / statistics.median(floor), 3)


@dataclass(frozen=True)
class Column:
    """A column of the plain table: its title, and the text of a row in it."""

    title: str
    text: Callable[[Row], str]


def plain(title: str, key: str, unit: str = "") -> Column:
    """The column of one field; empty where a row has none."""
    return Column(title, lambda row: "" if row.get(key) in (None, "") else f"{told(row[key])}{unit}")


def ranged(title: str, key: str) -> Column:
    """A median with its least and most: `830 (812 to 901)`."""
    return Column(
        title,
        lambda row: (
            "" if row.get(key) is None else f"{told(row[key])} ({told(row[f'{key}_min'])} to {told(row[f'{key}_max'])})"
        ),
    )


def told(value: Any) -> str:
    """A value as people read it: yes and no, thousands with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(rows: Sequence[Row], columns: Iterable[Column]) -> list[str]:
    """The rows as lines of a table as wide as it must be; columns that are empty in all rows are left out."""
    cells = [[column.title, *(column.text(row) for row in rows)] for column in columns]
    cells = [column for column in cells if any(column[1:])]
    widths = [max(map(len, column)) for column in cells]
    lines = zip(*cells, strict=True)
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def report(rows: Iterable[Row], columns: Iterable[Column], as_json: bool) -> list[Row]:
    """Prints each row of JSON when it is there, a table when all are."""
    found = []
    for row in rows:
        found.append(row)
        if as_json:
            print(json.dumps(row), flush=True)
        else:
            print(f"measured: {what(row)}", file=sys.stderr, flush=True)
    if not as_json:
        print("\n".join(table(found, columns)), flush=True)
    return found


def answer(rows: Iterable[Row], columns: Iterable[Column], as_json: bool) -> int:
    """`report` as a verb's end: its exit code. Options that cannot be are told in a line."""
    try:
        report(rows, columns, as_json)
    except (OptionError, ValueError) as error:
        return refuse(str(error), EXIT_USAGE)
    return EXIT_OK


def tell(row: Row, as_json: bool) -> None:
    """Prints a row of a curve at once: as JSON, or each field with its name."""
    fields = "  ".join(f"{key} {value}" for key, value in row.items() if key != "bench")
    print(json.dumps(row) if as_json else fields, flush=True)


def known_device(name: str) -> str:
    """PyTorch's name of a device that there is, set up as for a training. Raises ValueError naming those."""
    from core import device  # PyTorch only where it is needed

    found = {each.torch_name: each for each in (device.CPU, *device.gpus())}
    if name not in found:
        raise ValueError(f"--device: got {name!r}, allowed is {' / '.join(found)}.")
    device.tune(found[name])
    return name


def what(row: Row) -> str:
    """What a row is about, in a few words."""
    named = (row.get(key, "") for key in ("bench", "what", "model", "archi", "resolution", "precision"))
    return " ".join(str(word) for word in named if word != "")


def machine(now: Callable[[], datetime] = datetime.now) -> Row:
    """What a figure is worth nothing without: machine, programs, day, and how busy the machine was."""
    memory = MainMemory().total()
    return {
        "bench": "machine",
        "date": f"{now():%Y-%m-%d}",
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "ram_gb": None if memory is None else round(memory / 1e9, 1),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name.partition("-")[0]: version for name in PACKAGES if (version := _version(name))},
        "commit": _commit(),
    }


def machine_words(row: Row) -> str:
    """The machine in one line."""
    told_of = [f"{row['date']}: {row['cpu']}", f"{row['cores']} cores"]
    told_of += [f"{row['ram_gb']} GB"] if row["ram_gb"] is not None else []
    told_of += [f"load {row['load']} before"] if row["load"] is not None else []
    told_of += [f"Python {row['python']}", *(f"{name} {row[name]}" for name in ("torch", "opencv") if name in row)]
    return ", ".join([*told_of, row["system"], f"commit {row['commit'] or 'unknown'}"])


def _cpu() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    """The commit that is checked out, with `+` where files differ from it; empty where that is unknown."""
    try:
        asked = [
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked[0].strip() + ("+" if asked[1].strip() else "")


def disk_of(folder: Path) -> str:
    """The file system that a folder lies on: `ext4 on /dev/vda`; empty where the system does not tell."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    path, found, length = str(folder.resolve()), "", -1
    for line in mounts:
        device, point, kind = (word.replace("\\040", " ") for word in line.split()[:3])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= length:
            found, length = f"{kind} on {device}", len(point)
    return found
