"""Preview pages: what a model draws, as rows of cells. AMP's own are in models/amp.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from core.batch import Batch, Captions, Page
from core.nn import CHANNELS_LAST
from models.running import preview_rows

if TYPE_CHECKING:
    from models.swap import SwapTask

WIDE = 256  # above this side a page has two columns


def swap_pages(task: SwapTask, batch: Batch) -> list[Page]:
    """DFL's pages: `SAEHD`, `SAEHD masked`; above 256 px three of two columns for each, unless `force_full_preview`.

    Cells: S and D the targets, SS and DD their reconstructions, SD the swap. Masked: S, D by their own masks, DD by
    its drawn mask, SD by both drawn masks (for head by src's only), SS whole.
    """
    net = task.net
    count = preview_rows(task.values, len(batch.src.target))
    src, dst, src_mask, dst_mask = (
        task.upload(batch[side][name][:count], name).contiguous(memory_format=CHANNELS_LAST)
        for name in ("target", "mask")
        for side in ("src", "dst")
    )
    ss, _ = net.decode(net.code(src, "src"), "src")
    dst_code, swap_code = net.codes_of_dst(dst)
    dd, dd_mask = net.decode(dst_code, "dst")
    sd, sd_mask = net.decode(swap_code, "src")
    swap_mask = swap_area(task, dd_mask, sd_mask)
    whole = {"S": src, "SS": ss, "D": dst, "DD": dd, "SD": sd}
    masked = {"S": src * src_mask, "SS": ss, "D": dst * dst_mask, "DD": dd * dd_mask, "SD": sd * swap_mask}
    return [
        (title, rows_of([(masked if kind else whole)[column] for column in columns]))
        for title, kind, columns in _layout(task)
    ]


def swap_captions(task: SwapTask, batch: Batch) -> Captions:
    """The names of the faces themselves, not of what is drawn of them."""
    rows = range(preview_rows(task.values, len(batch.src.target)))
    names = {"S": [batch.src.name_of(row) for row in rows], "D": [batch.dst.name_of(row) for row in rows]}
    return {
        title: [[names[column][row] if column in names else "" for column in columns] for row in rows]
        for title, _, columns in _layout(task)
    }


def _layout(task: SwapTask) -> list[tuple[str, str, tuple[str, ...]]]:
    """Title, kind and columns of every page."""
    layout: dict[str, tuple[str, ...]] = {"": ("S", "SS", "D", "DD", "SD")}
    if task.values["resolution"] > WIDE and not task.values.get("force_full_preview"):
        layout = {" src-src": ("S", "SS"), " dst-dst": ("D", "DD"), " pred": ("D", "SD")}
    return [
        (task.spec.name + kind + ending, kind, columns)
        for kind in ("", " masked")
        for ending, columns in layout.items()
    ]


def swap_area(task: SwapTask, dst_mask: Tensor, src_mask: Tensor) -> Tensor:
    """The mask of a swap: what both masks cover, for head what src's does."""
    return src_mask if task.values["face_type"] == "head" else dst_mask * src_mask


def rows_of(columns: list[Tensor]) -> list[list[np.ndarray]]:
    """Columns of images (N, C, H, W) [0, 1], of 3 channels or grey -> N rows of (H, W, 3) uint8 cells."""
    pictures = [
        (column.clamp(0, 1) * 255).to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        for column in columns
    ]
    return [list(row) for row in zip(*pictures, strict=True)]
