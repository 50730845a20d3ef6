"""Recipe: what the trainings of swap networks differ in, besides network and options. `models.swap` does the rest.

A new kind of model is a SwapNet, rows and a Recipe; a difference that no model had before is one more field here, with
a default that leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core import losses
from core.batch import Batch, Captions, Page
from core.options import Values
from models.adversary import Adversary
from models.net import SwapNet
from models.terms import Drawn, Inputs

if TYPE_CHECKING:
    from models.swap import SwapTask


@dataclass(frozen=True)
class Recipe:
    """make_net(values, generator): the network, its weights drawn from the generator. make_adversaries(values, net,
    generator): what stands against it, by the stem of its file. pages(task, batch): the preview; captions(task, batch):
    names of the faces on it.

    beside(values, inputs, drawn): what the gradient follows besides the losses that are displayed, terms of (N,) or
    (2N,) each, of the sides that are drawn. both_scales: DSSIM at two scales below 256 px too.
    judges_dst: whether the GAN sees dst's faces as well as src's. lr_cos: period of the learning rate in iterations
    where lr dropout is on, 0 for none. soft_mask: of masks (N, 1, H, W) and the resolution, where a masked loss looks.
    unwarped_every: every so many iterations the batch of the step before is trained on once more, with its targets as
    input; 0 for never.
    """

    make_net: Callable[[Values, torch.Generator], SwapNet]
    make_adversaries: Callable[[Values, SwapNet, torch.Generator], dict[str, Adversary]]
    pages: Callable[[SwapTask, Batch], list[Page]]
    captions: Callable[[SwapTask, Batch], Captions]
    beside: Callable[[Values, Inputs, Drawn], list[Tensor]]
    both_scales: bool = False
    judges_dst: bool = False
    lr_cos: int = 500
    soft_mask: Callable[[Tensor, int], Tensor] = losses.mask_blur
    unwarped_every: int = 0
