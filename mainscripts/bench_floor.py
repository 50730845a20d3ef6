"""What a training iteration is held against: its network's layers alone.

Every convolution and every matrix product of one forward pass, each by itself, forward and backward, in PyTorch's own
operations, channels_last, in the precision of the step: no activation, no norm, no loss, no optimizer. Layers that the
training does not move get no gradient of their own, the first one none of the picture.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.batch import Batch, Side
from core.nn import CHANNELS_LAST, Conv, ConvTransposed, Decoder, Dense
from models import Task
from models.swap import SwapTask

KINDS = (Conv, ConvTransposed, Dense)


def random_batch(task: Task, count: int) -> Batch:
    """A batch of noise as the task's samples are: the arithmetic does not depend on what is in it."""
    generator = torch.Generator().manual_seed(0)

    def array(shape: tuple[int, ...]) -> Any:
        return torch.rand(count, *shape, generator=generator).numpy()

    requests = task.spec.requests(task.values)
    return Batch(
        **{side: Side(**{name: array(ask.shape(name)) for name in ask.names}) for side, ask in requests.items()}
    )


def step(task: Task, batch: Batch) -> None:
    """One whole training iteration; reading a loss waits for the device."""
    float(task.step(batch)[task.loss_names[0]])


@dataclass(frozen=True)
class Layer:
    """One layer as a forward pass calls it, with an input and a gradient of noise of the right shapes."""

    module: nn.Module
    x: Tensor
    gradient: Tensor


class Floor:
    """The layers of a task's network; a call is one forward and one backward of each of them."""

    def __init__(self, task: Any, batch: Batch) -> None:
        self._precision = task.precision
        self.net: nn.Module = copy.deepcopy(task.net)
        for block in self.net.modules():
            if isinstance(block, Decoder):  # its heads run as one convolution, which is not how they are defined
                vars(block)["face"] = partial(plain_face, block)
        self.layers: list[Layer] = []
        hooks = [module.register_forward_hook(self._take) for module in self.net.modules() if isinstance(module, KINDS)]
        with self._precision.step(), self._precision.autocast():
            self._draw(task, batch)
        for hook in hooks:
            hook.remove()
        if len(hooks) > len(self.layers):
            raise RuntimeError(
                f"{task.spec.name}: a forward pass went through {len(self.layers)} of {len(hooks)} layers"
            )

    def _draw(self, task: Any, batch: Batch) -> None:
        """One forward pass of the network."""
        if isinstance(task, SwapTask):
            x = task.both(batch, "warped").contiguous(memory_format=CHANNELS_LAST)
            self.net.decode_both(self.net.codes(x))  # type: ignore[operator]
        else:
            name = "warped" if "warped" in batch.face else "image"
            self.net(task.upload(batch.face[name], name))

    def _take(self, module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        x = torch.randn_like(given[0].detach(), dtype=out.dtype).requires_grad_(given[0].requires_grad)
        self.layers.append(Layer(module, x, torch.randn_like(out.detach())))

    def __call__(self) -> None:
        last = None  # TF32, which belongs to the process, is as the last step left it
        for layer in self.layers:
            with self._precision.autocast():
                out = layer.module(layer.x)
            if out.requires_grad:
                out.backward(layer.gradient)
                last = layer.x.grad if layer.x.grad is not None else last
            layer.x.grad = None
            for weight in layer.module.parameters():
                weight.grad = None
        if last is not None:
            last.sum().item()  # waits for the device


def plain_face(block: Decoder, code: Tensor) -> Tensor:
    x = code
    for i in range(block.steps):
        x = block.get_submodule(f"res{i}")(block.get_submodule(f"upscale{i}")(x))
    if not block.doubled:
        return torch.sigmoid(block.out_conv(x))
    heads = [head(x) for head in (block.out_conv, block.out_conv1, block.out_conv2, block.out_conv3)]
    return torch.sigmoid(F.pixel_shuffle(torch.cat(heads, 1), 2))
