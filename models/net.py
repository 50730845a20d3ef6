"""SwapNet: what a network must offer so that `models.swap` can train it. df, liae, AMP and others differ in nothing
else but what their `models.recipe` says."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core.nn import Decoder
from core.options import Values

OPTIMIZER = "src_dst_opt"
"""DFL's file of a network's optimizer."""
Draws = torch.Generator | Tensor | None
"""A generator, or what a net has drawn with it (`SwapNet.drawn`)."""


class SwapNet(nn.Module):
    """Parts and wiring of a swap network; children are the part files, in DFL's order.

    Images are (N, C, H, W) in [0, 1], channels_last; a decoder returns face and mask. channels: C, 3 of BGR or 1 of
    grey. randoms: numbers that are drawn for the code of a face of src. fresh_after_pretraining: what the first
    pair starts anew. knobs: what a swap can be told besides the face (`codes_of_dst`), with the values at which an
    export is compared with the network.
    """

    channels: int = 3
    randoms: int = 0
    fresh_after_pretraining: tuple[str, ...] = ()
    knobs: Mapping[str, tuple[float, ...]] = {}

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.named_children())

    @abstractmethod
    def code(self, x: Tensor, side: str, generator: Draws = None) -> Tensor:
        """The code of images of one side. generator: draws on the CPU what is random in a training code, if anything
        is; without one nothing is random."""

    def drawn(self, count: int, generator: torch.Generator) -> Tensor | None:
        """What is random in the codes of `count` faces of src, drawn in advance: taken in a generator's place. None
        where nothing is."""
        return None

    @abstractmethod
    def decoder_of(self, side: str) -> Decoder:
        """The decoder that draws `side`'s person."""

    def decode(self, code: Tensor, side: str) -> tuple[Tensor, Tensor]:
        """Face and mask that `side`'s decoder draws."""
        drawn: tuple[Tensor, Tensor] = self.decoder_of(side)(code)
        return drawn

    @abstractmethod
    def codes(self, x: Tensor, generator: Draws = None) -> Tensor:
        """The codes of a batch whose first half is src and second half dst: shared parts run once."""

    @abstractmethod
    def decode_both(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Faces and masks of `codes`, each half by its own side's decoder."""

    def faces_of_both(self, codes: Tensor) -> Tensor:
        """The faces alone."""
        return self.decode_both(codes)[0]

    def swap_code(self, dst_code: Tensor) -> Tensor:
        """The code from which src's decoder draws the swap, of the code of dst images. Raises TypeError where that is
        not enough to know it."""
        raise TypeError(f"the swap of {type(self).__name__} is not made of dst's code alone: ask codes_of_dst")

    def codes_of_dst(self, x: Tensor, *knobs: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """The code of dst images and the swap's; shared parts run once. Raises TypeError for knobs there are not."""
        if knobs or named:
            raise TypeError(f"a swap of {type(self).__name__} takes images and nothing else")
        code = self.code(x, "dst")
        return code, self.swap_code(code)

    def swap(self, x: Tensor, *knobs: Any, **named: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The swap of dst images: src's face, src's mask, dst's mask."""
        code, swap_code = self.codes_of_dst(x, *knobs, **named)
        face, src_mask = self.decode(swap_code, "src")
        return face, src_mask, self.decoder_of("dst").mask(code)

    def trained(self, values: Values) -> tuple[str, ...]:
        """The parts that training moves; the others' moments stay in the optimizer file."""
        return self.parts

    def optimized(self, values: Values) -> dict[str, tuple[str, ...]]:
        """The optimizers by the stem of their file, DFL's first, each with the parts whose moments it keeps."""
        return {OPTIMIZER: self.parts}
