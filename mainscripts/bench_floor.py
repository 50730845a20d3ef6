"""What `bench step` times: an iteration, and the floor below it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core.batch import Batch, SampleRequest, Side, array_channels
from core.nn import CHANNELS_LAST, Decoder, Downscale, Residual, Upscale
from models.swap import SwapNet, SwapTask

WARM_UP = 3  # iterations: allocators and kernel choices settle


def measure(
    step: Callable[[], None], floor: Callable[[], None], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[float], list[float]]:
    """Milliseconds of `step` and of `floor`, called in turn; the warm-up is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + max(1, rounds)):
        for function, kept in zip((step, floor), times, strict=True):
            started = clock()
            function()
            if number >= WARM_UP:
                kept.append((clock() - started) * 1e3)
    return times


def random_batch(resolution: int, count: int, channels: int = 3) -> Batch:
    """A batch of noise: the arithmetic does not depend on what is in it."""
    rng = np.random.default_rng(0)

    def array(name: str) -> np.ndarray:
        return rng.random((count, array_channels(name, channels), resolution, resolution), dtype=np.float32)

    return Batch(**{side: Side(**{name: array(name) for name in SampleRequest.names}) for side in ("src", "dst")})


def step(task: SwapTask, batch: Batch) -> None:
    """One whole training iteration; reading a loss waits for the device."""
    float(task.step(batch)["src_loss"])


class Floor:
    """The task's network in plain operations: a call is one forward and one backward of ones."""

    def __init__(self, task: SwapTask, batch: Batch) -> None:
        self.net: SwapNet = copy.deepcopy(task.net)
        self.precision = task.precision
        self.x = task.both(batch, "warped").contiguous(memory_format=CHANNELS_LAST)
        for block in self.net.modules():
            for kind, method, plain in PLAIN:
                if isinstance(block, kind):
                    vars(block)[method] = partial(plain, block)  # an instance's own method wins over its class's

    def __call__(self) -> None:
        for parameter in self.net.parameters():
            parameter.grad = None
        with self.precision.autocast():
            drawn = self.net.decode_both(self.net.codes(self.x))
        torch.autograd.backward(drawn, [torch.ones_like(tensor) for tensor in drawn])
        gradients = [weight.grad for weight in self.net.parameters() if weight.grad is not None]
        gradients[0].sum().item()  # the first layer comes last: this waits for the device


def plain_act(block: Any, x: Tensor, slope: float) -> Tensor:
    """The block's activation with nothing in place."""
    return F.leaky_relu(x, slope) if block.act.__name__ == "leaky" else x * torch.cos(x)


def plain_downscale(block: Downscale, x: Tensor) -> Tensor:
    return plain_act(block, block.conv1(x), 0.1)


def plain_upscale(block: Upscale, x: Tensor) -> Tensor:
    return F.pixel_shuffle(plain_act(block, block.conv1(x), 0.1), 2)


def plain_residual(block: Residual, x: Tensor) -> Tensor:
    return plain_act(block, x + block.conv2(plain_act(block, block.conv1(x), 0.2)), 0.2)


def plain_face(block: Decoder, code: Tensor) -> Tensor:
    x = code
    for i in range(block.steps):
        x = block.get_submodule(f"res{i}")(block.get_submodule(f"upscale{i}")(x))
    if not block.doubled:
        return torch.sigmoid(block.out_conv(x))
    heads = [head(x) for head in (block.out_conv, block.out_conv1, block.out_conv2, block.out_conv3)]
    return torch.sigmoid(F.pixel_shuffle(torch.cat(heads, 1), 2))


PLAIN: tuple[tuple[type, str, Callable[..., Tensor]], ...] = (
    (Downscale, "forward", plain_downscale),
    (Upscale, "forward", plain_upscale),
    (Residual, "forward", plain_residual),
    (Decoder, "face", plain_face),
)
