"""What comes between a camera and a face: hands, microphones, strands of hair, drawn over made-up people.

Each is painted with its own cover, 0 to 1, so that what is left of the face is known exactly: labels for XSeg that
nobody has to draw. Sizes are in parts of the face's width, so that they fit every face type and picture size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from samplelib.synthetic_paint import Bytes

Floats = NDArray[np.float32]
_FIXED = 4  # bits behind the point of OpenCV's drawing
_BRIDGE, _CHIN, _MOUTH = 27, 8, slice(48, 60)


class Place(NamedTuple):
    """Where the face is, in pixels: its middle, chin and mouth, unit vectors to its right and down, and its width.
    skin: its mean colour, BGR 0..255."""

    middle: Floats
    chin: Floats
    mouth: Floats
    across: Floats
    down: Floats
    width: float
    skin: Floats

    def at(self, x: float, y: float) -> Floats:
        """The point so many widths to the right of the middle and below it."""
        return np.asarray(self.middle + (self.across * x + self.down * y) * self.width, np.float32)


class Thing(NamedTuple):
    """colour: (S, S, 3) float32 BGR 0..255; cover: (S, S) float32 0..1."""

    colour: Floats
    cover: Floats


Draw = Callable[[np.random.Generator, Place, int], Thing]


def place_of(image: Bytes, mask: Bytes, landmarks: NDArray[np.floating]) -> Place:
    """landmarks: (68, 2) in the picture."""
    points = np.asarray(landmarks, np.float32)
    down = points[_CHIN] - points[_BRIDGE]
    down /= max(float(np.linalg.norm(down)), 1e-6)
    across = np.array([down[1], -down[0]], np.float32)
    seen = image[mask > 127]
    skin = seen.mean(0) if len(seen) else np.array([120.0, 140.0, 180.0])
    return Place(
        points[27:36].mean(0), points[_CHIN], points[_MOUTH].mean(0), across, down,
        float(np.linalg.norm(points[0] - points[16])) + 1.0, np.asarray(skin, np.float32),
    )  # fmt: skip


def occluded(
    image: Bytes, mask: Bytes, landmarks: NDArray[np.floating], rng: np.random.Generator
) -> tuple[Bytes, Bytes]:
    """A face (S, S, 3) with one or two things in front of it, and what is left of its mask (S, S) 0..255."""
    size, place = len(image), place_of(image, mask, landmarks)
    picture, left = image.astype(np.float32), mask.astype(np.float32)
    for number in rng.permutation(len(THINGS))[: 1 + int(rng.random() < 0.3)]:
        thing = THINGS[int(number)](rng, place, size)
        shade = cv2.GaussianBlur(thing.cover, (0, 0), 0.02 * place.width + 0.5)
        shift = (rng.uniform(-0.03, 0.03, 2) * place.width).tolist()
        shade = cv2.warpAffine(shade, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), (size, size))
        picture *= 1 - np.float32(rng.uniform(0.1, 0.45)) * np.asarray(shade, np.float32)[..., None]
        picture += (thing.colour - picture) * thing.cover[..., None]
        left *= 1 - thing.cover
    picture += rng.normal(0, 1.2, picture.shape).astype(np.float32)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), np.rint(left).astype(np.uint8)


def hand(rng: np.random.Generator, place: Place, size: int) -> Thing:
    """A palm with spread or closed fingers, from below or from a side, of about the face's own skin."""
    width, side = place.width, float(rng.choice([-1.0, 1.0]))
    wrist = place.at(side * rng.uniform(0.35, 0.9), rng.uniform(0.7, 1.15))
    aim = place.at(rng.uniform(-0.35, 0.35), rng.uniform(-0.35, 0.35))
    ahead = (aim - wrist) / max(float(np.linalg.norm(aim - wrist)), 1e-6)
    beside = np.array([-ahead[1], ahead[0]], np.float32)
    length, spread = rng.uniform(0.32, 0.5), rng.uniform(0.02, 0.3)
    palm = wrist + ahead * width * rng.uniform(0.15, 0.35)
    parts = [_stroke(size, [wrist - ahead * width, palm], 0.26 * width), _spot(size, palm, 0.19 * width)]
    for finger, share in enumerate((0.82, 0.97, 1.0, 0.85)):
        off = (finger - 1.5) * 0.095
        root = palm + (beside * off + ahead * 0.12) * width
        turn = ahead + beside * ((finger - 1.5) * spread * 0.6)
        joint = root + turn * width * length * share * 0.55
        bend = turn + beside * rng.uniform(-0.12, 0.12)
        parts.append(_stroke(size, [root, joint, joint + bend * width * length * share * 0.45], 0.088 * width))
    thumb = palm - beside * side * 0.17 * width
    parts.append(_stroke(size, [thumb, thumb + (ahead * 0.8 - beside * side) * width * 0.2], 0.1 * width))
    tone = place.skin * rng.uniform(0.75, 1.2) + rng.uniform(-14, 14, 3).astype(np.float32)
    colour, cover = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    for part in parts:  # every part rounded for itself, so that fingers show against the palm
        lit = _rounded(part, 0.05 * width, rng)
        colour += (np.clip(tone, 12, 250) * lit[..., None] - colour) * part[..., None]
        cover = np.maximum(cover, part)
    return Thing(_mottled(colour, rng, 5.0), cover)


