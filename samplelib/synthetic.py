"""Two made-up people (and as many more as you like): parametric 3D heads with exact landmarks, masks and true swaps.

Nobody's face is copied: geometry, skin and hair come from numbers and noise. Because pose, expression and light are
one `Scene` that any `Identity` can be rendered in, the result of a perfect face swap is known pixel by pixel, which no
set of photographs can offer. Heads: synthetic_head; paint: synthetic_paint; rays and light: synthetic_render; the rest
of the picture: synthetic_stage; DFL's files: synthetic_faceset.

    rendered = render(identity(0), draw_scene(np.random.default_rng(1)), 256)
    face = aligned(identity(0), draw_scene(np.random.default_rng(1)), 256, "whole_face")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from facelib.landmarks import transform_matrix
from samplelib.synthetic_head import GRID, REACH, Floats, Shape, head, shape
from samplelib.synthetic_paint import Bytes, paint
from samplelib.synthetic_person import Identity, Scene, draw_scene, identity
from samplelib.synthetic_render import Camera, cast, light_map
from samplelib.synthetic_stage import stage

__all__ = ["FRAME_MM", "Aligned", "Frame", "Identity", "Rendered", "Scene", "Truth", "aligned", "draw_scene",
           "frame_for", "identity", "render", "scenes", "truth"]

FRAME_MM = 340.0
"""Width of what a frame shows at the head's distance."""

_CROP_MM = {"half_face": 125.0, "midfull_face": 149.0, "full_face": 200.0, "full_face_no_align": 200.0,
            "whole_face": 267.0, "head": 373.0, "head_no_align": 373.0}


class Frame(NamedTuple):
    """How large a frame is. span_mm: width of what it shows at the head's distance; rise: how far above its middle
    the face is, as a part of its height."""

    pixels: int
    span_mm: float = FRAME_MM
    rise: float = 0.0


@dataclass(frozen=True, slots=True)
class Rendered:
    """A full frame. image: (size, size, 3) uint8 BGR; landmarks: (68, 2) float32 pixels, iBUG order, hidden ones too;
    face_mask: (size, size) uint8 0..255, the visible skin of the face with eyes and mouth, without hair, ears, neck."""

    image: Bytes
    landmarks: Floats
    face_mask: Bytes


class Aligned(NamedTuple):
    """A face as DFL aligns it. image (size, size, 3) uint8 BGR; mask (size, size) uint8, as in `Rendered`; landmarks:
    (68, 2) float32 pixels of the full frame; matrix (2, 3): frame to aligned pixels."""

    image: Bytes
    mask: Bytes
    landmarks: Floats
    matrix: NDArray[np.float64]


class Truth(NamedTuple):
    """What a perfect swap makes of dst, float32 NCHW, BGR, 0..1; masks (N, 1, H, W).

    Every picture is aligned by its own landmarks, as DFL would align it. swap: src's face in dst's scenes.
    """

    dst: Floats
    swap: Floats
    dst_mask: Floats
    swap_mask: Floats


def render(who: Identity, scene: Scene, size: int, span_mm: float = FRAME_MM, rise: float = 0.0) -> Rendered:
    """Draws a person in a scene as a size x size frame. span_mm, rise: see `Frame`.

    Deterministic: the same arguments give the same bytes on the same OpenCV. Raises ValueError for size < 16.
    """
    if size < 16:
        raise ValueError(f"size {size}: a frame needs at least 16 pixels")
    camera = Camera.of(scene, size, span_mm, rise)
    form = shape(head(who), scene)
    image, mask = _picture(who, scene, form, camera, size, size, np.eye(2, 3), 1.0 / span_mm)
    return Rendered(image, camera.project(form.landmarks), mask)


def aligned(who: Identity, scene: Scene, size: int, face_type: str) -> Aligned:
    """The face that DFL would cut out of the frame `render(who, scene, *frame_for(size, face_type))`.

    Drawn straight into the aligned picture: nothing that the cut leaves out is drawn, no pixel is resampled, and where
    the cut would leave the frame the scene goes on. mark_only is the frame itself (DFL does not align it). Raises as
    `render` and transform_matrix do.
    """
    frame = frame_for(size, face_type)
    camera = Camera.of(scene, *frame)
    form = shape(head(who), scene)
    landmarks = camera.project(form.landmarks)
    matrix = np.eye(2, 3) if face_type == "mark_only" else transform_matrix(landmarks, size, face_type)
    image, mask = _picture(who, scene, form, camera, frame.pixels, size, matrix,
                           1.0 / _CROP_MM.get(face_type, frame.span_mm))
    return Aligned(image, mask, landmarks, matrix)


