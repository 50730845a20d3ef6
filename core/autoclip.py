"""AutoClip (Seetharaman et al. 2020): gradients are clipped to a percentile of the norms that they had before.

The norms stay on the device and no step waits for them: each is written to its place in a ring, and the percentile is
taken of the whole ring, in which 0 stands where nothing was written yet or where a norm tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

LENGTH = 1000
PERCENTILE = 10  # the paper's

PART = "facesmith_norms"
"""The file of the norms, beside the optimizers' of DFL: of each `<stem>/norms:0`, and `<stem>/iters:0`, the steps done
when they were saved."""


class NormHistory:
    """The last 1,000 gradient norms of one optimizer. The place of a norm follows from the number of its step, so a
    resumed run goes on with the same ring."""

    def __init__(self, device: torch.device) -> None:
        self.ring = torch.zeros(LENGTH, device=device)

    def limit(self, norm: Tensor, step: int) -> Tensor:
        """What the gradient's norm is brought down to in step number `step`: the 10th percentile of the norms up to
        this one, 0-d, on the device. Norms of 0 and such that are not finite do not count; infinity where none does.
        norm: 0-d."""
        self.ring[step % LENGTH] = torch.where(norm.isfinite(), norm, 0.0)
        known = torch.where(self.ring > 0, self.ring, float("nan"))
        return torch.nanquantile(known, PERCENTILE / 100).nan_to_num(nan=float("inf"))

    def forget(self) -> None:
        self.ring.zero_()


class Clipped(Protocol):
    """What is needed here of an optimizer."""

    iterations: int
    norms: NormHistory | None


def part(optimizers: Mapping[str, Clipped], copy: Callable[[Tensor], Any]) -> dict[str, Any]:
    """The file of the norms of optimizers by the stem of theirs; empty where none has any. copy: of a tensor."""
    found: dict[str, Any] = {}
    for stem, optimizer in optimizers.items():
        if optimizer.norms is not None:
            found[f"{stem}/iters:0"] = np.int64(optimizer.iterations)
            found[f"{stem}/norms:0"] = copy(optimizer.norms.ring)
    return found


def take(optimizers: Mapping[str, Clipped], found: Mapping[str, Any]) -> None:
    """The norms of such a file. Those of other steps than an optimizer's last ones, as after another program has
    trained on, and what is no such file, are left: the norms begin anew."""
    for stem, optimizer in optimizers.items():
        if optimizer.norms is None:
            continue
        optimizer.norms.forget()
        steps, ring = found.get(f"{stem}/iters:0"), found.get(f"{stem}/norms:0")
        if steps is None or ring is None or steps.size != 1 or ring.shape != (LENGTH,) or ring.dtype != np.float32:
            continue
        if steps.item() == optimizer.iterations:
            optimizer.norms.ring.copy_(torch.from_numpy(ring.copy()))
