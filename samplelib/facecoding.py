"""A prepared face as bytes for the disk: its pictures raw, as PNG or as JPG; its masks never lose anything."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from core.batch import KINDS, kind_shape
from samplelib.prepare import Prepared

_MASK_LEVEL = 1
_PNG_LEVEL = 1


@dataclass(frozen=True)
class Coding:
    """image: `raw`, `png` or `jpg`; quality: of jpg, 1 to 100."""

    image: str = "raw"
    quality: int = 95

    @property
    def exact(self) -> bool:
        """Whether a face comes back byte for byte."""
        return self.image != "jpg"

    def tag(self) -> str:
        """What faces of the same coding have in common."""
        return f"{self.image} {self.quality}" if self.image == "jpg" else self.image


def encode(face: Prepared, coding: Coding) -> bytes:
    """The face's kinds in its order, each behind its length."""
    parts = []
    for kind, array in face.items():
        data = _encode(np.ascontiguousarray(array), kind, coding)
        parts += [struct.pack("<I", len(data)), data]
    return b"".join(parts)


def _encode(array: np.ndarray, kind: str, coding: Coding) -> bytes:
    if coding.image == "raw":
        return array.tobytes()
    if KINDS[kind] == 1:
        return zlib.compress(array.tobytes(), _MASK_LEVEL)
    if coding.image == "png":
        return cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])[1].tobytes()
    whole_colours = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", array, [cv2.IMWRITE_JPEG_QUALITY, coding.quality, *whole_colours])[1].tobytes()


def decode(data: bytes, kinds: Sequence[str], resolution: int, coding: Coding) -> Prepared:
    """The reverse of `encode`, for those kinds in that order. Raises ValueError for bytes that it did not make."""
    found, at = {}, 0
    for kind in kinds:
        shape = kind_shape(kind, resolution)
        if at + 4 > len(data):
            raise ValueError("cut off")
        start, end = at + 4, at + 4 + struct.unpack_from("<I", data, at)[0]
        if end > len(data):
            raise ValueError("cut off")
        found[kind] = _decode(memoryview(data)[start:end], kind, shape, coding)
        at = end
    if at != len(data):
        raise ValueError("too long")
    return found


def _decode(data: memoryview, kind: str, shape: tuple[int, ...], coding: Coding) -> np.ndarray:
    raw: bytes | memoryview = data
    if coding.image != "raw" and KINDS[kind] > 1:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is None or image.shape != shape:
            raise ValueError("another picture")
        return image
    if coding.image != "raw":
        unpacker = zlib.decompressobj()
        try:
            raw = unpacker.decompress(data, int(np.prod(shape)) + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
    return np.frombuffer(raw, np.uint8).reshape(shape)  # ValueError where the size is another
