"""The part of a sample that is the same every time: a face at the model's type and size, with its masks, in 8 bits.

It is most of the work (decoding, shrinking, drawing masks), so it is done once and kept (`samplelib.cache`);
`samplelib.process` does the rest anew for every sample. Faces are brought to the model's face type and size as in DFL;
pictures and masks are rounded to 1/255 (DFL: pictures are, masks stay float).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from core.batch import KINDS as KINDS
from core.batch import SampleRequest
from core.imagelib.draw import add_soft_hulls
from facelib import landmarks as lm
from facelib.facetype import FACE_TYPES
from samplelib.faceset import FaceReadError, Sample, decode_mask, read_face

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

VERSION = 1
"""Raised with every change of what `prepared` makes: faces kept on disk are then made anew."""

@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded face: image (h, w, 3) uint8 BGR; mask (h', w') float32 in [0, 1], its xseg mask, or None."""

    image: Bytes
    mask: Array | None


Prepared = Mapping[str, Bytes]
"""Kind (see KINDS) -> (R, R, 3) or (R, R) uint8."""


def load_image(sample: Sample) -> Bytes:
    """(h, w, 3) uint8 BGR: a face's picture without its mask. Raises FaceReadError with the reason if it is broken,
    OSError."""
    return np.asarray(read_face(sample), np.uint8)


def load(sample: Sample) -> Pixels:
    """Read and decode a face. Raises FaceReadError with the reason when that cannot be done, OSError."""
    image = load_image(sample)
    mask = decode_mask(sample)
    return Pixels(image, None if mask is None else mask[..., 0])


def kinds(request: SampleRequest) -> tuple[str, ...]:
    """What must be prepared of a face for the arrays of a request."""
    wanted = {
        "image": {"warped", "target", "image", "plain"}, "mask": {"mask"}, "mask_em": {"mask_em"}, "label": {"label"},
    }  # fmt: skip
    return tuple(kind for kind, names in wanted.items() if names & set(request.names))


def prepare(sample: Sample, kinds: Sequence[str], request: SampleRequest) -> Prepared:
    """Reads and decodes a face and prepares those kinds of it. Raises FaceReadError when that cannot be done, OSError.

    The sample is to be `samplelib.faceset.current`, lest a face that was changed gets the landmarks it had before.
    """
    if FACE_TYPES[sample.face_type] < FACE_TYPES[request.face_type] and set(kinds) != {"colours"}:
        raise FaceReadError(f"was changed since the start: {sample.face_type} cannot show {request.face_type}")
    if set(kinds) <= {"image", "colours"}:
        return prepared(sample, Pixels(load_image(sample), None), kinds, request)
    if "label" in kinds and sample.seg_ie_polys:  # a mask, if it has one, does not count
        return prepared(sample, Pixels(load_image(sample), None), kinds, request)
    return prepared(sample, load(sample), kinds, request)


def prepared(sample: Sample, pixels: Pixels, kinds: Sequence[str], request: SampleRequest) -> Prepared:
    """Those kinds of a decoded face, at the request's face type and resolution.

    mask: the xseg mask if the face has one, else the hull of its landmarks. mask_em: soft eyes and mouth inside that
    mask. label: see `label_of`. colours: the picture as another face takes its colours from it, of whatever face type
    it is.
    """
    out: dict[str, Bytes] = {}
    size = (request.resolution, request.resolution)
    if "image" in kinds:
        out["image"] = _to_model(pixels.image, sample, request, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
    if "colours" in kinds:
        out["colours"] = np.asarray(cv2.resize(pixels.image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    if "mask" in kinds or "mask_em" in kinds:
        full = _full_mask(sample, pixels)
        masks = {"mask": full, "mask_em": _eyes_mouth_mask(sample, full) if "mask_em" in kinds else full}
        for kind in ("mask", "mask_em"):
            if kind in kinds:
                mask = _to_model(masks[kind], sample, request, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
                out[kind] = (np.clip(mask, 0, 1) * 255 + 0.5).astype(np.uint8)
    if "label" in kinds:
        out["label"] = _to_model(label_of(sample, pixels), sample, request, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
    return {kind: out[kind] for kind in kinds}


def label_of(sample: Sample, pixels: Pixels) -> Bytes:
    """(h, w), 255 where the user says that a face is: its polygons, those that exclude drawn over those that include,
    else its applied mask. Raises FaceReadError where it has neither."""
    if sample.seg_ie_polys:
        label = np.zeros(pixels.image.shape[:2], np.uint8)
        for including in (1, 0):
            for kind, points in sample.seg_ie_polys:
                if kind == including:
                    cv2.fillPoly(label, [points.astype(np.int32)], (255 * including,))
        return label
    if pixels.mask is None:
        raise FaceReadError("it is not labelled any more")
    return np.asarray((_full_mask(sample, pixels) >= 0.5) * np.uint8(255), np.uint8)


def _to_model(
    image: npt.NDArray[Any], sample: Sample, request: SampleRequest, interpolation: int, border: int
) -> npt.NDArray[Any]:
    """An aligned picture at the model's face type and size: a resize where the type is the sample's own."""
    size = (request.resolution, request.resolution)
    if sample.face_type == request.face_type:
        return cv2.resize(image, size, interpolation=interpolation)
    matrix = lm.transform_matrix(sample.landmarks, request.resolution, request.face_type)
    return cv2.warpAffine(image, matrix, size, flags=interpolation, borderMode=border)


def _full_mask(sample: Sample, pixels: Pixels) -> Array:
    """(h, w) in [0, 1]: the face as the user masked it, else as its landmarks bound it."""
    height, width = pixels.image.shape[:2]
    if pixels.mask is None:
        return lm.hull_mask((height, width), sample.landmarks, sample.eyebrows_expand_mod)[..., 0]
    mask = pixels.mask
    if mask.shape != (height, width):
        mask = np.clip(cv2.resize(mask, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1, dtype=np.float32)
    return mask


def _eyes_mouth_mask(sample: Sample, full: Array) -> Array:
    """(h, w) in [0, 1]: soft eyes and mouth (as facelib.landmarks draws them), 0 where the full mask is."""
    points = sample.landmarks
    both = np.zeros(full.shape, np.float32)
    regions = [add_soft_hulls(both, [points[36:42], points[42:48]]), add_soft_hulls(both, [points[60:68]])]
    for region in regions:
        both[region] = np.minimum(both[region], 1) * (full[region] > 0)
    return both
