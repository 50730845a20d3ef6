"""Prepared faces kept in memory that all workers share, so that a face is decoded once and not once a sample.

Every face has a fixed place, and a flag that says whether it is filled; whoever prepares a face first fills it. Two
that do so at once write the same bytes. Where the memory does not hold all faces it holds the first ones of each
faceset: faces come in random order, so that is as good as any choice.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from core.batch import KINDS, SampleRequest, kind_shape
from core.sharedbuf import ALIGNMENT, Layout
from samplelib.faceset import Faceset
from samplelib.prepare import Prepared, kinds


@dataclass(frozen=True)
class Plan:
    """How many faces of each faceset are kept, and what of each; size in bytes, 0 where none is kept. first: the first
    face of each that is kept (0): those before it lie on the device (`samplelib.facefeed`)."""

    kept: Mapping[str, int]
    kinds: Mapping[str, tuple[str, ...]]
    resolution: int
    size: int
    first: Mapping[str, int] = field(default_factory=dict)

    def words(self, counts: Mapping[str, int]) -> str:
        """`all 633, 52 MB`; counts: faces of each faceset. Those before `first` do not count."""
        kept, there = sum(self.kept.values()), sum(counts.values()) - sum(self.first.values())
        if not kept:
            return f"none of {there:,}"
        return f"{'all' if kept == there else f'{kept:,} of'} {there:,}, {self.size / 1e6:,.0f} MB"

    def layout(self) -> Layout:
        arrays: dict[str, tuple[npt.DTypeLike, tuple[int, ...]]] = {}
        for name, count in self.kept.items():
            arrays[f"filled/{name}"] = (np.uint8, (count, len(self.kinds[name])))
            for kind in self.kinds[name]:
                arrays[f"{kind}/{name}"] = (np.uint8, kind_shape(kind, self.resolution, count))
        return Layout.of(arrays)


def same_sets(facesets: Mapping[str, Faceset]) -> dict[str, str]:
    """The name of each side's faceset: the first side that has it (in pretraining all sides share one)."""
    first: dict[int, str] = {}
    return {side: first.setdefault(id(faceset), side) for side, faceset in facesets.items()}


def wanted(requests: Mapping[str, SampleRequest], sets: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """What is to be prepared of the faces of each faceset: for their own samples, and as colours for other sides."""
    found: dict[str, set[str]] = {name: set() for name in sets.values()}
    for side, request in requests.items():
        found[sets[side]] |= set(kinds(request))
        if request.ct_mode != "none":
            found[sets[request.ct_from]].add("colours")
    return {name: tuple(kind for kind in KINDS if kind in asked) for name, asked in found.items()}


def plan(
    counts: Mapping[str, int], requests: Mapping[str, SampleRequest], sets: Mapping[str, str], budget: int
) -> Plan:
    """What fits into `budget` bytes; counts: faces of each faceset. Every faceset gets the same share of its faces."""
    resolution = next(iter(requests.values())).resolution
    parts = wanted(requests, sets)
    entry = {name: resolution**2 * sum(KINDS[kind] for kind in parts[name]) + len(parts[name]) for name in counts}
    need = sum(counts[name] * entry[name] for name in counts)
    share = min(1.0, max(0, budget - 16 * ALIGNMENT * len(counts)) / max(need, 1))
    kept = {name: int(count * share) for name, count in counts.items()}
    result = Plan(kept, parts, resolution, 0)
    return replace(result, size=result.layout().size) if any(kept.values()) else result


class FaceCache:
    """The places of a plan in one memory, all zero at first."""

    def __init__(self, plan: Plan, memory: memoryview | mmap.mmap) -> None:
        self._plan = plan
        views = plan.layout().views(memory)
        self._filled = {name: views[f"filled/{name}"] for name in plan.kept}
        self._places: dict[str, dict[str, npt.NDArray[Any]]] = {
            name: {kind: views[f"{kind}/{name}"] for kind in plan.kinds[name]} for name in plan.kept
        }

    def get(self, name: str, index: int, kinds: Sequence[str]) -> Prepared | None:
        """Those kinds of face `index`, as views not to be written to; None where one of them is not there."""
        index -= self._plan.first.get(name, 0)
        if not 0 <= index < self._plan.kept[name]:
            return None
        held, filled = self._plan.kinds[name], self._filled[name][index]
        if not all(filled[held.index(kind)] for kind in kinds):
            return None
        return {kind: self._places[name][kind][index] for kind in kinds}

    def put(self, name: str, index: int, face: Prepared) -> None:
        """Keeps what was prepared of face `index`, if it has a place."""
        index -= self._plan.first.get(name, 0)
        if not 0 <= index < self._plan.kept[name]:
            return
        for kind, array in face.items():
            self._places[name][kind][index] = array
            self._filled[name][index, self._plan.kinds[name].index(kind)] = 1  # after the bytes are there
