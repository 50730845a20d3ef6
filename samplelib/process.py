"""From an aligned face to the arrays a model trains on: pure functions of pixels, request and generators.

The order of work is DFL's (sample processor): bring the face to the model's face type and size, give it another face's
colours, shift hue, saturation and light of the network's input, then bend, affine and flip; masks are drawn on the
aligned face and take the same way, without the colours. Differences, equal in distribution: pictures are shrunk as
8-bit and only then made float (DFL: the other way round), which costs a rounding of 1/510.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from core.batch import SampleRequest
from core.imagelib import color, color_transfer
from core.imagelib import warp as warping
from core.imagelib.draw import add_soft_hulls
from facelib import landmarks as lm
from facelib.facetype import FACE_TYPES
from samplelib.faceset import FaceReadError, Faceset, FacesetError, Sample, decode_mask, read_face

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Chance = Callable[[str], np.random.RandomState]
"""The generator of a sample for a purpose: `affine`, `bend`, `colour`, `hsv`. One each, so that what one option draws
does not move the others."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded face: image (h, w, 3) uint8 BGR; mask (h', w') float32 in [0, 1], its xseg mask, or None."""

    image: Bytes
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


def check_colours(requests: Mapping[str, SampleRequest]) -> None:
    """Refuse, by ValueError, colours that cannot be given: an unknown mode, a side that is not there, a bad power."""
    for side, request in requests.items():
        mode, allowed = request.ct_mode, ("none", *color_transfer.MODES)
        if mode not in allowed:
            raise ValueError(f"{side}: ct_mode {mode!r} is unknown; allowed are {', '.join(allowed)}")
        if mode != "none" and request.ct_from not in requests:
            raise ValueError(
                f"{side}: ct_mode {mode} needs a side to take colours from, got ct_from {request.ct_from!r}; "
                f"allowed are {', '.join(requests)}"
            )
        if not 0 <= request.hsv_power <= 1:
            raise ValueError(f"{side}: hsv_power {request.hsv_power} is outside 0 to 1")


def load_image(sample: Sample) -> Bytes:
    """(h, w, 3) uint8 BGR: a face's picture without its mask. Raises FaceReadError with the reason if it is broken."""
    try:
        return np.asarray(read_face(sample), np.uint8)
    except OSError as error:
        raise FaceReadError(f"cannot be read ({error.strerror or error})") from error


def load(sample: Sample) -> Pixels:
    """Read and decode a face. Raises FaceReadError with the reason when that cannot be done."""
    image = load_image(sample)
    mask = decode_mask(sample)
    return Pixels(image, None if mask is None else mask[..., 0])


def process(
    sample: Sample,
    pixels: Pixels,
    request: SampleRequest,
    chance: Chance,
    reference: Bytes | None = None,
) -> dict[str, Array]:
    """The arrays of `request.names`, each (C, R, R) float32 in [0, 1], images BGR.

    Affine and flip are the same for all arrays; `warped` alone is bent (if the request says so) and shifted in hue,
    saturation and light. reference: a picture of any size whose colours `warped` and `target` get; not used where
    ct_mode is none, else needed. `mask`: the xseg mask if the face has one, else the hull of its landmarks. `mask_em`:
    eyes and mouth inside that mask, divided by its maximum.
    """
    warp = warping.draw(
        chance("affine"),
        chance("bend") if request.random_warp else None,
        request.resolution,
        flip=request.flip,
        rotation=request.rotation,
        scale=request.scale,
        shift=request.shift,
    )
    out: dict[str, Array] = {}
    names = request.names
    if "warped" in names or "target" in names:
        face = _float(_to_model(pixels.image, sample, request, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE))
        if request.ct_mode != "none":
            face = _coloured(face, request.ct_mode, chance, reference)
        if "target" in names:
            out["target"] = _planes(warping.apply(warp, face, bend=False))
        if "warped" in names:
            if request.hsv_power:
                face = color.apply(color.draw(chance("hsv"), request.hsv_power), face)
            alike = warp.maps is None and not request.hsv_power and "target" in out
            out["warped"] = out["target"] if alike else _planes(warping.apply(warp, face, bend=True))
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


def _float(image: Bytes) -> Array:
    """[0, 1] of 0..255."""
    out = image.astype(np.float32)
    out *= np.float32(1 / 255)
    return out


def _coloured(face: Array, mode: str, chance: Chance, reference: Bytes | None) -> Array:
    """(R, R, 3) in the colours of the reference, which is resized to that whatever its face type."""
    if reference is None:
        raise ValueError(f"ct_mode {mode} needs a picture to take colours from")
    small = np.asarray(cv2.resize(reference, face.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    return color_transfer.apply(mode, face, _float(small), color_transfer.draw(mode, chance("colour")))


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
