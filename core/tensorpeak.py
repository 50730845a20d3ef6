"""Peak: the most bytes of tensors that were alive at a time, with nothing but the tensors themselves looked at.

It sees every operation as it is dispatched, in the backward pass too, and follows the memory of what comes out until
that is given back. On the meta device, where tensors have no memory and operations do no arithmetic, this tells in a
second what a step would take.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROUND = 512  # bytes: CUDA's allocator hands out multiples of it


class Peak(TorchDispatchMode):
    """Counts what comes while it is entered, and `known` tensors that were there before; not `others`.
    inside(operation, its arguments): bytes that it holds while it runs and nobody sees. held, most: bytes."""

    def __init__(
        self,
        device: str,
        known: Iterable[Tensor] = (),
        others: Iterable[Tensor] = (),
        inside: Callable[[Any, tuple[Any, ...]], int] = lambda operation, arguments: 0,
    ) -> None:
        super().__init__()
        self.inside = inside
        self.device = torch.device(device).type
        self.held = self.most = 0
        self._there: dict[int, Any] = {}
        for tensor in known:
            self._follow(tensor)
        for tensor in others:
            self._there.setdefault(tensor.untyped_storage()._cdata, None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._follow(leaf)
        self.most = max(self.most, self.held + self.inside(func, args))
        return result

    def _follow(self, tensor: Tensor) -> None:
        if tensor.device.type != self.device:
            return
        storage = tensor.untyped_storage()
        number = storage._cdata
        if number in self._there:
            return
        count = -(-storage.nbytes() // ROUND) * ROUND
        self._there[number] = weakref.finalize(storage, self._gone, number, count)
        self.held += count
        self.most = max(self.most, self.held)

    def _gone(self, number: int, count: int) -> None:
        del self._there[number]
        self.held -= count
