"""The rate of matrix products, and the operations of a step, for the share that a step uses."""

from __future__ import annotations

import pytest
import torch
from small_models import random_batch, small

from mainscripts.bench_rate import matrix_rate, operations, share


def test_the_rate_is_operations_over_the_median_time() -> None:
    times = iter([0.0, 9.0, 10.0, 19.0, 20.0, 20.5, 30.0, 30.25, 40.0, 44.0])  # two to warm up, then 0.5, 0.25, 4
    rate = matrix_rate("cpu", rounds=3, size=100, clock=lambda: next(times))
    assert rate == 2 * 100**3 / 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_real_rate(dtype: torch.dtype) -> None:
    assert matrix_rate("cpu", dtype, rounds=1, size=64) > 1e3


def test_operations_are_those_of_the_arithmetic() -> None:
    image, weight = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3)
    assert operations(lambda: torch.nn.functional.conv2d(image, weight, padding=1)) == 2 * 2 * 4 * 3 * 9 * 8 * 8
    task = small("SAEHD")
    batch = random_batch(task)
    forward = operations(lambda: task.losses(batch))  # type: ignore[attr-defined]
    assert 2.5 * forward < operations(lambda: task.step(batch)) < 3.2 * forward


def test_the_share_of_a_rate() -> None:
    assert share(5_000_000, ms=10.0, rate=1e9) == pytest.approx(0.5)
