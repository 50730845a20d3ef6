"""Camera, ray casting and light of the made-up heads.

Rays meet the star-shaped head by sphere tracing on the radius map: coarse at an eighth of the picture, then refined
from the nearest coarse depth around each pixel, so noses hide far cheeks and no hole can open. Skin is smooth, so every
second ray is enough there; along outlines each pixel has its own. Light is worked out on the direction map (a fixed
cost whatever the picture) and looked up per pixel together with the paint.
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
_NEXT = np.ones((3, 3), np.uint8)
_ROW = 256  # OpenCV's lookups take no row longer than 32767
_BEND = 4.0  # how sharply depth may turn, in pixels of depth, before a pixel gets a ray of its own
_LOOSE = 0.3  # and how far from the skin its coarser ray may have ended, in pixels
_JUMP = 1.5  # how unevenly map positions of neighbours at 1 pixel per mm may lie where nothing hides another
_MISSED = 2.5  # pixels between the skin and a coarse ray whose neighbours need no closer look
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

    def through(self, view: NDArray[np.floating]) -> Camera:
        """The camera of the picture that a similarity `view` (2, 3), without mirroring, makes of this one's."""
        scale = float(np.hypot(view[0, 0], view[1, 0]))
        turn = np.eye(3)
        turn[:2, :2] = view[:, :2] / scale
        x, y = view[:, :2] @ self.centre + view[:, 2]
        return Camera((turn @ self.turn).astype(np.float32), self.distance, self.pixels * scale, (float(x), float(y)))

    def project(self, points: Floats) -> Floats:
        """Head points (n, 3) -> pixels (n, 2)."""
        p = (points - PIVOT) @ self.turn.T
        scale = self.pixels * self.distance / (p[:, 2:] + self.distance)
        return (p[:, :2] * scale + self.centre).astype(np.float32)


class Hits(NamedTuple):
    """What each pixel of a box of the picture sees of the head."""

    box: Box
    x: Floats  # pixel coordinates on the direction map
    y: Floats
    cover: Floats  # 0..1, soft over one pixel at the outline
    seam: Floats   # 0..1, where a pixel shows both sides of a jump in depth


class _Trail(NamedTuple):
    """Where rays have come to: depth to go on from; place on the direction map and distance in mm where they were
    nearest."""

    t: Floats
    x: Floats
    y: Floats
    gap: Floats


