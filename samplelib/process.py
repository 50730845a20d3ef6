"""From a prepared face to the arrays a model trains on: pure functions of pixels, request and generators.

The order of work is DFL's (sample processor): bring the face to the model's face type and size (`samplelib.prepare`),
give it another face's colours, shift hue, saturation and light of the network's input, then bend, affine and flip;
masks take the same way, without the colours. Differences, equal in distribution: pictures and masks are shrunk to 8
bits and only then made float, which costs a rounding of 1/510; bend and affine are one interpolation, not two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import numpy.typing as npt

from core.batch import SampleRequest
from core.imagelib import color, color_transfer
from core.imagelib import warp as warping
from facelib.facetype import FACE_TYPES
from samplelib import labelled
from samplelib.faceset import Faceset, FacesetError
from samplelib.prepare import Bytes, Prepared

Array = npt.NDArray[np.float32]
Rows = Mapping[str, Array]
"""Where a sample goes: name -> (C, R, R) view of a batch."""
Chance = Callable[[str], np.random.RandomState]
"""The generator of a sample for a purpose: `affine`, `bend`, `colour`, `hsv`. One each, so that what one option draws
does not move the others."""


def check(faceset: Faceset, request: SampleRequest) -> None:
    """Refuse a faceset with faces that do not contain the area the model wants (half_face cannot become whole_face).

    Raises FacesetError: how many faces of which type there are, what the model needs, what to do.
    """
    wanted = FACE_TYPES[request.face_type]
    counts = Counter(faceset.types())
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
    kept = [index for index, kind in enumerate(faceset.types()) if FACE_TYPES[kind] >= wanted]
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


def process(
    face: Prepared,
    request: SampleRequest,
    chance: Chance,
    reference: Prepared | None = None,
    rows: Rows | None = None,
) -> dict[str, Array]:
    """The arrays of `request.names`, each (C, R, R) float32 in [0, 1], images BGR, written into `rows` where given.

    Affine and flip are the same for all arrays; `warped` alone is bent (if the request says so) and shifted in hue,
    saturation and light. face: what `samplelib.prepare.kinds(request)` names. reference: the face whose `colours`
    `warped` and `target` get; not used where ct_mode is none, else needed. `mask_em` is divided by its maximum. A
    labelled face is made by `samplelib.labelled`.
    """
    size = request.resolution
    if rows is None:
        rows = {name: np.empty(request.shape(name), np.float32) for name in request.names}
    if request.labelled:
        labelled.make(face, request, chance, reference, rows)
        return {name: rows[name] for name in request.names}
    if "plain" in rows:
        _planes(_float(face["image"]), rows["plain"])
    if request.names == ("plain",):
        return {"plain": rows["plain"]}
    warp = warping.draw(
        chance("affine"),
        chance("bend") if request.random_warp else None,
        size,
        flip=request.flip,
        rotation=request.rotation,
        scale=request.scale,
        shift=request.shift,
    )
    if "warped" in rows or "target" in rows:
        image = _float(face["image"])
        if request.ct_mode != "none":
            image = _coloured(image, request.ct_mode, chance, reference)
        if "target" in rows:
            _planes(warping.apply_once(warp, _in_channels(image, request), bend=False), rows["target"])
        if "warped" in rows:
            if request.hsv_power:
                image = color.apply(color.draw(chance("hsv"), request.hsv_power), image)
            if warp.maps is None and not request.hsv_power and "target" in rows:
                rows["warped"][...] = rows["target"]
            else:
                _planes(warping.apply_once(warp, _in_channels(image, request), bend=True), rows["warped"])
    for name in ("mask", "mask_em"):
        if name in rows:
            mask = warping.apply_once(warp, _float(face[name]), bend=False, mask=True)
            top = mask.max() if name == "mask_em" else 1.0
            np.divide(mask, top if top > 0 else 1.0, out=rows[name][0])
    return {name: rows[name] for name in request.names}


def _float(image: Bytes) -> Array:
    """[0, 1] of 0..255."""
    out = image.astype(np.float32)
    out *= np.float32(1 / 255)
    return out


def _coloured(image: Array, mode: str, chance: Chance, reference: Prepared | None) -> Array:
    """(R, R, 3) in the colours of the reference."""
    if reference is None or "colours" not in reference:
        raise ValueError(f"ct_mode {mode} needs a picture to take colours from")
    return color_transfer.apply(mode, image, _float(reference["colours"]), color_transfer.draw(mode, chance("colour")))


def _in_channels(image: Array, request: SampleRequest) -> Array:
    """(R, R, 3) BGR -> (R, R, C): as it is, or grey as OpenCV weighs colours."""
    if request.channels == 3:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.float32)[..., None]


def _planes(image: Array, out: Array) -> None:
    """(R, R, C) that may overshoot -> (C, R, R) in [0, 1]."""
    np.clip(image.transpose(2, 0, 1), 0, 1, out=out)
