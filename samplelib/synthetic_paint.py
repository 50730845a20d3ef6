"""Skin, hair, brows, lips, eyes and teeth of the made-up people, painted on the direction map.

What moves with the skin (freckles, brows, beard, lips, hair) is painted once per person at rest and carried by the
expression's field; what does not (eyeballs, lids, teeth, the inside of the mouth) is painted per scene. Paint is plain
colour without light: light comes later, from the shape.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from samplelib.synthetic_head import MM, REACH, Floats, Shape, head, lookup, step, to_grid
from samplelib.synthetic_person import Identity, Scene

Bytes = NDArray[Any]  # uint8
SHIFT = 4  # fractional bits of the polygon coordinates handed to OpenCV


def fixed(points: NDArray[np.floating]) -> NDArray[np.int32]:
    """Pixel coordinates -> OpenCV's fixed-point ones."""
    return np.round(np.asarray(points) * (1 << SHIFT)).astype(np.int32)


def polygon(shape: tuple[int, ...], points: NDArray[np.floating]) -> Floats:
    """Antialiased polygon as a 0..1 mask."""
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [fixed(points)], 255, cv2.LINE_AA, SHIFT)
    return mask.astype(np.float32) / 255.0


def strokes(shape: tuple[int, ...], lines: list[NDArray[np.floating]], width: float) -> Floats:
    """Antialiased open lines `width` pixels wide as a 0..1 mask; below one pixel they fade instead."""
    mask = np.zeros(shape[:2], np.uint8)
    cv2.polylines(mask, [fixed(line) for line in lines], False, int(255 * min(width, 1.0)), max(1, round(width)),
                  cv2.LINE_AA, SHIFT)
    return mask.astype(np.float32) / 255.0


def noise(rng: np.random.Generator, size: int, cells: tuple[int, int]) -> Floats:
    """Smooth noise of about unit spread, (size, size); cells = features down and across."""
    small = rng.standard_normal((cells[0] + 2, cells[1] + 2)).astype(np.float32)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def blend(image: Floats, mask: Floats, colour: tuple[float, ...] | Floats, strength: float = 1.0) -> None:
    """Lays a colour over `image` (h, w, 3) in place."""
    image += (np.asarray(colour, np.float32) - image) * (mask * strength)[..., None]


@lru_cache(maxsize=32)
def _through(points: int, count: int) -> Floats:
    """Weights (count, points) of the polynomial through evenly spread points."""
    powers = np.vander(np.linspace(0.0, 1.0, points), points)
    return np.vander(np.linspace(0.0, 1.0, count), points) @ np.linalg.inv(powers)


def curve(points: NDArray[np.floating], count: int) -> Floats:
    """A smooth line through 4 to 6 points: the interpolating polynomial in evenly spread parameters."""
    return (_through(len(points), count) @ points).astype(np.float32)


def closed(points: NDArray[np.floating], count: int) -> Floats:
    """A smooth closed line through points (Catmull-Rom), count steps between each two."""
    p0, p1, p2, p3 = (np.roll(points, k, axis=0)[:, None] for k in (1, 0, -1, -2))
    t = (np.arange(count) / count)[None, :, None]
    line = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    return line.reshape(-1, 2).astype(np.float32)


@lru_cache(maxsize=16)
def coat(who: Identity, size: int) -> Bytes:
    """Everything that moves with the skin, at rest: (size, size, 4) uint8, BGR and the face mask."""
    rng = np.random.Generator(np.random.Philox([who.seed, 1]))
    h = head(who)
    rest = cv2.resize(h.rest, (size, size), interpolation=cv2.INTER_LINEAR)
    marks = to_grid(h.marks, size)
    unit = size / (2 * REACH) * MM  # pixels per mm
    image = _skin(who, rest, size, rng)
    _folds(who, image, marks, unit)
    lips = _lips(who, image, marks, unit, rng)
    _facial_hair(who, image, rest, lips, unit, rng)
    _brows(who, image, marks, unit, rng)
    hollow = cv2.GaussianBlur(h.skin, (0, 0), 5) - h.skin
    image *= cv2.resize(np.clip(1.0 - 0.045 * hollow, 0.62, 1.06), (size, size))[..., None]
    hair = _hair(who, image, rest, size, rng)
    top = to_grid(np.array([[1.35, -0.6], [1.0, -1.3], [0, -1.6], [-1.0, -1.3], [-1.35, -0.6]], np.float32), size)
    mask = polygon(image.shape, np.concatenate([curve_through(marks[:17]), top])) * (1.0 - hair)
    return np.dstack([np.clip(image, 0, 255), mask * 255.0]).round().astype(np.uint8)


