"""How long a training iteration takes, beside what its network alone costs:

    python main.py bench step --archi df-ud --resolution 128 --ae-dims 128 --e-dims 48 --d-dims 48 --d-mask-dims 16

The floor is the same network, forward and backward, in PyTorch's own operations (channels_last, both sides in one
batch through shared parts), with no loss, no metrics and no optimizer. Step and floor are timed in turn, so that
whatever else the machine does falls on both; figures are medians over the rounds. A ratio below 1 is possible: the
product's network is leaner than the plain one.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core.batch import ARRAYS, Batch, Side
from core.nn import CHANNELS_LAST, Decoder, Downscale, Residual, Upscale
from core.options import OptionError
from models import MODELS
from models.swap import SwapNet, SwapTask

SIZES = ("ae_dims", "e_dims", "d_dims", "d_mask_dims")
WARM_UP = 3  # iterations: allocators and kernel choices settle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=tuple(MODELS), default="SAEHD", help="model class (%(default)s)")
    parser.add_argument("--archi", default="df-ud", help="architecture (%(default)s)")
    parser.add_argument("--resolution", type=int, default=128, metavar="N", help="pixels (%(default)s)")
    for key, size in zip(SIZES, (128, 48, 48, 16), strict=True):
        flag = f"--{key.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=size, metavar="N", help=f"{key} (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="faces of each side (%(default)s)")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE", help="any other option")
    parser.add_argument("--device", default="cpu", help="PyTorch's name of the device (%(default)s)")
    parser.add_argument("--precision", default="full", help="precision mode (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads (PyTorch's choice)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="measurements to take the median of")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(args: argparse.Namespace) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    given = {key: getattr(args, key) for key in (*SIZES, "archi", "resolution", "batch_size")}
    given["face_type"] = "wf"
    try:
        given |= dict(_split(text) for text in args.sets)
        spec = MODELS[args.model]
        values = spec.resolve(given)
        task = spec.build(values, device=args.device, precision=args.precision)
    except (OptionError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    assert isinstance(task, SwapTask)
    batch = random_batch(values["resolution"], values["batch_size"])
    steps, floors = measure(partial(step, task, batch), Floor(task, batch), args.rounds)
    result = {
        "bench": "step",
        "model": spec.name,
        "archi": values["archi"],
        "resolution": values["resolution"],
        "batch": values["batch_size"],
        "precision": args.precision,
        "device": args.device,
        "ms": round(statistics.median(steps), 1),
        "ms_min": round(min(steps), 1),
        "ms_max": round(max(steps), 1),
        "floor_ms": round(statistics.median(floors), 1),
        "ratio": round(statistics.median(steps) / statistics.median(floors), 3),
    }
    if args.json:
        print(json.dumps(result), flush=True)
    else:
        print(
            "{model} {archi} {resolution} px, batch {batch}, {precision}, {device}: {ms} ms an iteration "
            "({ms_min} to {ms_max}), floor {floor_ms} ms, ratio {ratio}".format(**result),
            flush=True,
        )
    return 0


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise OptionError(f"--set: got {text!r}, allowed is KEY=VALUE.")
    return key, value


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


def random_batch(resolution: int, count: int) -> Batch:
    """A batch of noise: the arithmetic does not depend on what is in it."""
    rng = np.random.default_rng(0)
    sides = [
        Side(**{name: rng.random((count, c, resolution, resolution), dtype=np.float32) for name, c in ARRAYS.items()})
        for _ in range(2)
    ]
    return Batch(src=sides[0], dst=sides[1])


def step(task: SwapTask, batch: Batch) -> None:
    """One whole training iteration; reading a loss waits for the device."""
    float(task.step(batch)["src_loss"])


class Floor:
    """The task's network in plain operations: a call is one forward and one backward of ones."""

    def __init__(self, task: SwapTask, batch: Batch) -> None:
        self.net: SwapNet = copy.deepcopy(task.net)
        self.x = task.both(batch, "warped").contiguous(memory_format=CHANNELS_LAST)
        for block in self.net.modules():
            for kind, method, plain in PLAIN:
                if isinstance(block, kind):
                    vars(block)[method] = partial(plain, block)  # an instance's own method wins over its class's

    def __call__(self) -> None:
        for parameter in self.net.parameters():
            parameter.grad = None
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
