"""Batches that are made on the device: workers only prepare faces, each once, and this says which are shown and drawn.

The device keeps a store of prepared faces (`core.devicesamples`). What is ordered here for a batch is only what the
store will not have by then; a face that has no place in it is sent with every batch that shows it. Which face comes
when, what is drawn and what replaces a broken face is the same as in `Loader`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from core.batch import Batch, SampleRequest, kind_shape
from core.drawn import Chance, Drawn, Fed, Shown, colour_rows, draw
from core.imagelib import color_transfer
from core.sharedbuf import Layout
from samplelib.cache import Plan, plan
from samplelib.faceset import Faceset
from samplelib.loader import Loader
from samplelib.pool import Job
from samplelib.prepare import kinds
from samplelib.sampling import generator
from samplelib.worker import prefix

Key = tuple[str, tuple[str, ...]]
"""A shelf of the store: name of a faceset (`samplelib.cache.same_sets`), and what is kept of each face."""


def uses(requests: Mapping[str, SampleRequest], sets: Mapping[str, str]) -> dict[tuple[str, str], Key]:
    """Which shelf a side needs for a part: `own`, its faces, and `colours`, those it takes colours from."""
    found: dict[tuple[str, str], Key] = {}
    for side, request in requests.items():
        found[side, "own"] = (sets[side], kinds(request))
        if request.ct_mode != "none":
            found[side, "colours"] = (sets[request.ct_from], ("colours",))
    return found


@dataclass
class Shelf:
    """What was ordered of one shelf: the first `held` faces have a place for good, others one of `spare` per batch."""

    held: int
    spare: int
    ordered: set[int] = field(default_factory=set)

    @property
    def rows(self) -> int:
        return self.held + self.spare


@dataclass
class _Wanted:
    """What a side needs of a part for one batch: face indexes, their rows, and those to be prepared for it."""

    indexes: list[int]
    places: list[int]
    fresh: list[int]
    rows: list[int]


def shelves(
    uses: Mapping[tuple[str, str], Key], counts: Mapping[str, int], held: Mapping[str, int], batch_size: int
) -> dict[Key, Shelf]:
    """The shelves of a store that keeps the first `held` faces of each faceset; counts: faces of each."""
    found: dict[Key, Shelf] = {}
    for key in uses.values():
        shelf = found.setdefault(key, Shelf(held[key[0]], 0))
        shelf.spare += batch_size if held[key[0]] < counts[key[0]] else 0
    return found


class FaceFeed(Loader):
    """A `Loader` whose batches hold a `core.drawn.Fed` a side instead of arrays. held: how many faces of each faceset
    the store keeps; where it keeps all, the workers end once all have come. uses: the shelf of each side's parts."""

    def __init__(
        self,
        facesets: Mapping[str, Faceset],
        requests: Mapping[str, SampleRequest],
        batch_size: int,
        *,
        held: Mapping[str, int],
        seed: int,
        **options: Any,
    ) -> None:
        """options: the others of `Loader`."""
        self._held, self._seed, self._done = dict(held), seed, False
        self._wants: dict[int, dict[tuple[str, str], _Wanted]] = {}
        # What color_transfer.measure says, for a mode, of each face on a shelf, once it has come.
        self._measured: dict[tuple[Key, str], npt.NDArray[np.float64]] = {}
        super().__init__(facesets, requests, batch_size, seed=seed, **options)

    def _plan_cache(self, counts: Mapping[str, int], budget: int) -> Plan:
        """Main memory keeps the faces that the device does not."""
        self.uses = uses(self._requests, self._sets)
        self._shelves = shelves(self.uses, counts, self._held, self._rows)
        for (side, _), key in self.uses.items():
            if (mode := self._requests[side].ct_mode) in color_transfer.BY_MATRIX:
                self._measured[key, mode] = np.full((counts[key[0]], 4, 3), np.nan)
        missing = {name: count - self._held[name] for name, count in counts.items()}
        return replace(plan(missing, self._requests, self._sets, budget), first=self._held)

    def _lay_out(self) -> Layout:
        arrays: dict[str, tuple[npt.DTypeLike, tuple[int, ...]]] = {}
        for side, request in self._requests.items():
            parts = {"own": kinds(request), "colours": ("colours",) if request.ct_mode != "none" else ()}
            for part, held in parts.items():
                for kind in held:
                    shape = kind_shape(kind, request.resolution, self._rows)
                    arrays[f"{prefix(side, part)}/{kind}"] = (np.uint8, shape)
        return Layout.of(arrays)

    def _want(self, batch: int) -> dict[tuple[str, str], _Wanted]:
        """What batch number `batch` needs. Batches are asked for in order, each once."""
        numbers = range(self._number(batch), self._number(batch) + self._rows)
        spare = {key: shelf.held for key, shelf in self._shelves.items()}
        here: dict[Key, dict[int, int]] = {key: {} for key in self._shelves}
        found = {}
        for (side, part), key in self.uses.items():
            order = self._orders[side] if part == "own" else self._colours[side]
            wanted = _Wanted([order[number] for number in numbers], [], [], [])
            for index in wanted.indexes:
                shelf, row = self._shelves[key], index
                new = index not in shelf.ordered
                if index >= shelf.held:
                    new = index not in here[key]
                    row = here[key].setdefault(index, spare[key])
                    spare[key] += new
                elif new:
                    shelf.ordered.add(index)
                wanted.places.append(row)
                if new:
                    wanted.fresh.append(index)
                    wanted.rows.append(row)
            found[side, part] = wanted
        self._wants[batch] = found
        return found

    def _jobs(self, place: int) -> list[Job]:
        jobs = []
        for (side, part), wanted in self._want(self._ordered).items():
            for row in range(0, len(wanted.fresh), self._chunk):
                jobs.append(Job(place, side, row, 0, wanted.fresh[row : row + self._chunk], None, part=part))
        return jobs

    def _compute(self) -> None:
        for (side, part), wanted in self._want(self.position).items():
            for row, index in enumerate(wanted.fresh):
                start = f"{prefix(side, part)}/"
                rows = {n.removeprefix(start): a[row] for n, a in self._views.items() if n.startswith(start)}
                self._maker.show(part, side, index, rows, self._tell)

    def _batch(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Batch:
        number = self.position - 1  # counted already
        if self._pool is not None and not self._done and self._all_came():
            self._done = True
            self._pool.close()  # nothing is left to prepare: their memory is better used otherwise
        wants = self._wants.pop(number)
        shown = {use: self._shown(use, wanted, arrays) for use, wanted in wants.items()}
        return Batch(
            **{
                side: Fed(shown[side, "own"], shown.get((side, "colours")), self._draw(side, number, wants))
                for side in self._requests
            }
        )

    def _all_came(self) -> bool:
        """Whether the store holds every face by now."""
        missing = any(shelf.spare or len(shelf.ordered) < shelf.held for shelf in self._shelves.values())
        return not missing and not any(self._left)

    def _shown(self, use: tuple[str, str], wanted: _Wanted, arrays: Mapping[str, npt.NDArray[Any]]) -> Shown:
        key = self.uses[use]
        pixels = {kind: arrays[f"{prefix(*use)}/{kind}"][: len(wanted.fresh)] for kind in key[1]}
        for mode in color_transfer.BY_MATRIX:
            if (known := self._measured.get((key, mode))) is None:
                continue
            for index, image in zip(wanted.fresh, pixels["colours" if use[1] == "colours" else "image"], strict=True):
                if np.isnan(known[index, 0, 0]):
                    known[index] = color_transfer.measure(image.astype(np.float32) * np.float32(1 / 255))
        return Shown(np.array(wanted.places, np.int64), np.array(wanted.rows, np.int64), pixels)

    def _draw(self, side: str, batch: int, wants: Mapping[tuple[str, str], _Wanted]) -> Drawn:
        request, first = self._requests[side], self._number(batch)
        rows, mode = None, request.ct_mode
        if mode in color_transfer.BY_MATRIX:
            own, wanted = (
                self._measured[self.uses[side, part], mode][wants[side, part].indexes] for part in ("own", "colours")
            )
            pixels = request.resolution**2
            rows = np.stack([colour_rows(mode, *pair, pixels) for pair in zip(own, wanted, strict=True)])
        return draw(request, [self._chance(side, number) for number in range(first, first + self._rows)], rows)

    def _chance(self, side: str, number: int) -> Chance:
        return lambda purpose: generator(self._seed, purpose, side, number)