def curve_through(points: Floats) -> Floats:
    """The jaw line as a smooth open curve."""
    both = np.concatenate([points[:1], points, points[-1:]])
    line = [closed(both[i:i + 4], 6)[6:12] for i in range(len(points) - 1)]
    return np.concatenate([*line, points[-1:]])


def _skin(who: Identity, rest: Floats, size: int, rng: np.random.Generator) -> Floats:
    x, y, z = np.abs(rest[..., 0]), rest[..., 1], rest[..., 2]
    image = np.empty((size, size, 3), np.float32)
    image[:] = who.skin
    mottle = sum(0.013 * noise(rng, size, (cells, cells)) for cells in (14, 40, 130))
    pores = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), 0.7)
    image *= (1.0 + mottle + 0.03 * pores)[..., None]
    red = np.exp(-((x - 43) / 17) ** 2 - ((y + 4) / 13) ** 2) + 0.8 * np.exp(-(x / 13) ** 2 - ((y + 6) / 9) ** 2)
    red += 0.5 * np.exp(-(x / 14) ** 2 - ((y - 66) / 11) ** 2)
    red += 0.6 * step(z, 48.0, 56.0) * step(np.abs(y + 18), 34.0, 26.0)  # ears
    red = np.clip(red + 0.15 * noise(rng, size, (24, 24)), 0, 1) * (0.35 + 0.65 * who.blush)
    image *= 1.0 - red[..., None] * np.array([0.17, 0.17, 0.0], np.float32)
    dark = 0.09 * np.exp(-((x - 30) / 13) ** 2 - ((y + 28) / 5) ** 2)
    dark += 0.16 * np.exp(-((x - 32) / 16) ** 2 - ((y + 47) / 6) ** 2)
    image *= 1.0 - dark[..., None] * np.array([0.8, 1.0, 0.8], np.float32)
    if who.freckles > 0:
        spots = np.zeros((size, size), np.uint8)
        unit = size / (2 * REACH) * MM
        at = rng.normal(0.0, 1.0, (int(330 * who.freckles), 2)) * (0.36, 0.15) + (0.0, 0.14)
        for (u, v), r in zip(at, rng.uniform(0.35, 0.95, len(at)), strict=True):
            cv2.circle(spots, tuple(fixed(to_grid(np.array([u, v], np.float32), size)).tolist()), int(r * unit * 16),
                       int(rng.uniform(80, 200)), -1, cv2.LINE_AA, SHIFT)
        soft = cv2.GaussianBlur(spots, (0, 0), 0.25 * unit).astype(np.float32) / 255.0
        image *= 1.0 - soft[..., None] * np.array([0.55, 0.42, 0.2], np.float32)
    return image


def _folds(who: Identity, image: Floats, marks: Floats, unit: float) -> None:
    """Nostrils, the crease around the wings of the nose, and the lines of age."""
    shade = np.array([0.62, 0.66, 0.55], np.float32)
    holes = np.zeros(image.shape[:2], np.float32)
    lines: list[Floats] = []
    faint: list[Floats] = []
    for side, wing, base, corner in ((-1, 31, 32, 48), (1, 35, 34, 54)):
        ellipse = np.asarray(cv2.ellipse2Poly((0, 0), (100, 46), int(side * -18), 0, 360, 15)) / 100.0
        holes += polygon(image.shape, ellipse * 3.6 * unit + marks[base] * 0.62 + marks[wing] * 0.38 + (0, -1.4 * unit))
        a = marks[wing] + np.array([side * 2.2, -9.5]) * unit
        b = marks[wing] + np.array([side * 4.4, -4.0]) * unit
        c = marks[wing] + np.array([side * 2.6, 0.6]) * unit
        lines.append(curve(np.array([a, b, c, marks[wing]]), 12))
        end = marks[corner] + np.array([side * 6.0, -2.0]) * unit
        middle = (b + end) / 2 + np.array([side * 1.5, -1.0]) * unit
        faint.append(curve(np.array([a, middle * 0.45 + a * 0.55, middle * 0.5 + end * 0.5, end]), 16))
        eye = marks[36 if side < 0 else 45] + np.array([side * 4.0, 0.0]) * unit
        faint += [eye + np.array([[0, k * 1.2], [side * 6, k * 3.5 - 1]]) * unit for k in (-1, 0, 1)]
    for row in (-24.0, -32.0):
        middle = (marks[21] + marks[22]) / 2 + (0, row * unit)
        faint.append(middle + np.array([[-26, 2], [-12, 0], [0, 1], [12, 0], [26, 2]]) * unit)
    faint += [marks[21] + np.array([[6, 4], [7, -5]]) * unit, marks[22] + np.array([[-6, 4], [-7, -5]]) * unit]
    wings = cv2.GaussianBlur(strokes(image.shape, lines, 1.1 * unit), (0, 0), 0.8 * unit)
    image *= 1.0 - wings[..., None] * shade * 0.75
    soft = cv2.GaussianBlur(strokes(image.shape, faint, 1.2 * unit), (0, 0), 1.5 * unit) * 1.4
    image *= 1.0 - soft[..., None] * shade * (0.1 + 0.4 * who.lines)
    holes = np.clip(cv2.GaussianBlur(holes, (0, 0), 0.8 * unit), 0, 1)
    blend(image, holes, np.array(who.skin) * (0.12, 0.14, 0.24), 0.9)


