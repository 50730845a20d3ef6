"""From an aligned face to the arrays a model trains on: pure functions of pixels, request and generators.

The order of work is DFL's (sample processor): bring the face to the model's face type and size, then bend, affine
and flip there; masks are drawn on the aligned face and take the same way. Differences, equal in distribution: the
picture is shrunk as 8-bit and only then made float (DFL: the other way round), which costs a rounding of 1/510.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from core.batch import SampleRequest
from core.imagelib import warp as warping
from core.imagelib.draw import add_soft_hulls
from facelib import landmarks as lm
from facelib.facetype import FACE_TYPES
from samplelib.faceset import FaceReadError, Faceset, FacesetError, Sample, decode_mask, read_face

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded face: image (h, w, 3) uint8 BGR; mask (h', w') float32 in [0, 1], its xseg mask, or None."""

    image: npt.NDArray[np.uint8]
    mask: Array | None


def check(faceset: Faceset, request: SampleRequest) -> None:
    """Refuse a faceset with faces that do not contain the area the model wants (half_face cannot become whole_face).

    Raises FacesetError: how many faces of which type there are, what the model needs, what to do.
    """
    wanted = FACE_TYPES[request.face_type]
    counts = Counter(sample.face_type for sample in faceset.samples)
    small = {kind: count for kind, count in counts.items() if FACE_TYPES[kind] < wanted}
    if small:
        found = ", ".join(f"{count} of type {kind}" for kind, count in counts.most_common())
        raise FacesetError(
            f"{faceset.folder}: the model wants {request.face_type}, which cannot be cut out of "
            f"{' or '.join(sorted(small))} faces (found: {found}). "
            f"Extract the faces as {request.face_type} or wider, or choose a model of a smaller face type."
        )


def suitable(faceset: Faceset, request: SampleRequest, warn: Callable[[str], object]) -> Faceset:
    """The faces that contain the area the model wants; `warn` gets one line when some do not.

    Raises FacesetError, as `check`, when most do not: then the whole set is of the wrong type.
    """
    wanted = FACE_TYPES[request.face_type]
    kept = [index for index, sample in enumerate(faceset.samples) if FACE_TYPES[sample.face_type] >= wanted]
    dropped = len(faceset) - len(kept)
    if dropped == 0:
        return faceset
    if dropped >= len(kept):
        check(faceset, request)
    small = [sample for sample in faceset.samples if FACE_TYPES[sample.face_type] < wanted]
    named = ", ".join(f"{sample.filename} ({sample.face_type})" for sample in small[:3])
    more = f" and {dropped - 3} more" if dropped > 3 else ""
    warn(f"{named}{more}: cannot show {request.face_type}; skipped")
    return faceset.subset(kept)


def load(sample: Sample) -> Pixels:
    """Read and decode a face. Raises FaceReadError with the reason when that cannot be done."""
    try:
        image = read_face(sample)
    except OSError as error:
        raise FaceReadError(f"cannot be read ({error.strerror or error})") from error
    mask = decode_mask(sample)
    return Pixels(image, None if mask is None else mask[..., 0])


def process(
    sample: Sample,
    pixels: Pixels,
    request: SampleRequest,
    rng: np.random.RandomState,
    bend_rng: np.random.RandomState,
) -> dict[str, Array]:
    """The arrays of `request.names`, each (C, R, R) float32 in [0, 1], images BGR.

    rng draws affine and flip, the same for all arrays; bend_rng the bend of `warped` (unused when the request has
    no random warp: then `warped` equals `target`). `mask`: the xseg mask if the face has one, else the hull of its
    landmarks. `mask_em`: eyes and mouth inside that mask, divided by its maximum.
    """
    warp = warping.draw(
        rng,
        bend_rng if request.random_warp else None,
        request.resolution,
        flip=request.flip,
        rotation=request.rotation,
        scale=request.scale,
        shift=request.shift,
    )
    out: dict[str, Array] = {}
    names = request.names
    if "warped" in names or "target" in names:
        image = _to_model(pixels.image, sample, request, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
        face = image.astype(np.float32)
        face *= np.float32(1 / 255)
        if "target" in names or warp.maps is None:
            out["target"] = _planes(warping.apply(warp, face, bend=False))
        if "warped" in names:
            out["warped"] = out["target"] if warp.maps is None else _planes(warping.apply(warp, face, bend=True))
    if "mask" in names or "mask_em" in names:
        full = _full_mask(sample, pixels)
        if "mask" in names:
            out["mask"] = _mask_out(full, sample, request, warp)
        if "mask_em" in names:
            eyes_mouth = _eyes_mouth_mask(sample, full)
            em = _mask_out(eyes_mouth, sample, request, warp)
            top = em.max()
            out["mask_em"] = em / top if top > 0 else em
    return {name: out[name] for name in names}


def _to_model(
    image: npt.NDArray[Any], sample: Sample, request: SampleRequest, interpolation: int, border: int
) -> npt.NDArray[Any]:
    """An aligned picture at the model's face type and size: a resize where the type is the sample's own."""
    size = (request.resolution, request.resolution)
    if sample.face_type == request.face_type:
        return cv2.resize(image, size, interpolation=interpolation)
    matrix = lm.transform_matrix(sample.landmarks, request.resolution, request.face_type)
    return cv2.warpAffine(image, matrix, size, flags=interpolation, borderMode=border)


def _mask_out(mask: Array, sample: Sample, request: SampleRequest, warp: warping.Warp) -> Array:
    """(1, R, R) in [0, 1] from a mask on the aligned face."""
    small = _to_model(mask, sample, request, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
    return np.clip(warping.apply(warp, small, bend=False, mask=True), 0, 1)[None]


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


def _planes(image: Array) -> Array:
    """(3, R, R) in [0, 1] from (R, R, 3) that may overshoot."""
    return np.clip(image, 0, 1).transpose(2, 0, 1)
