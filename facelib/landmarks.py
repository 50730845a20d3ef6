"""Geometry of 68 landmarks: alignment to a face type, masks, pose.

Points are (n, 2) arrays of x, y in pixels. Matrices are 2x3, picture to aligned picture. All of it follows
DeepFaceLab, because models and files depend on it to the pixel.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from core.imagelib.draw import add_soft_hulls
from facelib.constants import MEAN_2D, MEAN_3D, MIRROR_PAIRS
from facelib.facetype import NO_ALIGN, PADDING

Array = np.ndarray[Any, Any]

_ALIGNED = np.r_[17:49, 54]  # the landmarks that MEAN_2D places
_POSED = np.r_[0:27, 30:36]  # the landmarks that do not move with the mouth and the eyelids
_MODEL_POINTS = np.ascontiguousarray(MEAN_3D[_POSED])
_HULLS = [
    np.r_[0:9, 17],
    np.r_[8:17, 26],
    np.r_[17:20, 8],
    np.r_[24:27, 8],
    np.r_[19:25, 8],
    np.r_[17:22, 27, 31:36, 8],
    np.r_[22:27, 27, 31:36, 8],
    np.r_[27:36],
]


def umeyama(source: ArrayLike, target: ArrayLike, scaling: bool = True) -> Array:
    """(3, 3) similarity that takes `source` points (n, 2) closest to `target` (n, 2); a rotation, never a reflection.

    S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991,
    equations 34 to 43. Raises ValueError if the points of `source` coincide.
    """
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    mean_a, mean_b = a.mean(0), b.mean(0)
    spread = ((a - mean_a) ** 2).sum() / len(a)
    if not spread > 0:
        raise ValueError("all points coincide, they fix no alignment")
    covariance = (b - mean_b).T @ (a - mean_a) / len(a)
    u, values, vt = np.linalg.svd(covariance)
    signs = np.array([1.0, -1.0 if np.linalg.det(covariance) < 0 else 1.0])
    rotation = (u * signs) @ vt
    scale = values @ signs / spread if scaling else 1.0
    result = np.eye(3)
    result[:2, :2] = scale * rotation
    result[:2, 2] = mean_b - scale * rotation @ mean_a
    return result


def transform_points(points: ArrayLike, mat: Array, invert: bool = False) -> Array:
    """(n, 2) points moved by a (2, 3) matrix, or by its inverse."""
    points = np.asarray(points, np.float64)
    if invert:
        return (points - mat[:, 2]) @ np.linalg.inv(mat[:, :2]).T
    return points @ mat[:, :2].T + mat[:, 2]


def _head_yaw(unit: Array) -> float:
    """How far a head is turned, from landmarks in the unit square of the mean face; positive to the picture's left."""
    bridge = unit[27:30, 0]
    right, left = bridge - unit[0:3, 0], unit[[16, 15, 14], 0] - bridge
    return float(left.mean() - right.mean())


def transform_matrix(landmarks: ArrayLike, size: float, face_type: str, scale: float = 1.0) -> Array:
    """(2, 3) float64 matrix that aligns a face to a `size` pixel square picture of a face type.

    scale above 1 shows less around the face. Raises ValueError for landmarks that coincide and for types without
    an alignment. DFL: LandmarksProcessor's transform matrix.
    """
    if face_type not in PADDING:
        raise ValueError(f"face type {face_type!r} has no alignment; known: {', '.join(PADDING)}")
    landmarks = np.asarray(landmarks, np.float64)
    unit = umeyama(landmarks[_ALIGNED], MEAN_2D)[:2]
    inverse = np.linalg.inv(unit[:, :2])
    right, down = inverse[:, 0], inverse[:, 1]  # sides of the unit square in the picture
    centre = inverse @ (0.5 - unit[:, 2])
    reach = (PADDING[face_type] * 2**0.5 + 0.5) / scale  # half the result's side, in sides of the unit square
    if face_type in NO_ALIGN:
        side = float(np.linalg.norm(right))
        right, down = np.array([side, 0.0]), np.array([0.0, side])
    elif face_type == "whole_face":
        centre = centre - 0.07 * down
    elif face_type == "head":
        yaw = _head_yaw(transform_points(landmarks, unit))
        centre = centre + right * (yaw * abs(np.tanh(yaw * 2)) / 2) - 0.5 * down
    corners = centre + reach * np.array([-right - down, right - down, right + down])
    places = np.array([(0, 0), (size, 0), (size, size)], np.float32)
    return cv2.getAffineTransform(corners.astype(np.float32), places)


