"""Labelled faces, to learn masks from: which faces those are, and the samples that are made of them.

A sample is worn in every way that DFL's XSeg knows, in DFL's order: perhaps the surroundings of another labelled face
behind it; bend, affine and flip; flares; then what `core.imagelib.wear` has. Differences, equal in distribution: bend
and affine are one interpolation, and flares are blurred at a fraction of the size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from core.batch import SampleRequest
from core.imagelib import warp as warping
from core.imagelib import wear
from samplelib import backgrounds
from samplelib.faceset import Faceset, FacesetError
from samplelib.facetable import HOME, Table, joined
from samplelib.prepare import Bytes, Prepared

Array = npt.NDArray[np.float32]
Chance = Callable[[str], np.random.RandomState]

BACKDROP_SHARE = (0.15, 1.0)  # how much of its own surroundings a face keeps where another's are blended in


def together(sets: Sequence[Faceset]) -> Faceset:
    """The faces of several facesets, one set after the other."""
    parts = [faces.to_arrays() for faces in sets]
    homes = [np.full(len(faces), number, np.uint8) for number, faces in enumerate(sets)]
    place = {
        "folder": np.frombuffer(b"\0".join(part["folder"].tobytes() for part in parts), np.uint8),
        "packed": np.concatenate([part["packed"] for part in parts]),
        HOME: np.concatenate(homes),
    }
    return Faceset({**joined(parts), **place})


def choose(sets: Sequence[Faceset], say: Callable[[str], object]) -> Faceset:
    """The faces of all sets that masks can be learned from: those with labelled polygons or, where no face has any,
    those with an applied mask. Raises FacesetError where there are none."""
    faces = together(sets)
    arrays = faces.to_arrays()
    polygons = Table(arrays, "polys").filled()
    masks = (arrays["mask_at"][:, 1] > 0) | Table(arrays, "masks").filled()
    for found, what in ((polygons, "segmented"), (masks, "xseg labeled")):
        if places := np.flatnonzero(found).tolist():
            say(f"Using {len(places):,} {what} samples.")
            scenes = backgrounds.find([each.folder for each in sets], say)
            return Faceset({**faces.subset(places).to_arrays(), **scenes})
    raise FacesetError(
        f"No segmented faces found, among {len(faces):,} in {' and '.join(str(each.folder) for each in sets)}. Label "
        "some faces with polygons in an XSeg editor such as DeepFaceLab's (20 to 50 that differ are a start), or apply "
        "masks of another XSeg model to them (main.py xseg apply)."
    )


@dataclass(frozen=True, slots=True)
class Worn:
    """What is drawn for a sample after its warp. Each with the circle it keeps to; None where nothing is done."""

    face_flare: int | None
    flare: int | None
    colours: tuple[wear.Colours, wear.Circle]
    sharpen: tuple[wear.Sharpen, wear.Circle] | None
    motion: tuple[wear.Motion, wear.Circle] | None
    blur: tuple[int, wear.Circle] | None
    shrink: tuple[wear.Shrink, wear.Circle] | None
    jpeg: tuple[int, wear.Circle] | None


def draw(rng: np.random.RandomState, size: int) -> Worn:
    """Draws for a sample of `size` pixels."""
    flares = wear.draw_flare(rng, size), wear.draw_flare(rng, size)
    colours = wear.draw_colours(rng), wear.draw_circle(rng, size)
    sharpen = motion = blur = None
    if rng.randint(2) == 0:
        sharpen, first, second = wear.draw_sharpen(rng), wear.draw_circle(rng, size), None
    else:
        motion, first = wear.draw_motion(rng), wear.draw_circle(rng, size)
        blur, second = wear.draw_blur(rng), wear.draw_circle(rng, size)
    shrink, third = wear.draw_shrink(rng, size, bool(rng.randint(2))), wear.draw_circle(rng, size)
    jpeg, last = wear.draw_jpeg(rng), wear.draw_circle(rng, size)
    return Worn(
        *flares,
        colours,
        (sharpen, first) if sharpen is not None else None,
        (motion, first) if motion is not None else None,
        (blur, second) if blur is not None and second is not None else None,
        (shrink, third) if shrink is not None else None,
        (jpeg, last) if jpeg is not None else None,
    )


def apply(worn: Worn, image: Array, label: Array) -> Array:
    """The image (S, S, 3) in [0, 1] as it comes out; label (S, S) of 0 and 1, where its face is."""
    if worn.face_flare is not None:
        image = wear.apply_flare(worn.face_flare, image, label)
    if worn.flare is not None:
        image = wear.apply_flare(worn.flare, image, 1 - label)
    image = wear.within(worn.colours[1], image, wear.apply_colours(worn.colours[0], image))
    if worn.sharpen is not None:
        image = wear.within(worn.sharpen[1], image, wear.apply_sharpen(worn.sharpen[0], image))
    if worn.motion is not None:
        image = wear.within(worn.motion[1], image, wear.apply_motion(worn.motion[0], image))
    if worn.blur is not None:
        image = wear.within(worn.blur[1], image, wear.apply_blur(worn.blur[0], image))
    if worn.shrink is not None:
        image = wear.within(worn.shrink[1], image, wear.apply_shrink(worn.shrink[0], image))
    image = np.clip(image, 0, 1, out=image)
    if worn.jpeg is not None:
        image = wear.within(worn.jpeg[1], image, wear.apply_jpeg(worn.jpeg[0], image))
    return image


def is_plain(request: SampleRequest, chance: Chance) -> bool:
    """Whether a sample is the face as it is, but for a flip."""
    return request.plain_share > 0 and bool(chance("plain").random_sample() < request.plain_share)


def has_backdrop(request: SampleRequest, chance: Chance) -> bool:
    """Whether a sample gets other surroundings, those of another face or a background: of every second that is worn."""
    return not is_plain(request, chance) and int(chance("backdrop").randint(2)) == 0


def backdrop(rng: np.random.RandomState, image: Array, label: Bytes, other: Prepared) -> Array:
    """The image with the surroundings of another labelled face, turned and recoloured, mixed into what is neither's
    face."""
    size = len(image)
    turn = warping.draw(rng, None, size, flip=True, rotation=180.0, scale=0.1, shift=0.1)
    colours, share = wear.draw_colours(rng), float(rng.uniform(*BACKDROP_SHARE))
    matrix, square = warping.once(turn), (size, size)
    scene = cv2.warpAffine(
        _float(other["image"]), matrix, square, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    hidden = cv2.warpAffine(other["label"], matrix, square, borderMode=cv2.BORDER_CONSTANT)
    around = _float(255 - np.asarray(hidden, np.uint8))
    scene = cv2.multiply(scene, cv2.merge((around, around, around)))
    scene = wear.apply_colours(colours, np.asarray(scene, np.float32))
    mixed = around * _float(255 - label) * np.float32(1 - share)
    return np.asarray(cv2.blendLinear(scene, image, mixed, 1 - mixed), np.float32)


def make(
    face: Prepared, request: SampleRequest, chance: Chance, other: Prepared | None, rows: Mapping[str, Array]
) -> None:
    """Writes a sample of a labelled face into `rows`: `image` (3, R, R) in [0, 1], `label` (1, R, R) of 0 and 1.

    face, other: kinds image and label; other: the one whose surroundings it gets, or a background; needed where
    `has_backdrop`.
    """
    size = request.resolution
    image, label = _float(face["image"]), face["label"]
    plain = is_plain(request, chance)
    warp = warping.draw(
        chance("affine"), None if plain else chance("bend"), size,
        flip=request.flip, rotation=request.rotation, scale=request.scale, shift=request.shift,
    )  # fmt: skip
    if plain:
        across = slice(None, None, -1 if warp.flip else 1)
        rows["image"][...] = image[:, across].transpose(2, 0, 1)
        rows["label"][0] = label[:, across] >= 128
        return
    if has_backdrop(request, chance):
        if other is None:
            raise ValueError("this sample needs another labelled face, and none is given")
        image = backdrop(chance("surroundings"), image, label, other)
    x, y, inside = warping.bent_maps(warp)  # once for both
    image = np.asarray(cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.float32)
    bent = np.asarray(cv2.remap(label, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8)
    rows["label"][0] = np.multiply(bent >= 128, inside, dtype=np.float32)
    image = apply(draw(chance("wear"), size), np.clip(image, 0, 1, out=image), rows["label"][0])
    rows["image"][...] = image.transpose(2, 0, 1)


def _float(image: Bytes) -> Array:
    """[0, 1] of 0..255."""
    return np.multiply(image, np.float32(1 / 255), dtype=np.float32)
