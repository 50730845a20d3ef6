"""What a pass of a swap network takes and gives, and its loss terms beyond comparing a drawing with its target: styles,
and what keeps a GAN clean.

A term returns (N,) per sample; sources: DFL.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core import losses
from core.precision import Precision
from models.net import SwapNet

SIDES = ("src", "dst")


@dataclass(frozen=True)
class Inputs:
    """A batch as the losses want it, (2N, C, H, W), src before dst. soft: the grown, blurred mask; mask_em: where eyes
    and mouth count for more, if they do."""

    warped: Tensor
    target: Tensor
    mask: Tensor
    soft: Tensor
    mask_em: Tensor | None = None

    @property
    def resolution(self) -> int:
        return self.target.shape[-1]

    def of(self, sides: tuple[str, ...]) -> Inputs:
        """(N, C, H, W) of one side, or both as they are."""
        if sides == SIDES:
            return self
        place = SIDES.index(sides[0])
        fields = (self.warped, self.target, self.mask, self.soft, self.mask_em)
        return Inputs(*(None if field is None else field.chunk(2)[place] for field in fields))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Drawn:
    """What a pass over one side or both has drawn: codes, faces and masks, src before dst."""

    sides: tuple[str, ...]
    code: Tensor
    face: Tensor
    mask: Tensor

    def of(self, side: str) -> Drawn:
        """What is of one of its sides."""
        if self.sides == (side,):
            return self
        code, face, mask = (drawn.chunk(2)[self.sides.index(side)] for drawn in (self.code, self.face, self.mask))
        return Drawn((side,), code, face, mask)


@dataclass
class Losses:
    """Of a pass over K faces of one side or both: displayed losses (K,), terms (N,) that are displayed as src's
    besides, and terms that only the gradient follows, adversaries and what DFL sets against their artefacts; and the
    faces drawn."""

    shown: Tensor
    of_src: list[Tensor]
    hidden: list[Tensor]
    face: Tensor


class Told:
    """What a step tells: each side's displayed losses, in pieces, and every fourth pixel of faces and targets."""

    def __init__(self) -> None:
        self.losses: dict[str, list[Tensor]] = {side: [] for side in SIDES}
        self._faces: dict[str, list[tuple[Tensor, Tensor]]] = {side: [] for side in SIDES}

    def hear(self, found: Losses, inputs: Inputs, sides: tuple[str, ...]) -> None:
        """A pass over `sides`, which `inputs` are of. Of its graph nothing is kept."""
        count = len(sides)
        shown, faces = found.shown.detach().chunk(count), sparse(found.face).chunk(count)
        for side, loss, face, target in zip(sides, shown, faces, sparse(inputs.target).chunk(count), strict=True):
            self.losses[side].append(loss)
            self._faces[side].append((face, target))
        for term in found.of_src:  # drawn with dst, displayed as src's
            self.losses["src"][-1] = self.losses["src"][-1] + term.detach()

    def contrast(self) -> Tensor:
        """See `contrast`."""
        pairs = [pair for side in SIDES for pair in self._faces[side]]
        face, target = (torch.cat(pictures) for pictures in zip(*pairs, strict=True))
        return contrast(face, target)


def face_style(net: SwapNet, dst: Drawn, precision: Precision) -> Tensor:
    """The swap's colours and contrasts inside its mask against those of dst's face, for a power of 1.

    The gradient reaches src's decoder only, not the code: so the swap is drawn for this term alone, even where
    `background_style` draws it with its code. dst: dst's own drawing.
    """
    decoder, code = net.decoder_of("src"), net.swap_code(dst.code).detach()
    with precision.autocast():
        swapped = decoder.face(code)
        with torch.no_grad():
            mask = decoder.mask(code)
    own = dst.face.detach() * dst.mask.detach()
    return losses.style_loss(own, swapped * mask, own.shape[-1] // 8, 100.0)


def background_style(net: SwapNet, dst_code: Tensor, inputs: Inputs, precision: Precision) -> Tensor:
    """What surrounds the swap against what surrounds dst, where src's soft mask is not, for a power of 1."""
    outside = 1 - inputs.soft.chunk(2)[0]
    with precision.autocast():
        drawn = net.decoder_of("src").face(net.swap_code(dst_code))
    drawn = drawn * outside
    around = inputs.target.chunk(2)[1] * outside
    structure = losses.dssim(around, drawn, int(inputs.resolution / 11.6)).mean(1)
    return 0.1 * (structure + losses.mean_square(around, drawn))


def against_artefacts(drawn: Tensor, inputs: Inputs) -> Tensor:
    """What masked training with a GAN sets against bright dots around src's face: 1e-6 of its total variation and 0.02
    of its error outside the soft mask. drawn: src's faces, (N, C, H, W)."""
    target, outside = inputs.target.chunk(2)[0], 1 - inputs.soft.chunk(2)[0]
    return 1e-6 * losses.total_variation(drawn) + 0.02 * losses.mean_square(target * outside, drawn * outside)


def around_dst(drawn: Tensor, inputs: Inputs) -> Tensor:
    """What AMP asks of dst's surroundings: 0.1 of the error outside the soft mask and 1e-6 of the total variation
    there. drawn: dst's faces, (N, C, H, W)."""
    target, outside = inputs.target.chunk(2)[1], 1 - inputs.soft.chunk(2)[1]
    drawn = drawn * outside
    return 0.1 * losses.mean_square(target * outside, drawn) + 1e-6 * losses.total_variation(drawn)


@torch.no_grad()
def sparse(pictures: Tensor) -> Tensor:
    """Every fourth pixel of pictures (K, C, H, W), a copy."""
    return pictures[:, :, ::4, ::4].clone()


@torch.no_grad()
def contrast(face: Tensor, target: Tensor) -> Tensor:
    """Standard deviation within the drawn faces (2N, C, H, W), src before dst, over that within their targets, 0-d, of
    the side where it is less: near 0 when a side has collapsed to one colour. `sparse` pictures will do."""
    drawn, real = (image.std((2, 3)).reshape(2, -1).mean(1) for image in (face, target))
    return (drawn / (real + 1e-6)).amin()
