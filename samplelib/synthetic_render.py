"""Camera, ray casting and light of the made-up heads.

Rays meet the star-shaped head by sphere tracing on the radius map: coarse at a quarter of the frame, then refined from
the nearest coarse depth around each pixel, so noses hide far cheeks and no hole can open. Light is worked out on the
direction map (a fixed cost whatever the frame) and looked up per pixel together with the paint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from samplelib.synthetic_head import CENTRE, GRID, MM, REACH, Floats, Shape
from samplelib.synthetic_person import Scene

AIM = np.array([0.0, -20.0, 12.0], np.float32)  # what the camera keeps in the middle of the frame
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels
PIVOT = np.array([0.0, 10.0, 70.0], np.float32)


def rotation(scene: Scene) -> Floats:
    """Head to camera, (3, 3); angles as facelib.landmarks.pose reports them."""
    yaw, pitch, roll = np.deg2rad([scene.yaw, -scene.pitch, scene.roll])
    cx, sx, cy, sy, cz, sz = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw), np.cos(roll), np.sin(roll)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return (z @ y @ x).astype(np.float32)


@dataclass(frozen=True)
class Camera:
    """A pinhole `distance` mm before the head's pivot; `pixels` per mm at the pivot."""

    turn: Floats
    distance: float
    pixels: float
    centre: tuple[float, float]

    @staticmethod
    def of(scene: Scene, size: int, span_mm: float, rise: float = 0.0) -> Camera:
        """The camera of a size x size frame that is `span_mm` wide at the head and follows the face.

        rise moves the face up (negative: down) by that part of the frame.
        """
        pixels = size / span_mm * scene.scale
        middle = size / 2 - 0.5
        straight = Camera(rotation(scene), scene.distance, pixels, (0.0, 0.0))
        x, y = straight.project(AIM[None])[0]
        return Camera(straight.turn, scene.distance, pixels, (
            float(middle + scene.offset[0] * size - x), float(middle + (scene.offset[1] - rise) * size - y)))

    def project(self, points: Floats) -> Floats:
        """Head points (n, 3) -> pixels (n, 2)."""
        p = (points - PIVOT) @ self.turn.T
        scale = self.pixels * self.distance / (p[:, 2:] + self.distance)
        return (p[:, :2] * scale + self.centre).astype(np.float32)


@dataclass(frozen=True)
class Hits:
    """What each pixel of a box of the frame sees of the head."""

    box: Box
    u: Floats
    v: Floats
    cover: Floats  # 0..1, soft over one pixel at the outline


class _Trail(NamedTuple):
    """Where rays have come to: depth to go on from; map position and distance in mm where they were nearest."""

    t: Floats
    u: Floats
    v: Floats
    gap: Floats


def _march(relief: Floats, start: Floats, ray: Floats, t: Floats, steps: int, haste: float,
           exact: bool) -> _Trail:
    """Sphere tracing from `start` (3,) along `ray` (3, h, w), beginning at depths t (h, w).

    Steps are lengthened by the secant rule up to `haste` times: 1 never jumps over a thin ridge, 4 settles quickly.
    Only `exact` ones say where a ray was nearest; of the others take the depth alone.
    """
    scale, shift = np.float32(GRID / (2 * REACH)), np.float32(GRID / 2 - 0.5)
    far = np.float32(np.linalg.norm(start) + 150.0)
    x, y, z = (np.empty_like(t) for _ in range(3))
    best = _Trail(t, x, y, np.full_like(t, np.inf))
    before = stride = best.gap
    for i in range(steps):
        for axis, target in enumerate((x, y, z)):
            np.multiply(ray[axis], t, out=target)
            target += start[axis]
        long = np.sqrt(x * x + y * y + z * z)
        z -= long
        z *= -long
        factor = np.sqrt(np.float32(2.0) / np.maximum(z, np.float32(1e-3)))
        x *= factor
        y *= factor
        here = cv2.remap(relief, x * scale + shift, y * scale + shift, cv2.INTER_LINEAR,
                         borderMode=cv2.BORDER_REPLICATE)
        gap = (long - here[..., 0]) * here[..., 1]
        if exact and i == 0:
            best = _Trail(t, x.copy(), y.copy(), gap.copy())
        elif exact:
            nearer = gap < best.gap
            for kept, new in ((best.u, x), (best.v, y), (best.gap, gap)):
                np.copyto(kept, new, where=nearer)
        if i == 0 or haste == 1.0:
            stride = gap
        else:
            gained = before - gap
            np.copyto(gained, stride, where=gained < 1e-3)
            stride = gap * np.clip(stride / (gained + np.float32(1e-6)), 1.0, haste)
        before = gap
        t = np.minimum(t + stride, far)
    return best._replace(t=t)


