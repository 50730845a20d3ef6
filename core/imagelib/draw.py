"""Soft shapes on a mask, computed only where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


def add_soft_hulls(canvas: npt.NDArray[np.float32], shapes: Sequence[npt.NDArray[Any]]) -> tuple[slice, slice]:
    """Add the convex hulls of `shapes`, grown and blurred together, to `canvas` (h, w) float32, in place.

    Returns the rows and columns outside which nothing was added (empty slices when all lies outside the canvas).
    shapes: points (n, 2) in pixels, truncated to whole ones. As DFL's eye and mouth masks: one dilation by an
    ellipse of h//32 px, Gaussian blur of h//16 px (made odd), sigma from the size. Equal to doing so on the whole
    canvas, but at 512 px twenty times as fast, since eyes are small.
    """
    height, width = canvas.shape
    grow, blur = max(1, height // 32), height // 16 | 1
    reach = grow // 2 + blur // 2 + 2  # as far as a hull spreads; what a border would reflect lies beyond
    whole = [np.asarray(shape).astype(np.int32) for shape in shapes]
    points = np.concatenate(whole)
    left, top = (int(v) for v in np.clip(points.min(0) - reach, 0, (width, height)))
    right, bottom = (int(v) for v in np.clip(points.max(0) + reach + 1, 0, (width, height)))
    if left >= right or top >= bottom:
        return slice(0), slice(0)
    part = np.zeros((bottom - top, right - left), np.uint8)  # 0 and 1: growing bytes is four times as fast
    for shape in whole:
        cv2.fillConvexPoly(part, cv2.convexHull(shape - np.array((left, top), np.int32)), (1,))
    grown = cv2.dilate(part, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow, grow)))
    region = slice(top, bottom), slice(left, right)
    canvas[region] += cv2.GaussianBlur(grown.astype(np.float32), (blur, blur), 0)
    return region