def _lips(who: Identity, image: Floats, marks: Floats, unit: float, rng: np.random.Generator) -> Floats:
    """Paints the closed lips; returns their mask."""
    size = image.shape[0]
    outline = closed(marks[48:60], 6)
    mask = polygon(image.shape, outline)
    soft = cv2.GaussianBlur(mask, (0, 0), 0.9 * unit)
    centre = (marks[62, 1] + marks[66, 1]) / 2
    y = (np.arange(size, dtype=np.float32)[:, None] - centre) / unit
    tone = 1.0 + 0.05 * np.exp(-((y - 6) / 3) ** 2) - 0.1 * np.exp(-((y + 2) / 4) ** 2)
    streaks = 1.0 + 0.035 * noise(rng, size, (40, size // 3))
    blend(image, soft, np.asarray(who.lip, np.float32) * (tone * streaks)[..., None], 0.92)
    inner = curve(np.stack([marks[60], (marks[61] + marks[67]) / 2, (marks[62] + marks[66]) / 2,
                            (marks[63] + marks[65]) / 2, marks[64]]), 24)
    inner = np.concatenate([(marks[48:49] + inner[:1]) / 2, inner, (marks[54:55] + inner[-1:]) / 2])
    line = cv2.GaussianBlur(strokes(image.shape, [inner], 1.3 * unit), (0, 0), 0.55 * unit)
    blend(image, np.clip(line * 1.3, 0, 1), np.asarray(who.lip) * (0.3, 0.25, 0.36), 0.9)
    under = np.exp(-((np.arange(size)[None, :] - marks[57, 0]) / (12 * unit)) ** 2) * np.exp(
        -(((y * unit + centre) - marks[57, 1] - 3.5 * unit) / (2.6 * unit)) ** 2)
    image *= 1.0 - 0.16 * under.astype(np.float32)[..., None]
    return soft


def _facial_hair(who: Identity, image: Floats, rest: Floats, lips: Floats, unit: float,
                 rng: np.random.Generator) -> None:
    if who.beard <= 0 and who.stubble <= 0:
        return
    size = image.shape[0]
    x, y, z = np.abs(rest[..., 0]), rest[..., 1], rest[..., 2]
    long = who.face_length_mm
    cheek = np.interp(x, [0, 19, 26, 34, 52, 62, 68, 74], [36, 32, 15, 17, 14, -4, -34, -40]).astype(np.float32) + long
    area = step(y, cheek - 4, cheek + 6) * step(z, 52.0, 42.0)
    area = np.maximum(area, step(y - 0.012 * x * x - long * 0.4, 6.5, 13.0) * step(x, 36.0, 25.0) * step(y, 40.0, 30.0))
    area *= 1.0 - 0.75 * np.exp(-((x - 11) / 6) ** 2 - ((y - 46 - long) / 4) ** 2)
    area *= np.clip(1.0 - 1.25 * lips, 0, 1)
    area = cv2.GaussianBlur(area.astype(np.float32), (0, 0), 1.2 * unit)
    dots = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), 0.55)
    image *= 1.0 - area[..., None] * np.array([0.1, 0.19, 0.24], np.float32) * who.stubble
    blend(image, np.clip(area * (dots - 0.1) * 1.2, 0, 1), who.hair, 0.5 * who.stubble)
    if who.beard > 0:
        grains = rng.standard_normal((size, size)).astype(np.float32)
        strand: Floats = cv2.GaussianBlur(grains, (0, 0), 0.6, sigmaY=3.0 * unit)
        strand = strand / strand.std()
        mask = np.clip(area * (1.0 + 0.1 * strand) * 1.4 - 0.2, 0, 1) * who.beard
        tone = (0.95 + 0.28 * strand)[..., None] * np.asarray(who.hair, np.float32) * 1.25
        blend(image, mask, tone, 0.93)


