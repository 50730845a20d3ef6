"""What surrounds a made-up head: backdrop, shoulders and neck, and the hair that hangs beside and behind it.

All of it lies behind the head in the picture, so it is drawn first, flat, with light from the same lamp.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from samplelib.synthetic_head import Floats, step
from samplelib.synthetic_paint import polygon
from samplelib.synthetic_person import Identity, Scene
from samplelib.synthetic_render import Camera, rotation

NECK = np.array([0.0, 45.0, 92.0], np.float32)


def backdrop(seed: int, size: int) -> Floats:
    """A room, a wall or a street out of focus: (3, size, size) float32, 0..255, drawn from `seed`."""
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
    small = np.clip(small, 3, 250)
    return np.stack([cv2.resize(plane, (size, size), interpolation=cv2.INTER_CUBIC) for plane in cv2.split(small)])


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


def _rounded(x: Floats, y: Floats, rows: Floats, middle: Floats, half: Floats, light: Floats, scene: Scene) -> Floats:
    """Light (3, h, w) on an upright round thing at pixel columns x (w,) and rows y (h,); rows, middle, half: (n,)."""
    t = (x - np.interp(y, rows, middle).astype(np.float32)[:, None])
    t /= np.interp(y, rows, half).astype(np.float32)[:, None]
    np.maximum(t, np.float32(-1.0), out=t)
    np.minimum(t, np.float32(1.0), out=t)
    key = np.sqrt(np.float32(1.0) - t * t)
    key *= np.float32(-light[2] / 1.2)
    t *= np.float32(light[0] / 1.2)
    key += t
    key += np.float32(0.2 / 1.2)
    np.maximum(key, np.float32(0.0), out=key)
    lamp, fill = np.asarray(scene.key, np.float32) * 1.15, np.asarray(scene.fill, np.float32) * 0.85
    return np.asarray(key * lamp[:, None, None] + fill[:, None, None], np.float32)


def _outline(rows: Floats, middle: Floats, half: Floats) -> Floats:
    return np.concatenate([np.stack([middle - half, rows], axis=1), np.stack([middle + half, rows], axis=1)[::-1]])


def _drum(image: Floats, rows: Floats, middle: Floats, half: Floats, colour: Floats, tone: Floats | None,
          light: Floats, scene: Scene) -> None:
    """An upright round thing that reaches down to the edge, in place on planes (3, h, w); rows, middles, half widths
    (n,) in pixels; colour (3,), tone (h, w) or (h, 1) multiplies it."""
    height, width = image.shape[1:]
    top = max(0, int(rows[0]) - 1)
    outline = _outline(rows, middle, half)
    left, right = max(0, int(outline[:, 0].min()) - 1), min(width, int(outline[:, 0].max()) + 2)
    if top >= height or left >= right:
        return
    mask = polygon((height - top, right - left), outline - (left, top))
    lit = _rounded(np.arange(left, right, dtype=np.float32), np.arange(top, height, dtype=np.float32), rows, middle,
                   half, light, scene)
    lit *= colour[:, None, None]
    if tone is not None:
        lit *= tone[top:, left:right] if tone.shape[1] > 1 else tone[top:]
    patch = image[:, top:, left:right]
    lit -= patch
    lit *= mask
    patch += lit


def _scaled(view: NDArray[np.floating], scale: float) -> NDArray[np.floating]:
    """A view's matrix for a frame drawn `scale` times as large."""
    out = view / (scale, scale, 1.0)
    out[:, 2] += view[:, :2] @ np.full(2, 0.5 / scale - 0.5)
    return out


def stage(who: Identity, scene: Scene, camera: Camera, frame: int, size: int, view: NDArray[np.floating]) -> Floats:
    """Everything behind the head, (size, size, 3) float32: what is out of focus at half size, near hair at full.

    camera, frame: of the frame and its pixels; view (2, 3): frame to picture pixels.
    """
    scale = float(np.hypot(view[0, 0], view[1, 0]))
    half = max(8, round(frame * scale / 2))
    far, far_view = camera.through(_scaled(np.eye(2, 3), frame / half)), _scaled(view, half / frame)
    light = np.array(scene.light, np.float32) / np.float32(np.linalg.norm(scene.light))
    planes = backdrop(scene.backdrop, half)
    long = who.hair_style == "long"
    if long:
        _hanging_behind(planes, who, scene, far, light)
    _bust(planes, who, scene, far, light)
    image = np.asarray(cv2.warpAffine(cv2.merge(list(planes)), far_view, (size, size), flags=cv2.INTER_LINEAR,
                                      borderMode=cv2.BORDER_REPLICATE))
    if long:
        near = camera.through(_scaled(np.eye(2, 3), 1.0 / scale))
        _hanging_before(image, who, scene, near, light, _scaled(view, scale))
    return image