def _picture(who: Identity, scene: Scene, form: Shape, camera: Camera, frame: int, size: int,
             view: NDArray[np.floating], detail: float) -> tuple[Bytes, Bytes]:
    """Image and face mask of size x size pixels; view (2, 3): pixels of the camera's `frame` to those of the picture;
    detail: about how much of its width a millimetre takes, the same for all pictures of a set."""
    if size < 160:  # fine features are thinner than a pixel: draw larger, then average
        double = 2.0 * view + ((0.0, 0.0, 0.5), (0.0, 0.0, 0.5))
        image, mask = _picture(who, scene, form, camera, frame, size * 2, double, detail)
        return (np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)),
                np.asarray(cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)))
    eye = camera.through(view)
    shade, relief = light_map(form, scene)
    hits = cast(relief, eye, size)
    texture = _texture_size(detail * size)
    skin = cv2.remap(paint(form, who, scene, texture), *_to_texture(hits.x, hits.y, texture), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)
    *colours, face = cv2.split(skin)
    light = cv2.remap(shade, hits.x, hits.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lamps: Sequence[Floats] = cv2.split(light)
    shine = lamps[3] * np.float32(38.0)
    planes: Sequence[Floats] = cv2.split(stage(who, scene, camera, frame, size, view))
    left, top, right, bottom = hits.box
    for plane, colour, lamp, key in zip(planes, colours, lamps[:3], scene.key, strict=True):
        patch = plane[top:bottom, left:right]
        lamp *= colour
        lamp += shine * np.float32(key)
        _soften(lamp, hits.seam)
        lamp -= patch
        lamp *= hits.cover
        patch += lamp
    mask = np.zeros((size, size), np.uint8)
    skin_part = face.astype(np.float32)
    _soften(skin_part, hits.seam)
    np.rint(skin_part * hits.cover, out=mask[top:bottom, left:right], casting="unsafe")
    return _develop(planes, scene, view, frame), mask


def _soften(plane: Floats, seam: Floats) -> None:
    """Antialiases, in place, where one part of the head hides another."""
    soft: Floats = cv2.GaussianBlur(plane, (3, 3), 0)
    soft -= plane
    soft *= seam
    plane += soft


def _texture_size(pixels_per_mm: float) -> int:
    """Side of the painted map: about one of its pixels to one of the picture's."""
    return int(np.clip(np.ceil(pixels_per_mm * 2 * REACH * 95 * 1.03 / 64) * 64, 256, 1280))


def _to_texture(x: Floats, y: Floats, size: int) -> tuple[Floats, Floats]:
    """Pixel coordinates on the direction map -> those on a texture of it."""
    scale, shift = np.float32(size / GRID), np.float32(size / GRID / 2 - 0.5)
    return x * scale + shift, y * scale + shift


@lru_cache(maxsize=4)
def _grain(size: int) -> Floats:
    """Film grain of unit spread, a little larger than a picture so that each picture takes another part."""
    return np.random.Generator(np.random.Philox(7)).standard_normal((size + 61, size + 61), np.float32)


def _develop(image: Sequence[Floats], scene: Scene, view: NDArray[np.floating], frame: int) -> Bytes:
    """The camera's part for three planes: vignette about the frame's middle, a film-like curve, grain."""
    size = image[0].shape[0]
    middle = view @ ((frame - 1) / 2, (frame - 1) / 2, 1.0)
    unit = frame * float(np.hypot(view[0, 0], view[1, 0]))
    across, down = (((np.arange(size) - m) / unit).astype(np.float32) ** 2 * np.float32(-0.42) for m in middle)
    vignette = (down[:, None] + np.float32(1.02)) + across
    grain = _grain(size)[scene.backdrop % 61:][:size, scene.backdrop % 59:][:, :size] * np.float32(scene.grain)
    planes = []
    for plane in image:
        plane *= vignette
        plane += grain
        bright = np.maximum(plane, np.float32(200.0))  # up to 200 as it is, above slowly towards 270
        bright -= np.float32(130.0)
        np.divide(np.float32(4900.0), bright, out=bright)
        np.minimum(plane, np.float32(200.0), out=plane)
        bright -= np.float32(70.0)
        planes.append(cv2.subtract(plane, bright, dtype=cv2.CV_8U))
    return np.asarray(cv2.merge(planes))


def scenes(seed: int, count: int) -> list[Scene]:
    """`count` random scenes; scene i depends on seed and i only, so longer lists begin with the shorter ones."""
    return [draw_scene(np.random.Generator(np.random.Philox(key=[seed, i]))) for i in range(count)]


def frame_for(size: int, face_type: str) -> Frame:
    """The frame from which DFL would cut an aligned picture of `size` pixels nearly without enlarging it and mostly
    without leaving it.

    mark_only pictures are the frame itself (DFL does not align them).
    """
    if face_type == "mark_only":
        return Frame(size)
    crop = _CROP_MM[face_type]
    span = crop * (1.4 if crop < 150 else 1.26)
    return Frame(max(16, round(size * 0.96 * span / crop / 4) * 4), span, -0.12 if face_type == "head" else 0.0)


def truth(src: Identity, dst: Identity, seed: int, count: int, resolution: int, face_type: str) -> Truth:
    """`count` scenes of dst with the true swap of each; see `Truth`. seed as in `scenes`."""
    rows: list[tuple[Bytes, Bytes, Bytes, Bytes]] = []
    for scene in scenes(seed, count):
        image, mask, *_ = aligned(dst, scene, resolution, face_type)
        swap, swap_mask, *_ = aligned(src, scene, resolution, face_type)
        rows.append((image, swap, mask, swap_mask))
    image_stack, swap_stack, mask_stack, swap_mask_stack = (np.stack(column) for column in zip(*rows, strict=True))
    return Truth(_nchw(image_stack), _nchw(swap_stack), _nchw(mask_stack[..., None]), _nchw(swap_mask_stack[..., None]))


def _nchw(images: Bytes) -> Floats:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / 255.0
