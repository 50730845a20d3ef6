"""Prepared faces kept in memory that all workers share, so that a face is decoded once and not once a sample.

Every face has a fixed place, and a flag that says whether it is filled; whoever prepares a face first fills it. Two
that do so at once write the same bytes. Where the memory does not hold all faces it holds the first ones of each side:
faces come in random order, so that is as good as any choice.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from core.batch import SampleRequest
from core.sharedbuf import ALIGNMENT, Layout
from samplelib.prepare import KINDS, Prepared, kinds


@dataclass(frozen=True)
class Plan:
    """How many faces of each side are kept, and what of each; size in bytes, 0 where none is kept."""

    kept: Mapping[str, int]
    kinds: Mapping[str, tuple[str, ...]]
    resolution: int
    size: int

    def words(self, counts: Mapping[str, int]) -> str:
        """`all 633, 52 MB`; counts: faces of each side."""
        kept, there = sum(self.kept.values()), sum(counts.values())
        if not kept:
            return f"none of {there:,}"
        return f"{'all' if kept == there else f'{kept:,} of'} {there:,}, {self.size / 1e6:,.0f} MB"

    def layout(self) -> Layout:
        arrays: dict[str, tuple[npt.DTypeLike, tuple[int, ...]]] = {}
        for side, count in self.kept.items():
            arrays[f"filled/{side}"] = (np.uint8, (count, len(self.kinds[side])))
            for kind in self.kinds[side]:
                shape = (count, self.resolution, self.resolution)
                arrays[f"{kind}/{side}"] = (np.uint8, (*shape, KINDS[kind]) if KINDS[kind] > 1 else shape)
        return Layout.of(arrays)


def wanted(requests: Mapping[str, SampleRequest]) -> dict[str, tuple[str, ...]]:
    """What is to be prepared of the faces of each side: for their own samples, and as colours for other sides."""
    found = {side: kinds(request) for side, request in requests.items()}
    for request in requests.values():
        if request.ct_mode != "none" and "colours" not in found[request.ct_from]:
            found[request.ct_from] = (*found[request.ct_from], "colours")
    return found


def plan(counts: Mapping[str, int], requests: Mapping[str, SampleRequest], budget: int) -> Plan:
    """What fits into `budget` bytes; counts: faces of each side. Every side gets the same share of its faces."""
    resolution = next(iter(requests.values())).resolution
    parts = wanted(requests)
    entry = {side: resolution**2 * sum(KINDS[kind] for kind in parts[side]) + len(parts[side]) for side in counts}
    need = sum(counts[side] * entry[side] for side in counts)
    share = min(1.0, max(0, budget - 16 * ALIGNMENT * len(counts)) / max(need, 1))
    kept = {side: int(count * share) for side, count in counts.items()}
    result = Plan(kept, parts, resolution, 0)
    return replace(result, size=result.layout().size) if any(kept.values()) else result


class FaceCache:
    """The places of a plan in one memory, all zero at first. `hits` and `misses` count lookups of this process."""

    def __init__(self, plan: Plan, memory: memoryview | mmap.mmap) -> None:
        self._plan = plan
        views = plan.layout().views(memory)
        self._filled = {side: views[f"filled/{side}"] for side in plan.kept}
        self._places: dict[str, dict[str, npt.NDArray[Any]]] = {
            side: {kind: views[f"{kind}/{side}"] for kind in plan.kinds[side]} for side in plan.kept
        }

    def get(self, side: str, index: int, kinds: Sequence[str]) -> Prepared | None:
        """Those kinds of face `index`, as views not to be written to; None where one of them is not there."""
        if index >= self._plan.kept[side]:
            return None
        held, filled = self._plan.kinds[side], self._filled[side][index]
        if not all(filled[held.index(kind)] for kind in kinds):
            return None
        return {kind: self._places[side][kind][index] for kind in kinds}

    def put(self, side: str, index: int, face: Prepared) -> None:
        """Keeps what was prepared of face `index`, if it has a place."""
        if index >= self._plan.kept[side]:
            return
        for kind, array in face.items():
            self._places[side][kind][index] = array
            self._filled[side][index, self._plan.kinds[side].index(kind)] = 1  # after the bytes are there
