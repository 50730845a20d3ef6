"""The fixed faces of the preview history, as data.dat keeps them: [src arrays, dst arrays], NHWC float32.

Models that DFL trained on a GPU hold NCHW arrays; both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.batch import Batch, SampleRequest, Side


def to_stored(batch: Batch) -> list[list[np.ndarray]]:
    """Batch of (N, C, H, W) arrays -> what data.dat keeps. Copies."""
    return [[np.ascontiguousarray(np.moveaxis(array, 1, -1)) for _, array in side.items()] for _, side in batch.items()]


def from_stored(stored: Any, requests: Mapping[str, SampleRequest]) -> Batch | None:
    """What data.dat keeps -> Batch, or None where it does not fit the model (another resolution, other arrays)."""
    if not isinstance(stored, (list, tuple)) or len(stored) != len(requests):
        return None
    sides: dict[str, Side] = {}
    for (side, request), arrays in zip(requests.items(), stored, strict=True):
        if not isinstance(arrays, (list, tuple)) or len(arrays) != len(request.names):
            return None
        fitted = [
            _nchw(array, request.shape(name)) for name, array in zip(request.names, arrays, strict=True)
        ]
        if any(array is None for array in fitted):
            return None
        sides[side] = Side(**dict(zip(request.names, fitted, strict=True)))
    return Batch(**sides)


def _nchw(array: Any, shape: tuple[int, int, int]) -> np.ndarray | None:
    if not isinstance(array, np.ndarray) or array.ndim != 4 or array.dtype != np.float32:
        return None
    if array.shape[1:] == (*shape[1:], shape[0]):
        return np.ascontiguousarray(np.moveaxis(array, -1, 1))
    return array if array.shape[1:] == shape else None
