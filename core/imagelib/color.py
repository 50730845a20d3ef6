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
    planes = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))  # hue 0 to 360
    hue, saturation, value = (np.asarray(plane, np.float32) for plane in planes)  # several times as fast as together
    hue += np.float32(shift.hue)
    hue -= np.float32(360) * (hue >= 360)  # as a remainder, which takes half a millisecond
    hue += np.float32(360) * (hue < 0)
    saturation += np.float32(shift.saturation)
    value += np.float32(shift.value)
    for plane in (saturation, value):
        np.clip(plane, 0, 1, out=plane)
    shifted = cv2.cvtColor(cv2.merge((hue, saturation, value)), cv2.COLOR_HSV2BGR)
    return np.clip(np.asarray(shifted, np.float32), 0, 1)