def _march(relief: Floats, start: Floats, ray: Floats, t: Floats, steps: int, haste: float,
           exact: bool) -> _Trail:
    """Sphere tracing from `start` (3,) along `ray` (3, h, w), beginning at depths t (h, w).

    Steps are lengthened by the secant rule up to `haste` times: 1 never jumps over a thin ridge, 4 settles quickly.
    Only `exact` ones say where a ray was nearest; of the others take the depth alone.
    """
    scale, shift = GRID / (2 * REACH), np.float32(GRID / 2 - 0.5)
    far = np.float32(np.linalg.norm(start) + 150.0)
    x, y, z, long, square, gap = (np.empty_like(t) for _ in range(6))
    t = t.copy()
    best = _Trail(t, x, y, gap)
    before = stride = gap
    for i in range(steps):
        for axis, target in enumerate((x, y, z)):
            np.multiply(ray[axis], t, out=target)
            target += start[axis]
        np.multiply(x, x, out=long)
        for other in (y, z):
            np.multiply(other, other, out=square)
            long += square
        np.sqrt(long, out=long)
        z -= long
        z *= long
        np.minimum(z, np.float32(-1e-3), out=z)
        np.divide(np.float32(-2.0 * scale * scale), z, out=z)
        np.sqrt(z, out=z)
        for target in (x, y):
            target *= z
            target += shift
        here = cv2.remap(relief, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        gap = np.subtract(long, here[..., 0])
        gap *= here[..., 1]
        if exact and i == 0:
            best = _Trail(t, x.copy(), y.copy(), gap.copy())
        elif exact:
            nearer = gap < best.gap
            for kept, new in ((best.x, x), (best.y, y), (best.gap, gap)):
                np.copyto(kept, new, where=nearer)
        if i == 0 or haste == 1.0:
            stride = gap
        else:
            before -= gap
            np.copyto(before, stride, where=before < 1e-3)
            before += np.float32(1e-6)
            np.divide(stride, before, out=before)
            np.maximum(before, np.float32(1.0), out=before)
            np.minimum(before, np.float32(haste), out=before)
            stride = np.multiply(gap, before, out=before)
        before = gap.copy() if stride is gap else gap
        t += stride
        np.minimum(t, far, out=t)
    return best._replace(t=t)


def _relief(shape: Shape, normals: Floats) -> Floats:
    """Radius and how much of a radial gap is sure to be free along any ray, (GRID, GRID, 2)."""
    outward = shape.points - CENTRE[:, None, None]
    steep = _dot(normals, outward)
    steep /= shape.radius
    safe = cv2.erode(np.minimum(np.maximum(steep, 0.22), 0.95), np.ones((3, 3), np.uint8))
    return np.asarray(cv2.merge((shape.radius, safe)))


def _dot(field: Floats, other: Floats | list[float]) -> Floats:
    """Scalar product of a (3, h, w) field with another or with one vector."""
    out = field[0] * other[0]
    out += field[1] * other[1]
    out += field[2] * other[2]
    return out


class _Rays:
    """Viewing rays in head space of any part of a picture, at any coarseness."""

    def __init__(self, camera: Camera) -> None:
        self.focal = camera.pixels * camera.distance
        self.centre = camera.centre
        self.turn = camera.turn.T.astype(np.float32)
        self.eye = self.turn @ np.array([0, 0, -camera.distance], np.float32) + PIVOT - CENTRE

    def through(self, x: Floats, y: Floats) -> Floats:
        """(3, ...) directions with unit depth for pixel coordinates that broadcast."""
        dx = ((x - self.centre[0]) / self.focal).astype(np.float32)
        dy = ((y - self.centre[1]) / self.focal).astype(np.float32)
        t = self.turn
        return np.stack([t[k, 0] * dx + (t[k, 1] * dy + t[k, 2]) for k in range(3)])

    def __call__(self, box: Box, pitch: int) -> Floats:
        """(3, h, w) directions with unit depth for every `pitch`-th pixel of left, top, right, bottom."""
        left, top, right, bottom = box
        half = np.float32((pitch - 1) / 2)
        return self.through(np.arange(left, right, pitch, dtype=np.float32) + half,
                            np.arange(top, bottom, pitch, dtype=np.float32)[:, None] + half)


def cast(relief: Floats, camera: Camera, size: int) -> Hits:
    """Finds what each pixel of the picture sees of the head. relief: see `light_map`.

    Raises ValueError if the head is outside the picture.
    """
    rays = _Rays(camera)
    reach = float(relief[..., 0].max()) + 1.0
    mid = camera.project(CENTRE[None])[0]
    wide = reach * camera.pixels * camera.distance / (camera.distance - reach) + 2
    left, top = (max(0, int(m - wide)) for m in mid)
    right, bottom = (min(size, int(m + wide) + 1) for m in mid)
    if right <= left or bottom <= top:
        raise ValueError("the head is outside the frame: give the scene an offset within about 0.5 frame widths")
    box = left, top, left + -(-(right - left) // 8) * 8, top + -(-(bottom - top) // 8) * 8
    ray = rays(box, 8)
    start: Floats = np.full(ray.shape[1:], camera.distance - reach - 30.0, np.float32)
    t: Floats = _march(relief, rays.eye, ray, start, 12, 1.0, False).t
    for pitch, steps, haste in ((4, 8, 1.2), (2, 5, 2.0)):
        if pitch == 2:
            box, cut = _tighten(box, t < camera.distance + 45.0)
            t = t[cut]
        t = cv2.resize(cv2.erode(t, _NEXT), (t.shape[1] * 2, t.shape[0] * 2), interpolation=cv2.INTER_LINEAR)
        trail = _march(relief, rays.eye, rays(box, pitch), t, steps, haste, pitch == 2)
        t = trail.t
    seen = _refine(relief, rays, trail, camera, box)
    jump = sum(np.abs(cv2.Laplacian(axis, cv2.CV_32F, ksize=1)) for axis in (seen.x, seen.y))
    seam = np.minimum(np.maximum(jump * np.float32(camera.pixels) - np.float32(_JUMP), 0.0), 1.0)
    cover = np.minimum(np.maximum(1.9 - seen.gap * np.float32(camera.pixels * 1.3), 0.0), 1.0)
    cover = cv2.morphologyEx(cover, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    cover = np.minimum(cv2.GaussianBlur(cover, (3, 3), 0) * np.float32(1.1), 1.0)
    left, top, right, bottom = box[0], box[1], min(box[2], size), min(box[3], size)
    inside = slice(0, bottom - top), slice(0, right - left)
    return Hits((left, top, right, bottom), seen.x[inside], seen.y[inside], cover[inside], seam[inside])


def _tighten(box: Box, near: NDArray[np.bool_]) -> tuple[Box, tuple[slice, slice]]:
    """The part of a box, seen at every 4th pixel, that holds the head with a margin."""
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    if not len(rows):
        return box, (slice(None), slice(None))
    y0, y1 = max(0, rows[0] - 2), min(near.shape[0], rows[-1] + 3)
    x0, x1 = max(0, columns[0] - 2), min(near.shape[1], columns[-1] + 3)
    left, top = box[:2]
    return (left + 4 * x0, top + 4 * y0, left + 4 * x1, top + 4 * y1), (slice(y0, y1), slice(x0, x1))


def _refine(relief: Floats, rays: _Rays, trail: _Trail, camera: Camera, box: Box) -> _Trail:
    """Every pixel's place on the map from every second one's: between them on smooth skin, by rays of their own where
    the depth jumps or bends within a pixel or two (outlines, nose, ears)."""
    pixel = 1.0 / camera.pixels
    bend = np.abs(cv2.Laplacian(trail.t, cv2.CV_32F, ksize=1))
    alone = (bend > _BEND * pixel) | (trail.gap > _LOOSE * pixel)
    first, nearest = cv2.erode(trail.t, _NEXT), cv2.erode(trail.gap, _NEXT)
    alone &= (first < camera.distance + 30.0) & (nearest < _MISSED * pixel)
    height, width = (2 * n for n in trail.t.shape)
    spots = cv2.resize(alone.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_LINEAR)
    x, y, gap = (cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR) for part in trail[1:])
    row, column = np.nonzero(spots)
    if not len(row):
        return _Trail(trail.t, x, y, gap)
    t = first[row // 2, column // 2]
    for steps, haste in ((5, 2.0), (11, 3.0)):
        pick = np.resize(np.arange(len(row)), -(-len(row) // _ROW) * _ROW).reshape(-1, _ROW)
        row, column, t = row[pick], column[pick], t[pick]
        ray = rays.through(column.astype(np.float32) + np.float32(box[0]), row.astype(np.float32) + np.float32(box[1]))
        end = _march(relief, rays.eye, ray, t, steps, haste, True)
        if haste == 2.0:
            x[row, column], y[row, column], gap[row, column] = end.x, end.y, end.gap
        else:
            better = end.gap < gap[row, column]
            for kept, new in ((x, end.x), (y, end.y), (gap, end.gap)):
                kept[row[better], column[better]] = new[better]
        still = (end.gap > 0.6 * pixel) & (end.t < camera.distance + 30.0)
        row, column, t = row[still], column[still], end.t[still]
        if not len(row):
            break
    return _Trail(trail.t, x, y, gap)


def light_map(shape: Shape, scene: Scene) -> tuple[Floats, Floats]:
    """Light on the direction map: (GRID, GRID, 4) diffuse BGR and shine; and the relief that `cast` wants."""
    p = shape.points
    a, b, c = (cv2.Sobel(axis, cv2.CV_32F, 1, 0, ksize=3) for axis in p)
    d, e, f = (cv2.Sobel(axis, cv2.CV_32F, 0, 1, ksize=3) for axis in p)
    n = np.stack([e * c - f * b, f * a - d * c, d * b - e * a])
    n /= cv2.sqrt(_dot(n, n)) + np.float32(1e-6)
    inward = rotation(scene).T
    to_light = inward @ (np.array(scene.light, np.float32) / np.float32(np.linalg.norm(scene.light)))
    to_eye, up = -inward[:, 2], -inward[:, 1]
    facing = _dot(n, to_light)
    lit = cast_shadow(p, to_light)
    lit *= -0.75
    lit += 1.0
    sky = _dot(n, up)
    sky *= np.float32(0.22)
    sky += np.float32(0.78)
    planes = []
    for k, wrap in enumerate((0.16, 0.2, 0.34)):
        soft = facing + np.float32(wrap)
        np.maximum(soft, 0.0, out=soft)
        soft *= lit
        soft *= np.float32(scene.key[k] * 1.14 / (1 + wrap))
        soft += np.float32(scene.fill[k]) * sky
        planes.append(soft)
    half = (to_light + to_eye) / np.linalg.norm(to_light + to_eye)
    shine = np.maximum(_dot(n, half), 0.0)
    for _ in range(4):
        shine *= shine
    shine *= lit
    return np.asarray(cv2.merge((*planes, shine))), _relief(shape, n)


def cast_shadow(p: Floats, to_light: NDArray[np.floating]) -> Floats:
    """Soft 0..1 shadow of the nose, brows and hair on the face: a few steps towards the light over the height field,
    at half the map's size because the shadow is soft."""
    flat = float(np.hypot(to_light[0], to_light[1])) + 1e-3
    slope = max(-float(to_light[2]), 0.05) / flat
    along = np.array([to_light[0], to_light[1]]) / flat
    small = GRID // 2
    height = cv2.resize(p[2], (small, small), interpolation=cv2.INTER_AREA)
    np.negative(height, out=height)
    cell = small / (2 * REACH) * MM
    dark = np.zeros_like(height)
    for mm in (6.0, 11.0, 18.0, 27.0):
        matrix = np.array([[1, 0, along[0] * mm * cell], [0, 1, along[1] * mm * cell]], np.float32)
        ahead = cv2.warpAffine(height, matrix, (small, small), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                               borderMode=cv2.BORDER_REPLICATE)
        ahead -= height
        ahead -= np.float32(slope * mm)
        ahead *= np.float32(1.0 / (2.0 + mm * 0.22))
        np.maximum(dark, ahead, out=dark)
    return np.asarray(cv2.resize(np.minimum(dark, 1.0), (GRID, GRID), interpolation=cv2.INTER_LINEAR))
