"""What a step on the meta device must know to be a step's shadow there: which kind of device it stands for, and what
autocast, which leaves meta tensors alone, would do to the operations of our networks.

`models.memory` predicts a training's memory with it; no training uses it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_stands_for: ContextVar[str] = ContextVar("stands_for", default="cpu")
_current: ContextVar[ShapeCast | None] = ContextVar("current", default=None)


@contextlib.contextmanager
def stands_for(kind: str) -> Iterator[None]:
    """The meta device stands for another: cpu, cuda."""
    before = _stands_for.set(kind)
    try:
        yield
    finally:
        _stands_for.reset(before)


def kind_of(tensor: Tensor) -> str:
    """The type of the tensor's device; of a meta tensor that which it stands for."""
    kind = tensor.device.type
    return _stands_for.get() if kind == "meta" else kind


class ShapeCast(TorchFunctionMode):
    """Autocast to `dtype` for the meta device. Weights are converted once until the outermost of its contexts ends, as
    autocast does."""

    OPERATIONS = (F.conv2d, F.conv_transpose2d, torch.addmm)

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self._converted: dict[int, Tensor] = {}
        self._depth = 0

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Weights that are converted within it are kept until it ends."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._converted.clear()

    @contextlib.contextmanager
    def casting(self) -> Iterator[None]:
        """Operations are cast within it."""
        before = _current.set(self)
        try:
            with self.keeping(), self:
                yield
        finally:
            _current.reset(before)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in self.OPERATIONS:
            args = tuple(self._cast(one) if isinstance(one, Tensor) else one for one in args)
        return func(*args, **(kwargs or {}))

    def _cast(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            return tensor.to(self.dtype)
        if id(tensor) not in self._converted:
            self._converted[id(tensor)] = tensor.to(self.dtype)
        return self._converted[id(tensor)]


def later(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it would be cast now, whenever it is called."""
    cast = _current.get()
    if cast is None:
        return function

    def run(*inputs: Any) -> Any:
        with cast.casting():
            return function(*inputs)

    return run
