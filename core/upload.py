"""The way to the device: arrays without waiting for it, and whole batches on a stream of their own, so that the copy of
one runs while the step before it computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.batch import Batch
from core.capability import supports


def upload(array: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """An array as a tensor on the device; the array may change afterwards, but on the CPU, where it is the same memory.
    To a card without waiting for it, through pinned memory, which PyTorch keeps until the copy is over. Double
    precision becomes single where the device has none (MPS)."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "mps" and tensor.dtype == torch.float64:
        tensor = tensor.float()
    return send(tensor, device)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of main memory on the device, as `upload`."""
    if not supports(device, "pinned"):  # there a copy that is not waited for may read what comes after
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def alongside(device: torch.device | str) -> bool:
    """Whether a device takes a copy while it computes, so that `Upload` is of use."""
    return supports(device, "pinned") and supports(device, "streams")


class Upload:
    """An iterator of the batches of `batches`, as tensors on `device` (`cuda:0`), which takes copies `alongside`.

    The loop asks for a batch once the step before is queued, so the copy runs beside that step. The next step waits for
    it on the device; the host waits for neither.

    Arrays are copied into locked memory at once, so they need not outlive the call. PyTorch keeps a locked block until
    the copy out of it is over, and a tensor until the step that reads it is.
    """

    def __init__(self, batches: Iterator[Batch], device: str) -> None:
        self._batches, self._device = batches, torch.device(device)
        self._card = torch.get_device_module(self._device)
        self._stream = self._card.Stream(self._device)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        with self._card.stream(self._stream):
            there = batch.map(self._copy)
        step = self._card.current_stream(self._device)
        step.wait_stream(self._stream)
        for _, side in there.items():
            for _, tensor in side.items():
                tensor.record_stream(step)
        return there

    def _copy(self, array: Any) -> Tensor:
        return array.to(self._device) if isinstance(array, Tensor) else upload(array, self._device)
