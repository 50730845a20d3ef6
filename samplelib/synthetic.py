"""Two made-up people (and as many more as you like): parametric 3D heads with exact landmarks, masks and true swaps.

Nobody's face is copied: geometry, skin and hair come from numbers and noise. Because pose, expression and light are
one `Scene` that any `Identity` can be rendered in, the result of a perfect face swap is known pixel by pixel, which no
set of photographs can offer. Heads: synthetic_head; paint: synthetic_paint; rays and light: synthetic_render; the rest
of the picture: synthetic_stage; DFL's files: synthetic_faceset.

    rendered = render(identity(0), draw_scene(np.random.default_rng(1)), 256)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from facelib.landmarks import transform_matrix
from samplelib.synthetic_head import GRID, REACH, Floats, head, lookup, shape
from samplelib.synthetic_paint import Bytes, paint
from samplelib.synthetic_person import Identity, Scene, draw_scene, identity
from samplelib.synthetic_render import Camera, cast, light_map
from samplelib.synthetic_stage import stage

__all__ = ["FRAME_MM", "Frame", "Identity", "Rendered", "Scene", "Truth", "aligned", "draw_scene", "frame_for",
           "identity", "render", "scenes", "true_swap", "truth"]

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
    if size < 160:  # fine features are thinner than a pixel: draw larger, then average
        big = render(who, scene, size * 2, span_mm, rise)
        small = cv2.resize(big.image, (size, size), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(big.face_mask, (size, size), interpolation=cv2.INTER_AREA)
        return Rendered(small, (big.landmarks + 0.5) / 2 - 0.5, mask)
    camera = Camera.of(scene, size, span_mm, rise)
    form = shape(head(who), scene)
    shade, normals = light_map(form, scene, camera.turn)
    hits = cast(form, normals, camera, size)
    texture = int(np.clip(camera.pixels * 2 * REACH * 95 * 1.1 // 64 * 64 + 64, 256, 1280))
    coat = paint(form, who, scene, texture)
    light = lookup(shade, _to_map(hits.u, hits.v, GRID))
    coloured = lookup(coat, _to_map(hits.u, hits.v, texture)).astype(np.float32)
    lit = coloured[..., :3] * light[..., :3] + light[..., 3:] * _gloss(scene)
    image = stage(who, scene, camera, size)
    left, top, right, bottom = hits.box
    patch = image[top:bottom, left:right]
    patch += (lit - patch) * hits.cover[..., None]
    mask = np.zeros((size, size), np.uint8)
    mask[top:bottom, left:right] = np.round(coloured[..., 3] * hits.cover)
    return Rendered(_develop(image, scene), camera.project(form.landmarks), mask)


def _to_map(u: Floats, v: Floats, size: int) -> Floats:
    scale, shift = size / (2 * REACH), size / 2 - 0.5
    return np.dstack([u * np.float32(scale) + np.float32(shift), v * np.float32(scale) + np.float32(shift)])


def _gloss(scene: Scene) -> Floats:
    return np.asarray(scene.key, np.float32) * np.float32(38.0)


@lru_cache(maxsize=4)
def _grain(size: int) -> Floats:
    """Film grain of unit spread, a little larger than a frame so that each frame takes another part."""
    return np.random.Generator(np.random.Philox(7)).standard_normal((size + 61, size + 61, 1), np.float32)


def _develop(image: Floats, scene: Scene) -> Bytes:
    """The camera's part: vignette, a film-like curve, grain."""
    size = image.shape[0]
    axis = (np.arange(size, dtype=np.float32) / size - 0.5) ** 2
    image *= (1.02 - 0.42 * (axis[:, None] + axis))[..., None]
    image += _grain(size)[scene.backdrop % 61:][:size, scene.backdrop % 59:][:, :size] * np.float32(scene.grain)
    bright = np.maximum(image - 200.0, 0.0)
    image -= bright * bright / (bright + 70.0)
    return np.clip(image, 0, 255).astype(np.uint8)


def true_swap(src: Identity, scene: Scene, size: int, span_mm: float = FRAME_MM, rise: float = 0.0) -> Rendered:
    """The scene of somebody else's frame with `src` in it: what a perfect swap would show."""
    return render(src, scene, size, span_mm, rise)


def scenes(seed: int, count: int) -> list[Scene]:
    """`count` random scenes; scene i depends on seed and i only, so longer lists begin with the shorter ones."""
    return [draw_scene(np.random.Generator(np.random.Philox(key=[seed, i]))) for i in range(count)]


def frame_for(size: int, face_type: str) -> Frame:
    """The frame from which an aligned picture of `size` pixels is cut nearly without enlarging it and mostly
    without leaving it.

    mark_only pictures are the frame itself (DFL does not align them).
    """
    if face_type == "mark_only":
        return Frame(size)
    crop = _CROP_MM[face_type]
    span = crop * (1.4 if crop < 150 else 1.26)
    return Frame(max(16, round(size * 0.96 * span / crop / 4) * 4), span, -0.12 if face_type == "head" else 0.0)


def aligned(rendered: Rendered, size: int, face_type: str) -> tuple[Bytes, Bytes, NDArray[np.float64]]:
    """A frame's face cut out as DFL does: image (size, size, 3), mask (size, size), matrix frame to aligned (2, 3)."""
    matrix = transform_matrix(rendered.landmarks, size, face_type)
    image = cv2.warpAffine(rendered.image, matrix, (size, size), flags=cv2.INTER_CUBIC)
    mask = cv2.warpAffine(rendered.face_mask, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return image, mask, matrix


def truth(src: Identity, dst: Identity, seed: int, count: int, resolution: int, face_type: str) -> Truth:
    """`count` scenes of dst with the true swap of each; see `Truth`. seed as in `scenes`."""
    frame = frame_for(resolution, face_type)
    rows: list[tuple[Bytes, Bytes, Bytes, Bytes]] = []
    for scene in scenes(seed, count):
        image, mask, _ = aligned(render(dst, scene, *frame), resolution, face_type)
        swap, swap_mask, _ = aligned(true_swap(src, scene, *frame), resolution, face_type)
        rows.append((image, swap, mask, swap_mask))
    image_stack, swap_stack, mask_stack, swap_mask_stack = (np.stack(column) for column in zip(*rows, strict=True))
    return Truth(_nchw(image_stack), _nchw(swap_stack), _nchw(mask_stack[..., None]), _nchw(swap_mask_stack[..., None]))


def _nchw(images: Bytes) -> Floats:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / 255.0