def expand_eyebrows(landmarks: ArrayLike, modifier: float = 1.0) -> Array:
    """(68, 2) int64 landmarks with the brows raised by `modifier` (DFL's eyebrows_expand_mod; 0 leaves them)."""
    points = np.array(landmarks).astype(np.int64)
    outer_right, outer_left = (points[36] + points[0]) // 2, (points[16] + points[45]) // 2
    below_right, below_left = (points[36] + outer_right) // 2, (points[45] + outer_left) // 2
    right, left = points[17:22], points[22:27]
    roots_right = np.vstack([below_right, points[36:40]])
    roots_left = np.vstack([points[42:46], below_left])
    points[17:22] = right + modifier * 0.5 * (right - roots_right)
    points[22:27] = left + modifier * 0.5 * (left - roots_left)
    return points


def hull_mask(shape: tuple[int, ...], landmarks: ArrayLike, eyebrows_expand_mod: float = 1.0) -> Array:
    """(h, w, 1) float32 0 or 1: the face up to the raised brows. shape: (h, w) or more; rest is ignored."""
    points = expand_eyebrows(landmarks, eyebrows_expand_mod).astype(np.int32)
    mask = np.zeros((*shape[:2], 1), np.float32)
    for hull in _HULLS:
        cv2.fillConvexPoly(mask, cv2.convexHull(points[hull]), (1,))
    return mask


def _soft_hulls(shape: tuple[int, ...], landmarks: ArrayLike, parts: list[slice]) -> Array:
    points = np.asarray(landmarks)
    mask = np.zeros(shape[:2], np.float32)
    add_soft_hulls(mask, [points[part] for part in parts])
    return mask[..., None]


def eyes_mask(shape: tuple[int, ...], landmarks: ArrayLike) -> Array:
    """(h, w, 1) float32 0..1: both eyes, grown and blurred with the height."""
    return _soft_hulls(shape, landmarks, [slice(36, 42), slice(42, 48)])


def mouth_mask(shape: tuple[int, ...], landmarks: ArrayLike) -> Array:
    """(h, w, 1) float32 0..1: the inside of the mouth, grown and blurred with the height."""
    return _soft_hulls(shape, landmarks, [slice(60, 68)])


def pose(landmarks: ArrayLike, size: int) -> tuple[float, float, float]:
    """(pitch, yaw, roll) of the head in radians, each within +-pi/2, in an aligned picture `size` pixels wide."""
    camera = np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1]], np.float64)
    points = np.asarray(landmarks, np.float32)[_POSED]
    _, rotation, _ = cv2.solvePnP(_MODEL_POINTS, np.ascontiguousarray(points), camera, np.zeros((4, 1)))
    r = cv2.Rodrigues(rotation)[0]
    angles = (
        -np.arctan2(r[2, 1], r[2, 2]),
        np.arctan2(-r[2, 0], np.hypot(r[0, 0], r[1, 0])),
        np.arctan2(r[1, 0], r[0, 0]),
    )
    pitch, yaw, roll = (float(np.clip(angle, -np.pi / 2, np.pi / 2)) for angle in angles)
    return pitch, yaw, roll


def mirror(landmarks: ArrayLike, size: int) -> Array:
    """(68, 2) landmarks of the mirrored picture, `size` pixels wide."""
    points = np.array(landmarks, copy=True)
    a, b = MIRROR_PAIRS.T
    points[np.r_[a, b]] = points[np.r_[b, a]]
    points[:, 0] = size - points[:, 0] - 1
    return points
