"""The same samples made in three ways: by the reference (DFL's two interpolations), as workers make them with OpenCV,
and as a device makes them in torch. What tests of augmentation share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from core.augment import augment
from core.batch import SampleRequest
from core.drawn import colour_rows, draw
from core.imagelib import color_transfer, warp
from samplelib.prepare import kinds
from samplelib.process import process
from samplelib.sampling import generator

Pixels = dict[str, np.ndarray]
"""Kind -> what is prepared of a face, and `colours`, whose colours it gets."""


def chance(number: int) -> Any:
    return lambda purpose: generator(1, purpose, "src", number)


def by_opencv(request: SampleRequest, faces: list[Pixels], first: int = 0) -> Pixels:
    """Names -> (N, C, R, R), samples `first`..., one face after the other, as a worker does."""
    made = [process(face, request, chance(n), face) for n, face in enumerate(faces, first)]
    return {name: np.stack([sample[name] for sample in made]) for name in request.names}


def by_torch(request: SampleRequest, faces: list[Pixels], first: int = 0) -> Pixels:
    """The same of all faces at once."""
    stacked = {kind: np.stack([face[kind] for face in faces]) for kind in faces[0]}
    rows = None
    if request.ct_mode in color_transfer.BY_MATRIX:
        mode, pixels = request.ct_mode, request.resolution**2
        own, wanted = (
            [color_transfer.measure(p.astype(np.float32) / 255) for p in stacked[kind]] for kind in ("image", "colours")
        )
        rows = np.stack([colour_rows(mode, a, b, pixels) for a, b in zip(own, wanted, strict=True)])
    drawn = draw(request, [chance(number) for number in range(first, first + len(faces))], rows)
    given = {kind: torch.from_numpy(stacked[kind]) for kind in kinds(request)}
    reference = torch.from_numpy(stacked["colours"]) if "colours" in stacked else None
    return {name: array.numpy() for name, array in augment(request, given, drawn, reference).items()}


def by_reference(request: SampleRequest, faces: list[Pixels], first: int = 0) -> Pixels:
    """The same by `warp.apply`, without colours."""
    made: dict[str, list[np.ndarray]] = {name: [] for name in request.names}
    for number, face in enumerate(faces, first):
        drawn = warp.draw(
            chance(number)("affine"), chance(number)("bend") if request.random_warp else None, request.resolution,
            flip=request.flip, rotation=request.rotation, scale=request.scale, shift=request.shift,
        )  # fmt: skip
        for name in request.names:
            image = face[name if name in face else "image"].astype(np.float32) / 255
            one = warp.apply(drawn, image, bend=name == "warped", mask=image.ndim == 2)
            one = np.clip(np.atleast_3d(one).transpose(2, 0, 1), 0, 1)
            made[name].append(one / max(one.max(), 1e-9) if name == "mask_em" else one)
    return {name: np.stack(samples) for name, samples in made.items()}


WAYS: dict[str, Callable[..., Pixels]] = {"reference": by_reference, "opencv": by_opencv, "torch": by_torch}
