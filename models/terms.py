"""The loss terms of a swap network beyond comparing a drawing with its target: styles, and what keeps a GAN clean.

Each returns (N,) per sample and is part of src's loss; sources: DFL.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core import losses
from core.precision import Precision
from models.net import SwapNet


@dataclass(frozen=True)
class Inputs:
    """A batch as the losses want it, (2N, C, H, W), src before dst. soft: the grown, blurred mask."""

    warped: Tensor
    target: Tensor
    mask: Tensor
    soft: Tensor

    @property
    def resolution(self) -> int:
        return self.target.shape[-1]


def of_src(term: Tensor) -> Tensor:
    """(N,) of src -> (2N,): nothing for dst."""
    return torch.cat((term, torch.zeros_like(term)))


def face_style(
    net: SwapNet, dst_code: Tensor, face: Tensor, drawn_mask: Tensor, precision: Precision
) -> Tensor:
    """The swap's colours and contrasts inside its mask against those of dst's face, for a power of 1.

    The gradient reaches src's decoder only, not the code: so the swap is drawn for this term alone, even where
    `background_style` draws it with its code. face, drawn_mask: (2N, C, H, W) as drawn, src before dst.
    """
    decoder, code = net.decoder_of("src"), net.swap_code(dst_code).detach()
    with precision.autocast():
        swapped = decoder.face(code)
        with torch.no_grad():
            mask = decoder.mask(code)
    dst_dst, dst_dstm = (drawn.detach().chunk(2)[1] for drawn in (face, drawn_mask))
    return losses.style_loss(dst_dst * dst_dstm, swapped * mask, face.shape[-1] // 8, 100.0)


def background_style(net: SwapNet, dst_code: Tensor, inputs: Inputs, precision: Precision) -> Tensor:
    """What surrounds the swap against what surrounds dst, where src's soft mask is not, for a power of 1."""
    outside = 1 - inputs.soft.chunk(2)[0]
    with precision.autocast():
        drawn = net.decoder_of("src").face(net.swap_code(dst_code))
    drawn = drawn * outside
    around = inputs.target.chunk(2)[1] * outside
    structure = losses.dssim(around, drawn, int(inputs.resolution / 11.6)).mean(1)
    return 0.1 * (structure + losses.mean_square(around, drawn))


def against_artefacts(face: Tensor, inputs: Inputs) -> Tensor:
    """What masked training with a GAN sets against bright dots around src's face: 1e-6 of its total variation and 0.02
    of its error outside the soft mask. face: (2N, C, H, W) as drawn."""
    drawn, target, outside = face.chunk(2)[0], inputs.target.chunk(2)[0], 1 - inputs.soft.chunk(2)[0]
    return 1e-6 * losses.total_variation(drawn) + 0.02 * losses.mean_square(target * outside, drawn * outside)


def around_dst(face: Tensor, inputs: Inputs) -> Tensor:
    """What AMP asks of dst's surroundings: 0.1 of the error outside the soft mask and 1e-6 of the total variation
    there. face: (2N, C, H, W) as drawn."""
    drawn, target, outside = face.chunk(2)[1], inputs.target.chunk(2)[1], 1 - inputs.soft.chunk(2)[1]
    drawn = drawn * outside
    return 0.1 * losses.mean_square(target * outside, drawn) + 1e-6 * losses.total_variation(drawn)


@torch.no_grad()
def contrast(face: Tensor, target: Tensor) -> Tensor:
    """Standard deviation within the drawn faces (2N, C, H, W), src before dst, over that within their targets, 0-d, of
    the side where it is less: near 0 when a side has collapsed to one colour. Every fourth pixel will do."""
    drawn, real = (image[:, :, ::4, ::4].std((2, 3)).reshape(2, -1).mean(1) for image in (face, target))
    return (drawn / (real + 1e-6)).amin()