def _relief(shape: Shape, normals: Floats) -> Floats:
    """Radius and how much of a radial gap is sure to be free along any ray, (GRID, GRID, 2)."""
    outward = shape.points - CENTRE[:, None, None]
    steep = _dot(normals, outward) / shape.radius
    safe = cv2.erode(np.clip(steep, 0.22, 0.95), np.ones((3, 3), np.uint8))
    return np.dstack([shape.radius, safe])


def _dot(field: Floats, other: Floats | list[float]) -> Floats:
    """Scalar product of a (3, h, w) field with another or with one vector."""
    out = field[0] * other[0]
    out += field[1] * other[1]
    out += field[2] * other[2]
    return out


class _Rays:
    """Viewing rays in head space of any part of a frame, at any coarseness."""

    def __init__(self, camera: Camera) -> None:
        self.focal = camera.pixels * camera.distance
        self.centre = camera.centre
        self.turn = camera.turn.T.astype(np.float32)
        self.eye = self.turn @ np.array([0, 0, -camera.distance], np.float32) + PIVOT - CENTRE

    def __call__(self, box: Box, pitch: int) -> Floats:
        """(3, h, w) directions with unit depth for every `pitch`-th pixel of left, top, right, bottom."""
        left, top, right, bottom = box
        half = (pitch - 1) / 2
        dx = (np.arange(left, right, pitch, dtype=np.float32) + (half - self.centre[0])) / self.focal
        dy = (np.arange(top, bottom, pitch, dtype=np.float32) + (half - self.centre[1]))[:, None] / self.focal
        t = self.turn
        return np.stack([t[k, 0] * dx + (t[k, 1] * dy + t[k, 2]) for k in range(3)]).astype(np.float32)


