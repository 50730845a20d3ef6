"""What the updates of an iteration take, beside PyTorch's fused Adam on copies of the same weights and gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mainscripts.bench_common import Row, in_turn, ratio, spread

if TYPE_CHECKING:
    from core.optim import Optimizer
    from models import Task

WARM_UP = 2  # Adam makes its moments at its first step


def updates(task: Task, rounds: int) -> Row:
    """The `update_` and `adam_` times of all weights that an iteration moved, and how many times the second the first
    is. The task has just made an iteration. Its weights move on, by the gradients of that one."""
    optimizers = [optimizer for optimizer in task.optimizers.values() if _has_gradients(optimizer)]
    moved = [optimizer.weights[name] for optimizer in optimizers for name in optimizer.trained]
    adam = torch.optim.Adam([_twin(weight) for weight in moved], lr=optimizers[0].lr, fused=True)
    waits = moved[0].device.type != "cpu"
    guarded = task.values.get("collapse_guard") or task.precision.scales  # then an update has to look at its gradients
    ok = torch.ones((), dtype=torch.bool, device=moved[0].device) if guarded else None

    def timed(steps: list[Callable[[], object]]) -> Callable[[], None]:
        def run() -> None:
            for step in steps:
                step()
            if waits:
                moved[0].flatten()[0].item()  # the device works in the order of what it was given

        return run

    ours = timed([partial(optimizer.step, ok) for optimizer in optimizers])
    times = in_turn({"update": ours, "adam": timed([adam.step])}, rounds, WARM_UP)
    return {
        **spread("update_ms", times["update"]),
        **spread("adam_ms", times["adam"]),
        "update_ratio": ratio(times["update"], times["adam"]),
    }


def _has_gradients(optimizer: Optimizer) -> bool:
    return all(optimizer.weights[name].grad is not None for name in optimizer.trained)


def _twin(weight: Tensor) -> Tensor:
    twin = weight.detach().clone()
    assert weight.grad is not None
    twin.grad = weight.grad.clone()
    return twin
