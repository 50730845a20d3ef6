"""A copy of a model's tensors at one moment, quick enough to be taken between two iterations.

Two things make copies slow: fresh memory, which the system hands out page by page, and turning channels_last kernels
into DFL's layout. So the memory of a snapshot is used again for the next one, and tensors are copied as they lie; the
turn is left to whoever reads the arrays, which is the thread that writes them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.nn import Array, dfl_view


class Snapshot:
    """Copies tensors, one call each, into memory of its own in main memory; `restart` before a model is copied anew.

    What a call returns holds what `core.nn.to_dfl` would, in another memory order, and is valid until the tensor at the
    same place is copied after the next `restart`. A model whose tensors have changed in number or size is no error.
    Raises MemoryError, or torch's RuntimeError, where there is no memory for a tensor.
    """

    def __init__(self) -> None:
        self._held: list[Tensor] = []
        self._next = 0

    def restart(self) -> None:
        del self._held[self._next :]
        self._next = 0

    def __call__(self, tensor: Tensor) -> Array:
        tensor, place = tensor.detach(), self._next
        if place == len(self._held) or not _alike(self._held[place], tensor):
            self._held[place:] = [torch.empty_like(tensor, device="cpu", dtype=torch.float32)]
        self._held[place].copy_(tensor)
        self._next += 1
        return dfl_view(self._held[place]).numpy()


def _alike(memory: Tensor, tensor: Tensor) -> bool:
    return memory.shape == tensor.shape and memory.stride() == tensor.stride()
