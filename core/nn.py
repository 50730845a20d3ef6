"""Blocks, encoder, inter and decoder of DeepFaceLab's autoencoders, and their weights in DFL's names and layouts.

Notable choices:
- Tensors are NCHW, kept channels_last in memory from the input to the heads. A variant is arguments (flags, sizes),
  never another class.
- Attribute names are DFL's scope names, so a weight's DFL name is its PyTorch name with `/` for `.` and `:0` behind.
- Depth-to-space in DFL's channel order is one blockwise copy in channels_last, forward and backward: faster than
  PixelShuffle, whose order DFL does not use.
- Weights are drawn from a generator that is passed in; a module is empty until `init_weights` or `load_state`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.shapes import kind_of

Activation = Callable[[Tensor, float], Tensor]
Array = Any  # numpy's ndarray; this file needs no numpy of its own
Copy = Callable[[Tensor], Array]
"""How a tensor becomes an array for a file: `to_dfl`, or a call of `core.snapshot.Snapshot`."""
CHANNELS_LAST = torch.channels_last


def leaky(x: Tensor, slope: float) -> Tensor:
    """LeakyReLU in place: a convolution does not need its own output for the backward pass."""
    return F.leaky_relu(x, slope, inplace=True)


def x_cos_x(x: Tensor, _: float) -> Tensor:
    """x * cos(x), architecture flag `c`."""
    return x * torch.cos(x)


def depth_to_space(x: Tensor, factor: int = 2) -> Tensor:
    """(N, f*f*C, H, W) -> (N, C, f*H, f*W); channel = (dy*f + dx)*C + c, TensorFlow's order. channels_last out."""
    n, channels, h, w = x.shape
    blocks = x.permute(0, 2, 3, 1).reshape(n, h, w, factor, channels // factor)  # last axis: dx and channel together
    rows = blocks.transpose(2, 3).reshape(n, h * factor, w * factor, channels // factor**2)
    return rows.permute(0, 3, 1, 2)


def pixel_norm(x: Tensor) -> Tensor:
    """(N, K) scaled to a mean square of 1 per sample."""
    x = single(x)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def single(x: Tensor) -> Tensor:
    """In float32, whatever autocast made of it. Nothing for a tracer to see: what is exported was never converted."""
    return x.float() if isinstance(x, Tensor) and x.dtype != torch.float32 else x


class Conv(nn.Module):
    """Convolution with bias, zero padding kernel//2 on every side also at stride 2 (DFL: not TensorFlow's SAME)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.padding = stride, kernel // 2
        weight = torch.empty(outputs, inputs, kernel, kernel).contiguous(memory_format=CHANNELS_LAST)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class ConvTransposed(nn.Module):
    """Transposed 3x3 convolution with bias; the output's side is the input's times `stride` (TensorFlow's SAME)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(inputs, outputs, 3, 3).contiguous(memory_format=CHANNELS_LAST))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return conv_transposed(x, self.weight, self.bias, self.stride)


def conv_transposed(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """A transposed 3x3 convolution, cut to `stride` times the side."""
    if stride == 1:
        return F.conv_transpose2d(x, weight, bias, padding=1)
    if stride == 2 and kind_of(x) == "cpu" and x.dtype != torch.float32:
        return _doubled(x, weight.to(x.dtype), bias.to(x.dtype))
    h, w = x.shape[2] * stride, x.shape[3] * stride
    return F.conv_transpose2d(x, weight, bias, stride)[:, :, :h, :w]


def _doubled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The transposed convolution of stride 2 as a 2x2 one that draws the four pixels of each place side by side: in
    half precision processors have a quick kernel for this one only, 2 to 8 times the other's speed."""
    inputs, outputs = weight.shape[:2]
    # Of the taps (2, 0) a pixel with an even row is made, of (nothing, 1) one with an odd row; so along columns.
    taps = F.pad(weight, (0, 1, 0, 1)).reshape(inputs, outputs, 2, 2, 2, 2).flip(2, 4)
    kernels = taps.permute(3, 5, 1, 0, 2, 4).reshape(4 * outputs, inputs, 2, 2)
    drawn = F.conv2d(F.pad(x, (1, 0, 1, 0)), kernels.contiguous(memory_format=CHANNELS_LAST), bias.repeat(4))
    return depth_to_space(drawn)


class Dense(nn.Module):
    """x @ W + b with W (in, out), no activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class Downscale(nn.Module):
    """Halves the side: 5x5 convolution of stride 2, activation."""

    def __init__(self, inputs: int, outputs: int, act: Activation) -> None:
        super().__init__()
        self.act = act
        self.conv1 = Conv(inputs, outputs, 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv1(x), 0.1)


class Upscale(nn.Module):
    """Doubles the side: 3x3 convolution to four times the channels, activation, depth-to-space."""

    def __init__(self, inputs: int, outputs: int, act: Activation) -> None:
        super().__init__()
        self.act = act
        self.conv1 = Conv(inputs, 4 * outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        return depth_to_space(self.act(self.conv1(x), 0.1))


class Residual(nn.Module):
    """Two 3x3 convolutions around a skip."""

    def __init__(self, channels: int, act: Activation) -> None:
        super().__init__()
        self.act = act
        self.conv1, self.conv2 = Conv(channels, channels, 3), Conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv2(self.act(self.conv1(x), 0.2)).add_(x), 0.2)


class Downscales(nn.Module):
    """A chain of Downscales under DFL's names downs_0, downs_1, ..."""

    def __init__(self, widths: tuple[int, ...], act: Activation) -> None:
        super().__init__()
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            self.add_module(f"downs_{i}", Downscale(inputs, outputs, act))

    def forward(self, x: Tensor) -> Tensor:
        for down in self.children():
            x = down(x)
        return x


class Encoder(nn.Module):
    """Image (N, channels, res, res) -> flat code (N, `length`) in C, H, W order; pixel_norm with flag `u`.

    bottleneck: a dense layer behind all that brings the code down to that length (AMP; 0: none)."""

    segments = ("forward",)  # see core.checkpointing

    def __init__(self, channels: int, width: int, resolution: int, flags: str = "", bottleneck: int = 0) -> None:
        super().__init__()
        act = activation(flags)
        self.flags = flags
        self.down1: nn.Module
        length = 8 * width * (resolution // (32 if "t" in flags else 16)) ** 2
        if "t" in flags:
            self.down1, self.res1 = Downscale(channels, width, act), Residual(width, act)
            self.down2, self.down3 = Downscale(width, 2 * width, act), Downscale(2 * width, 4 * width, act)
            self.down4, self.down5 = Downscale(4 * width, 8 * width, act), Downscale(8 * width, 8 * width, act)
            self.res5 = Residual(8 * width, act)
        else:
            self.down1 = Downscales((channels, width, 2 * width, 4 * width, 8 * width), act)
        self._blocks = tuple(self._modules)
        self.length = bottleneck or length
        if bottleneck:
            self.dense1 = Dense(length, bottleneck)

    def forward(self, x: Tensor) -> Tensor:
        for block in self._blocks:
            x = self.get_submodule(block)(x)
        x = x.flatten(1)
        x = pixel_norm(x) if "u" in self.flags else x
        return self.dense1(x) if "dense1" in self._modules else x


class Inter(nn.Module):
    """Flat code -> (N, outputs, L, L), or (N, outputs, 2L, 2L) without flag `t`. `low` is L.

    width: of the layer between; 0 is one dense layer instead of two (AMP)."""

    def __init__(self, inputs: int, width: int, outputs: int, low: int, flags: str = "") -> None:
        super().__init__()
        self.outputs, self.low, self.flags = outputs, low, flags
        if width:
            self.dense1 = Dense(inputs, width)
        self.dense2 = Dense(width or inputs, low * low * outputs)
        self.side = low if "t" in flags else 2 * low  # of what comes out
        if "t" not in flags:
            self.upscale1 = Upscale(outputs, outputs, activation(flags))

    def forward(self, x: Tensor) -> Tensor:
        x = self.dense1(x) if "dense1" in self._modules else x
        x = self.dense2(x).view(-1, self.outputs, self.low, self.low)
        x = x.contiguous(memory_format=CHANNELS_LAST)
        return x if "t" in self.flags else self.upscale1(x)


class Decoder(nn.Module):
    """Code (N, inputs, h, h) -> face (N, channels, res, res) and mask (N, 1, res, res), both [0, 1].

    mask_first: the weights' order in AMP's files; SAEHD's have the mask's last layers behind the face's."""

    segments = ("level", "mask_level")

    def __init__(
        self, inputs: int, width: int, mask_width: int, flags: str = "", channels: int = 3, mask_first: bool = False
    ) -> None:
        super().__init__()
        act = activation(flags)
        self.doubled = "d" in flags
        steps = (8, 8, 4, 2) if "t" in flags else (8, 4, 2)
        self.steps = len(steps)
        # The order of creation is the order of the weights in DFL's files.
        for i, (a, b) in enumerate(_chain(inputs, width, steps)):
            self.add_module(f"upscale{i}", Upscale(a, b, act))
        for i, step in enumerate(steps):
            self.add_module(f"res{i}", Residual(step * width, act))
        for i, (a, b) in enumerate(_chain(inputs, mask_width, steps)):
            self.add_module(f"upscalem{i}", Upscale(a, b, act))

        def face_ends() -> None:
            self.out_conv = Conv(2 * width, channels, 1)
            if self.doubled:
                self.out_conv1, self.out_conv2 = Conv(2 * width, channels, 3), Conv(2 * width, channels, 3)
                self.out_conv3 = Conv(2 * width, channels, 3)

        def mask_ends() -> None:
            if self.doubled:
                self.add_module(f"upscalem{self.steps}", Upscale(2 * mask_width, mask_width, act))
            self.out_convm = Conv(mask_width if self.doubled else 2 * mask_width, 1, 1)

        for add in (mask_ends, face_ends) if mask_first else (face_ends, mask_ends):
            add()

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        return self.face(code), self.mask(code)

    def face(self, code: Tensor) -> Tensor:
        """The image half: (N, channels, res, res)."""
        x = code
        for i in range(self.steps):
            x = self.level(i, x)
        # Half precision of a face near 1 is coarser than a step of 8 bits.
        x = single(self._heads(x) if self.doubled else self.out_conv(x))
        return torch.sigmoid(depth_to_space(x) if self.doubled else x)

    def mask(self, code: Tensor) -> Tensor:
        """The mask half: (N, 1, res, res)."""
        x = code
        for i in range(self.steps + self.doubled):
            x = self.mask_level(i, x)
        return torch.sigmoid(single(self.out_convm(x)))

    def level(self, i: int, x: Tensor) -> Tensor:
        drawn: Tensor = self.get_submodule(f"res{i}")(self.get_submodule(f"upscale{i}")(x))
        return drawn

    def mask_level(self, i: int, x: Tensor) -> Tensor:
        drawn: Tensor = self.get_submodule(f"upscalem{i}")(x)
        return drawn

    def _heads(self, x: Tensor) -> Tensor:
        """The four heads of flag `d` as one convolution: one pass over the largest tensor of the net instead of
        four. The 1x1 head becomes the centre of a 3x3 kernel."""
        weights = [F.pad(self.out_conv.weight, (1, 1, 1, 1))]
        weights += [self.out_conv1.weight, self.out_conv2.weight, self.out_conv3.weight]
        heads = (self.out_conv, self.out_conv1, self.out_conv2, self.out_conv3)
        weight = torch.cat(weights).contiguous(memory_format=CHANNELS_LAST)
        return F.conv2d(x, weight, torch.cat([head.bias for head in heads]), 1, 1)


def activation(flags: str) -> Activation:
    return x_cos_x if "c" in flags else leaky


def _chain(inputs: int, width: int, steps: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    widths = (inputs, *(step * width for step in steps))
    return pairwise(widths)


def init_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Glorot uniform for every kernel and matrix, zero biases. Drawn on the CPU, so every device starts alike."""
    for parameter in module.parameters():
        with torch.no_grad():
            if parameter.dim() == 1:
                parameter.zero_()
                continue
            fan_out, fan_in = (parameter.shape[1], parameter.shape[0]) if parameter.dim() == 2 else parameter.shape[:2]
            limit = math.sqrt(6 / ((fan_in + fan_out) * math.prod(parameter.shape[2:])))
            parameter.copy_(torch.empty(parameter.shape).uniform_(-limit, limit, generator=generator))


def dfl_name(name: str) -> str:
    """`down1.downs_0.conv1.weight` -> `down1/downs_0/conv1/weight:0`"""
    return name.replace(".", "/") + ":0"


def dfl_view(tensor: Tensor) -> Tensor:
    """The same memory in DFL's layout: kernels OIHW -> HWIO (transposed ones IOHW -> HWOI), the rest as it is."""
    return tensor.detach().permute(2, 3, 1, 0) if tensor.dim() == 4 else tensor.detach()


def to_dfl(tensor: Tensor) -> Array:
    """A contiguous copy in DFL's layout."""
    return dfl_view(tensor).to("cpu", torch.float32).clone(memory_format=torch.contiguous_format).numpy()


def from_dfl(array: Array) -> Tensor:
    """The inverse of `to_dfl`, a copy: arrays read from files may be read-only."""
    tensor = torch.from_numpy(array.copy())
    return tensor.permute(3, 2, 0, 1) if tensor.dim() == 4 else tensor


def dfl_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape `tensor` has in a DFL file."""
    shape = tuple(tensor.shape)
    return (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape


def state(module: nn.Module, copy: Copy = to_dfl) -> dict[str, Array]:
    """Every weight and buffer by DFL's name, in DFL's layout: copies."""
    return {name: copy(tensor) for name, tensor in named_tensors(module).items()}


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every weight and buffer by DFL's name: the tensors themselves."""
    return {dfl_name(name): tensor for name, tensor in module.state_dict(keep_vars=True).items()}


def misfit(expected: Mapping[str, Tensor], found: Mapping[str, Array]) -> str:
    """Why the arrays `found` do not fit the tensors `expected` (both by DFL's names); empty when they do."""
    for name, tensor in expected.items():
        if name not in found:
            return f"{name} is missing"
        array = found[name]
        if tuple(array.shape) != dfl_shape(tensor) or str(array.dtype) != "float32":
            return f"{name}: expected {dfl_shape(tensor)} float32, found {tuple(array.shape)} {array.dtype}"
    unknown = [name for name in found if name not in expected]
    return f"{unknown[0]} is not part of this network" if unknown else ""


def load_state(module: nn.Module, found: Mapping[str, Array]) -> None:
    """Copies arrays (DFL's names and layouts) into the module. Raises ValueError, before any change, naming the
    tensor that does not fit, what was expected and what was found."""
    expected = named_tensors(module)
    if reason := misfit(expected, found):
        raise ValueError(reason)
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(from_dfl(found[name]))
