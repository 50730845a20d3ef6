"""A random shift of hue, saturation and light, as DFL gives it to the network's input only."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HsvShift:
    """hue in whole degrees; saturation and value are added to channels of [0, 1]."""

    hue: int
    saturation: float
    value: float


def draw(rng: np.random.RandomState, power: float) -> HsvShift:
    """A shift for a power in (0, 1]: hue by up to 180*power degrees either way (at least 1), the others by power/2.

    Draw order: hue, saturation, value. Raises ValueError for another power.
    """
    if not 0 < power <= 1:
        raise ValueError(f"an HSV shift of power {power} was asked for; allowed is above 0 to 1")
    degrees = max(1, int(180 * power))
    hue = int(rng.randint(-degrees, degrees + 1))
    saturation, value = (float(rng.uniform(-0.5, 0.5) * power) for _ in range(2))
    return HsvShift(hue, saturation, value)


def apply(shift: HsvShift, image: Array) -> Array:
    """image (H, W, 3) float32 BGR in [0, 1], shifted in OpenCV's HSV; saturation, value and result kept in [0, 1]."""
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), np.float32)  # hue 0 to 360
    hsv += np.array((shift.hue, shift.saturation, shift.value), np.float32)
    hsv[..., 0] %= 360
    np.clip(hsv[..., 1:], 0, 1, out=hsv[..., 1:])
    return np.clip(np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.float32), 0, 1)
