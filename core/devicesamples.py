"""The batches of a training, made on the device from faces that lie there.

A feed (`samplelib.facefeed.FaceFeed`) says which faces a batch shows, gives the pixels of those that are new, and what
was drawn; a face is uploaded once and stays, as far as there is room. All work is queued on the device, nothing here
waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from core.augment import augment
from core.batch import Batch, SampleRequest, kind_shape
from core.drawn import Shown
from core.memory import out_of_memory
from core.upload import upload

Key = tuple[str, tuple[str, ...]]
Made = TypeVar("Made")


class Feed(Protocol):
    """What is known here of `samplelib.facefeed.FaceFeed`."""

    kept: str
    on_disk: str
    position: int

    def __next__(self) -> Batch: ...

    def close(self) -> None: ...

    def pids(self) -> list[int]: ...

    def names(self, side: str) -> Callable[[int], str]: ...

    @property
    def depth(self) -> int: ...


class Store:
    """Prepared faces on the device: shelves of `rows` faces, each (R, R, 3) or (R, R) uint8 of every kind.

    Raises what PyTorch raises where the device has no room (`core.memory.out_of_memory`).
    """

    def __init__(self, rows: Mapping[Key, int], resolution: int, device: torch.device) -> None:
        self._device, self._shelves = device, {}
        for key, count in rows.items():
            self._shelves[key] = {
                kind: torch.zeros(kind_shape(kind, resolution, count), dtype=torch.uint8, device=device)
                for kind in key[1]
            }

    def fill(self, key: Key, shown: Shown) -> None:
        """Upload the faces that are new."""
        if len(shown.fresh):
            rows = upload(shown.fresh, self._device)
            for kind, pixels in shown.pixels.items():
                self._shelves[key][kind].index_copy_(0, rows, upload(pixels, self._device))

    def take(self, key: Key, shown: Shown) -> dict[str, Tensor]:
        """The faces of a batch: kind -> (N, R, R, 3) or (N, R, R) uint8."""
        places = upload(shown.places, self._device)
        return {kind: tensor.index_select(0, places) for kind, tensor in self._shelves[key].items()}


class DeviceSamples:
    """An endless iterator of `Batch`es of float32 (N, C, H, W) tensors on `device`, BGR, [0, 1]: as `Loader`, and so
    are position, wait_ms, kept, on_disk, depth, pids and close. A batch stays valid as long as it is wanted.

    uses: the shelf of each side's `own` faces and, with colour transfer, `colours`. stored: bytes of the device that
    could be had back by keeping no faces there.
    """

    def __init__(
        self,
        feed: Feed,
        requests: Mapping[str, SampleRequest],
        uses: Mapping[tuple[str, str], Key],
        store: Store,
        kept: str,
        stored: int,
    ) -> None:
        self._feed, self._requests, self._uses, self._store = feed, dict(requests), dict(uses), store
        self.kept, self.stored = kept, stored
        self.wait_ms = 0.0

    def __iter__(self) -> DeviceSamples:
        return self

    def __next__(self) -> Batch:
        started = time.perf_counter()
        fed = next(self._feed)
        for side, given in fed.items():
            self._store.fill(self._uses[side, "own"], given.own)
            if given.colours is not None:
                self._store.fill(self._uses[side, "colours"], given.colours)
        sides: dict[str, Any] = {}
        for side, given in fed.items():
            faces = self._store.take(self._uses[side, "own"], given.own)
            reference = None
            if given.colours is not None:
                reference = self._store.take(self._uses[side, "colours"], given.colours)["colours"]
            made = augment(self._requests[side], faces, given.drawn, reference)
            sides[side] = made.named(self._feed.names(side))
        self.wait_ms = (time.perf_counter() - started) * 1e3
        return Batch(**sides)

    def __enter__(self) -> DeviceSamples:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and let the faces on the device go. Twice is fine."""
        self._feed.close()
        self._store = Store({}, 0, torch.device("cpu"))

    @property
    def position(self) -> int:
        return self._feed.position

    @property
    def depth(self) -> int:
        return self._feed.depth

    @property
    def on_disk(self) -> str:
        return self._feed.on_disk

    def pids(self) -> list[int]:
        return self._feed.pids()


def fitting(make: Callable[[int], Made], budget: int, least: int) -> tuple[Made, int]:
    """make(bytes) with the largest of budget, its half, ... that the device has room for; below `least` bytes with 0,
    whose error is not caught. Returns what was made and for how many bytes."""
    while budget >= least:
        try:
            return make(budget), budget
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        budget //= 2
    return make(0), 0
