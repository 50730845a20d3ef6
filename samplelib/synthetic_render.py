"""Camera, ray casting and light of the made-up heads.

Rays meet the star-shaped head by sphere tracing on the radius map: coarse at a quarter of the frame, then refined from
the nearest coarse depth around each pixel, so noses hide far cheeks and no hole can open. Light is worked out on the
direction map (a fixed cost whatever the frame) and looked up per pixel together with the paint.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from samplelib.synthetic_head import CENTRE, GRID, REACH, Floats, Shape
from samplelib.synthetic_person import Scene

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
    def of(scene: Scene, size: int, span_mm: float) -> Camera:
        """The camera of a size x size frame that is `span_mm` wide at the head."""
        pixels = size / span_mm * scene.scale
        middle = size / 2 - 0.5
        at = (middle + scene.offset[0] * size, middle + scene.offset[1] * size)
        return Camera(rotation(scene), scene.distance, pixels, at)

    def project(self, points: Floats) -> Floats:
        """Head points (n, 3) -> pixels (n, 2)."""
        p = (points - PIVOT) @ self.turn.T
        scale = self.pixels * self.distance / (p[:, 2:] + self.distance)
        return (p[:, :2] * scale + self.centre).astype(np.float32)


@dataclass(frozen=True)
class Hits:
    """What each pixel of a box of the frame sees of the head."""

    box: tuple[int, int, int, int]  # left, top, right, bottom
    u: Floats
    v: Floats
    cover: Floats  # 0..1, soft over one pixel at the outline


def _march(relief: Floats, start: Floats, ray: Floats, t: Floats, steps: int, haste: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Sphere tracing: start (3,), ray (3, h, w), depth t (h, w) -> depth, u, v, distance in mm to the surface.

    Steps are lengthened by the secant rule up to `haste` times: 1 never jumps over a thin ridge, 4 settles quickly.
    """
    scale = np.float32(GRID / (2 * REACH))
    shift = np.float32(GRID / 2 - 0.5)
    x, y, z = (np.empty_like(t) for _ in range(3))
    for i in range(steps):
        for axis, target in enumerate((x, y, z)):
            np.multiply(ray[axis], t, out=target)
            target += start[axis]
        long = cv2.sqrt(x * x + y * y + z * z)
        z -= long
        z *= -long
        factor = cv2.sqrt(np.float32(2.0) / z)
        x *= factor
        y *= factor
        here = cv2.remap(relief, x * scale + shift, y * scale + shift, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        gap = (long - here[..., 0]) * here[..., 1]
        if i == steps - 1:
            break
        stride = gap if i == 0 else gap * np.clip(stride / (before - gap + 1e-4), 1.0, haste)
        before = gap
        t = t + stride
    return t, x, y, gap


def _relief(shape: Shape, normals: Floats) -> Floats:
    """Radius and how much of a radial gap is sure to be free along any ray, (GRID, GRID, 2)."""
    outward = shape.points - CENTRE
    steep = (normals * outward).sum(-1) / shape.radius
    safe = cv2.erode(np.clip(steep, 0.22, 0.95).astype(np.float32), np.ones((3, 3), np.uint8))
    return np.dstack([shape.radius, safe])


def cast(shape: Shape, normals: Floats, camera: Camera, size: int) -> Hits:
    """Finds what each pixel of the frame sees of the head."""
    relief = _relief(shape, normals)
    reach = float(shape.radius.max()) + 1.0
    mid = camera.project(CENTRE[None])[0]
    wide = reach * camera.pixels * camera.distance / (camera.distance - reach) + 2
    left, top = (max(0, int(m - wide)) // 4 * 4 for m in mid)
    right, bottom = (min(size, int(m + wide) + 1) for m in mid)
    focal = camera.pixels * camera.distance
    turn = camera.turn.T.astype(np.float32)
    eye = turn @ np.array([0, 0, -camera.distance], np.float32) + PIVOT - CENTRE

    def rays(pitch: int) -> Floats:
        half = (pitch - 1) / 2
        dx = (np.arange(left + half, right + pitch - 1, pitch, np.float32) - camera.centre[0]) / focal
        dy = (np.arange(top + half, bottom + pitch - 1, pitch, np.float32) - camera.centre[1])[:, None] / focal
        return np.stack([turn[k, 0] * dx + (turn[k, 1] * dy + turn[k, 2]) for k in range(3)]).astype(np.float32)

    nearest = np.ones((3, 3), np.uint8)
    ray = rays(4)
    t = np.full(ray.shape[1:], camera.distance - reach - 30.0, np.float32)
    for pitch, steps, haste in ((4, 30, 1.0), (2, 6, 2.5), (1, 4, 4.0)):
        if pitch < 4:
            ray = rays(pitch)
            if pitch == 1:
                behind = cv2.dilate(t + gap, nearest)
            t = cv2.erode(t + gap, nearest)
            t = cv2.resize(t, (t.shape[1] * 2, t.shape[0] * 2), interpolation=cv2.INTER_LINEAR)
            t = np.ascontiguousarray(t[:ray.shape[1], :ray.shape[2]])
        t, u, v, gap = _march(relief, eye, ray, t, steps, haste)
    _look_past_edges(relief, eye, ray, behind, camera.distance, (u, v, gap))
    height, width = bottom - top, right - left
    u, v, gap = u[:height, :width], v[:height, :width], gap[:height, :width]
    return Hits((left, top, right, bottom), u, v, np.clip(1.5 - gap * camera.pixels, 0.0, 1.0))


def _look_past_edges(relief: Floats, eye: Floats, ray: Floats, behind: Floats, distance: float,
                     found: tuple[Floats, Floats, Floats]) -> None:
    """Pixels just beside a near edge (nose over cheek) still hang in the air: go on from the far side, in place."""
    u, v, gap = found
    y, x = np.nonzero(gap > 0.5)
    t = behind[y // 2, x // 2]
    keep = t < distance + 40.0
    y, x, t = y[keep], x[keep], t[keep]
    if not len(y):
        return
    rows = -(-len(y) // 4096)
    pick = np.resize(np.arange(len(y)), rows * min(len(y), 4096)).reshape(rows, -1)
    y, x = y[pick], x[pick]
    _, far_u, far_v, far_gap = _march(relief, eye, np.ascontiguousarray(ray[:, y, x]), t[pick] - 3.0, 8, 2.0)
    better = far_gap < gap[y, x]
    y, x = y[better], x[better]
    u[y, x], v[y, x], gap[y, x] = far_u[better], far_v[better], far_gap[better]


def light_map(shape: Shape, scene: Scene, turn: Floats) -> tuple[Floats, Floats, Floats]:
    """Light on the direction map: diffuse (GRID, GRID, 3) BGR, shine (GRID, GRID), normals (GRID, GRID, 3)."""
    p = shape.points
    du = cv2.Sobel(p, cv2.CV_32F, 1, 0, ksize=3)
    dv = cv2.Sobel(p, cv2.CV_32F, 0, 1, ksize=3)
    n = np.empty_like(p)
    n[..., 0] = dv[..., 1] * du[..., 2] - dv[..., 2] * du[..., 1]
    n[..., 1] = dv[..., 2] * du[..., 0] - dv[..., 0] * du[..., 2]
    n[..., 2] = dv[..., 0] * du[..., 1] - dv[..., 1] * du[..., 0]
    n /= np.sqrt((n * n).sum(-1, keepdims=True)) + 1e-6
    to_light = turn.T @ (np.array(scene.light, np.float32) / np.linalg.norm(scene.light))
    to_eye = turn.T @ np.array([0, 0, -1], np.float32)
    up = turn.T @ np.array([0, -1, 0], np.float32)
    facing = n @ to_light.astype(np.float32)
    lit = 1.0 - 0.75 * cast_shadow(p, to_light)
    sky = 0.78 + 0.22 * (n @ up)
    out = np.empty_like(p)
    for k, wrap in enumerate((0.16, 0.2, 0.34)):
        soft = np.clip((facing + wrap) / (1 + wrap), 0.0, None)
        out[..., k] = scene.key[k] * 1.25 * soft * lit + scene.fill[k] * sky
    half = (to_light + to_eye) / np.linalg.norm(to_light + to_eye)
    shine = np.clip(n @ half.astype(np.float32), 0.0, 1.0) ** 18 * lit
    return out, shine, n


def cast_shadow(p: Floats, to_light: NDArray[np.floating]) -> Floats:
    """Soft 0..1 shadow of the nose, brows and hair on the face: a few steps towards the light over the height field."""
    flat = float(np.hypot(to_light[0], to_light[1])) + 1e-3
    slope = max(-float(to_light[2]), 0.05) / flat
    along = np.array([to_light[0], to_light[1]]) / flat
    height = -p[..., 2]
    cell = GRID / (2 * REACH) / 95.0
    dark = np.zeros_like(height)
    for mm in (6.0, 11.0, 18.0, 27.0):
        matrix = np.array([[1, 0, along[0] * mm * cell], [0, 1, along[1] * mm * cell]], np.float32)
        ahead = cv2.warpAffine(height, matrix, (GRID, GRID), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                               borderMode=cv2.BORDER_REPLICATE)
        np.maximum(dark, (ahead - height - slope * mm) / (2.0 + mm * 0.22), out=dark)
    return cv2.blur(np.clip(dark, 0.0, 1.0), (3, 3))
