"""What is known of one face, checked: from the metadata of a JPG or of a pack to values that geometry can rely on.

Files come from strangers and from broken tools. A face whose meaning is plain is taken (no face type means full
face, as in DFL); any other is refused with a reason, never repaired by guessing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from core.shown import printable, shorten, shown
from facelib.constants import MEAN_2D
from facelib.facetype import FACE_TYPES, NAMES

Array = np.ndarray[Any, Any]
Polygons = tuple[tuple[int, Array], ...]

MIN_SIDE, MAX_SIDE = 16, 4096
"""Sides of pictures that are read, in pixels. A larger one takes half a GB to decode in every worker."""

_ALIGNED = np.r_[17:49, 54]  # the landmarks that MEAN_2D places
_MEAN = MEAN_2D - MEAN_2D.mean(0)
_NUMBERS = {int, float, *(np.dtype(code).type for code in "bBhHiIlLqQefd")}
LONGEST_NAME = 255
_MAX_OUTSIDE = 4  # picture sides that a landmark may lie outside: a turned head leaves a half_face picture
MAX_MASK = 1 << 20
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff")


class FaceReadError(ValueError):
    """One face cannot be used. The message is the reason, without the file's name."""


@dataclass(frozen=True, slots=True)
class FaceData:
    """Checked metadata of one face; `samplelib.faceset.Sample` adds where its picture is.

    face_type: DFL's long name. shape: (height, width). landmarks: (68, 2) float32 in pixels. xseg_mask: a mask as PNG
    or JPEG bytes. seg_ie_polys: (0 exclude / 1 include, (n, 2) float32) polygons. person_name: in packs of several
    persons.
    """

    face_type: str
    shape: tuple[int, int]
    landmarks: Array
    xseg_mask: bytes | None
    seg_ie_polys: Polygons
    eyebrows_expand_mod: float
    source_filename: str
    person_name: str | None


def check_face(metadata: Mapping[str, Any], shape: tuple[int, int]) -> FaceData:
    """The checked face; shape: (height, width) of its picture. Raises FaceReadError."""
    height, width = shape
    if not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        raise FaceReadError(f"a picture of {width}x{height} pixels; sides of {MIN_SIDE} to {MAX_SIDE} are read")
    mask = metadata.get("xseg_mask_compressed")
    return FaceData(
        _face_type(metadata.get("face_type")),
        shape,
        _landmarks(metadata.get("landmarks"), max(shape)),
        _mask(metadata.get("xseg_mask") if mask is None else mask),
        _polygons(metadata.get("seg_ie_polys"), max(shape)),
        _eyebrows(metadata.get("eyebrows_expand_mod")),
        _basename(metadata.get("source_filename")) or "",
        _basename(metadata.get("person_name")),
    )


def _face_type(value: Any) -> str:
    if value is None:
        return "full_face"
    if isinstance(value, str) and value in FACE_TYPES:
        return value
    if type(value) is int and value in NAMES:
        return NAMES[value]
    raise FaceReadError(f"face_type {shown(value, 42)} is unknown; known: {', '.join(FACE_TYPES)}")


def points_of(value: Any, what: str, columns: int = 2) -> Array:
    """(n, columns) float64 of any list or array of finite numbers. Raises FaceReadError, calling them `what`."""
    try:
        # numpy makes texts as long as the longest of all: one long text among numbers would take gigabytes.
        if not isinstance(value, np.ndarray) and not _NUMBERS.issuperset(map(type, chain.from_iterable(value))):
            raise ValueError
        points = np.array(value)
    except (ValueError, TypeError):
        raise FaceReadError(f"its {what} are no list of points") from None
    if points.dtype.kind not in "fiu" or points.ndim != 2 or points.shape[1] != columns:
        raise FaceReadError(f"its {what} are no list of points")
    if not np.isfinite(points).all():
        raise FaceReadError(f"its {what} are not all finite numbers")
    return points.astype(np.float64)


