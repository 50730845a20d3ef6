"""The face data that DeepFaceLab keeps in an aligned JPG: a pickled dictionary in an APP15 segment.

Nothing here decodes pixels. Pictures come from strangers, so every length is checked before it is believed; of
several APP15 segments the last one counts, as in DFL. Segment layout: ITU-T T.81, annex B.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from core.dflfile import DflFileError, dumps, load

MAX_METADATA = 65533
"""Bytes that fit into one segment."""

_MAX_MASK = 50_000  # of these; DFL leaves the rest to landmarks and polygons
_MAX_VALUES = 65_536
_APP0, _APP14, _APP15, _COM, _SOS, _EOI, _SOI = 0xE0, 0xEE, 0xEF, 0xFE, 0xDA, 0xD9, b"\xff\xd8"
_BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
_MAX_SEGMENTS = 4096  # a picture with a colour profile has some 300 at most
_SOF = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_KNOWN = {b"\x89PNG": "PNG", b"RIFF": "WebP", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"BM": "BMP"}


class DflJpgError(ValueError):
    """Not a JPEG with face data. The message is the reason, without the file's name."""


class CutOffError(DflJpgError):
    """The data end before the picture begins: more of the file may help."""


class LostMetadataError(DflJpgError):
    """A picture without face data: never extracted, or saved by a program that drops them."""


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the pixels. metadata: the pickled face data, None if there are none. scan: position where
    the coded pixels begin."""

    height: int
    width: int
    channels: int
    metadata: bytes | None
    scan: int


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of the segments up to the scan, start at the marker's 0xFF; the last is the scan header."""
    if data[:2] != _SOI:
        if not data:
            raise DflJpgError("the file is empty")
        kind = next((name for magic, name in _KNOWN.items() if data.startswith(magic)), "no picture")
        raise DflJpgError(f"not a JPEG ({kind})")
    at = 2
    for _ in range(_MAX_SEGMENTS):
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if at + 4 > len(data):
            raise CutOffError("it is cut off before its picture begins")
        if data[at] != 0xFF:
            raise DflJpgError("its JPEG segments are damaged")
        marker = data[at + 1]
        if marker in _BARE:
            at += 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _EOI or end < at + 4:
            raise DflJpgError("its JPEG segments are damaged")
        if end > len(data):
            raise CutOffError("it is cut off before its picture begins")
        yield marker, at, end
        if marker == _SOS:
            return
        at = end
    raise DflJpgError(f"it has more than {_MAX_SEGMENTS:,} JPEG segments")


def read_header(data: bytes) -> Header:
    """Size and pickled metadata, from a whole JPEG or from so much of its head as reaches the scan.

    Raises CutOffError if the data end too early, DflJpgError if they are no JPEG.
    """
    size: tuple[int, int, int] | None = None
    metadata: bytes | None = None
    scan = 0
    for marker, start, end in _segments(data):
        if marker in _SOF:
            if end - start < 10:
                raise DflJpgError("its JPEG segments are damaged")
            size = struct.unpack_from(">HHB", data, start + 5)
        elif marker == _APP15:
            metadata = data[start + 4 : end]
        elif marker == _SOS:
            scan = end
    if size is None:
        raise DflJpgError("its JPEG header gives no size")
    return Header(*size, metadata, scan)


def parse_metadata(raw: bytes | None) -> dict[str, Any]:
    """The dictionary in a header's metadata. Raises DflJpgError if there is none, or it cannot be read safely."""
    if raw is None:
        raise LostMetadataError("a picture without DeepFaceLab's face data (extract faces, or restore its metadata)")
    try:
        metadata = load(raw, max_bytes=MAX_METADATA, max_nodes=_MAX_VALUES)
    except DflFileError as error:
        raise DflJpgError(f"its face data: {error.reason}") from None
    if not isinstance(metadata, dict):
        raise DflJpgError(f"its face data are a {type(metadata).__name__}, not a dictionary")
    return metadata


def read_metadata(data: bytes) -> dict[str, Any]:
    """The face data of a JPEG, keys as DFL names them (docs/formats.md). Raises DflJpgError."""
    return parse_metadata(read_header(data).metadata)


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) that a JPEG's header states. Raises DflJpgError."""
    header = read_header(data)
    return header.height, header.width


def embed(jpg: bytes, metadata: dict[str, Any]) -> bytes:
    """The JPEG with `metadata` as its only APP15 segment, behind APP0; every other byte is kept.

    Raises DflJpgError if `jpg` is no JPEG or the metadata exceed a segment, DflFileError for values that DFL's
    files cannot hold.
    """
    raw = dumps(metadata)
    if len(raw) > MAX_METADATA:
        raise DflJpgError(f"face data of {len(raw):,} bytes do not fit, at most {MAX_METADATA:,}: simplify the mask")
    out = bytearray(_SOI)
    own = b"\xff" + bytes([_APP15]) + struct.pack(">H", len(raw) + 2) + raw
    at, written = 2, False
    for marker, start, end in _segments(jpg):
        if marker != _APP0 and not written:
            out += own
            written = True
        if marker != _APP15:
            out += jpg[start:end]
        at = end
    return bytes(out) + jpg[at:]


def without_metadata(jpg: bytes) -> bytes:
    """The JPEG without what does not make its picture: of segments for programs only JFIF's and Adobe's stay, which say
    how colours are coded. Raises DflJpgError."""
    out, at = [_SOI], 2
    for marker, start, end in _segments(jpg):
        if not (_APP0 < marker <= _APP15 and marker != _APP14) and marker != _COM:
            out.append(jpg[start:end])
        at = end
    return b"".join([*out, jpg[at:]])


def encode_mask(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A mask (h, w) or (h, w, 1), uint8 or float 0..1, as the bytes DFL stores under `xseg_mask`: PNG, or JPEG where
    the PNG is too large for a segment."""
    levels = mask if mask.dtype == np.uint8 else np.rint(np.clip(mask, 0, 1) * 255).astype(np.uint8)
    coded = cv2.imencode(".png", levels)[1]
    for quality in range(95, 0, -10):
        if len(coded) <= _MAX_MASK:
            break
        coded = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return coded.reshape(-1)


def aligned_metadata(
    face_type: str,
    landmarks: np.ndarray[Any, Any],
    *,
    source_filename: str,
    source_rect: Sequence[int],
    source_landmarks: np.ndarray[Any, Any],
    image_to_face_mat: np.ndarray[Any, Any] | None = None,
    xseg_mask: np.ndarray[Any, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Face data with the keys and types that DFL's extractor writes, ready for `embed`.

    landmarks (68, 2) in the aligned picture, source_landmarks in the frame; source_rect: left, top, right, bottom
    in the frame; image_to_face_mat: (2, 3) frame to aligned; xseg_mask as for `encode_mask`; more: further keys.
    """
    metadata: dict[str, Any] = {
        "face_type": face_type,
        "landmarks": np.asarray(landmarks, np.float64).tolist(),
        "source_filename": source_filename,
        "source_rect": np.asarray(source_rect, np.int64),
        "source_landmarks": np.asarray(source_landmarks, np.float64).tolist(),
    }
    if image_to_face_mat is not None:
        metadata["image_to_face_mat"] = np.asarray(image_to_face_mat, np.float64)
    if xseg_mask is not None:
        metadata["xseg_mask"] = encode_mask(xseg_mask)
    return {**metadata, **more}
