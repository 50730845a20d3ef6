"""What is drawn for the samples of a batch, as numbers that go to the device: the pictures are made there.

The generators and the order of draws are those of `samplelib.process`, so a sample made by `core.augment` is the one
that a worker would have made. No torch here: batches of these come from samplelib.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from core.batch import SampleRequest
from core.imagelib import color, color_transfer, warp

Array = npt.NDArray[np.float32]
Chance = Callable[[str], np.random.RandomState]
"""The generator of a sample for a purpose, see `samplelib.process`."""

POINTS = 9
"""Points a side of the finest bend; coarser ones fill a corner of such a grid."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The draws of N samples, each an array with N rows.

    inverse: (N, 2, 3), destination to source pixels at the work size (see `warp.MIN_SIZE`), the flip included. bends:
    (N, 9, 9), where the points of the coarse grid lie, and knots: (N, W), where each pixel lies between them
    (`warp.Bend`); None without random warp. hsv: (N, 3) hue in degrees, saturation, value; None without. colour: of
    lct and mkl (N, 5, 3) float64, the mean to take off, the matrix, the mean to add; of idt and sot what
    `color_transfer.draw` gives; None for rct, which needs nothing, and without colour transfer.
    """

    inverse: Array
    bends: Array | None = None
    knots: Array | None = None
    hsv: Array | None = None
    colour: npt.NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """Which faces a batch shows. places: (N,) rows of the store on the device. fresh: (M,) rows that are to be filled
    first, with `pixels`: kind -> (M, R, R, 3) or (M, R, R) uint8, valid until the next batch."""

    places: npt.NDArray[np.int64]
    fresh: npt.NDArray[np.int64]
    pixels: Mapping[str, npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Fed:
    """One side of a batch before it is made. colours: whose colours it takes, None without colour transfer."""

    own: Shown
    colours: Shown | None
    drawn: Drawn


def draw(request: SampleRequest, chances: Sequence[Chance], matrices: npt.NDArray[Any] | None = None) -> Drawn:
    """Draws for the samples of one side, a `Chance` each. matrices: what `Drawn.colour` of lct or mkl is to be."""
    inverse, bends, knots, hsv, colour = [], [], [], [], []
    for chance in chances:
        drawn = warp.draw(
            chance("affine"),
            None,
            request.resolution,
            flip=request.flip,
            rotation=request.rotation,
            scale=request.scale,
            shift=request.shift,
        )
        inverse.append(cv2.invertAffineTransform(warp.once(drawn)))
        if request.random_warp:
            bend = warp.draw_bend(chance("bend"), drawn.work_size)
            grid = np.zeros((POINTS, POINTS), np.float32)
            grid[: len(bend.grid), : len(bend.grid)] = bend.grid
            bends.append(grid)
            knots.append(bend.knots())
        if request.hsv_power:
            shift = color.draw(chance("hsv"), request.hsv_power)
            hsv.append((shift.hue, shift.saturation, shift.value))
        if request.ct_mode in ("idt", "sot"):
            colour.append(color_transfer.draw(request.ct_mode, chance("colour")))
    return Drawn(
        np.asarray(inverse, np.float32),
        np.asarray(bends, np.float32) if bends else None,
        np.asarray(knots, np.float32) if knots else None,
        np.asarray(hsv, np.float32) if hsv else None,
        np.asarray(colour, np.float32) if colour else matrices,
    )


def colour_rows(mode: str, own: npt.NDArray[Any], wanted: npt.NDArray[Any], pixels: int) -> npt.NDArray[np.float64]:
    """`Drawn.colour` of one sample for lct or mkl, from what `color_transfer.measure` says of both pictures."""
    matrix = color_transfer.matrix_of(mode, own, wanted, pixels)
    return np.vstack([own[0], matrix, wanted[0]])