def _landmarks(value: Any, side: int) -> Array:
    if value is None:
        raise FaceReadError("its face data have no landmarks")
    points = points_of(value, "landmarks")
    if len(points) != 68:
        raise FaceReadError(f"it has {len(points)} landmarks, 68 are needed")
    low, high = points.min(), points.max()
    if low < -_MAX_OUTSIDE * side or high > (_MAX_OUTSIDE + 1) * side:
        raise FaceReadError(f"its landmarks lie far outside the picture ({low:g} to {high:g} in {side} pixels)")
    if np.ptp(points[17:49], axis=0).min() < 1:
        raise FaceReadError("its landmarks lie in one place")
    if not _alignable(points):
        raise FaceReadError("its landmarks are no face")
    return points.astype(np.float32)


def _alignable(points: Array) -> bool:
    """Whether the mean face can be laid onto the points: no scale fits what has nothing in common with it."""
    face = points[_ALIGNED] - points[_ALIGNED].mean(0)
    along = (face * _MEAN).sum()
    across = (face[:, 0] * _MEAN[:, 1] - face[:, 1] * _MEAN[:, 0]).sum()
    return bool(np.hypot(along, across) > 0.01 * np.sqrt((face**2).sum() * (_MEAN**2).sum()))


def are_landmarks(points: Array, sides: Array) -> Array:
    """(N,) bool: whether `check_face` takes such landmarks (N, 68, 2), up to rounding. sides: (N,) longer sides of
    their pictures."""
    flat = points.reshape(len(points), -1)
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = flat.min(1) >= -_MAX_OUTSIDE * sides - 1, flat.max(1) <= (_MAX_OUTSIDE + 1) * sides + 1
        apart = np.ptp(points[:, 17:49], axis=1).min(1) >= 0.99
        face = points[:, _ALIGNED] - points[:, _ALIGNED].mean(1, keepdims=True)
        along = (face * _MEAN).sum((1, 2))
        across = (face[..., 0] * _MEAN[:, 1] - face[..., 1] * _MEAN[:, 0]).sum(1)
        like = np.hypot(along, across) > 0.0099 * np.sqrt((face**2).sum((1, 2)) * (_MEAN**2).sum())
        return np.asarray(np.isfinite(flat).all(1) & low & high & apart & like)


def _mask(value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        value = value.tobytes()
    if not isinstance(value, (bytes, bytearray)) or not value.startswith(_PICTURES) or len(value) > MAX_MASK:
        raise FaceReadError("its xseg_mask is no PNG or JPEG")
    return bytes(value)


def _polygons(value: Any, side: int) -> Polygons:
    """Polygons of today's form {'polys': [{'type': .., 'pts': ..}]} or the old one [(type, pts)]."""
    if value is None:
        return ()
    items = value.get("polys", ()) if isinstance(value, dict) else value
    found = []
    if not isinstance(items, (list, tuple)):
        raise FaceReadError("its seg_ie_polys are unreadable")
    for item in items:
        if isinstance(item, dict):
            kind, points = item.get("type"), item.get("pts")
        elif isinstance(item, (list, tuple)) and len(item) == 2:
            kind, points = item
        else:
            raise FaceReadError("its seg_ie_polys are unreadable")
        if not isinstance(kind, (int, np.integer)) or int(kind) not in (0, 1):
            raise FaceReadError("its seg_ie_polys hold a polygon that neither includes nor excludes")
        empty = points.size == 0 if isinstance(points, np.ndarray) else isinstance(points, (list, tuple)) and not points
        if points is None or empty:
            continue
        corners = points_of(points, "seg_ie_polys")
        if np.abs(corners).max() > 100 * side:
            raise FaceReadError("its seg_ie_polys lie far outside the picture")
        found.append((int(kind), corners.astype(np.float32)))
    return tuple(found)


def _eyebrows(value: Any) -> float:
    if value is None:
        return 1.0
    if not isinstance(value, (int, float, np.integer, np.floating)) or not -100 <= value <= 100:
        raise FaceReadError(f"its eyebrows_expand_mod {shown(value, 42)} is no sensible number")
    return float(value)


def _basename(value: Any) -> str | None:
    """The last part of a name: it is only ever shown and compared, never a place on this disk."""
    if not isinstance(value, str) or not value:
        return None
    return shorten(printable(re.split(r"[\\/]", value)[-1]), LONGEST_NAME)
