"""A folder of numbered pictures that holds no more than so many: what goes is chosen so that the rest stay evenly
spread in iterations, since a time-lapse is made of them. Nothing is deleted that facesmith did not write."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

NAME = re.compile(r"\d{7,12}\.jpg")
FEW = 16  # so many too many go one by one; more are what an earlier run without a limit has left


class Thinned:
    """The pictures of one folder. most: how many stay, 0 all. ours: whether facesmith wrote a file, looked at once for
    those that are there already. Raises OSError."""

    def __init__(self, folder: Path, most: int, ours: Callable[[Path], bool]) -> None:
        self._folder, self._most = folder, most
        there = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if most else []
        self._names = {int(path.stem): path.name for path in there if ours(path)}
        self._kept = sorted(self._names)

    def add(self, path: Path) -> None:
        """A picture was written; what is too many by it goes. Raises OSError."""
        if not self._most:
            return
        number = int(path.stem)
        if number not in self._names:
            bisect.insort(self._kept, number)
        self._names[number] = path.name
        for gone in surplus(self._kept, self._most, number):
            (self._folder / self._names.pop(gone)).unlink(missing_ok=True)
            self._kept.remove(gone)


def surplus(kept: list[int], most: int, newest: int) -> list[int]:
    """Which of the ascending numbers go, for `most` to stay: never the first, the last and `newest`."""
    rest, gone = list(kept), []
    if len(rest) > most + FEW:
        wanted = np.searchsorted(rest, np.linspace(rest[0], rest[-1], most))
        stay = {rest[0], rest[-1], newest, *(rest[i] for i in wanted)}
        gone = [number for number in rest if number not in stay]
        rest = [number for number in rest if number in stay]
    while len(rest) > most:
        inner = [i for i in range(1, len(rest) - 1) if rest[i] != newest]
        if not inner:
            break
        gone.append(rest.pop(min(inner, key=lambda i: rest[i + 1] - rest[i - 1])))
    return gone