def _brows(who: Identity, image: Floats, marks: Floats, unit: float, rng: np.random.Generator) -> None:
    hairs = np.zeros(image.shape[:2], np.float32)
    for points, side in ((marks[17:22][::-1], -1), (marks[22:27], 1)):
        spine = curve(points, 60)
        spine[:, 1] += 1.0 * unit
        t = rng.uniform(-0.03, 1.0, int(210 * who.brow_weight + 60))
        width = np.interp(t, [-0.03, 0.15, 0.6, 1.0], [3.0, 4.4, 3.6, 0.9]) * who.brow_weight * unit
        across = rng.uniform(-1.0, 1.0, len(t)) * width
        k = np.clip(t, 0, 1) * 59
        at = np.stack([np.interp(k, np.arange(60), spine[:, i]) for i in (0, 1)], axis=1)
        at[:, 1] += across
        at[:, 0] += np.minimum(t, 0) * -side * -20 * unit
        lean = np.interp(t, [0, 0.25, 1.0], [0.25, 0.8, 1.0]) + rng.normal(0, 0.12, len(t))
        rise = np.interp(t, [0, 0.3, 1.0], [-1.0, -0.55, 0.35]) - 0.3 * across / (width + 1e-3)
        tip = at + np.stack([side * lean, rise], axis=1) * (3.6 * unit) * rng.uniform(0.7, 1.2, len(t))[:, None]
        lines = list(np.stack([at, tip], axis=1))
        for part in range(3):  # three passes let overlapping hairs build up
            hairs += strokes(image.shape, lines[part::3], 0.5 * unit) * 0.55
        body = np.concatenate([spine + np.stack([np.zeros(60), s * np.interp(np.linspace(0, 1, 60), [0, 0.15, 0.6, 1],
                               [2.2, 4.0, 3.2, 0.4]) * who.brow_weight * unit], axis=1) for s in (-1, 1)])
        body[60:] = body[60:][::-1].copy()
        hairs += cv2.GaussianBlur(polygon(image.shape, body), (0, 0), 1.6 * unit) * 0.5
    blend(image, np.clip(hairs, 0, 0.97), who.brow, 0.95)


def _hair(who: Identity, image: Floats, rest: Floats, size: int, rng: np.random.Generator) -> Floats:
    """Paints the scalp's hair; returns its mask."""
    h = cv2.resize(head(who).hair, (size, size), interpolation=cv2.INTER_LINEAR)
    axis = np.linspace(-REACH, REACH, size, dtype=np.float32)
    u, v = np.meshgrid(axis - 0.55 * who.part, axis + (1.35 if who.hair_style != "fringe" else 1.5))
    angle, radius = np.arctan2(u, v), np.hypot(u, v)
    bend = 0.05 * noise(rng, size, (10, 10))
    strip = rng.standard_normal((40, 1400)).astype(np.float32)
    fine = cv2.GaussianBlur(strip, (0, 0), 1.1) * 2.2 + np.repeat(cv2.resize(rng.standard_normal((1, 90)).astype(
        np.float32), (1400, 1), interpolation=cv2.INTER_CUBIC), 40, axis=0) * 0.6
    strand = cv2.remap(fine.astype(np.float32), (angle + bend + np.pi).astype(np.float32) * (1399 / (2 * np.pi)),
                       (radius * 12 % 39).astype(np.float32), cv2.INTER_LINEAR)
    edge = np.interp(rest[..., 1], [-95, -70], [1.6, 0.7]).astype(np.float32)
    mask = step(h + edge * strand, -2.5 if who.hair_style != "buzz" else -5.0, 4.0)
    tone = 0.92 + 0.2 * strand + 0.25 * np.exp(-((rest[..., 1] + 112.0) / 16.0) ** 2) - 0.3 * np.exp(-(h / 5.0) ** 2)
    if who.hair_style == "buzz":
        grit = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), 0.7)
        tone, mask = 1.0 + 0.3 * grit, mask * 0.85
    blend(image, mask, np.clip(tone, 0.25, 2.0)[..., None] * np.asarray(who.hair, np.float32))
    return mask.astype(np.float32)


