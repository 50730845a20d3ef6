"""Batches on their way to a CUDA device: through locked memory and a stream of their own, so that the copy of a batch
runs while the step before it computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from core.batch import Batch


class Upload:
    """An iterator of the batches of `batches`, as tensors on `device` (`cuda:0`).

    Arrays are copied into locked memory at once, so they need not outlive the call. PyTorch keeps a locked block until
    the copy out of it is over, and a tensor until the step that reads it is.
    """

    def __init__(self, batches: Iterator[Batch], device: str) -> None:
        self._batches, self._device = batches, torch.device(device)
        self._stream = torch.cuda.Stream(self._device)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        with torch.cuda.stream(self._stream):
            there = batch.map(self._copy)
        step = torch.cuda.current_stream(self._device)
        step.wait_stream(self._stream)
        for _, side in there.items():
            for _, tensor in side.items():
                tensor.record_stream(step)
        return there

    def _copy(self, array: Any) -> Tensor:
        tensor = array if isinstance(array, Tensor) else torch.from_numpy(array)
        if tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)
