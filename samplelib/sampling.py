"""Which face comes when, and with which random numbers: pure functions of (seed, purpose, side, sample number).

Nothing here is a running state: any sample of a run can be computed on its own, so a run resumes at any position
in constant time and the number of workers cannot matter. Epochs as in DFL: every face once, in a new order, then
again; batches run across the seam.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

YAW_BINS = 128
YAW_LIMIT = 1.2
"""DFL's grid for uniform_yaw: 128 bins from -1.2 to 1.2 radians; what lies outside belongs to the end bins."""


def generator(seed: int, purpose: str, side: str, number: int) -> np.random.RandomState:
    """A generator of its own for each sample (or epoch) number, purpose and side.

    RandomState over Philox: a counter-based generator is cheap to place anywhere, and numpy keeps RandomState's
    streams fixed for good.
    """
    key = ((seed & (2**64 - 1)) << 64) | zlib.crc32(purpose.encode()) << 32 | zlib.crc32(side.encode())
    return np.random.RandomState(np.random.Philox(key=key, counter=(number & (2**64 - 1)) << 128))


def yaw_bins(yaws: npt.ArrayLike) -> list[npt.NDArray[np.int64]]:
    """Indexes of the faces in each non-empty yaw bin. yaws: (N,) radians."""
    edges = np.linspace(-YAW_LIMIT, YAW_LIMIT, YAW_BINS)
    bins = np.clip(np.searchsorted(edges, np.asarray(yaws, np.float64), "right") - 1, 0, YAW_BINS - 1)
    return [np.flatnonzero(bins == b) for b in np.unique(bins)]


class Order:
    """The endless sequence of face indexes of one side: `order[n]` is the face of sample number n.

    Without yaws: shuffled epochs over all faces. With yaws (radians, one a face): every non-empty yaw bin once per
    round, in a new order each round, and within a bin its faces in shuffled epochs.
    """

    def __init__(self, count: int, seed: int, side: str, yaws: npt.ArrayLike | None = None) -> None:
        if count < 1:
            raise ValueError(f"side {side} has no faces to draw from")
        self._count = count
        self._seed = seed
        self._side = side
        self._bins = None if yaws is None else yaw_bins(yaws)
        self._latest: dict[str, tuple[int, npt.NDArray[np.int64]]] = {}

    def __getitem__(self, number: int) -> int:
        if self._bins is None:
            return self._shuffled("order", self._count, number)
        chosen = self._shuffled("yaw", len(self._bins), number)
        visit = number // len(self._bins)  # so many times each bin was drawn before this round
        faces = self._bins[chosen]
        return int(faces[self._shuffled(f"yaw bin {chosen}", len(faces), visit)])

    def _shuffled(self, purpose: str, count: int, number: int) -> int:
        """Element `number` of the endless sequence of shuffled range(count)."""
        epoch, place = divmod(number, count)
        if self._latest.get(purpose, (None,))[0] != epoch:
            order = generator(self._seed, purpose, self._side, epoch).permutation(count)
            self._latest[purpose] = (epoch, order)
        return int(self._latest[purpose][1][place])
