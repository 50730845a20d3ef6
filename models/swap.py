"""SwapTask: trains any network that draws two persons from codes, with DFL's losses and optimizers.

One step is one forward of both sides through the shared parts, one loss over both, one backward, one update; the
swap itself is never drawn while training. Losses are means over the batch for display, the gradient is of their sum
over the batch (DFL), so a larger batch takes larger steps into the same optimizer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core import losses
from core.batch import ARRAYS, Batch, Page, Swap
from core.modeldir import Part
from core.nn import CHANNELS_LAST, load_state, misfit, named_tensors, state
from core.optim import AdaBelief, LrDropout, Optimizer, RMSprop
from core.options import Values
from models.spec import ModelSpec, PartError, Task

SIDES = ("src", "dst")
LR_COS = 500  # DFL: the period of the learning rate where lr dropout is on
CELLS_HEIGHT = 800  # pixels of a preview page
WIDE = 256  # above this side a page has two columns


class SwapNet(nn.Module):
    """Parts and wiring of a swap network; children are the part files, in DFL's order.

    Images are (N, C, H, W) in [0, 1], channels_last; a decoder returns face and mask.
    """

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.named_children())

    @abstractmethod
    def code(self, x: Tensor, side: str) -> Tensor:
        """The code of images of one side."""

    @abstractmethod
    def decode(self, code: Tensor, side: str) -> tuple[Tensor, Tensor]:
        """Face and mask that `side`'s decoder draws."""

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """The codes of a batch whose first half is src and second half dst: shared parts run once."""

    @abstractmethod
    def decode_both(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Faces and masks of `codes`, each half by its own side's decoder."""

    @abstractmethod
    def swap_code(self, x: Tensor) -> Tensor:
        """The code of dst images from which src's decoder draws the swap."""

    def trained(self, values: Values) -> tuple[str, ...]:
        """The parts that training moves; the others' moments stay in the optimizer file."""
        return self.parts


class SwapTask(Task):
    """A swap network with its losses and optimizer on one device. `make_net(values, generator)` builds the network."""

    optional_parts = ("src_dst_opt",)
    loss_names = ("src_loss", "dst_loss")

    def __init__(
        self,
        spec: ModelSpec,
        values: Values,
        make_net: Callable[[Values, torch.Generator], SwapNet],
        device: Any = "cpu",
        precision: str = "full",
        seed: int = 0,
    ) -> None:
        super().__init__(spec, values)
        self.device = torch.device(device)
        self.precision = precision
        self.net = make_net(values, torch.Generator().manual_seed(seed)).to(self.device)
        self.network_parts = self.net.parts
        self.optimizer = self._make_optimizer(seed)

    def _make_optimizer(self, seed: int) -> Optimizer:
        values = self.values
        trained_parts = self.net.trained(values)
        for part in self.net.parts:
            self.net.get_submodule(part).requires_grad_(part in trained_parts)
        weights = {name.replace(".", "/"): weight for name, weight in self.net.named_parameters()}
        slow = values["lr_dropout"] != "n"
        return (AdaBelief if values["adabelief"] else RMSprop)(
            weights,
            trained=[name for name in weights if name.partition("/")[0] in trained_parts],
            clip_norm=1.0 if values["clipgrad"] else 0.0,
            lr_cos=LR_COS if slow else 0,
            dropout=LrDropout(seed) if slow else None,
        )

    def upload(self, array: Any, name: str) -> Tensor:
        """The array `name` of a sample, (N, C, H, W), on the task's device in float32. Raises ValueError for another
        shape or for whole numbers, which would not be [0, 1]."""
        tensor = array if isinstance(array, Tensor) else torch.from_numpy(np.require(array, requirements=["C", "W"]))
        wanted = (ARRAYS[name], self.values["resolution"], self.values["resolution"])
        if tuple(tensor.shape[1:]) != wanted or not tensor.is_floating_point():
            sizes = ", ".join(map(str, wanted))
            raise ValueError(f"{name}: got {tuple(tensor.shape)} {tensor.dtype}, expected (N, {sizes}) float, [0, 1].")
        return tensor.to(self.device, torch.float32, non_blocking=True)

    def both(self, batch: Batch, name: str) -> Tensor:
        """(2N, C, H, W): the arrays `name` of src, then of dst. Raises ValueError for sides of unequal size."""
        src, dst = (self.upload(batch[side][name], name) for side in SIDES)
        if len(src) != len(dst):
            raise ValueError(f"{name}: got {len(src)} faces of src and {len(dst)} of dst, both sides must be alike.")
        return torch.cat((src, dst))

    def train_step(self, batch: Batch) -> dict[str, Any]:
        self.optimizer.zero_grad()
        per_sample = self.losses(batch)
        per_sample.sum().backward()
        self.optimizer.step()
        src, dst = per_sample.detach().chunk(2)
        return {"src_loss": src.mean(), "dst_loss": dst.mean()}

    def losses(self, batch: Batch) -> Tensor:
        """(2N,) losses, src then dst, with their graph."""
        resolution = self.values["resolution"]
        target, mask = self.both(batch, "target"), self.both(batch, "mask")
        if self.values["blur_out_mask"]:
            target = losses.blur_out_mask(target, mask, resolution)
        warped = self.both(batch, "warped").contiguous(memory_format=CHANNELS_LAST)
        face, drawn_mask = self.net.decode_both(self.net.codes(warped))
        face, shown, compared = face.contiguous(), target, face
        if self.values["masked_training"]:
            soft = losses.mask_blur(mask, resolution)
            shown, compared = target * soft, face * soft
        total = losses.image_loss(shown, compared, resolution) + losses.mask_loss(mask, drawn_mask)
        if self.values["eyes_mouth_prio"]:
            total = total + losses.eyes_mouth_loss(target, face, self.both(batch, "mask_em"))
        return total

    @torch.inference_mode()
    def swap(self, images: Any) -> Swap:
        """The swap of dst images, on the task's device."""
        x = self.upload(images, "target").contiguous(memory_format=CHANNELS_LAST)
        code = self.net.swap_code(x)
        face, src_mask = self.net.decode(code, "src")
        return Swap(face, src_mask, self.net.decode(self.net.code(x, "dst"), "dst")[1])

    @torch.inference_mode()
    def preview(self, batch: Batch) -> list[Page]:
        """DFL's pages: `SAEHD`, `SAEHD masked`; above 256 px three of two columns for each.

        Cells: S and D the targets, SS and DD their reconstructions, SD the swap. Masked: S, D by their own masks, DD by
        its drawn mask, SD by both drawn masks (for head by src's only), SS whole.
        """
        resolution, title = self.values["resolution"], self.spec.name
        count = min(4, CELLS_HEIGHT // resolution, len(batch.src.target))
        src, dst, src_mask, dst_mask = (
            self.upload(batch[side][name][:count], name).contiguous(memory_format=CHANNELS_LAST)
            for name in ("target", "mask")
            for side in SIDES
        )
        ss, _ = self.net.decode(self.net.code(src, "src"), "src")
        dd, dd_mask = self.net.decode(self.net.code(dst, "dst"), "dst")
        sd, sd_mask = self.net.decode(self.net.swap_code(dst), "src")
        swap_mask = sd_mask if self.values["face_type"] == "head" else dd_mask * sd_mask
        whole = {"S": src, "SS": ss, "D": dst, "DD": dd, "SD": sd}
        masked = {"S": src * src_mask, "SS": ss, "D": dst * dst_mask, "DD": dd * dd_mask, "SD": sd * swap_mask}
        layout: dict[str, tuple[str, ...]] = {"": ("S", "SS", "D", "DD", "SD")}
        if resolution > WIDE:
            layout = {" src-src": ("S", "SS"), " dst-dst": ("D", "DD"), " pred": ("D", "SD")}
        return [
            (title + kind + ending, rows_of([cells[column] for column in columns]))
            for kind, cells in (("", whole), (" masked", masked))
            for ending, columns in layout.items()
        ]

    def parts(self) -> dict[str, Part]:
        return {
            **{part: state(self.net.get_submodule(part)) for part in self.net.parts},
            "src_dst_opt": self.optimizer.state(),
        }

    def load_parts(self, parts: Mapping[str, Part]) -> list[str]:
        """Raises PartError naming file, tensor, expected and found, before anything is changed."""
        for stem, part in parts.items():
            if stem in self.net.parts:
                reason = misfit(named_tensors(self.net.get_submodule(stem)), part)
            else:
                reason = self.optimizer.misfit(part)
            if reason:
                raise PartError(f"{stem}.npy: {reason}. Is it a file of another model? Put the right one in its place.")
        for stem, part in parts.items():
            if stem in self.net.parts:
                load_state(self.net.get_submodule(stem), part)
        if "src_dst_opt" not in parts:
            return ["src_dst_opt.npy is missing: the optimizer starts anew."]
        note = self.optimizer.load_state(parts["src_dst_opt"])
        return [note] if note else []


def rows_of(columns: list[Tensor]) -> list[list[np.ndarray]]:
    """Columns of images (N, C, H, W) [0, 1] -> N rows of (H, W, C) uint8 cells."""
    pictures = [
        (column.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy() for column in columns
    ]
    return [list(row) for row in zip(*pictures, strict=True)]
