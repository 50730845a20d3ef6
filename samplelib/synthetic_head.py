"""The shape of a made-up head: one radius per direction, and how expressions move it.

A head is star-shaped about CENTRE, so it is a single radius map r(direction). Directions are laid out on a square by
Lambert's azimuthal equal-area projection around the face's front: no seam, no pole in view, no trigonometry per pixel.
Skull and jaw ellipsoids plus smooth bumps give the shape; a Wendland radial fit then makes it pass through the
person's own 3D landmarks, which are the field's mean ones changed by the identity's numbers. Landmarks live on the
surface as map positions, so expressions move skin, paint and landmarks by one and the same field.
Units: millimetres of the mean head (x right in the picture, y down, z away from the camera); map positions (u, v) in
[-REACH, REACH], 95 mm per unit on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from samplelib.synthetic_person import Identity, Scene

Floats = NDArray[Any]  # float32 throughout; numpy's stubs widen arithmetic with plain floats

CENTRE = np.array([0.0, -20.0, 70.0], np.float32)
REACH = 1.94
GRID = 208
_NO_MAP = np.empty(0, np.float32)
_COARSE = 72  # cells of the map on which slow fields are worked out
MM = 1.0 / 95.0  # map units per millimetre on the face

# Mean 3D positions of the 68 iBUG landmarks, x given for the left half of the picture only (DFL: landmarks_68_3D),
# made mirror-symmetrical. Columns x, y, z; the midline ones stand in _MIDLINE.
_RIGHT_HALF: dict[int, tuple[float, float, float]] = {
    0: (-72.4, -30.1, 47.4), 1: (-71.6, -11.3, 45.0), 2: (-69.4, 7.5, 43.6), 3: (-65.6, 25.8, 42.0),
    4: (-58.6, 42.5, 38.1), 5: (-47.4, 56.4, 30.8), 6: (-33.4, 67.1, 18.8), 7: (-17.7, 74.9, 4.4),
    17: (-60.6, -49.8, 12.9), 18: (-51.2, -59.0, 6.3), 19: (-38.1, -62.4, -0.3), 20: (-24.6, -61.5, -7.0),
    21: (-11.8, -57.0, -12.0), 31: (-15.0, 2.6, -20.5), 32: (-7.7, 4.7, -23.6),
    36: (-45.6, -37.6, 6.0), 37: (-37.6, -43.2, 2.4), 38: (-27.9, -43.4, 0.8), 39: (-19.5, -36.6, -0.4),
    40: (-28.5, -34.8, -0.7), 41: (-38.1, -34.7, 0.9),
    48: (-28.9, 28.3, -2.7), 49: (-18.2, 22.3, -15.8), 50: (-7.5, 19.0, -22.7), 59: (-8.2, 39.7, -22.5),
    58: (-18.6, 36.5, -15.1), 60: (-24.4, 28.5, -5.2), 61: (-7.7, 25.4, -20.9), 67: (-7.8, 30.7, -20.5),
}
_MIDLINE: dict[int, tuple[float, float, float]] = {
    8: (0.0, 77.1, -0.9), 27: (0.0, -42.2, -13.4), 28: (0.0, -31.0, -21.2), 29: (0.0, -19.9, -29.3),
    30: (0.0, -8.4, -36.9), 33: (0.0, 6.6, -25.9), 51: (0.0, 20.7, -23.7), 57: (0.0, 40.4, -23.6),
    62: (0.0, 26.0, -22.2), 66: (0.0, 31.4, -21.9),
}
MIRROR = {0: 16, 1: 15, 2: 14, 3: 13, 4: 12, 5: 11, 6: 10, 7: 9, 17: 26, 18: 25, 19: 24, 20: 23, 21: 22, 36: 45,
          37: 44, 38: 43, 39: 42, 40: 47, 41: 46, 31: 35, 32: 34, 50: 52, 49: 53, 48: 54, 59: 55, 58: 56, 67: 65,
          60: 64, 61: 63}
MOUTH_Y = 27.6


def directions(u: Floats, v: Floats) -> Floats:
    """Map positions -> unit directions (3, ...). Inverse Lambert azimuthal equal-area about (0, 0, -1)."""
    square = np.minimum(u * u + v * v, 3.99)
    s = np.sqrt(1.0 - square * 0.25)
    return np.stack([s * u, s * v, square * 0.5 - 1.0]).astype(np.float32)


def project(points: NDArray[np.floating]) -> Floats:
    """Points (n, 3) in mm -> map positions (n, 2)."""
    d = np.asarray(points, np.float32) - CENTRE
    length = np.linalg.norm(d, axis=1)
    scale = np.sqrt(2.0 / (length * (length - d[:, 2])))
    return (d[:, :2] * scale[:, None]).astype(np.float32)


def _bump(x: Floats, y: Floats, at: tuple[float, float], width: tuple[float, float]) -> Floats:
    return np.exp(-(((x - at[0]) / width[0]) ** 2) - ((y - at[1]) / width[1]) ** 2)


def step(x: Floats, low: float | Floats, high: float | Floats) -> Floats:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def neutral_landmarks(who: Identity) -> Floats:
    """The person's own 68 landmarks at rest, (68, 3) in mm, iBUG order, mirror-symmetrical, mouth closed."""
    p = np.zeros((68, 3), np.float32)
    for i, xyz in (_RIGHT_HALF | _MIDLINE).items():
        p[i] = xyz
    low = step(p[:, 1], -20.0, 70.0)
    jaw = np.r_[0:17]
    p[jaw, 0] *= (who.face_width + (who.jaw_width - who.face_width) * step(p[:, 1], 0.0, 45.0))[jaw]
    p[6:9, 0] *= who.chin_width
    p[:, 1] += who.face_length_mm * low
    p[6:9, 2] -= who.chin_out_mm
    eye = np.r_[36:42]
    mid = p[eye].mean(axis=0)
    p[eye, :2] = mid[:2] + (p[eye, :2] - mid[:2]) * (who.eye_size, who.eye_size * 1.02)
    p[eye, 0] -= who.eye_gap_mm
    p[eye, 1] += who.eye_tilt_mm * (p[eye, 0] - p[eye, 0].mean()) / 13.0
    brow = np.r_[17:22]
    t = (p[brow, 0] - p[21, 0]) / (p[17, 0] - p[21, 0])
    p[brow, 1] += -who.brow_height_mm - who.brow_arch_mm * np.sin(np.pi * t) - who.brow_tilt_mm * (t - 0.4)
    p[brow, 2] -= who.brow_ridge_mm * 0.5
    nose = np.r_[28:34]
    p[nose, 2] -= who.nose_out_mm * np.array([0.25, 0.6, 1.0, 0.5, 0.6, 0.7], np.float32)
    p[nose, 1] += who.nose_length_mm * np.array([0.2, 0.5, 0.9, 1.0, 1.0, 1.0], np.float32)
    p[28:30, 2] -= who.nose_hump_mm * np.array([1.0, 0.7], np.float32)
    p[31:33, 0] *= who.nose_width
    mouth = np.r_[48:52, 57:63, 66:68]
    centre = MOUTH_Y + who.face_length_mm * 0.55
    offset = p[mouth, 1] - (MOUTH_Y + who.face_length_mm * low[mouth])
    lift = np.where(offset < 0, who.lip_upper * 0.82, who.lip_lower * 0.78)
    p[mouth, 1] = centre + offset * lift
    p[[60, 48], 1] = centre + 0.4
    p[[61, 62], 1], p[[66, 67], 1] = centre - 0.35, centre + 0.35
    p[mouth, 0] *= who.mouth_width
    for left, right in MIRROR.items():
        p[right] = p[left] * (-1.0, 1.0, 1.0)
    return p