def _bust(image: Floats, who: Identity, scene: Scene, camera: Camera, light: Floats) -> None:
    """Neck and shoulders in place; they follow a third of the head's turn."""
    size = image.shape[1]
    body = Camera(rotation(Scene(yaw=scene.yaw * 0.35, pitch=scene.pitch * 0.2, roll=scene.roll * 0.15)),
                  camera.distance, camera.pixels, camera.centre)
    anchor = camera.project(NECK[None])[0] - body.project(NECK[None])[0]
    body = Camera(body.turn, body.distance, body.pixels, (body.centre[0] + anchor[0], body.centre[1] + anchor[1]))
    broad = 1.0 + 0.9 * (who.jaw_width - 1.0)
    rows, middle = _levels(body, np.array([20, 60, 95, 120, 135, 300], np.float32))
    half = np.array([53, 51, 51, 56, 66, 90], np.float32) * broad * camera.pixels
    skin = np.asarray(who.skin, np.float32) * np.array([0.93, 0.93, 0.97], np.float32)
    chin = float(camera.project(np.array([[0, 77 + 20 * scene.mouth_open, 0]], np.float32))[0, 1])
    under = 0.5 + 0.5 * step((np.arange(size, dtype=np.float32) - chin) / camera.pixels, -25.0, 40.0)
    _drum(image, rows, middle, half, skin, under[:, None].astype(np.float32), light, scene)
    rows, middle = _levels(body, np.array([118, 126, 138, 152, 172, 200, 330], np.float32))
    half = np.array([50, 66, 100, 138, 176, 204, 236], np.float32) * broad * camera.pixels
    _shirt(image, who, scene, rows, middle, half, light, camera.pixels)


def _shirt(image: Floats, who: Identity, scene: Scene, rows: Floats, middle: Floats, half: Floats, light: Floats,
           pixels: float) -> None:
    """A round-necked shirt: the neck's skin stays visible in the opening."""
    centre, rim_pixels = np.array([middle[1], rows[1] - 2 * pixels]), max(0.6, 2.0 * pixels)
    top = max(0, int(min(centre[1] - 40.0 * pixels, rows[0]) - 3 * rim_pixels) - 1)
    if top >= image.shape[1]:
        return
    image, rows, centre = image[:, top:], rows - top, centre - (0, top)
    opening = polygon(image.shape[1:], _ring() * np.array([52.0, 40.0]) * pixels + centre)
    kept = image.copy()
    y = np.arange(image.shape[1], dtype=np.float32)[:, None]
    x = np.arange(image.shape[2], dtype=np.float32)
    wave = np.sin((x - middle[2]) / np.float32(15 * pixels) + (y - rows[2]) / np.float32(34 * pixels))
    folds = wave * (0.07 * step(y, rows[3], rows[5])).astype(np.float32)
    folds += np.float32(1.0)
    _drum(image, rows, middle, half, np.asarray(who.shirt, np.float32), folds, light, scene)
    shade: Floats = cv2.GaussianBlur(opening, (0, 0), rim_pixels)
    shade *= 1.0 - opening
    shade *= (-0.4 * step(y, rows[0], rows[2])).astype(np.float32)
    shade += np.float32(1.0)
    image *= shade
    kept -= image
    kept *= opening
    image += kept