def cast(shape: Shape, normals: Floats, camera: Camera, size: int) -> Hits:
    """Finds what each pixel of the frame sees of the head. Raises ValueError if the head is outside the frame."""
    relief, rays = _relief(shape, normals), _Rays(camera)
    reach = float(shape.radius.max()) + 1.0
    mid = camera.project(CENTRE[None])[0]
    wide = reach * camera.pixels * camera.distance / (camera.distance - reach) + 2
    left, top = (max(0, int(m - wide)) for m in mid)
    right, bottom = (min(size, int(m + wide) + 1) for m in mid)
    if right <= left or bottom <= top:
        raise ValueError("the head is outside the frame: give the scene an offset within about 0.5 frame widths")
    box = left, top, left + -(-(right - left) // 8) * 8, top + -(-(bottom - top) // 8) * 8
    ray = rays(box, 8)
    start: Floats = np.full(ray.shape[1:], camera.distance - reach - 30.0, np.float32)
    trail = _march(relief, rays.eye, ray, start, 20, 1.0, False)
    for pitch, steps, haste in ((4, 8, 1.2), (2, 4, 2.0), (1, 3, 2.0)):
        t: Floats = trail.t
        if pitch == 2:
            box, cut = _tighten(box, t < camera.distance + 45.0)
            t = t[cut]
        t = cv2.erode(t, np.ones((3, 3), np.uint8))
        t = cv2.resize(t, (t.shape[1] * 2, t.shape[0] * 2), interpolation=cv2.INTER_LINEAR)
        ray = rays(box, pitch)
        trail = _march(relief, rays.eye, ray, t, steps, haste, pitch == 1)
    _finish(relief, rays.eye, ray, trail, camera)
    cover: Floats = np.clip(1.9 - trail.gap * (camera.pixels * 1.3), 0.0, 1.0)
    cover = cv2.morphologyEx(cover, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    cover = np.minimum(cv2.GaussianBlur(cover, (3, 3), 0) * 1.1, 1.0)
    left, top, right, bottom = box[0], box[1], min(box[2], size), min(box[3], size)
    inside = slice(0, bottom - top), slice(0, right - left)
    return Hits((left, top, right, bottom), trail.u[inside], trail.v[inside], cover[inside])


def _tighten(box: Box, near: NDArray[np.bool_]) -> tuple[Box, tuple[slice, slice]]:
    """The part of a box, seen at every 4th pixel, that holds the head with a margin."""
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    if not len(rows):
        return box, (slice(None), slice(None))
    y0, y1 = max(0, rows[0] - 2), min(near.shape[0], rows[-1] + 3)
    x0, x1 = max(0, columns[0] - 2), min(near.shape[1], columns[-1] + 3)
    left, top = box[:2]
    return (left + 4 * x0, top + 4 * y0, left + 4 * x1, top + 4 * y1), (slice(y0, y1), slice(x0, x1))


def _finish(relief: Floats, eye: Floats, ray: Floats, trail: _Trail, camera: Camera) -> None:
    """Follows the few rays that still hang in the air (past the nose, along the temples) to their end, in place."""
    y, x = np.nonzero((trail.gap > 0.6 / camera.pixels) & (trail.t < camera.distance + 30.0))
    if not len(y):
        return
    width = 256  # OpenCV's lookups take no row longer than 32767
    pick = np.resize(np.arange(len(y)), -(-len(y) // width) * width).reshape(-1, width)
    y, x = y[pick], x[pick]
    end = _march(relief, eye, np.ascontiguousarray(ray[:, y, x]), trail.t[y, x], 13, 3.0, True)
    better = end.gap < trail.gap[y, x]
    y, x = y[better], x[better]
    trail.u[y, x], trail.v[y, x], trail.gap[y, x] = end.u[better], end.v[better], end.gap[better]


def light_map(shape: Shape, scene: Scene, turn: Floats) -> tuple[Floats, Floats]:
    """Light on the direction map: (GRID, GRID, 4) diffuse BGR and shine; normals (3, GRID, GRID)."""
    p = shape.points
    a, b, c = (cv2.Sobel(axis, cv2.CV_32F, 1, 0, ksize=3) for axis in p)
    d, e, f = (cv2.Sobel(axis, cv2.CV_32F, 0, 1, ksize=3) for axis in p)
    n = np.stack([e * c - f * b, f * a - d * c, d * b - e * a])
    n /= cv2.sqrt(_dot(n, n)) + np.float32(1e-6)
    inward = turn.T.astype(np.float32)
    to_light = inward @ (np.array(scene.light, np.float32) / np.float32(np.linalg.norm(scene.light)))
    to_eye, up = -inward[:, 2], -inward[:, 1]
    facing = _dot(n, to_light)
    lit = 1.0 - 0.75 * cast_shadow(p, to_light)
    sky = 0.78 + 0.22 * _dot(n, up)
    out = np.empty((*facing.shape, 4), np.float32)
    for k, wrap in enumerate((0.16, 0.2, 0.34)):
        soft = np.maximum(facing + wrap, 0.0) * lit
        out[..., k] = soft * (scene.key[k] * 1.14 / (1 + wrap)) + scene.fill[k] * sky
    half = (to_light + to_eye) / np.linalg.norm(to_light + to_eye)
    shine = np.maximum(_dot(n, half), 0.0)
    shine *= shine
    shine *= shine
    shine *= shine
    out[..., 3] = shine * shine * lit
    return out, n


def cast_shadow(p: Floats, to_light: NDArray[np.floating]) -> Floats:
    """Soft 0..1 shadow of the nose, brows and hair on the face: a few steps towards the light over the height field."""
    flat = float(np.hypot(to_light[0], to_light[1])) + 1e-3
    slope = max(-float(to_light[2]), 0.05) / flat
    along = np.array([to_light[0], to_light[1]]) / flat
    height = -p[2]
    cell = GRID / (2 * REACH) * MM
    dark = np.zeros_like(height)
    for mm in (6.0, 11.0, 18.0, 27.0):
        matrix = np.array([[1, 0, along[0] * mm * cell], [0, 1, along[1] * mm * cell]], np.float32)
        ahead = cv2.warpAffine(height, matrix, (GRID, GRID), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                               borderMode=cv2.BORDER_REPLICATE)
        np.maximum(dark, (ahead - height - slope * mm) / (2.0 + mm * 0.22), out=dark)
    return cv2.blur(np.clip(dark, 0.0, 1.0), (3, 3))