@dataclass(frozen=True)
class Head:
    """A person's head at rest on the direction map (GRID x GRID) and their landmarks on it."""

    who: Identity
    skin: Floats        # radius of bare skin, mm
    outer: Floats       # radius with hair, mm
    rest: Floats        # (GRID, GRID, 3) skin points in mm
    hair: Floats        # signed distance into hair in mm, > 0 inside
    marks: Floats       # (68, 2) landmark map positions at rest
    mouth: tuple[float, float, float]  # closed mouth's line v = first + third * u^2, and (second) its half width


@lru_cache(maxsize=1)
def _grid() -> tuple[Floats, Floats, Floats]:
    axis = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID * (2 * REACH) - REACH
    u, v = np.meshgrid(axis, axis)
    return u, v, directions(u, v)


def to_grid(uv: Floats, size: int) -> Floats:
    """Map positions -> pixel coordinates of a size x size map (pixel centres at integers)."""
    return (uv + REACH) * (size / (2 * REACH)) - 0.5


def lookup(image: NDArray[Any], at: Floats) -> NDArray[Any]:
    """Bilinear values of a picture at pixel coordinates `at` (h, w, 2)."""
    return np.asarray(cv2.remap(image, at, _NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def sample(field: Floats, uv: Floats) -> Floats:
    """Bilinear values of a map at positions (n, 2)."""
    return lookup(field, to_grid(uv, field.shape[0]).astype(np.float32)[None])[0]


def _ellipsoid(d: Floats, at: tuple[float, float, float], axes: tuple[float, float, float]) -> Floats:
    """Distance from CENTRE along directions `d` to the far side of an ellipsoid that contains CENTRE."""
    inverse = 1.0 / np.array(axes, np.float32)
    o = (CENTRE - np.array(at, np.float32)) * inverse
    q = d * inverse
    a, b, c = (q * q).sum(-1), (q * o).sum(-1), float((o * o).sum() - 1.0)
    return (-b + np.sqrt(np.maximum(b * b - a * c, 0.0))) / a


def _features(who: Identity, p: Floats) -> Floats:
    """Bumps of the bare face in mm outwards, by position p (..., 3) on the smooth skull."""
    x, y, z = np.abs(p[..., 0]), p[..., 1] - who.face_length_mm * step(p[..., 1], -20.0, 70.0), p[..., 2]
    front = step(z, 55.0, 25.0)
    w = who.nose_width
    height = np.interp(y, [-50, -42, -28, -10, -5, 3, 8, 12], [0, 3.5, 10, 21, 21, 12, 2, 0]).astype(np.float32)
    width = np.interp(y, [-45, -25, -8, 5], [7.5, 7.0, 9.5 * w, 9.0 * w]).astype(np.float32)
    out = (height + who.nose_out_mm * step(y, -35.0, -10.0) * step(y, 9.0, 0.0)) * np.exp(-((x / width) ** 2.2))
    out += 7.5 * _bump(x, y, (12.0 * w, -1.0), (4.8, 5.5)) + 1.5 * _bump(x, y, (0.0, -7.0), (8.0 * w, 6.0))
    out += (3.5 + who.brow_ridge_mm) * _bump(x, y, (26.0, -53.0), (24.0, 7.0))
    out -= 6.5 * _bump(x, y, (31.0, -40.0), (17.0, 10.0))
    out += 4.5 * _bump(x, y, (32.5 + who.eye_gap_mm, -39.0), (11.0, 8.0))
    out += (3.0 + who.cheek_mm) * _bump(x, y, (46.0, -16.0), (17.0, 14.0))
    out += -1.5 * _bump(x, y, (44.0, 22.0), (13.0, 20.0))
    lips = who.mouth_width
    out += 3.6 * who.lip_upper * _bump(x, y, (5.0, 23.0), (15.0 * lips, 3.6))
    out += 4.2 * who.lip_lower * _bump(x, y, (0.0, 32.8), (15.0 * lips, 4.2))
    out += -2.6 * _bump(x, y, (0.0, MOUTH_Y), (24.0 * lips, 1.5)) - 1.2 * _bump(x, y, (0.0, 15.0), (2.6, 5.0))
    out += -3.0 * _bump(x, y, (0.0, 45.0), (17.0, 5.0)) + 4.0 * _bump(x, y, (0.0, 64.0), (15.0 * who.chin_width, 11.0))
    return out * front


def _ears(who: Identity, p: Floats) -> Floats:
    """Height of the ears over the side of the head in mm."""
    y, z = (p[..., 1] + 20.0) / 31.0, (p[..., 2] - 64.0 + 0.22 * (p[..., 1] + 20.0)) / 16.0
    inside = np.clip(1.0 - y * y - z * z, 0.0, 1.0)
    dish = 1.0 - 0.55 * np.exp(-((y - 0.05) / 0.45) ** 2 - ((z - 0.1) / 0.45) ** 2)
    flare = 0.45 + 0.55 * np.clip(z + 0.7, 0.0, 1.2)
    return who.ear_mm * 1.5 * np.sqrt(inside) * flare * dish * (np.abs(p[..., 0]) > 40)


def _hair_distance(who: Identity, p: Floats) -> Floats:
    """Signed distance in mm into the hair-covered part of the scalp, > 0 inside."""
    x, y, z = p[..., 0], p[..., 1], p[..., 2]
    parted = np.exp(-(((x - 60.0 * who.part) / 22.0) ** 2))
    front = -96.0 - who.hairline_mm + 0.006 * x * x - 5.0 * parted
    if who.hair_style in ("short", "buzz"):
        front = front - 7.0 * np.exp(-(((np.abs(x) - 36.0) / 13.0) ** 2))
    if who.hair_style == "fringe":
        front = -70.0 + 4.0 * np.sin(x / 9.0 + who.part) + 0.002 * x * x
    if who.hair_style == "long":
        front = -100.0 - who.hairline_mm + 0.012 * np.minimum((x - 55.0 * who.part) ** 2, 2600.0)
        side = np.interp(y, [-90, -50, -10, 25, 55, 75], [22, 34, 42, 48, 72, 150]).astype(np.float32)
        return np.maximum(front - y, z - side)
    side = np.interp(y, [-85, -62, -50, -42, 8, 40, 62, 80], [24, 44, 54, 82, 86, 92, 112, 150]).astype(np.float32)
    return np.maximum(front - y, z - side)


def _fit(d: Floats, marks: Floats, residual: Floats) -> Floats:
    """Smooth correction on directions `d` (..., 3) that takes `residual` (n,) at unit directions `marks` (n, 3)."""
    def kernel(a: Floats, b: Floats) -> Floats:
        distance = np.sqrt(np.maximum(2.0 - 2.0 * (a @ b.T), 0.0)) / 0.5
        return np.clip(1.0 - distance, 0.0, None) ** 4 * (4.0 * distance + 1.0)

    weights = np.linalg.solve(kernel(marks, marks) + 0.02 * np.eye(len(marks), dtype=np.float32), residual)
    return (kernel(d.reshape(-1, 3), marks) @ weights).reshape(d.shape[:-1]).astype(np.float32)


@lru_cache(maxsize=64)
def head(who: Identity) -> Head:
    """The head of a person; kept, because it is the costly part."""
    d = np.moveaxis(_grid()[2], 0, -1)
    w = who.face_width
    skull = _ellipsoid(d, (0.0, -50.0, 84.0), (75.0 * w, 84.0, 96.0))
    face = _ellipsoid(d, (0.0, 4.0 + who.face_length_mm * 0.5, 58.0),
                      (66.0 * (w + who.jaw_width) / 2, 76.0 + who.face_length_mm * 0.5, 68.0 + who.chin_out_mm * 0.3))
    smooth = (skull ** 10 + face ** 10) ** 0.1
    base = CENTRE + d * smooth[..., None]
    radius = (smooth + _features(who, base)).astype(np.float32)
    p = neutral_landmarks(who)
    marks = project(p)
    outline = np.setdiff1d(np.arange(68), np.r_[60:68])
    wanted = np.linalg.norm(p - CENTRE, axis=1)
    residual = (wanted - sample(radius, marks))[outline].astype(np.float32)
    u, v = marks[outline, 0], marks[outline, 1]
    radius += _fit(d, directions(u, v).T, residual)
    rest = CENTRE + d * radius[..., None]
    hair = _hair_distance(who, rest)
    ears = _ears(who, rest) * step(hair, 6.0, 0.0)
    skin = cv2.GaussianBlur((radius + ears).astype(np.float32), (0, 0), 0.7)
    thick = who.hair_volume_mm * (0.25 if who.hair_style == "buzz" else 1.0)
    outer = skin + thick * step(hair, -1.0, 14.0) * (0.8 + 0.2 * step(rest[..., 1], -60.0, -110.0))
    half = float(marks[54, 0] - marks[48, 0]) / 2
    middle = float(marks[[62, 66], 1].mean())
    bend = float((marks[[60, 64], 1].mean() - middle) / marks[64, 0] ** 2)
    return Head(who, skin, outer.astype(np.float32), rest.astype(np.float32), hair.astype(np.float32), marks,
                (middle, half, bend))


@dataclass(frozen=True)
class Motion:
    """How an expression moves the skin of one head: the field behind `Shape`, usable at any map position."""

    head: Head
    scene: Scene

    def mouth_line(self, u: Floats) -> Floats:
        """Where the closed lips meet, at rest."""
        middle, half, bend = self.head.mouth
        return middle + bend * np.minimum(u * u, (1.1 * half) ** 2)

    def shift(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        """Where the skin now at (u, v), two arrays that broadcast, came from: rest = (u, v) - shift."""
        s, half, marks = self.scene, self.head.mouth[1], self.head.marks
        mouth_v = self.mouth_line(u)
        drop = 24.0 * MM * s.mouth_open * np.clip(1.0 - (u / 1.3) ** 4, 0.0, 1.0)
        gap = np.sqrt(np.clip(1.0 - np.abs(u / (half * 0.93)) ** 3, 0.0, 1.0))
        skin = 1.0 - gap
        ramp = np.clip((v - mouth_v + 0.2 * skin) / (drop * gap + 0.012 + 0.55 * skin), 0.0, 1.0)
        ramp = ramp + skin * (ramp * ramp * (3.0 - 2.0 * ramp) - ramp)
        dv = drop * ramp
        far = np.abs(u)
        corner = np.exp(-((far - half) / 0.2) ** 2) * np.exp(-((v - mouth_v - 0.5 * drop * (1 - gap)) / 0.22) ** 2)
        side = np.sign(u)
        pull = 6.5 * MM * s.smile - 7.5 * MM * s.pucker
        du = side * corner * pull
        dv = dv - corner * (8.0 * MM * s.smile)
        brow = np.exp(-((far - 0.36) / 0.42) ** 4) * np.exp(-((v - float(marks[19, 1]) + 0.04) / 0.17) ** 2)
        inner = np.exp(-((far - 0.12) / 0.16) ** 2) * np.exp(-((v - float(marks[21, 1])) / 0.14) ** 2)
        dv = dv - brow * (7.5 * MM * s.brow_raise * (1.0 if s.brow_raise > 0 else 0.55))
        du = du + side * inner * (min(s.brow_raise, 0.0) * 3.5 * MM)
        return du.astype(np.float32), dv.astype(np.float32)

    def forward(self, rest: Floats) -> Floats:
        """Map positions at rest (n, 2) -> where the expression takes them, by fixed-point iteration."""
        at = rest.copy()
        at[:, 1] += np.where(rest[:, 1] > self.mouth_line(rest[:, 0]), 24.0 * MM * self.scene.mouth_open, 0.0)
        for _ in range(4):
            du, dv = self.shift(at[:, 0], at[:, 1])
            at = rest + np.stack([du, dv], axis=1)
        return at

    def swell(self, u: Floats, v: Floats) -> Floats:
        """Outward movement of the skin in mm: cheeks of a smile, lips of a kiss, hollow cheeks of an open mouth."""
        s, (mouth_v, half, _) = self.scene, self.head.mouth
        far = np.abs(u)
        smile = max(s.smile, 0.0)
        out = 4.2 * smile * np.exp(-((far - 0.45) / 0.17) ** 2) * np.exp(-((v - mouth_v + 0.36) / 0.17) ** 2)
        fold_u = half * 0.78 + 0.45 * (v - mouth_v + 0.22)
        out -= 1.4 * smile * np.exp(-((far - fold_u - 0.03) / 0.06) ** 2) * np.exp(-((v - mouth_v + 0.14) / 0.13) ** 2)
        out += 5.0 * s.pucker * np.exp(-((u / 0.2) ** 2)) * np.exp(-((v - mouth_v) / 0.13) ** 2)
        out -= 2.5 * s.mouth_open * np.exp(-((far - 0.5) / 0.15) ** 2) * np.exp(-((v - mouth_v - 0.08) / 0.25) ** 2)
        return out.astype(np.float32)


@dataclass(frozen=True)
class Shape:
    """A head with an expression: radius map, where each map cell's skin came from, landmarks."""

    radius: Floats       # (GRID, GRID) mm, with hair
    points: Floats       # (3, GRID, GRID) mm
    rest_uv: Floats      # (GRID, GRID, 2) map position at rest of the skin now in each cell
    marks: Floats        # (68, 2) landmark map positions
    landmarks: Floats    # (68, 3) mm
    mouth: Floats        # (2k, 2) outline of the open mouth on the map, upper edge left to right, then lower back


@lru_cache(maxsize=1)
def _coarse_axes() -> tuple[Floats, Floats]:
    axis = (np.arange(_COARSE, dtype=np.float32) + 0.5) / _COARSE * (2 * REACH) - REACH
    return axis[None], axis[:, None]


def _fields(motion: Motion) -> tuple[Floats, Floats]:
    """Shift (GRID, GRID, 2) and swell (GRID, GRID): smooth ones on a coarse map, around the mouth on the full one."""
    u, v = _coarse_axes()
    slow = np.dstack([*motion.shift(u, v), motion.swell(u, v)])
    full = cv2.resize(slow, (GRID, GRID), interpolation=cv2.INTER_LINEAR)
    if motion.scene.mouth_open > 0.0:
        middle, half, _ = motion.head.mouth
        low, high = (int(c) for c in to_grid(np.array([middle - 0.12, middle + 0.55], np.float32), GRID))
        left, right = (int(c) for c in to_grid(np.array([-1.1 * half, 1.1 * half], np.float32), GRID))
        window = slice(low, high), slice(left, right)
        u, v, _ = _grid()
        full[window][..., :2] = np.dstack(motion.shift(u[:1, window[1]], v[window[0], :1]))
    return full[..., :2], full[..., 2]


def shape(who: Head, scene: Scene) -> Shape:
    """Moves a head into a scene's expression."""
    u, v, d = _grid()
    motion = Motion(who, scene)
    shift, swell = _fields(motion)
    rest_uv = np.dstack([u, v]) - shift
    radius = lookup(who.outer, to_grid(rest_uv, GRID)) + swell
    points = d * radius
    points += CENTRE[:, None, None]
    across = np.linspace(-0.92, 0.92, 25, dtype=np.float32) * who.mouth[1]
    line = motion.mouth_line(across)
    upper, lower = np.stack([across, line - 0.002], axis=1), np.stack([across, line + 0.014], axis=1)
    moved = motion.forward(np.concatenate([who.marks, upper, lower]))
    marks, upper, lower = np.split(moved, [68, 93])
    lower[:, 1] -= 0.012
    _close_lids(marks, scene)
    rest = who.marks.copy()
    rest[36:48] = marks[36:48] - np.stack(motion.shift(marks[36:48, 0], marks[36:48, 1]), axis=1)
    skin = sample(who.skin, rest) + motion.swell(marks[:, 0], marks[:, 1])
    landmarks = CENTRE + directions(marks[:, 0], marks[:, 1]).T * skin[:, None]
    return Shape(radius, points, rest_uv, marks, landmarks.astype(np.float32), np.concatenate([upper, lower[::-1]]))


def _close_lids(marks: Floats, scene: Scene) -> None:
    """Moves the upper lids down (and the lower a little up) in place; a smile narrows the eyes."""
    for blink, upper, lower in ((scene.blink[0], (37, 38), (41, 40)), (scene.blink[1], (44, 43), (46, 47))):
        squint = 0.16 * max(scene.smile, 0.0)
        for top, bottom in zip(upper, lower, strict=True):
            height = marks[bottom] - marks[top]
            wide = max(scene.brow_raise, 0.0) * 0.12 * (1.0 - blink)
            marks[top] += height * (0.9 * blink + squint * 0.3 * (1.0 - blink) - wide)
            marks[bottom] -= height * (squint + 0.02) * (1.0 - blink)
