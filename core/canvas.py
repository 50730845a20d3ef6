"""What previews are drawn with: an empty picture, and text on it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
"""(H, W, 3), BGR."""

BACKGROUND = 26  # 0.1
GREY = 204  # 0.8

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def write(picture: Picture, text: str, at: tuple[int, int], scale: float = 0.4, level: int = GREY) -> None:
    cv2.putText(picture, _plain(text), at, _FONT, scale, (level, level, level), 1, cv2.LINE_AA)


def text_width(text: str, scale: float = 0.4) -> int:
    return int(cv2.getTextSize(_plain(text), _FONT, scale, 1)[0][0])


def _plain(text: str) -> str:
    """OpenCV's stroke fonts know ASCII only."""
    return text.encode("ascii", "replace").decode()
