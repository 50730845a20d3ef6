"""Whether the files of a model can hold the network that its options describe, told before any of it is made.

A record that asks for another network than its parts hold is refused when they are read, naming the tensor. But by then
that network lies in memory, and a damaged or hostile record may ask for one that the machine does not survive.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from core.modeldir import ModelDir, ModelError
from core.nn import misfit, named_tensors
from core.options import Values
from models.spec import ModelSpec, PartError, Task

ROOM = 64 << 20


def check_sizes(spec: ModelSpec, values: Values, directory: ModelDir, fresh: Collection[str] = ()) -> None:
    """Raises PartError if the network takes far more memory than its parts, together, have on the disk: four times as
    much and 64 MB. Parts without a file, and those that start `fresh`, are not looked at."""
    with torch.device("meta"):  # shapes without memory
        task = spec.build(values, device="meta", training=False)
    wanted = size = 0
    for stem in set(task.network_parts) - set(fresh) - set(directory.missing(task.network_parts)):
        size += directory.part_path(stem).stat().st_size
        wanted += sum(4 * weight.numel() for weight in task.modules[stem].parameters())
    if wanted > 4 * size + ROOM:
        known = directory.data_path
        told = f"{known.name} describes a network" if known.exists() else "The options describe a network"
        raise PartError(
            f"{told} of {wanted / 1e6:,.0f} MB, its parts have {size / 1e6:,.1f} MB: they are of different models, or "
            f"damaged.{_first_misfit(task, directory)} Put the right ones together, or restore a backup."
        )


def _first_misfit(task: Task, directory: ModelDir) -> str:
    """The first tensor whose shape is another; empty where no part tells."""
    for stem in task.network_parts:
        try:
            part = directory.read_part(stem)
        except ModelError:  # what is said of the sizes is what matters
            continue
        if part is not None and (reason := misfit(named_tensors(task.modules[stem]), part)):
            return f" {directory.part_path(stem).name}: {reason}."
    return ""
