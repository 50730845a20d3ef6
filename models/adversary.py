"""Adversaries: networks trained to tell two things apart, which the model is trained to make look alike.

DFL has two: the GAN, a U-Net that judges drawn faces patch by patch, and true face, which judges codes. Both are an
`Adversary`; they differ in their network, file names and what they are shown.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import torch
from torch import Tensor, nn

from core import losses
from core.nn import CHANNELS_LAST, Conv, ConvTransposed, leaky
from core.optim import Optimizer
from core.precision import Precision, Scaler

MAX_LAYERS = 9
MAX_CHANNELS = 512


class CodeDiscriminator(nn.Module):
    """Code (N, inputs, side, side) -> one map of logits. Source: DFL's CodeDiscriminator."""

    def __init__(self, inputs: int, side: int, width: int = 256) -> None:
        super().__init__()
        self.count = 1 + side // 8
        channels = [inputs, *(width * min(2**i, 8) for i in range(self.count))]
        for i in range(self.count):
            self.add_module(f"convs_{i}", Conv(channels[i], channels[i + 1], 4 if i == 0 else 3, 2))
        self.out_conv = Conv(channels[-1], 1, 1)

    def forward(self, code: Tensor) -> tuple[Tensor, ...]:
        x = code
        for i in range(self.count):
            x = leaky(self.get_submodule(f"convs_{i}")(x), 0.1)
        return (self.out_conv(x),)


class PatchDiscriminator(nn.Module):
    """Faces (N, C, H, W) -> two maps of logits: at the bottom of a U-Net whose cells see `patch` pixels, and at full
    size. Source: DFL's UNetPatchDiscriminator (U-Net GAN: Schoenfeld et al. 2020).

    Sides that do not halve evenly, with which DFL stops, lose what the way up has too much.
    """

    def __init__(self, patch: int, channels: int, width: int) -> None:
        super().__init__()
        strides = patch_strides(patch)
        self.count = len(strides)
        levels = [min(width * 2**i, MAX_CHANNELS) for i in range(self.count + 1)]
        # The order of creation is the order of the weights in DFL's files.
        for i, stride in enumerate(strides):
            self.add_module(f"convs_{i}", Conv(levels[i], levels[i + 1], 3, stride))
        for i, stride in enumerate(reversed(strides)):
            level = self.count - i
            inputs = levels[level] * (1 if i == 0 else 2)
            self.add_module(f"upconvs_{i}", ConvTransposed(inputs, levels[level - 1], stride))
        self.in_conv = Conv(channels, levels[0], 1)
        self.out_conv = Conv(2 * levels[0], 1, 1)
        self.center_out = Conv(levels[-1], 1, 1)
        self.center_conv = Conv(levels[-1], levels[-1], 1)

    def forward(self, faces: Tensor) -> tuple[Tensor, ...]:
        x = leaky(self.in_conv(faces.contiguous(memory_format=CHANNELS_LAST)), 0.2)
        skips: list[Tensor] = []
        for i in range(self.count):
            skips.append(x)
            x = leaky(self.get_submodule(f"convs_{i}")(x), 0.2)
        center = self.center_out(x)
        x = leaky(self.center_conv(x), 0.2)
        for i in range(self.count):
            skip = skips.pop()
            x = leaky(self.get_submodule(f"upconvs_{i}")(x), 0.2)
            x = torch.cat((skip, x[:, :, : skip.shape[2], : skip.shape[3]]), 1)
        return center, self.out_conv(x)


@lru_cache(maxsize=1)
def _strides_by_field() -> dict[int, tuple[int, ...]]:
    """Receptive field in pixels -> strides of the 3x3 layers that have it: fewest layers, then largest strides."""
    best: dict[int, tuple[int, ...]] = {}
    for count in range(1, MAX_LAYERS + 1):
        for rest in itertools.product((1, 2), repeat=count - 1):
            strides = (2, *rest)
            field, product = 3, 1
            for stride in strides[:-1]:
                product *= stride
                field += 2 * product
            known = best.get(field)
            if known is None or (len(known) == count and sum(known) < sum(strides)):
                best[field] = strides
    return best


def patch_strides(patch: int) -> tuple[int, ...]:
    """Strides of the layers whose receptive field is nearest to `patch` pixels (of two as near, the smaller)."""
    table = _strides_by_field()
    return table[min(table, key=lambda field: (abs(field - patch), field))]


class Adversary:
    """A discriminator, its optimizer and how much fooling it counts.

    stem: its file; scope: DFL's name for it inside the optimizer's file `optimizer_stem`. share: how much a map of each
    example counts in the discriminator's own loss. The optimizer is set by its owner, who knows the training options,
    and so is what it computes in.
    """

    optimizer: Optimizer

    def __init__(
        self, stem: str, optimizer_stem: str, scope: str, net: nn.Module, power: float, share: float = 0.5
    ) -> None:
        self.stem, self.optimizer_stem, self.scope, self.net, self.power = stem, optimizer_stem, scope, net, power
        self.share = share

    def compute_in(self, precision: Precision) -> None:
        """Before the first use."""
        self.precision, self.scaler = precision, Scaler(precision)

    def _maps(self, examples: Tensor) -> list[Tensor]:
        """Its maps of logits, float32."""
        with self.precision.autocast():
            return [logits.float() for logits in self.net(examples)]

    def fool(self, fake: Tensor) -> Tensor:
        """(N,): what the model pays for being told from the real thing. The discriminator itself does not move."""
        self.net.requires_grad_(False)
        zero = torch.zeros((), device=fake.device)
        return self.power * sum((losses.logits_loss(logits, True) for logits in self._maps(fake)), zero)

    def begin(self) -> None:
        """Before `learn`, once or more times, and `step`: an update of the discriminator."""
        self.net.requires_grad_(True)
        self.optimizer.zero_grad()
        self._seen = torch.zeros((), device=self.precision.device)

    def learn(self, real: Tensor, fake: Tensor, together: bool = True) -> None:
        """Adds what the update follows of detached examples, (N, ...) each. together: as one batch, else one kind after
        the other, for less memory."""
        for examples in [torch.cat((real, fake))] if together else [real, fake]:
            loss = torch.zeros((), device=real.device)
            for logits in self._maps(examples):
                if together:
                    told_real, told_fake = logits.chunk(2)
                    each = losses.logits_loss(told_real, True) + losses.logits_loss(told_fake, False)
                else:
                    each = losses.logits_loss(logits, examples is real)
                loss = loss + (self.share * each).sum()
            self.scaler.backward(loss)
            self._seen = self._seen + loss.detach()

    def step(self, ok: Tensor | None = None) -> None:
        """The update; ok as in `Optimizer.step`."""
        self.scaler.step((self.optimizer,), None if ok is None else ok & self._seen.isfinite())
