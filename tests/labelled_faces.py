"""Faces of noise with labels, and a small XSeg, for tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from sample_faces import mean_landmarks, noise, write_face

from models import MODELS
from models.xseg import make_spec

SIDE = 64
SMALL = make_spec(4, SIDE)


def polygons(size: int) -> dict[str, object]:
    """A large polygon that includes, a small one in it that excludes; the one that excludes comes first."""
    corners = np.array([[0.2, 0.2], [0.8, 0.2], [0.8, 0.9], [0.2, 0.9]], np.float32) * size
    hole = np.array([[0.4, 0.4], [0.6, 0.4], [0.6, 0.6], [0.4, 0.6]], np.float32) * size
    return {"seg_ie_polys": {"polys": [{"type": 0, "pts": hole}, {"type": 1, "pts": corners}]}}


def mask(size: int) -> dict[str, object]:
    """An applied mask: the upper half, not quite white."""
    image = np.zeros((size, size), np.uint8)
    image[: size // 2] = 200
    return {"xseg_mask": cv2.imencode(".png", image)[1].reshape(-1)}


def make_labelled(folder: Path, count: int, size: int = 96, kind: str = "polygons", first_seed: int = 0) -> Path:
    """A folder of `count` faces with `polygons`, a `mask`, `both`, or nothing (`plain`)."""
    folder.mkdir(parents=True, exist_ok=True)
    more = (polygons(size) if kind in ("polygons", "both") else {}) | (mask(size) if kind in ("mask", "both") else {})
    for number in range(count):
        write_face(folder / f"{number:05d}.jpg", noise(first_seed + number, size), mean_landmarks(size), **more)
    return folder


def use_small_xseg(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's XSeg is the small one from now on."""
    monkeypatch.setitem(MODELS, "XSeg", SMALL)