def microphone(rng: np.random.Generator, place: Place, size: int) -> Thing:
    """A dark handle from below, and a round head of mesh or foam before mouth or chin."""
    width = place.width
    head = place.mouth + (place.across * rng.uniform(-0.2, 0.2) + place.down * rng.uniform(-0.02, 0.3)) * width
    foot = head + (place.across * rng.uniform(-0.8, 0.8) + place.down * rng.uniform(0.7, 1.3)) * width
    thick, radius = rng.uniform(0.09, 0.17) * width, rng.uniform(0.1, 0.19) * width
    handle, ball = _stroke(size, [head, foot], thick), _spot(size, head, radius)
    grey = float(rng.uniform(12, 70))
    tone = np.array([grey, grey, grey]) + rng.uniform(-8, 8, 3)
    mesh = np.array([1, 1, 1]) * rng.uniform(35, 150) if rng.random() < 0.7 else rng.uniform(20, 220, 3)
    rows = np.sin(np.arange(size) * 2 * np.pi / max(3.0, 0.022 * width)).astype(np.float32)
    grain = 1 + np.float32(rng.uniform(0.05, 0.25)) * rows[:, None] * rows[None]
    colour = tone.astype(np.float32) * _rounded(handle, thick * 0.4, rng)[..., None]
    foam = mesh.astype(np.float32) * (_rounded(ball, radius * 0.7, rng) * grain)[..., None]
    colour += (foam - colour) * ball[..., None]
    return Thing(_mottled(colour, rng, 4.0), np.maximum(handle, ball))


def hair(rng: np.random.Generator, place: Place, size: int) -> Thing:
    """One to four bundles of strands that fall from above over brow, eyes or cheeks."""
    width = place.width
    tone = rng.uniform(10, 150) * np.array([rng.uniform(0.35, 1.0), rng.uniform(0.6, 1.0), 1.0])
    colour, cover = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 5))):
        start = np.array([rng.uniform(-0.6, 0.6), -1.05])
        end = np.array([start[0] + rng.uniform(-0.35, 0.35), rng.uniform(-0.25, 0.75)])
        curl, spread = rng.uniform(-0.25, 0.25), rng.uniform(0.02, 0.07)
        for number in range(int(rng.integers(20, 50))):
            # The first is what lies under the others: a bundle lets nothing through.
            off, drift = (0.0, 0.0) if number == 0 else rng.normal(0, spread * np.array([1.0, 0.5]))
            bow = np.linspace(0, 1, 9)
            x = start[0] + off + (end[0] - start[0] + drift) * bow + curl * np.sin(bow * np.pi)
            y = start[1] + (end[1] - start[1] + rng.normal(0, 0.06)) * bow
            points = [place.at(float(a), float(b)) for a, b in zip(x, y, strict=True)]
            thick = 3.2 * spread if number == 0 else rng.uniform(0.006, 0.018)
            strand = _stroke(size, points, max(0.8, thick * width))
            shade = np.asarray(np.clip(tone * (0.6 if number == 0 else rng.uniform(0.6, 1.5)), 3, 245), np.float32)
            colour += (shade - colour) * strand[..., None]
            cover = np.maximum(cover, strand)
    return Thing(colour, cover)


THINGS: tuple[Draw, ...] = (hand, microphone, hair)


def _stroke(size: int, points: Sequence[NDArray[np.floating]], thick: float) -> Floats:
    """(size, size) 0..1: a line through the points with round ends, `thick` pixels wide."""
    canvas = np.zeros((size, size), np.uint8)
    fixed = np.rint(np.stack(points) * 2**_FIXED).astype(np.int32)
    cv2.polylines(canvas, [fixed], False, (255,), max(1, round(thick)), cv2.LINE_AA, _FIXED)
    return canvas.astype(np.float32) * np.float32(min(1.0, thick) / 255)


def _spot(size: int, middle: NDArray[np.floating], radius: float) -> Floats:
    canvas = np.zeros((size, size), np.uint8)
    x, y = (round(float(v) * 2**_FIXED) for v in middle)
    cv2.circle(canvas, (x, y), round(radius * 2**_FIXED), (255,), -1, cv2.LINE_AA, _FIXED)
    return canvas.astype(np.float32) * np.float32(1 / 255)


def _rounded(part: Floats, depth: float, rng: np.random.Generator) -> Floats:
    """Light on a part as if it were round: darker towards its edges, brighter to one side."""
    inside = cv2.distanceTransform((part > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    height = np.minimum(np.asarray(inside, np.float32) / np.float32(max(depth, 1.0)), 1)
    slope = cv2.GaussianBlur(height, (0, 0), max(0.6, depth * 0.25))
    angle = rng.uniform(0, 2 * np.pi)
    lean = cv2.Sobel(slope, cv2.CV_32F, 1, 0) * np.cos(angle) + cv2.Sobel(slope, cv2.CV_32F, 0, 1) * np.sin(angle)
    return np.asarray(np.clip(0.62 + 0.38 * height + 0.25 * lean, 0.25, 1.3), np.float32)


def _mottled(colour: Floats, rng: np.random.Generator, amount: float) -> Floats:
    """The colour with soft blotches, as skin and cloth have."""
    size = len(colour)
    coarse = rng.normal(0, amount, (max(2, size // 12),) * 2).astype(np.float32)
    return np.asarray(colour + cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)[..., None], np.float32)
