"""What the U-Net of XSeg is made of besides convolutions: filter response normalisation with a learned threshold (Singh
and Krishnan 2020) and blur pooling (Zhang 2019), as DFL computes them.

Norm, affine and threshold are one function with a gradient of its own: written as a chain of operations it took longer
than the convolutions. On a processor it goes over one picture after the other, which needs the least scratch memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core.shapes import kind_of

CHUNK = 1 << 20  # numbers: smaller pieces mean more waits of threads for each other, dear where cores are shared
HALF = (torch.float16, torch.bfloat16)


def norm_threshold(x: Tensor, weight: Tensor, bias: Tensor, eps: Tensor, tau: Tensor) -> Tensor:
    """max(x / sqrt(mean of x^2 over space + |eps|) * weight + bias, tau) of x (N, C, H, W), for each sample and
    channel. weight, bias, tau: (C,); eps: (1,). channels_last out."""
    if torch.compiler.is_compiling():
        return _plain(x, weight, bias, eps, tau)
    result: Tensor = _NormThreshold.apply(x, weight, bias, eps, tau)
    return result


def _plain(x: Tensor, weight: Tensor, bias: Tensor, eps: Tensor, tau: Tensor) -> Tensor:
    """The same for a compiler, which makes one piece of a chain of operations but cannot look into ours."""
    weight, bias, tau = (row.view(-1, 1, 1) for row in (weight, bias, tau))
    wide = x.float()
    scaled = wide * torch.rsqrt(wide.square().mean((2, 3), keepdim=True) + eps.abs()) * weight + bias
    return torch.where(scaled >= tau, scaled, tau).to(x.dtype)  # where they are equal the gradient is x's


class _NormThreshold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: Tensor, tau: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(x)
        pixels, drawn = _pixels(x), _pixels(out)
        power = weight.new_zeros(len(x), 1, x.shape[1])
        seen, made = _Visit(), _Visit()
        for place in _places(pixels):
            piece = seen.read(pixels[place])
            power[place[0]] += torch.mul(piece, piece, out=made.room(drawn[place])).sum(1, keepdim=True)
        root = (power / pixels.shape[1] + eps.abs()).rsqrt()  # (N, 1, C)
        scale = root * weight
        for place in _places(pixels):
            piece, shown = seen.read(pixels[place]), made.room(drawn[place])
            torch.addcmul(bias, piece, scale[place[0]], out=shown)
            torch.maximum(shown, tau, out=shown)
            made.leave(drawn[place])
        ctx.save_for_backward(x, weight, bias, eps, tau, root)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        x, weight, bias, eps, tau, root = ctx.saved_tensors
        given = _pixels(gradients[0].contiguous(memory_format=torch.channels_last))
        pixels, scale = _pixels(x), root * weight
        result = torch.empty_like(x)
        drawn = _pixels(result)
        whole, passed, along = (torch.zeros_like(root) for _ in range(3))
        seen, pulled, made, scratch = _Visit(), _Visit(), _Visit(), _Visit()
        for place in _places(pixels):
            piece, pull, out, n = seen.read(pixels[place]), pulled.read(given[place]), made.room(drawn[place]), place[0]
            mask = torch.addcmul(bias, piece, scale[n], out=scratch.new(piece))
            torch.ge(mask, tau, out=mask)  # where they are equal the gradient is x's, as in TensorFlow
            torch.mul(pull, mask, out=out)
            whole[n] += pull.sum(1, keepdim=True)
            passed[n] += out.sum(1, keepdim=True)
            along[n] += torch.mul(out, piece, out=mask).sum(1, keepdim=True)
            made.leave(drawn[place])
        fall = root**3 * weight * along  # what the norm takes from its own numbers
        for place in _places(pixels):
            piece, out, n = seen.read(pixels[place]), made.read(drawn[place]), place[0]
            out.mul_(scale[n]).addcmul_(piece, fall[n], value=-1 / pixels.shape[1])
            made.leave(drawn[place])
        return (
            result, (root * along).sum((0, 1)), passed.sum((0, 1)), (-0.5 * eps.sign() * fall.sum()).view(1),
            (whole - passed).sum((0, 1)),
        )  # fmt: skip


class _Visit:
    """Where pieces of a tensor are computed with: those in half precision visit a float32 buffer, which stays in the
    cache; others are used where they lie."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)

    def new(self, piece: Tensor) -> Tensor:
        """A buffer of the piece's shape."""
        dtype = torch.float32 if piece.dtype in HALF else piece.dtype
        fits = self._buffer.numel() >= piece.numel() and self._buffer.device == piece.device
        if not fits or self._buffer.dtype != dtype:
            self._buffer = torch.empty(piece.numel(), dtype=dtype, device=piece.device)
        return self._buffer[: piece.numel()].view(piece.shape)

    def room(self, piece: Tensor) -> Tensor:
        """Where to write what `leave` brings into the piece."""
        return self.new(piece) if piece.dtype in HALF else piece

    def read(self, piece: Tensor) -> Tensor:
        return self.new(piece).copy_(piece) if piece.dtype in HALF else piece

    def leave(self, piece: Tensor) -> None:
        if piece.dtype in HALF:
            piece.copy_(self.new(piece))


def _pixels(x: Tensor) -> Tensor:
    """(N, C, H, W), channels_last -> (N, H * W, C), the same memory."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, x.shape[1])


def _places(pixels: Tensor) -> Iterator[tuple[slice, slice]]:
    """The pieces of (N, P, C) to work on at a time: on a card all at once."""
    samples, count, channels = pixels.shape
    if kind_of(pixels) != "cpu":
        yield slice(samples), slice(count)
        return
    step = max(1, CHUNK // channels)
    for sample in range(samples):
        for start in range(0, count, step):
            yield slice(sample, sample + 1), slice(start, start + step)


def blur_kernel(size: int) -> Tensor:
    """(size, size) of binomial weights that add up to 1."""
    row = torch.ones(1)
    for _ in range(size - 1):
        row = F.pad(row, (0, 1)) + F.pad(row, (1, 0))
    return torch.outer(row, row) / row.sum() ** 2


def blur_pool(x: Tensor, size: int) -> Tensor:
    """Halves the side of x (N, C, H, W): a binomial kernel of `size` pixels moved by 2, zeros around the picture."""
    before, after = (size - 1) // 2, size // 2
    channels = x.shape[1]
    weight = blur_kernel(size).to(x).expand(channels, 1, size, size).contiguous(memory_format=torch.channels_last)
    return F.conv2d(F.pad(x, (before, after, before, after)), weight, stride=2, groups=channels)
