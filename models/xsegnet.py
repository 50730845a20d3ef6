"""The network of XSeg: a U-Net from a face to the logits of its mask, in DFL's names and order of weights."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from core.frn import blur_pool, norm_threshold
from core.nn import CHANNELS_LAST, Conv, ConvTransposed, Dense, init_weights

EPS = 1e-6
DOWN = ((1, 2, 4), (2, 2, 3), (4, 2, 2), (8, 3, 2), (8, 3, 2), (8, 3, 2))
"""Of each level: width in multiples of the base, how many convolutions, size of the pooling that follows."""
DENSE = 512


class FRN(nn.Module):
    """The weights of a norm, see `core.frn`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(channels))
        self.eps = nn.Parameter(torch.empty(1))


class TLU(nn.Module):
    """The threshold of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tau = nn.Parameter(torch.empty(channels))


class Block(nn.Module):
    """Convolution, norm, threshold; with stride 2 the convolution is a transposed one and doubles the side."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = Conv(inputs, outputs, 3) if stride == 1 else ConvTransposed(inputs, outputs, stride)
        self.frn, self.tlu = FRN(outputs), TLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        frn = self.frn
        return norm_threshold(self.conv(x), frn.weight, frn.bias, frn.eps, self.tlu.tau)


class XSegNet(nn.Module):
    """Images (N, 3, R, R), BGR, [0, 1] -> logits (N, 1, R, R). R is a multiple of 64; base: width of the first level.

    Without `skips` (pretraining) the levels of the way down are not seen on the way up, so that all must pass the
    bottleneck. Raises ValueError for another resolution.
    """

    segments = ("level_down", "level_up")  # see core.checkpointing

    def __init__(self, base: int = 32, resolution: int = 256) -> None:
        super().__init__()
        if resolution < 64 or resolution % 64:
            raise ValueError(f"resolution: got {resolution}, allowed are multiples of 64.")
        self.low, self.deep = resolution // 64, 8 * base
        widths = [width * base for width, _, _ in DOWN]
        for level, ((_, count, _), width) in enumerate(zip(DOWN, widths, strict=True)):
            inputs = 3 if level == 0 else widths[level - 1]
            for number, (a, b) in enumerate(pairwise((inputs, *[width] * count)), 1):
                self.add_module(f"conv{level}{number}", Block(a, b))
        flat = self.low**2 * self.deep
        self.dense1, self.dense2 = Dense(flat, DENSE), Dense(DENSE, flat)
        inputs = self.deep
        for level, ((_, count, _), width) in reversed(list(enumerate(zip(DOWN, widths, strict=True)))):
            # The three deep levels narrow to half their width before the skip is put beside it.
            up = width // 2 if level > 2 else inputs // 2
            self.add_module(f"up{level}", Block(inputs, up, 2))
            steps = (up + width, *[width] * count)
            for number, (a, b) in zip(range(count, 0, -1), pairwise(steps), strict=True):
                self.add_module(f"uconv{level}{number}", Block(a, b))
            inputs = width
        self.out_conv = Conv(inputs, 1, 3)

    def forward(self, x: Tensor, skips: bool = True) -> Tensor:
        seen: list[Tensor] = []
        for level, (_, _, pool) in enumerate(DOWN):
            x = self.level_down(level, x)
            seen.append(x)
            x = blur_pool(x, pool)
        # DFL flattens N, C, H, W
        x = self.dense2(self.dense1(x.flatten(1))).view(-1, self.deep, self.low, self.low)
        x = x.contiguous(memory_format=CHANNELS_LAST)
        for level in reversed(range(len(DOWN))):
            skip = seen.pop()
            x = self.level_up(level, x, skip if skips else torch.zeros_like(skip))
        logits: Tensor = self.out_conv(x)
        return logits

    def level_down(self, level: int, x: Tensor) -> Tensor:
        for number in range(1, DOWN[level][1] + 1):
            x = self.get_submodule(f"conv{level}{number}")(x)
        return x

    def level_up(self, level: int, x: Tensor, skip: Tensor) -> Tensor:
        x = torch.cat((self.get_submodule(f"up{level}")(x), skip), 1)
        for number in range(DOWN[level][1], 0, -1):
            x = self.get_submodule(f"uconv{level}{number}")(x)
        return x


def init(net: XSegNet, generator: torch.Generator) -> None:
    """Fresh weights: as `core.nn.init_weights`, but norms begin as what changes nothing."""
    init_weights(net, generator)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, FRN):
                module.weight.fill_(1.0)
                module.eps.fill_(EPS)