@lru_cache(maxsize=64)
def _iris(who: Identity) -> Bytes:
    """A 64 x 64 BGR iris with pupil, limbal ring and rays."""
    rng = np.random.Generator(np.random.Philox([who.seed, 2]))
    axis = (np.arange(64, dtype=np.float32) - 31.5) / 32.0
    x, y = np.meshgrid(axis, axis)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    rays = np.interp(angle, np.linspace(-np.pi, np.pi, 72), rng.standard_normal(72)).astype(np.float32)
    tone = (0.9 + 0.16 * rays + 0.5 * np.exp(-((r - 0.52) / 0.18) ** 2)) * step(r, 1.02, 0.72) + 0.18
    colour = np.asarray(who.iris, np.float32) * tone[..., None]
    colour *= 1.0 - step(r, 0.45, 0.37)[..., None] * 0.93
    return np.clip(colour, 0, 255).astype(np.uint8)


def paint(shape: Shape, who: Identity, scene: Scene, size: int) -> Bytes:
    """The whole coat in a scene's expression: (size, size, 4) uint8, BGR and the face mask."""
    at = cv2.resize(to_grid(shape.rest_uv, size), (size, size), interpolation=cv2.INTER_LINEAR)
    coated = lookup(coat(who, size), at)
    marks = to_grid(shape.marks, size)
    unit = size / (2 * REACH) * MM
    for side, ids in enumerate(((36, 37, 38, 39, 40, 41), (45, 44, 43, 42, 47, 46))):
        _eye(coated, who, scene, marks[list(ids)], side, unit)
    if scene.mouth_open > 0.03:
        _mouth(coated, to_grid(shape.mouth, size), unit, head(who).mouth[0])
    return coated


def _window(coated: Bytes, points: Floats, margin: float) -> tuple[slice, slice]:
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    size = coated.shape[0]
    left, top = (max(0, int(v)) for v in low)
    right, bottom = (min(size, int(v) + 2) for v in high)
    return slice(top, bottom), slice(left, right)


def _eye(coated: Bytes, who: Identity, scene: Scene, p: Floats, side: int, unit: float) -> None:
    """One eye in place; p (6, 2): outer corner, upper outer, upper inner, inner corner, lower inner, lower outer."""
    window = _window(coated, p, 9.0 * unit)
    origin = np.array([window[1].start, window[0].start], np.float32)
    p = p - origin
    patch = coated[window][..., :3].astype(np.float32)
    out = -1.0 if side == 0 else 1.0
    upper, lower = curve(p[[0, 1, 2, 3]], 16), curve(p[[3, 4, 5, 0]], 16)
    aperture = polygon(patch.shape, np.concatenate([upper, lower]))
    middle, wide = (p[0] + p[3]) / 2, float(np.linalg.norm(p[0] - p[3]))
    y, x = np.mgrid[:patch.shape[0], :patch.shape[1]].astype(np.float32)
    lid = np.interp(np.arange(patch.shape[1]), np.sort(upper[:, 0]), upper[np.argsort(upper[:, 0]), 1])
    shade = 0.55 + 0.45 * step((y - lid.astype(np.float32)) / unit, -0.5, 4.0)
    shade = shade * (1.0 - 0.28 * (np.abs(x - middle[0]) / (wide / 2)) ** 3)
    ball = shade[..., None] * np.array([200, 205, 214], np.float32)
    radius = 6.8 * unit
    gaze = middle + np.array([scene.gaze[0] * 4.8, scene.gaze[1] * 2.4 - 0.7]) * unit
    matrix = np.array([[radius / 32, 0, gaze[0] - radius], [0, radius / 32, gaze[1] - radius]], np.float32)
    iris = cv2.warpAffine(_iris(who), matrix, patch.shape[1::-1], flags=cv2.INTER_AREA)
    disc = step(np.hypot(x - gaze[0], y - gaze[1]), radius + 0.6, radius - 0.9)
    ball += (iris * np.minimum(shade * 1.1, 1.0)[..., None] - ball) * disc[..., None]
    spark = gaze + np.array([scene.light[0] * 2.4, scene.light[1] * 2.4 - 0.6]) * unit
    ball += (255.0 - ball) * step(np.hypot(x - spark[0], y - spark[1]), 1.5 * unit, 0.7 * unit)[..., None]
    skin = np.asarray(who.skin, np.float32)
    above = np.sin(np.linspace(0.25, np.pi, 16)) * (3.6 - 0.8 * scene.blink[side]) * unit
    fold = upper - np.stack([np.zeros(16), above], axis=1)
    crease = cv2.GaussianBlur(strokes(patch.shape, [fold[:15]], 1.0 * unit), (0, 0), 0.6 * unit)
    patch *= 1.0 - crease[..., None] * (0.2 + 0.45 * who.lid_fold) * np.array([0.75, 0.75, 0.6], np.float32)
    rim = cv2.GaussianBlur(strokes(patch.shape, [lower], 1.4 * unit), (0, 0), 0.7 * unit)
    blend(patch, rim, skin * (0.66, 0.62, 0.82), 0.7)
    patch += (ball - patch) * aperture[..., None]
    wing = np.concatenate([[upper[0] + np.array([out * 1.6, -0.6 - 0.8 * who.lashes]) * unit], upper])
    lash = strokes(patch.shape, [wing], (1.0 + 0.8 * who.lashes) * unit)
    if who.lashes > 0.6:
        roots = upper[:9:2]
        lash = np.maximum(lash, strokes(patch.shape, [np.stack([r, r + np.array([out * (3.4 - 0.5 * i), -2.2]) * unit])
                                                     for i, r in enumerate(roots)], 0.7 * unit))
    beneath = 0.3 * who.lashes * strokes(patch.shape, [lower[8:]], 0.7 * unit)
    lash = np.maximum(cv2.GaussianBlur(lash, (0, 0), 0.35 * unit), beneath)
    blend(patch, lash, np.asarray(who.brow) * 0.35, 0.92)
    coated[window][..., :3] = np.clip(patch, 0, 255).astype(np.uint8)


