"""What a device's arithmetic could reach, for `bench step` to tell how much of it a step uses: the rate of a large
matrix product, measured in the same run, and the operations of a function, counted by PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

SIZES = {"cuda": 8192, "xpu": 8192, "mps": 4096}
"""Side of the matrices: large enough that nothing but the products counts."""
ON_CPU = 1536
WARM_UP = 2


def matrix_rate(
    device: torch.device | str, dtype: torch.dtype = torch.float32, rounds: int = 7, size: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:  # fmt: skip
    """Operations per second of a square matrix product in `dtype`, the median of `rounds`; TF32 as it is switched.

    A product of matrices of side n is 2 n^3 operations. Raises RuntimeError for a kind of number the device lacks.
    """
    device = torch.device(device)
    side = size or SIZES.get(device.type, ON_CPU)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.rand(side, side, generator=generator).to(device, dtype) for _ in range(2))
    times = []
    for number in range(WARM_UP + max(1, rounds)):
        started = clock()
        product = left @ right
        product[-1, -1].item()  # waits for the device
        if number >= WARM_UP:
            times.append(clock() - started)
    return 2 * side**3 / statistics.median(times)


def operations(function: Callable[[], object]) -> int:
    """Operations of the convolutions and matrix products of a call, two for a multiplication with its addition."""
    with FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


def share(count: int, ms: float, rate: float) -> float:
    """How much of a rate (operations per second) is used by `count` operations in `ms` milliseconds; 1 is all."""
    return count / (ms / 1e3) / rate
