"""SwapNet: what a network must offer so that `models.swap` can train it. df, liae and others differ in nothing else."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from core.nn import Decoder
from core.options import Values


class SwapNet(nn.Module):
    """Parts and wiring of a swap network; children are the part files, in DFL's order.

    Images are (N, C, H, W) in [0, 1], channels_last; a decoder returns face and mask. fresh_after_pretraining: what
    the first pair starts anew.
    """

    fresh_after_pretraining: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.named_children())

    @abstractmethod
    def code(self, x: Tensor, side: str) -> Tensor:
        """The code of images of one side."""

    @abstractmethod
    def decoder_of(self, side: str) -> Decoder:
        """The decoder that draws `side`'s person."""

    def decode(self, code: Tensor, side: str) -> tuple[Tensor, Tensor]:
        """Face and mask that `side`'s decoder draws."""
        drawn: tuple[Tensor, Tensor] = self.decoder_of(side)(code)
        return drawn

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """The codes of a batch whose first half is src and second half dst: shared parts run once."""

    @abstractmethod
    def decode_both(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Faces and masks of `codes`, each half by its own side's decoder."""

    @abstractmethod
    def swap_code(self, dst_code: Tensor) -> Tensor:
        """The code from which src's decoder draws the swap, of the code of dst images."""

    def trained(self, values: Values) -> tuple[str, ...]:
        """The parts that training moves; the others' moments stay in the optimizer file."""
        return self.parts
