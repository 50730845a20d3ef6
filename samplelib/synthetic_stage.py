"""What surrounds a made-up head: backdrop, shoulders and neck, and the hair that hangs beside and behind it.

All of it lies behind the head in the picture, so it is drawn first, flat, with light from the same lamp.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from samplelib.synthetic_head import Floats, step
from samplelib.synthetic_paint import polygon
from samplelib.synthetic_person import Identity, Scene
from samplelib.synthetic_render import Camera, rotation

NECK = np.array([0.0, 45.0, 92.0], np.float32)


def backdrop(seed: int, size: int) -> Floats:
    """A room, a wall or a street out of focus: (size, size, 3) float32, 0..255, drawn from `seed`."""
    rng = np.random.Generator(np.random.Philox(seed))
    small: Floats = np.empty((48, 48, 3), np.float32)
    base = np.clip(rng.normal(118, 45) + rng.normal(0, 17, 3), 12, 235)
    y, x = (np.mgrid[:48, :48] / 47.0 - 0.5).astype(np.float32)
    tilt = rng.normal(0, 0.5, 2)
    small[:] = base * (1.0 + tilt[0] * x + tilt[1] * y)[..., None]
    kind = int(rng.integers(4))
    if kind == 1:  # blurred lights
        for _ in range(int(rng.integers(5, 14))):
            at, r = rng.uniform(0, 48, 2), rng.uniform(1.5, 6)
            tint = np.clip(base + rng.normal(35, 45) + rng.normal(0, 22, 3), 0, 255)
            cv2.circle(small, (int(at[0]), int(at[1])), int(r), tint.tolist(), -1, cv2.LINE_AA)
    elif kind == 2:  # shelves, doors, windows
        for _ in range(int(rng.integers(3, 9))):
            a = rng.integers(0, 48, 2)
            b = a + rng.integers(4, 26, 2)
            tint = np.clip(base + rng.normal(0, 40) + rng.normal(0, 16, 3), 0, 255)
            cv2.rectangle(small, a.tolist(), b.tolist(), tint.tolist(), -1)
    elif kind == 3:  # leaves or cloth
        leaves = rng.normal(0, 22, (10, 10, 1)) + rng.normal(0, 9, (10, 10, 3))
        small += cv2.resize(leaves.astype(np.float32), (48, 48), interpolation=cv2.INTER_CUBIC)
    small = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(0.6, 2.5)))
    return np.clip(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), 3, 250)


@lru_cache(maxsize=8)
def _strands(seed: int) -> Floats:
    """Hanging strands as brightness about 1, (96, 512): down, across."""
    rng = np.random.Generator(np.random.Philox([seed, 3]))
    fine = cv2.GaussianBlur(rng.standard_normal((12, 512)).astype(np.float32), (0, 0), 1.0)
    locks = cv2.resize(rng.standard_normal((3, 34)).astype(np.float32), (512, 12), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(0.95 + 0.3 * fine + 0.24 * locks, (512, 96), interpolation=cv2.INTER_CUBIC)


def _ring() -> Floats:
    angle = np.linspace(0.0, 2 * np.pi, 36, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _levels(camera: Camera, levels: Floats) -> tuple[Floats, Floats]:
    """Pixel rows of heights in mm, and the picture's x of the axis they turn about."""
    line = np.stack([np.full_like(levels, NECK[0]), levels, np.full_like(levels, NECK[2])], axis=1)
    at = camera.project(line)
    return at[:, 1], at[:, 0]


