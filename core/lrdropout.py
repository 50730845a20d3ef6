"""Learning rate dropout: which weights move in a step.

The draws are a counter-based hash of seed and iteration: they do not depend on what was drawn before, nor on the chunks
in which an update goes over its weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 1 << 18  # weights that read their draws one after the other
POOL = 1 << 17  # places where a block may begin to read
KEPT = 77  # of 256: 308/1024 in DFL's half-precision draw of 0.3


class LrDropout:
    """Which elements learning rate dropout lets move in a step: 77 of 256, drawn anew each iteration. on_cpu: the draw
    is made there.

    There are fewer draws than weights: `POOL` a step, and each block of `BLOCK` weights reads them from a place of its
    own, drawn too. Two weights then share a draw in one of 130,000 steps, by chance, and a draw costs next to nothing.
    """

    def __init__(self, seed: int, on_cpu: bool = False) -> None:
        self.seed, self.on_cpu = seed, on_cpu
        self._counter = self._words = torch.empty(0, dtype=torch.int32)
        self._pool = torch.empty(0)
        self._places: list[list[int]] = []

    def begin(self, iteration: int, sizes: Sequence[int], device: torch.device) -> None:
        """Draws for an iteration of tensors of so many elements; `moves` are on `device`."""
        generator = torch.Generator().manual_seed((self.seed * 0x9E3779B1 + iteration) & 0x7FFFFFFFFFFFFFFF)
        key: list[int] = torch.randint(-(2**31), 2**31, (2,), generator=generator).tolist()
        pool = self.mask(key, POOL + BLOCK, torch.device("cpu") if self.on_cpu else device)
        self._pool = pool.to(device, torch.float32)
        blocks = [-(-size // BLOCK) for size in sizes]
        places = torch.randint(0, POOL, (sum(blocks),), generator=generator).split(blocks)
        self._places = [each.tolist() for each in places]

    def moves(self, tensor: int, start: int, count: int, out: Tensor) -> Tensor:
        """(count,) of the elements of a tensor from `start` on, a multiple of BLOCK: 1 where one moves, 0 where not.
        Not to be written to. out: room for them where they are not of one block."""
        places = self._places[tensor][start // BLOCK :]
        if count <= BLOCK:
            return self._pool[places[0] : places[0] + count]
        whole = count // BLOCK
        windows = self._pool.unfold(0, BLOCK, 1)
        chosen = torch.tensor(places[:whole]).to(self._pool.device)
        torch.index_select(windows, 0, chosen, out=out[: whole * BLOCK].view(whole, BLOCK))
        if rest := count - whole * BLOCK:
            out[whole * BLOCK : count].copy_(self._pool[places[whole] : places[whole] + rest])
        return out[:count]

    def mask(self, key: Sequence[int], count: int, device: torch.device) -> Tensor:
        """(count,) uint8 of two 32-bit keys: 1 where an element moves, 0 where not. Overwritten by the next call."""
        words = (count + 3) // 4
        if self._counter.numel() < words or self._counter.device != device:
            self._counter = torch.arange(words, dtype=torch.int32, device=device)
            self._words = torch.empty((2, words), dtype=torch.int32, device=device)
        x, shifted = self._words[0, :words], self._words[1, :words]
        torch.add(self._counter[:words], key[0], out=x)
        # A 32-bit integer mix: two rounds of shift, xor and multiply. The last shifted word is added, not xored: right
        # shifts of signed integers drag the sign along, and an xor would clear the top bit.
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
            torch.bitwise_right_shift(x, shift, out=shifted)
            x.bitwise_xor_(shifted).mul_(factor).add_(key[1])
        torch.bitwise_right_shift(x, 16, out=shifted)
        draws = x.add_(shifted).view(torch.uint8)[:count]
        return draws.clamp_(KEPT - 1, KEPT).neg_().add_(KEPT)  # 77 - 76 or 77 - 77
