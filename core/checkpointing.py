"""Gradient checkpointing: parts of a network are computed once more in the backward pass, rather than kept until then.

A module names its methods that are worth it in `segments`: those whose inputs are smaller than what they would keep.
What is computed again is the same to the last bit, so gradients are too; nothing in the networks is random.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from core.shapes import later


def enable(net: nn.Module) -> None:
    """From now on the segments of `net` keep their inputs only, wherever gradients are wanted."""
    for module in net.modules():
        names: tuple[str, ...] = getattr(module, "segments", ())
        for name in names:
            # An instance's own method wins over its class's.
            vars(module)[name] = partial(_again, getattr(module, name))


def _again(segment: Callable[..., Any], *inputs: Any) -> Any:
    return checkpoint(later(segment), *inputs, use_reentrant=False, preserve_rng_state=False)
