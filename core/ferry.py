"""Ferry: pieces of weights and gradients on their way from a card to main memory and back, while the processor works.

For optimizers whose moments lie in main memory. There are two places for pieces, in locked memory: while the update of
one is computed, the one after it comes and the one before it leaves, on a stream of their own. Elsewhere than on CUDA
each piece is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""A piece of weights and of their gradients, 1-D, on the device."""


class Ferry:
    """longest: numbers in the longest piece."""

    def __init__(self, longest: int, device: torch.device) -> None:
        self._device, self._locked = device, device.type == "cuda"
        self._places = [tuple(torch.empty(longest, pin_memory=self._locked) for _ in range(2)) for _ in range(2)]
        self._stream = torch.cuda.Stream(device) if self._locked else None

    def visit(self, pieces: Sequence[Pair]) -> Iterator[Pair]:
        """Each piece in main memory, to be worked on until the next one is asked for; its weights are then taken back.
        To be asked until there are no more: only then the device waits for the last of them."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        coming = self._fetch(pieces, 0)
        for number, (weight, _) in enumerate(pieces):
            arrived, (here, gradient) = coming
            if number + 1 < len(pieces):
                # The piece before this one leaves that place first: on one stream things happen in order.
                coming = self._fetch(pieces, number + 1)
            if arrived is not None:
                arrived.synchronize()
            yield here, gradient
            with torch.cuda.stream(self._stream):  # without a stream this does nothing
                weight.copy_(here, non_blocking=self._locked)
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def _fetch(self, pieces: Sequence[Pair], number: int) -> tuple[torch.cuda.Event | None, Pair]:
        there, count = pieces[number], pieces[number][0].numel()
        weight, gradient = (place[:count] for place in self._places[number % 2])
        with torch.cuda.stream(self._stream):
            for here, away in zip((weight, gradient), there, strict=True):
                here.copy_(away, non_blocking=self._locked)
        return (None if self._stream is None else self._stream.record_event()), (weight, gradient)
