"""Batches in order, made ahead by worker processes.

The parent decides which face is sample number n of a side (samplelib.sampling); workers only compute, each
writing its rows straight into a ring of batches in shared memory. A sample depends on (seed, side, number), its face
and the face it is coloured after alone, so batches are the same for any number of workers, and a run resumes at any
position.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any

import numpy.typing as npt

from core.batch import Batch, SampleRequest, Side
from core.sharedbuf import Layout, SharedBuffer
from samplelib.cache import FaceCache, Plan, plan, same_sets
from samplelib.diskcache import DiskCache, DiskSettings, Stock
from samplelib.faceset import Faceset
from samplelib.patience import Patience, Stopped
from samplelib.pool import Done, Fatal, Job, Note, Pool
from samplelib.process import check, check_colours
from samplelib.ring import MIN_DEPTH, Depth, Ring
from samplelib.sampling import Order
from samplelib.worker import Maker, NoUsableFaces, hello, layout

MAX_JOB = 8
SLOW_S = 30.0
POLL_S = 0.5
NOTED_S = 10.0


class LoaderError(RuntimeError):
    """No more batches can be made; the text says why."""


def usable_cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(cap: int = 8) -> int:
    """How many workers suit this machine: one for each processor this process may use, `cap` at most (8, as DFL)."""
    return max(1, min(cap, usable_cores()))


class Loader:
    """An endless iterator of `Batch`es of float32 (N, C, H, W) arrays, BGR, [0, 1].

    The arrays are views of a shared buffer, valid until the next `next()`. position: batches consumed, also where
    to start; wait_ms: what the last `next()` waited. workers 0 computes in this process. warn is called (in the
    caller's thread) with what the user should know: broken faces, dead workers. stopping: asked when a batch is late;
    where it says yes the iteration ends. cache_bytes: memory for prepared faces (`samplelib.cache`); kept: how many
    have a place there, in words. disk: where prepared faces are kept between runs (`samplelib.diskcache`); on_disk: how
    many are there, in words, empty without. rows: which of each batch are made, where other processes make the others
    (default: all). Raises FacesetError at once when a faceset does not suit its request,
    ValueError for colours that cannot be given, LoaderError from `next()` when no more batches can be made.
    """

    def __init__(
        self,
        facesets: Mapping[str, Faceset],
        requests: Mapping[str, SampleRequest],
        batch_size: int,
        *,
        seed: int,
        workers: int,
        position: int = 0,
        warn: Callable[[str], None],
        stopping: Callable[[], bool] = lambda: False,
        cache_bytes: int = 0,
        disk: DiskSettings | None = None,
        rows: range | None = None,
    ) -> None:
        if set(facesets) != set(requests):
            raise ValueError(f"facesets are given for {sorted(facesets)}, requests for {sorted(requests)}")
        check_colours(requests)
        for side, request in requests.items():
            check(facesets[side], request)
        self.position = position
        self.wait_ms = 0.0
        self._facesets, self._requests, self._batch_size = dict(facesets), dict(requests), batch_size
        self._first, self._rows = (rows.start, len(rows)) if rows is not None else (0, batch_size)
        self._warn, self._stopping = warn, stopping
        self._told: set[tuple[str, int]] = set()
        self._orders = {
            side: Order(len(faces), seed, side, faces.yaws() if requests[side].uniform_yaw else None)
            for side, faces in facesets.items()
        }
        self._colours = {
            side: Order(len(facesets[partner[0]]), seed, f"{side} colours")
            for side, request in requests.items()
            if (partner := request.partner(side)) is not None
        }
        self._closed = False
        self._noted: dict[str, float] = {}
        self._patience = SLOW_S
        self._lent: int | None = None  # the place whose views the caller holds
        self._returned = time.perf_counter()
        self._pool: Pool | None = None
        self._disk: DiskCache | None = None
        self._buffers: list[SharedBuffer] = []
        self._layout = self._lay_out()
        self._sets = same_sets(facesets)
        counts = {name: len(facesets[name]) for name in dict.fromkeys(self._sets.values())}
        self._plan = self._plan_cache(counts, cache_bytes)
        self.kept = self._plan.words(counts)
        stock = Stock(disk, facesets, requests, self._sets, warn) if disk is not None else None
        self._stock = stock if stock is not None and stock.usable else None
        self.on_disk = self._stock.words if self._stock is not None else ""
        if workers < 1:
            cache = FaceCache(self._plan, memoryview(bytearray(self._plan.size))) if self._plan.size else None
            self._disk = self._own_disk()
            patience = Patience(warn, stopping)
            self._maker = Maker(facesets, requests, self._sets, seed, cache, self._disk, patience=patience)
            self._views = self._layout.views(memoryview(bytearray(self._layout.size)))
        else:
            self._start(workers, seed)

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        if self._closed:
            raise LoaderError("the loader is closed")
        started = time.perf_counter()
        if self._pool is None:
            try:
                self._compute()
            except NoUsableFaces as error:
                raise LoaderError(str(error)) from None
            except Stopped:
                raise StopIteration from None
            arrays = self._views
        else:
            if self._lent is not None:
                self._ring.give(self._lent)  # its views are over
                self._lent = None
                self._order()
            self._lent = place = self._places.pop(self.position)
            while self._left[place]:
                self._receive()
            arrays = self._ring.views(place)
        self.position += 1
        now = time.perf_counter()
        self.wait_ms = (now - started) * 1e3
        if self._pool is not None:
            ready = sum(not self._left[place] for place in self._places.values())
            self._depth.taken(now - started, now - self._returned, ready)
        self._returned = now
        if self._stock is not None and (line := self._stock.trouble()):
            self._warn(line)
        return self._batch(arrays)

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and give the memory back. Returns within seconds; twice is fine."""
        if self._closed:
            return
        self._closed = True
        if self._pool is not None:
            self._pool.close()
        if self._disk is not None:
            self._disk.close()
        for buffer in self._buffers:
            buffer.close()

    @property
    def depth(self) -> int:
        """How many batches are ordered ahead at present."""
        return 1 if self._pool is None else self._depth.value

    def names(self, side: str) -> Callable[[int], str]:
        """Row -> the file name of that face, for the latest batch."""
        return partial(self._name, side, self._number(self.position - 1))

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [] if self._pool is None else self._pool.pids()

    def _number(self, batch: int) -> int:
        """Of the first sample that is made of a batch."""
        return batch * self._batch_size + self._first

    def _name(self, side: str, first: int, row: int) -> str:
        """The face that sample number first + row shows: where one is broken, the one in its place."""
        samples, index = self._facesets[side].samples, self._orders[side][first + row]
        for offset in range(len(samples)):
            shown = (index + offset) % len(samples)
            if (self._sets[side], shown) not in self._told:
                return samples[shown].filename
        return ""

    def _start(self, workers: int, seed: int) -> None:
        """Share what is known of the faces, make the ring, start the workers, order the first batches."""
        known = {
            f"{name}/{key}": array
            for name in self._plan.kept
            for key, array in self._facesets[name].to_arrays().items()
        }
        faces_layout = Layout.of({name: (array.dtype, array.shape) for name, array in known.items()})
        faces = SharedBuffer(faces_layout.size)
        self._buffers.append(faces)
        shared = faces_layout.views(faces.map)
        for name, view in shared.items():
            view[...] = known[name]
        for name in self._plan.kept:  # one copy for all processes
            own = self._facesets[name]
            own.use({key: shared[f"{name}/{key}"] for key in own.to_arrays()})
        self._ring = Ring(self._layout)
        self._buffers.append(self._ring.buffer)
        self._depth = Depth(MIN_DEPTH, self._ring.most)
        self._places: dict[int, int] = {}  # batch number -> its place in the ring
        self._left = [0] * self._ring.most
        self._ordered = self.position
        samples = self._rows * len(self._requests)
        self._chunk = max(1, min(MAX_JOB, -(-samples // workers)))
        cache = self._shared_cache()
        message = hello(
            faces, faces_layout, self._ring, self._requests, self._sets, self._layout, seed, cache, self._plan,
            self._shared_stock(),
        )  # fmt: skip
        self._pool = Pool(workers, message, self._buffers)
        self._order()

    def _shared_cache(self) -> SharedBuffer | None:
        """The memory for prepared faces; none where none is wanted or there is no room."""
        if not self._plan.size:
            return None
        try:
            buffer = SharedBuffer(self._plan.size, lazy=True)
            self._buffers.append(buffer)
            return buffer
        except OSError as error:
            self.kept = "none, as there is no room"
            self._warn(f"no memory to keep faces in, so each is decoded every time: {error.strerror or error}")
            return None

    def _shared_stock(self) -> tuple[str, dict[str, Any]] | None:
        """What workers need to know of the faces on the disk."""
        if self._stock is None:
            return None
        table = SharedBuffer(self._stock.size)
        self._buffers.append(table)
        self._stock.fill(table.map)
        return table.handle, self._stock.plain()

    def _own_disk(self) -> DiskCache | None:
        """The faces on the disk, for this process."""
        if self._stock is None:
            return None
        table = memoryview(bytearray(self._stock.size))
        self._stock.fill(table)
        return DiskCache(self._stock.plain(), table, self._facesets, self._requests, self._sets)

    def _order(self) -> None:
        """Have batches made until as many are ordered as are wanted."""
        while self._ordered < self.position + self._depth.value:
            if (place := self._ring.take()) is None:
                self._depth.high = self._depth.value = self._ordered - self.position
                return
            self._order_batch(place)

    def _order_batch(self, place: int) -> None:
        """Have the next batch made in a place of the ring."""
        jobs = self._jobs(place)
        self._places[self._ordered] = place
        self._ordered += 1
        self._left[place] = len(jobs)
        if self._pool is not None:
            self._pool.submit(jobs)

    # What `samplelib.facefeed` does otherwise: what a batch holds, and who makes it.

    def _lay_out(self) -> Layout:
        return layout(self._requests, self._rows)

    def _plan_cache(self, counts: Mapping[str, int], budget: int) -> Plan:
        return plan(counts, self._requests, self._sets, budget)

    def _batch(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Batch:
        return Batch(
            **{
                side: Side(**{name: arrays[f"{side}/{name}"] for name in request.names}).named(self.names(side))
                for side, request in self._requests.items()
            }
        )

    def _jobs(self, place: int) -> list[Job]:
        """The jobs of batch number `self._ordered`."""
        jobs = []
        for side, order in self._orders.items():
            first = self._number(self._ordered)
            for row in range(0, self._rows, self._chunk):
                numbers = range(first + row, first + min(row + self._chunk, self._rows))
                colours = [self._colours[side][n] for n in numbers] if side in self._colours else None
                jobs.append(Job(place, side, row, numbers.start, [order[n] for n in numbers], colours))
        return jobs

    def _receive(self) -> None:
        """Take one message of the pool; say so when none comes for long."""
        if self._pool is None:
            return
        message = self._late_message(self._pool)
        if message is None:
            self._warn(f"no sample has come for {self._patience:.0f} s: is the disk with the faces slow or away?")
            self._pool.replace_stuck(self._patience)
            self._patience *= 2
            return
        self._patience = SLOW_S
        match message:
            case Done(job, broken):
                self._left[job.place] -= 1
                for side, index, reason in broken:
                    self._tell(side, index, reason)
            case Note(text):
                now = time.monotonic()
                if now - self._noted.get(text, -math.inf) > NOTED_S:  # each worker says so
                    self._warn(text)
                self._noted[text] = now
            case Fatal(text):
                self.close()
                raise LoaderError(text)

    def _late_message(self, pool: Pool) -> Done | Note | Fatal | None:
        """The next message, or None when none has come for long. Raises StopIteration when asked to stop."""
        for _ in range(round(self._patience / POLL_S)):
            with contextlib.suppress(queue.Empty):
                return pool.results.get(timeout=POLL_S)
            if self._stopping():
                raise StopIteration
        return None

    def _tell(self, side: str, index: int, reason: str) -> None:
        """Report a broken face, once (each worker may find it, and each side that has it)."""
        if (self._sets[side], index) not in self._told:
            self._told.add((self._sets[side], index))
            self._warn(f"{self._facesets[side].samples[index].filename} of {side} is skipped: {reason}")

    def _compute(self) -> None:
        """Make the next batch in this process."""
        for side, request in self._requests.items():
            for row in range(self._rows):
                number = self._number(self.position) + row
                rows = {name: self._views[f"{side}/{name}"][row] for name in request.names}
                colours = self._colours[side][number] if side in self._colours else None
                self._maker.make(side, number, self._orders[side][number], colours, rows, self._tell)
