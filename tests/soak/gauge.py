"""What a training costs while it runs: memory, open files and threads of its processes, read from /proc."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MARK = "FACESMITH_SOAK"
"""Environment variable that a trainer and all it starts inherit: whoever has it belongs to this run."""
ROLES = {"samplelib.worker": "worker", "core.window_child": "window", "main.py": "trainer", "soak.thinned": "trainer"}


@dataclass(frozen=True)
class Reading:
    """One look at all processes. memory: MB of its own by (role, process), without files and what is shared; whole: of
    all together, with what is shared divided among those who share it. files, threads: of the trainer."""

    seconds: float
    iteration: int
    memory: dict[tuple[str, int], float]
    whole: float
    files: int
    threads: int


def family(mark: str) -> dict[int, str]:
    """Every running process that inherited the mark, and what it is."""
    wanted, found = f"{MARK}={mark}".encode(), {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    words = (folder / "cmdline").read_bytes().decode(errors="replace")
                    found[int(folder.name)] = next((role for key, role in ROLES.items() if key in words), words)
            except OSError:
                continue  # it ended while we looked
    return {pid: role for pid, role in found.items() if role}


def look(mark: str, seconds: float, iteration: int) -> Reading:
    processes = family(mark)
    sizes = {(role, pid): size for pid, role in processes.items() if (size := _megabytes(pid))[0] > 0}
    memory, whole = {key: own for key, (own, _) in sizes.items()}, sum(share for _, share in sizes.values())
    trainer = next((pid for pid, role in processes.items() if role == "trainer"), 0)
    return Reading(seconds, iteration, memory, whole, _entries(trainer, "fd"), _entries(trainer, "task"))


def _megabytes(pid: int) -> tuple[float, float]:
    """Of its own, and its share of everything."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0, 0.0
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE))
    return int(found.get("Anonymous", 0)) / 1024, int(found.get("Pss", 0)) / 1024


def _entries(pid: int, what: str) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/{what}").iterdir())
    except OSError:
        return 0


def shared_files() -> set[str]:
    """Names of ours in /dev/shm."""
    return {path.name for path in Path("/dev/shm").glob("facesmith-preview*")}


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Change in an hour: the median of the slopes between all pairs, which single leaps do not move. Seconds in."""
    t, v = np.asarray(times, float), np.asarray(values, float)
    later = t[None] > t[:, None]
    return float(np.median(((v[None] - v[:, None])[later]) / ((t[None] - t[:, None])[later]))) * 3600


def slopes(readings: Iterable[Reading], warm_up: float, least: float = 60.0) -> dict[str, float]:
    """MB in an hour by role, the worst process of each: of those seen for `least` seconds after the warm-up."""
    tracks: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for reading in readings:
        for key, size in reading.memory.items():
            tracks.setdefault(key, []).append((reading.seconds, size))
    found: dict[str, float] = {}
    for (role, _), track in tracks.items():
        settled = [(seconds, size) for seconds, size in track if seconds >= track[0][0] + warm_up]
        if len(settled) > 5 and settled[-1][0] - settled[0][0] >= least:
            found[role] = max(found.get(role, -np.inf), slope(*zip(*settled, strict=True)))
    return found
