"""Samples made on the device: whole batches warped, coloured and masked in torch.

What `samplelib.process` does to one face with OpenCV is done here to all faces of a side at once, from the same draws
(`core.drawn`), so a sample is the same within small differences: OpenCV rounds where it looks to 1/32 pixel and its
Lab to a quarter step, this does not (figures: docs/benchmarks.md). Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from core.batch import SampleRequest, Side
from core.drawn import POINTS, Drawn
from core.imagelib.warp import MIN_SIZE
from core.torchcolor import apply_hsv, in_channels, transfer
from core.upload import upload


@torch.no_grad()
def augment(request: SampleRequest, faces: Mapping[str, Tensor], drawn: Drawn, reference: Tensor | None) -> Side:
    """The arrays of `request.names`, each (N, C, R, R) float32 in [0, 1], BGR, on the device of the faces.

    faces: (N, R, R, 3) or (N, R, R) uint8 of the kinds that `samplelib.prepare.kinds(request)` names. reference:
    (N, R, R, 3) uint8, whose colours the samples get; needed unless ct_mode is none.
    """
    device = next(iter(faces.values())).device
    geometry = _Geometry(request.resolution, drawn, device)
    made: dict[str, Tensor] = {}
    if "warped" in request.names or "target" in request.names:
        image = to_float(faces["image"])
        if request.ct_mode != "none":
            if reference is None:
                raise ValueError(f"ct_mode {request.ct_mode} needs a picture to take colours from")
            params = None if drawn.colour is None else upload(drawn.colour, device)
            image = transfer(request.ct_mode, image, to_float(reference), params)
        if "target" in request.names:
            made["target"] = geometry.picture(in_channels(image, request.channels), bend=False)
        if "warped" in request.names:
            if drawn.hsv is not None:
                image = apply_hsv(image, upload(drawn.hsv, device))
            same = drawn.bends is None and drawn.hsv is None and "target" in made
            if not same:
                made["warped"] = geometry.picture(in_channels(image, request.channels), bend=True)
            else:
                made["warped"] = made["target"]
    masks = [name for name in ("mask", "mask_em") if name in request.names]
    if masks:
        together = geometry.masks(to_float(torch.stack([faces[name] for name in masks], -1)))
        made.update(zip(masks, together.split(1, 1), strict=True))
    if "mask_em" in made:
        top = made["mask_em"].amax((1, 2, 3), keepdim=True)
        made["mask_em"] = made["mask_em"] / torch.where(top > 0, top, 1.0)
    return Side(**{name: made[name] for name in request.names})


def to_float(images: Tensor) -> Tensor:
    """(N, C, R, R) float32 in [0, 1] of (N, R, R, C) uint8."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) * (1 / 255)


class _Geometry:
    """Bend, affine and flip of one batch, as `warp.apply_once`, below MIN_SIZE as `warp.apply`."""

    def __init__(self, size: int, drawn: Drawn, device: torch.device) -> None:
        self._size, self._work = size, max(size, MIN_SIZE)
        self._looks = _affine(upload(drawn.inverse, device), self._work)
        self._bend: Tensor | None = None
        if drawn.bends is not None and drawn.knots is not None:
            self._bend = _bend(upload(drawn.bends, device), upload(drawn.knots, device))

    def picture(self, images: Tensor, *, bend: bool) -> Tensor:
        """(N, C, R, R), interpolated cubically, going on beyond their border."""
        if not bend or self._bend is None:
            return self._resized(sample(self._enlarged(images, "bicubic"), self._looks, "bicubic", "border"), "bicubic")
        if self._work == self._size:
            # Where the affine looks, the bend's map says where to look in the picture.
            looks = sample(self._bend, self._looks, "bilinear", "border")
            return sample(images, looks, "bicubic", "border").clamp_(0, 1)
        bent = sample(self._enlarged(images, "bicubic"), self._bend, "bicubic", "zeros")
        return self._resized(sample(bent, self._looks, "bicubic", "border"), "bicubic")

    def masks(self, masks: Tensor) -> Tensor:
        """(N, C, R, R), interpolated linearly, 0 beyond their border."""
        return self._resized(sample(self._enlarged(masks, "bilinear"), self._looks, "bilinear", "zeros"), "bilinear")

    def _enlarged(self, images: Tensor, mode: str) -> Tensor:
        return images if self._work == self._size else _resize(images, self._work, mode)

    def _resized(self, images: Tensor, mode: str) -> Tensor:
        return (images if self._work == self._size else _resize(images, self._size, mode)).clamp_(0, 1)


def _resize(images: Tensor, size: int, mode: str) -> Tensor:
    return F.interpolate(images, (size, size), mode=mode, align_corners=False)


def sample(images: Tensor, looks: Tensor, mode: str, beyond: str) -> Tensor:
    """Images (N, C, H, H) at looks (N, 2, h, w): x and y in pixels. beyond: `zeros` or `border`."""
    grid = looks.permute(0, 2, 3, 1) * (2 / (images.shape[-1] - 1)) - 1
    return F.grid_sample(images, grid, mode=mode, padding_mode=beyond, align_corners=True)


def _affine(inverse: Tensor, size: int) -> Tensor:
    """(N, 2, S, S): where each pixel looks. Not a matrix product: those may be made at less than float32 on a card."""
    at = torch.arange(size, device=inverse.device, dtype=torch.float32)
    x, y, one = inverse[..., None, None].unbind(2)  # (N, 2, 1, 1)
    return x * at + y * at[:, None] + one


def _bend(grids: Tensor, knots: Tensor) -> Tensor:
    """(N, 2, W, W): the coarse grids (N, 9, 9) enlarged to every pixel; y is x transposed."""
    count, size = knots.shape
    across = knots[:, None, :].expand(count, size, size)
    between = torch.stack([across, across.transpose(1, 2)], -1) * (2 / (POINTS - 1)) - 1
    x = F.grid_sample(grids[:, None], between, mode="bilinear", padding_mode="border", align_corners=True)[:, 0]
    return torch.stack([x, x.transpose(1, 2)], 1)