def _drum(image: Floats, rows: Floats, middle: Floats, half: Floats, colour: Floats, light: Floats,
          scene: Scene) -> None:
    """An upright round thing in place: rows, middles, half widths (n,) in pixels; colour (3,) or (h, w, 3)."""
    size = image.shape[0]
    top, bottom = max(0, int(rows[0]) - 1), size
    if top >= size:
        return
    outline = np.concatenate([np.stack([middle - half, rows], axis=1), np.stack([middle + half, rows], axis=1)[::-1]])
    left, right = max(0, int(outline[:, 0].min()) - 1), min(size, int(outline[:, 0].max()) + 2)
    if left >= right:
        return
    mask = polygon((bottom - top, right - left), outline - (left, top))
    y = np.arange(top, bottom, 2, dtype=np.float32)
    x = np.arange(left, right, 2, dtype=np.float32)
    t = np.clip((x - np.interp(y, rows, middle)[:, None]) / np.interp(y, rows, half)[:, None], -1, 1).astype(np.float32)
    facing = t * light[0] - np.sqrt(1.0 - t * t) * light[2]
    key = np.clip((facing + 0.2) / 1.2, 0, None)[..., None] * (np.asarray(scene.key, np.float32) * 1.15)
    lit = key + np.asarray(scene.fill, np.float32) * 0.85
    lit = cv2.resize(lit, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    patch = image[top:bottom, left:right]
    patch += (lit * (colour if colour.ndim == 1 else colour[top:bottom, left:right]) - patch) * mask[..., None]


def stage(who: Identity, scene: Scene, camera: Camera, size: int) -> Floats:
    """Everything behind the head, (size, size, 3) float32: what is out of focus at half size, near hair at full."""
    half = size // 2
    middle = (camera.centre[0] + 0.5) * half / size - 0.5, (camera.centre[1] + 0.5) * half / size - 0.5
    far = Camera(camera.turn, camera.distance, camera.pixels * half / size, middle)
    light = np.array(scene.light, np.float32) / np.float32(np.linalg.norm(scene.light))
    image = backdrop(scene.backdrop, half)
    long = who.hair_style == "long"
    if long:
        _hanging(image, who, scene, far, light, behind=True)
    _bust(image, who, scene, far, light)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    if long:
        _hanging(image, who, scene, camera, light, behind=False)
    return image


def _bust(image: Floats, who: Identity, scene: Scene, camera: Camera, light: Floats) -> None:
    """Neck and shoulders in place; they follow a third of the head's turn."""
    size = image.shape[0]
    body = Camera(rotation(Scene(yaw=scene.yaw * 0.35, pitch=scene.pitch * 0.2, roll=scene.roll * 0.15)),
                  camera.distance, camera.pixels, camera.centre)
    anchor = camera.project(NECK[None])[0] - body.project(NECK[None])[0]
    body = Camera(body.turn, body.distance, body.pixels, (body.centre[0] + anchor[0], body.centre[1] + anchor[1]))
    broad = 1.0 + 0.9 * (who.jaw_width - 1.0)
    levels = np.array([20, 60, 95, 120, 135, 300], np.float32)
    rows, middle = _levels(body, levels)
    half = np.array([53, 51, 51, 56, 66, 90], np.float32) * broad * camera.pixels
    skin = np.asarray(who.skin, np.float32) * (0.93, 0.93, 0.97)
    chin = float(camera.project(np.array([[0, 77 + 20 * scene.mouth_open, 0]], np.float32))[0, 1])
    under = 0.5 + 0.5 * step((np.arange(size, dtype=np.float32) - chin) / camera.pixels, -25.0, 40.0)
    shaded = np.broadcast_to((under[:, None, None] * skin).astype(np.float32), image.shape)
    _drum(image, rows, middle, half, shaded, light, scene)
    levels = np.array([118, 126, 138, 152, 172, 200, 330], np.float32)
    rows, middle = _levels(body, levels)
    half = np.array([50, 66, 100, 138, 176, 204, 236], np.float32) * broad * camera.pixels
    _shirt(image, who, scene, rows, middle, half, light, camera.pixels)


def _shirt(image: Floats, who: Identity, scene: Scene, rows: Floats, middle: Floats, half: Floats, light: Floats,
           pixels: float) -> None:
    """A round-necked shirt: the neck's skin stays visible in the opening."""
    size = image.shape[0]
    opening = polygon(image.shape, _ring() * np.array([52.0, 40.0]) * pixels + (middle[1], rows[1] - 2 * pixels))
    kept = image.copy()
    y, x = np.mgrid[:size, :size].astype(np.float32)
    wave = np.sin((x - middle[2]) / (15 * pixels) + (y - rows[2]) / (34 * pixels))
    folds = 1.0 + 0.07 * wave * step(y, rows[3], rows[5])
    _drum(image, rows, middle, half, folds[..., None] * np.asarray(who.shirt, np.float32), light, scene)
    rim = cv2.GaussianBlur(opening, (0, 0), max(0.6, 2.0 * pixels))
    below = step(np.arange(size, dtype=np.float32), rows[0], rows[2])[:, None]
    image *= 1.0 - 0.4 * (rim * (1.0 - opening) * below)[..., None]
    image += (kept - image) * opening[..., None]


def _hanging(image: Floats, who: Identity, scene: Scene, camera: Camera, light: Floats, behind: bool) -> None:
    """Long hair as an open tube about the neck: its far inside (`behind`), or the parts that hang in front."""
    levels = np.array([-60, -20, 20, 60, 95, 125, 150, 176], np.float32)
    line = np.stack([np.zeros_like(levels), levels, np.full_like(levels, 80.0)], axis=1)
    at = camera.project(line)
    volume = who.hair_volume_mm
    wide = (np.array([70, 74, 76, 78, 82, 84, 80, 58], np.float32) * who.face_width + volume) * camera.pixels
    deep = (np.array([88, 92, 84, 74, 70, 68, 66, 60], np.float32) + volume * 0.5) * camera.pixels
    yaw = np.deg2rad(scene.yaw)
    cy, sy = float(np.cos(yaw)), float(np.sin(yaw))
    half = np.sqrt((wide * cy) ** 2 + (deep * sy) ** 2)
    size = image.shape[0]
    strand = cv2.resize(_strands(who.seed), (max(8, int(2.1 * half.max())), max(8, int(at[-1, 1] - at[0, 1]) + 8)))
    top, left = int(at[0, 1]), int(at[3, 0] - strand.shape[1] / 2)
    y0, y1, x0, x1 = max(0, top), min(size, top + strand.shape[0]), max(0, left), min(size, left + strand.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    tint = np.zeros((size, size, 3), np.float32)
    shade = np.asarray(who.hair, np.float32) * np.float32(0.45 if behind else 1.0)
    np.multiply(strand[y0 - top:y1 - top, x0 - left:x1 - left, None], shade, out=tint[y0:y1, x0:x1])
    if behind:
        _drum(image, at[:, 1], at[:, 0], half, tint, light, scene)
        return
    for side in (-1.0, 1.0):
        theta = side * np.deg2rad(np.array([72, 70, 66, 60, 54, 50, 50, 56], np.float32))
        edge = at[:, 0] + wide * np.sin(theta) * cy - deep * np.cos(theta) * sy
        normal = np.sin(theta) / wide * sy * -1 + np.cos(theta) / deep * -cy  # depth part of the tube's normal
        outer = at[:, 0] + side * half
        inner = np.where(normal < 0, edge, outer)
        _drum(image, at[:, 1], (outer + inner) / 2, np.maximum(np.abs(outer - inner) / 2, 0.01), tint, light, scene)
