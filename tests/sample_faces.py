"""Small facesets of noise with an average face's landmarks, for tests of samples and loader."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from facelib import dfljpg
from facelib.constants import MEAN_3D
from facelib.landmarks import transform_matrix, transform_points


def mean_landmarks(size: int, face_type: str = "whole_face") -> np.ndarray:
    """(68, 2) landmarks of a frontal average face, as they lie in an aligned picture of `size` pixels."""
    points = MEAN_3D[:, :2] * 2 + 500
    return transform_points(points, transform_matrix(points, size, face_type))


def turned(landmarks: np.ndarray, yaw: float) -> np.ndarray:
    """Landmarks of the same face turned by about `yaw` radians: MEAN_3D turned about its vertical axis."""
    x, y, z = (MEAN_3D - MEAN_3D.mean(0)).T
    points = np.stack([x * np.cos(yaw) - z * np.sin(yaw), y], 1)
    flat = (MEAN_3D - MEAN_3D.mean(0))[:, :2]
    scale = np.ptp(landmarks[:, 1]) / np.ptp(flat[:, 1])
    return points * scale + landmarks.mean(0) - flat.mean(0) * scale


def noise(seed: int, size: int) -> np.ndarray:
    """(size, size, 3) uint8: smooth noise, different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (size // 8, size // 8, 3), np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def write_face(
    path: Path, image: np.ndarray, landmarks: np.ndarray, face_type: str = "whole_face", **more: object
) -> None:
    """An aligned JPG as DFL writes it; `more` goes into its metadata (xseg_mask, eyebrows_expand_mod)."""
    jpg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    points = np.asarray(landmarks, np.float64).tolist()
    metadata = {
        "face_type": face_type,
        "landmarks": points,
        "source_filename": path.name,
        "source_rect": [0, 0, 10, 10],
        "source_landmarks": points,
        "image_to_face_mat": np.eye(2, 3),
        **more,
    }
    path.write_bytes(dfljpg.embed(jpg, metadata))


def make_folder(folder: Path, count: int, size: int = 96, face_type: str = "whole_face", first_seed: int = 0) -> Path:
    """A folder of `count` faces of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        landmarks = turned(mean_landmarks(size, face_type), yaw=(number % 5 - 2) * 0.15)
        write_face(folder / f"{number:05d}.jpg", noise(first_seed + number, size), landmarks, face_type)
    return folder
