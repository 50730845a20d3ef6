"""Opens the samples of a training or a benchmark: made by workers, or from faces that lie on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from core import memory
from core.augment import augment
from core.batch import Batch, SampleRequest, kind_shape
from core.devicesamples import DeviceSamples, Store, fitting
from core.drawn import draw
from core.imagelib.warp import MIN_SIZE
from core.memory import out_of_memory
from samplelib.cache import Plan, plan, same_sets
from samplelib.facefeed import FaceFeed, shelves, uses
from samplelib.faceset import Faceset
from samplelib.loader import Loader
from samplelib.prepare import kinds

LEAST = 16 << 20  # a smaller store is not worth its while
UNKNOWN = 512 << 20  # where a device does not tell what is free

AnyLoader = Loader | DeviceSamples


def device_budget(megabytes: int | None, device: str) -> int:
    """Bytes of device memory for faces: what was asked for, else a quarter of what is free now."""
    if megabytes is not None:
        return megabytes << 20
    free = memory.usage(device).free
    return UNKNOWN if free is None else free // 4


def open_on_device(
    facesets: Mapping[str, Faceset],
    requests: Mapping[str, SampleRequest],
    batch_size: int,
    *,
    device: str,
    budget: int,
    warn: Callable[[str], None],
    **options: Any,
) -> AnyLoader:
    """Samples made on the device (PyTorch's name), with up to `budget` bytes of faces kept there; options as `Loader`.

    Where the device lacks an operation that takes, `warn` says so and workers make them. Raises what `Loader` raises,
    and what PyTorch raises where there is not even room for the faces of one batch.
    """
    lacking = missing_operation(requests, device)
    if lacking:
        warn(f"augment_on device: {device} cannot do it ({lacking}), so samples are made by workers (augment_on cpu).")
        return Loader(facesets, requests, batch_size, warn=warn, **options)
    sets = same_sets(facesets)
    counts = {name: len(facesets[name]) for name in dict.fromkeys(sets.values())}
    resolution = next(iter(requests.values())).resolution

    def make(size: int) -> tuple[Store, FaceFeed, Plan]:
        """The store comes first: workers start only once it is known how many faces it holds."""
        held = plan(counts, requests, sets, size)
        rows = options.get("rows")
        made = batch_size if rows is None else len(rows)
        on_shelves = shelves(uses(requests, sets), counts, held.kept, made)
        store = Store({key: shelf.rows for key, shelf in on_shelves.items()}, resolution, torch.device(device))
        return store, FaceFeed(facesets, requests, batch_size, held=held.kept, warn=warn, **options), held

    (store, feed, held), fitted = fitting(make, budget, LEAST)
    if fitted < budget and budget >= LEAST:
        warn(f"{device} has no room for {memory.size(budget)} of faces: {memory.size(fitted)} are used.")
    kept = f"{held.words(counts)} on {device}"
    if not all(held.kept[name] == count for name, count in counts.items()):
        kept += f"; of the others, in main memory {feed.kept}"
    return DeviceSamples(feed, requests, feed.uses, store, kept, held.size)


def missing_operation(requests: Mapping[str, SampleRequest], device: str) -> str:
    """The first line of the error with which one tiny batch of these requests fails on the device; empty if it does
    not. Too little memory is no such error and is raised."""
    for request in requests.values():
        side = min(request.resolution, MIN_SIZE)
        tiny = replace(request, resolution=side)
        pixels = {
            kind: torch.zeros(kind_shape(kind, side, 1), dtype=torch.uint8, device=device)
            for kind in (*kinds(tiny), "colours")
        }
        drawn = draw(tiny, [lambda purpose: np.random.RandomState(0)], np.zeros((1, 5, 3)))
        try:
            augment(tiny, pixels, drawn, pixels["colours"])
        except (RuntimeError, NotImplementedError, TypeError) as error:
            if out_of_memory(error):
                raise
            return str(error).splitlines()[0]
    return ""


def as_arrays(batch: Batch) -> Batch:
    """A batch of arrays or tensors as arrays."""
    return batch.map(lambda array: array if isinstance(array, np.ndarray) else array.numpy(force=True))
