"""Every kind of model at the smallest size that draws: for tests that run over the registry."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.batch import ARRAYS, Batch, Side
from models import MODELS, Task

SIZES: dict[str, dict[str, Any]] = {
    "SAEHD": {"archi": "df-ud", "face_type": "wf", "ae_dims": 8, "e_dims": 4, "d_dims": 6, "d_mask_dims": 4},
    "AMP": {"face_type": "wf", "ae_dims": 8, "inter_dims": 12, "e_dims": 4, "d_dims": 6, "d_mask_dims": 4},
}
"""Smaller than the prompts allow: a stored model is believed."""


def small(name: str, seed: int = 0, training: bool = True, **changes: Any) -> Task:
    """Model `name`, 64 px, batches of 2, with other options where given."""
    spec = MODELS[name]
    stored = {"resolution": 64, "batch_size": 2, **SIZES[name]}
    return spec.build(spec.resolve(changes, stored), seed=seed, training=training)


def random_batch(task: Task, seed: int = 0, count: int = 2) -> Batch:
    """Noise in the arrays that the task's samples have."""
    rng = np.random.default_rng(seed)
    sides = {}
    for side, request in task.spec.requests(task.values).items():
        shapes = {name: (count, ARRAYS[name], request.resolution, request.resolution) for name in request.names}
        sides[side] = Side(**{name: rng.random(shape, np.float32) for name, shape in shapes.items()})
    return Batch(**sides)
