"""What pictures of faces suffer on their way, as DFL gives it to the faces that XSeg learns from: colours, flares,
sharpening, blur, lost size, JPEG; most of it within a random soft circle only.

Each is drawn and applied apart. Draws take from a generator what DFL takes, in DFL's order (golden samples/filters).
Images are (S, S, 3) float32 BGR, about [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from core.imagelib.color import HsvShift
from core.imagelib.color import apply as apply_hsv

Array = npt.NDArray[np.float32]

COARSE = 4
"""A flare is so smooth that it is blurred at this fraction of the size: at 256 px within 0.01, and 50 times as fast."""


@dataclass(frozen=True, slots=True)
class Circle:
    """A soft circle: 1 up to `start` pixels from (row, column), then falling to 0 over `fade` pixels."""

    row: int
    column: int
    start: int
    fade: int


def draw_circle(rng: np.random.RandomState, size: int) -> Circle:
    start = int(rng.randint(size))
    fade = start + int(rng.randint(size - start))
    return Circle(int(rng.randint(size)), int(rng.randint(size)), start, max(fade, 1))


def circle_mask(circle: Circle, size: int) -> Array:
    """(size, size) in [0, 1]."""
    row, column = (np.square(np.arange(size, dtype=np.float32) - at) for at in (circle.row, circle.column))
    far = np.sqrt(row[:, None] + column)
    far -= np.float32(circle.start + circle.fade)
    far *= np.float32(-1 / circle.fade)
    return np.asarray(np.clip(far, 0, 1, out=far), np.float32)


def within(circle: Circle, image: Array, changed: Array) -> Array:
    """`changed` inside the circle, `image` outside it."""
    mask = circle_mask(circle, len(image))
    return np.asarray(cv2.blendLinear(changed, image, mask, 1 - mask), np.float32)


@dataclass(frozen=True, slots=True)
class Levels:
    """For each channel: black and white as they come in, gamma, black and white as they go out; (5, 3)."""

    table: npt.NDArray[np.float32]


def draw_levels(rng: np.random.RandomState) -> Levels:
    black, white, gamma, out_black, out_white = rng.rand(5, 3)
    rows = (black * 0.25, 1 - white * 0.25, 0.5 + gamma, out_black * 0.25, 1 - out_white * 0.25)
    return Levels(np.array(rows, np.float32))


def apply_levels(levels: Levels, image: Array) -> Array:
    """In [0, 1]."""
    planes = []
    for plane, (black, white, gamma, out_black, out_white) in zip(cv2.split(image), levels.table.T, strict=True):
        x = np.asarray(plane, np.float32)
        x -= black
        x *= np.float32(1) / (white - black)
        np.clip(x, 0, 1, out=x)
        x = np.asarray(cv2.pow(x, float(1 / gamma)), np.float32)
        x *= out_white - out_black
        x += out_black
        planes.append(x)
    return np.asarray(cv2.merge(planes), np.float32)


Colours = HsvShift | Levels


def draw_hsv(rng: np.random.RandomState) -> HsvShift:
    """Any hue; saturation and value by up to a half either way."""
    hue = int(rng.randint(360))
    saturation, value = (float(rng.random_sample()) - 0.5 for _ in range(2))
    return HsvShift(hue, saturation, value)


def draw_colours(rng: np.random.RandomState) -> Colours:
    return draw_hsv(rng) if rng.randint(2) == 0 else draw_levels(rng)


def apply_colours(colours: Colours, image: Array) -> Array:
    return apply_hsv(colours, image) if isinstance(colours, HsvShift) else apply_levels(colours, image)


def draw_flare(rng: np.random.RandomState, size: int) -> int | None:
    """The size of a flare in pixels, odd; None for none, as often."""
    return (int(rng.randint(size // 4, size)) | 1) if rng.randint(2) == 0 else None


def apply_flare(kernel: int, image: Array, part: Array) -> Array:
    """The image with a wide blur of itself, as far as `part` (S, S) lets it through, added. Not kept within 1."""
    size = len(image)
    small = max(size // COARSE, 1), max(size // COARSE, 1)
    lit = cv2.resize(cv2.multiply(image, cv2.merge((part, part, part))), small, interpolation=cv2.INTER_AREA)
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8  # OpenCV's own for a kernel of that size
    reach = int(kernel / COARSE) | 1
    soft = cv2.GaussianBlur(lit, (reach, reach), sigma / COARSE)
    return np.asarray(cv2.add(image, cv2.resize(soft, (size, size), interpolation=cv2.INTER_LINEAR)), np.float32)


@dataclass(frozen=True, slots=True)
class Sharpen:
    """gaussian: against a Gaussian blur, else against a mean; kernel: odd pixels; amount: whole."""

    gaussian: bool
    kernel: int
    amount: int


def draw_sharpen(rng: np.random.RandomState, chance: int = 25, largest: int = 5) -> Sharpen | None:
    """With `chance` per cent."""
    kernel = (int(rng.randint(largest)) + 1) | 1
    if rng.randint(100) >= chance:
        return None
    gaussian = bool(rng.randint(2))
    return Sharpen(gaussian, kernel, int(rng.randint(50 if gaussian else 10)))


def apply_sharpen(sharpen: Sharpen, image: Array) -> Array:
    side, amount = sharpen.kernel, sharpen.amount
    if sharpen.gaussian:
        soft = cv2.GaussianBlur(image, (side, side), 0)
        return np.asarray(cv2.addWeighted(image, 1 + 0.5 * amount, soft, -0.5 * amount, 0), np.float32)
    soft = cv2.blur(image, (side, side))
    return np.asarray(cv2.addWeighted(image, 1 + amount, soft, -amount, 0), np.float32)


@dataclass(frozen=True, slots=True)
class Motion:
    """A smear of `length` pixels at an angle in degrees."""

    length: int
    angle: int


def draw_motion(rng: np.random.RandomState, chance: int = 25, largest: int = 5) -> Motion | None:
    length, angle = int(rng.randint(largest)) + 1, int(rng.randint(360))
    return Motion(length, angle) if rng.randint(100) < chance else None


def apply_motion(motion: Motion, image: Array) -> Array:
    side = motion.length
    kernel = np.zeros((side, side), np.float32)
    kernel[(side - 1) // 2] = 1
    turn = cv2.getRotationMatrix2D((side / 2 - 0.5, side / 2 - 0.5), motion.angle, 1.0)
    kernel = np.asarray(cv2.warpAffine(kernel, turn, (side, side)), np.float32)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.float32)


def draw_blur(rng: np.random.RandomState, chance: int = 25, largest: int = 5) -> int | None:
    """The kernel of a Gaussian blur in pixels, odd."""
    kernel = (int(rng.randint(largest)) + 1) | 1
    return kernel if rng.randint(100) < chance else None


def apply_blur(kernel: int, image: Array) -> Array:
    return np.asarray(cv2.GaussianBlur(image, (kernel, kernel), 0), np.float32)


@dataclass(frozen=True, slots=True)
class Shrink:
    """side: pixels in between; smooth: bilinear both ways, else nearest."""

    side: int
    smooth: bool


def draw_shrink(
    rng: np.random.RandomState, size: int, smooth: bool, chance: int = 25, percent: int = 75
) -> Shrink | None:
    """Shrunk by up to `percent`, and enlarged again."""
    if rng.randint(100) >= chance:
        return None
    return Shrink(size - int(rng.rand() * int(size * percent / 100)), smooth)


def apply_shrink(shrink: Shrink, image: Array) -> Array:
    how: Any = cv2.INTER_LINEAR if shrink.smooth else cv2.INTER_NEAREST
    small = cv2.resize(image, (shrink.side, shrink.side), interpolation=how)
    return np.asarray(cv2.resize(small, (len(image), len(image)), interpolation=how), np.float32)


def draw_jpeg(rng: np.random.RandomState, chance: int = 25) -> int | None:
    """The quality, 10 to 100."""
    return int(rng.randint(10, 101)) if rng.randint(100) < chance else None


def apply_jpeg(quality: int, image: Array) -> Array:
    levels = np.clip(image * 255, 0, 255).astype(np.uint8)
    coded = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.float32) * np.float32(1 / 255)