def _mouth(coated: Bytes, outline: Floats, unit: float, closed_v: float) -> None:
    """The inside of an open mouth: dark, tongue, both rows of teeth at places fixed to their jaws."""
    size = coated.shape[0]
    window = _window(coated, outline, 3.0 * unit)
    origin = np.array([window[1].start, window[0].start], np.float32)
    outline = outline - origin
    patch = coated[window][..., :3].astype(np.float32)
    aperture = polygon(patch.shape, outline)
    height, width = patch.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    half = len(outline) // 2
    upper, lower = outline[:half], outline[half:][::-1]
    columns = np.arange(width)
    top = np.interp(columns, upper[:, 0], upper[:, 1]).astype(np.float32)
    bottom = np.interp(columns, lower[:, 0], lower[:, 1]).astype(np.float32)
    centre = float(to_grid(np.zeros(1, np.float32), size)[0]) - origin[0]
    rest = float(to_grid(np.array([closed_v], np.float32), size)[0]) - origin[1]
    across = (x - centre) / unit
    inside = np.empty_like(patch)
    inside[:] = (34, 24, 52)
    tongue = step(((across / 17) ** 2 + ((y - bottom - 1.0 * unit) / (9 * unit)) ** 2), 1.0, 0.5)
    blend(inside, tongue, (88, 78, 160), 0.8)
    gaps = np.array([0.0, 8.4, 15.0, 22.0])
    slit = np.min([np.abs(np.abs(across) - g) for g in gaps], axis=0)
    enamel = (0.97 - 0.016 * np.abs(across)) * (1.0 - 0.22 * step(slit, 0.55, 0.15))
    bite = rest + (7.0 - across**2 * 0.008) * unit, bottom - (3.2 - across**2 * 0.006) * unit
    for edge, low in zip(bite, (False, True), strict=True):
        depth = ((y - edge) if low else (edge - y)) / unit
        row = step(depth, -0.3, 0.6) * step(np.abs(across), 24.0, 22.0) * (0.75 if low else 1.0)
        lip = ((bottom - y) if low else (y - top)) / unit
        light = enamel * (0.62 + 0.38 * step(lip, -0.5, 3.0))
        blend(inside, row, light[..., None] * np.array([206, 222, 230], np.float32))
    patch += (inside - patch) * aperture[..., None]
    edge_shade = cv2.GaussianBlur(aperture, (0, 0), 1.0 * unit) * (1.0 - aperture)
    patch *= 1.0 - 0.5 * edge_shade[..., None]
    coated[window][..., :3] = np.clip(patch, 0, 255).astype(np.uint8)