def _tube(who: Identity, scene: Scene, camera: Camera) -> tuple[Floats, Floats, Floats, Floats]:
    """Long hair as an open tube about the neck: axis (n, 2), half width seen (n,), half widths across and in depth."""
    levels = np.array([-60, -20, 20, 60, 95, 125, 150, 176], np.float32)
    at = camera.project(np.stack([np.zeros_like(levels), levels, np.full_like(levels, 80.0)], axis=1))
    volume = who.hair_volume_mm
    wide = (np.array([70, 74, 76, 78, 82, 84, 80, 58], np.float32) * who.face_width + volume) * camera.pixels
    deep = (np.array([88, 92, 84, 74, 70, 68, 66, 60], np.float32) + volume * 0.5) * camera.pixels
    yaw = np.deg2rad(scene.yaw)
    return at, np.hypot(wide * float(np.cos(yaw)), deep * float(np.sin(yaw))), wide, deep


def _combed(who: Identity, at: Floats, half: Floats) -> tuple[Floats, int, int]:
    """Strands of hanging hair as brightness about 1 and the pixel of their top left corner."""
    size = max(8, int(2.1 * half.max())), max(8, int(at[-1, 1] - at[0, 1]) + 8)
    strand = np.asarray(cv2.resize(_strands(who.seed), size))
    return strand, int(at[3, 0] - size[0] / 2), int(at[0, 1])


def _hanging_behind(image: Floats, who: Identity, scene: Scene, camera: Camera, light: Floats) -> None:
    """The far inside of long hair, in place on planes (3, h, w)."""
    at, half, _, _ = _tube(who, scene, camera)
    strand, left, top = _combed(who, at, half)
    size = image.shape[1]
    y0, y1, x0, x1 = max(0, top), min(size, top + strand.shape[0]), max(0, left), min(size, left + strand.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    tone = np.zeros((size, size), np.float32)
    tone[y0:y1, x0:x1] = strand[y0 - top:y1 - top, x0 - left:x1 - left]
    _drum(image, at[:, 1], at[:, 0], half, np.asarray(who.hair, np.float32) * np.float32(0.45), tone, light, scene)


def _hanging_before(image: Floats, who: Identity, scene: Scene, camera: Camera, light: Floats,
                    view: NDArray[np.floating]) -> None:
    """The parts of long hair that hang in front of the shoulders, in place on a picture (h, w, 3)."""
    at, half, wide, deep = _tube(who, scene, camera)
    strand, left, top = _combed(who, at, half)
    cy, sy = float(np.cos(np.deg2rad(scene.yaw))), float(np.sin(np.deg2rad(scene.yaw)))
    rows, size = at[:, 1], image.shape[0]
    for side in (-1.0, 1.0):
        theta = side * np.deg2rad(np.array([72, 70, 66, 60, 54, 50, 50, 56], np.float32))
        edge = at[:, 0] + wide * np.sin(theta) * cy - deep * np.cos(theta) * sy
        normal = np.sin(theta) / wide * sy * -1 + np.cos(theta) / deep * -cy  # depth part of the tube's normal
        outer = at[:, 0] + side * half
        inner = np.where(normal < 0, edge, outer)
        middle, reach = (outer + inner) / 2, np.maximum(np.abs(outer - inner) / 2, 0.01)
        outline = _outline(rows, middle, reach)
        seen = outline @ view[:, :2].T + view[:, 2]
        x0, y0 = (max(0, int(low) - 1) for low in seen.min(axis=0))
        x1, y1 = (min(size, int(high) + 2) for high in seen.max(axis=0))
        first, last = max(0, int(outline[:, 0].min()) - 1 - left), int(outline[:, 0].max()) + 2 - left
        comb = strand[:, first:last]
        if x0 >= x1 or y0 >= y1 or not comb.size:
            continue
        x = np.arange(comb.shape[1], dtype=np.float32) + np.float32(left + first)
        y = np.arange(comb.shape[0], dtype=np.float32) + np.float32(top)
        lit = _rounded(x, y, rows, middle, reach, light, scene)
        lit *= comb
        lit *= np.asarray(who.hair, np.float32)[:, None, None]
        move = view.copy()
        move[:, 2] += view[:, :2] @ (left + first, top) - (x0, y0)
        hair = cv2.warpAffine(cv2.merge(list(lit)), move, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR,
                              borderMode=cv2.BORDER_REPLICATE)
        mask = polygon((y1 - y0, x1 - x0), seen - (x0, y0))
        patch = image[y0:y1, x0:x1]
        hair -= patch
        hair *= cv2.merge((mask, mask, mask))
        patch += hair
