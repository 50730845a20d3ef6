"""Pixels of faces: bytes of a JPEG or a mask to arrays. Broken ones are refused, not trained on as grey.

libjpeg fills what is missing with flat colour and only prints a warning. A cut-off picture is therefore found by
decoding it again with other data behind its end: a complete one does not change. Only pictures without an end
marker, or with flat rows at their end that look made up, pay for that (libjpeg may print its warning then).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from facelib.dfljpg import DflJpgError, image_size, read_header, without_metadata
from samplelib.facedata import MAX_SIDE, FaceReadError

Array = np.ndarray[Any, Any]

_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_SOS, _EOI = b"\xff\xda", b"\xff\xd9"
_PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_PROBE = bytes(range(0x31, 0xB1)) * 64
_BLACK = 16
_MAX_SCANS = 100  # of a progressive picture; usual are 10, and each goes over the whole picture


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """What libjpeg says of broken pictures goes nowhere meanwhile: whoever decodes names the file. It writes to the
    process's standard error, so this is only for programs where nothing else does at the same time."""
    with contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
        except OSError:  # closed, as of a program that a desktop started
            yield
            return
        stack.callback(os.close, kept)
        stack.callback(os.dup2, kept, 2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield


def _imdecode(data: bytes, flags: int, what: str) -> Array:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise FaceReadError(f"its {what} cannot be decoded ({error.err})") from None
    if image is None:
        raise FaceReadError(f"its {what} cannot be decoded")
    return image


def _may_be_filled(image: Array, coded: bytes) -> bool:
    """Whether the picture ends in flat rows that libjpeg may have made up.

    Rows that really are flat and coded end the data in one short pattern, repeated. That is believed for up to half
    of the picture: below a background that is flat by itself nothing is known.
    """
    last = image[-1, -1]
    if int(last.max()) <= _BLACK or not (image[-8:] == last).all():
        return False
    tail = coded[-49:-1]
    coded_flat = any(tail[period:] == tail[:-period] for period in range(1, 33))
    return not coded_flat or bool((image[len(image) // 2 :] == last).all())


def decode(data: bytes) -> Array:
    """(H, W, 3) uint8 BGR of a JPEG, whatever its colour space; EXIF orientation is ignored, as landmarks ignore it.

    Raises FaceReadError if it is no JPEG, too large, or its pixels are broken or cut off.
    """
    try:
        header = read_header(data)
    except DflJpgError as error:
        raise FaceReadError(str(error)) from None
    if max(header.height, header.width) > MAX_SIDE or min(header.height, header.width) < 1:
        raise FaceReadError(f"a picture of {header.width}x{header.height} pixels; sides of up to {MAX_SIDE} are read")
    if data.count(_SOS, header.scan) > _MAX_SCANS:
        raise FaceReadError(f"its picture is coded in more than {_MAX_SCANS} scans")
    end = data.find(_EOI, header.scan)
    coded = without_metadata(data[: end if end >= 0 else len(data)].rstrip(b"\xff"))  # half a marker
    image = _imdecode(coded + _EOI, _FLAGS, "picture")
    if image.shape[:2] != (header.height, header.width):
        raise FaceReadError("its picture is not of the size its header states")
    if (end < 0 or _may_be_filled(image, coded)) and not np.array_equal(
        image, _imdecode(coded + _PROBE + _EOI, _FLAGS, "picture")
    ):
        raise FaceReadError("its picture is cut off")
    return image


def _plain_png(data: bytes) -> bytes:
    """The PNG with the chunks that make its picture and no others. Raises FaceReadError if one is not all there: OpenCV
    takes the memory that a chunk claims to need, gigabytes, before it looks. Chunk layout: PNG specification, 5.3."""
    kept, at, kind = [data[:8]], 8, b""
    while kind != b"IEND":
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if end > len(data) or (kind == b"IHDR") != (at == 8) or (kind == b"IHDR" and end != 33):
            raise FaceReadError("its xseg_mask is a PNG that is cut off or damaged")
        if kind in _PNG_CHUNKS:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def decode_mask_bytes(data: bytes) -> Array:
    """(h, w, 1) float32 0..1 of a mask's PNG or JPEG. Raises FaceReadError."""
    if data.startswith(b"\x89PNG"):
        data = _plain_png(data)
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    else:
        try:
            height, width = image_size(data)
            data = without_metadata(data)
        except DflJpgError as error:
            raise FaceReadError(f"its xseg_mask: {error}") from None
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise FaceReadError(f"its xseg_mask claims {width}x{height} pixels")
    mask = _imdecode(data, cv2.IMREAD_GRAYSCALE, "xseg_mask")
    return mask[..., None].astype(np.float32) / 255
