"""Every kind of model at the smallest size that draws: for tests that run over the registry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from core.batch import Batch, Side
from models import MODELS, ModelSpec, Task
from models.common import fixed
from models.xseg import make_spec

DIMS = {"ae_dims": 8, "e_dims": 4, "d_dims": 6, "d_mask_dims": 4}
SIZES: dict[str, dict[str, Any]] = {
    "SAEHD": {"archi": "df-ud", "face_type": "wf", **DIMS},
    "AMP": {"face_type": "wf", "inter_dims": 12, **DIMS},
    "SAEHDBW": {"archi": "liae-ud", "face_type": "wf", **DIMS},
    "Quick96": {},
    "Quick64": {},
    "XSeg": {},
}
"""Smaller than the prompts allow: a stored model is believed. Where sizes are settled, `spec_of` has smaller ones."""

GAN: dict[str, Any] = {"gan_power": 0.1, "gan_dims": 4, "gan_patch_size": 8, "lr_dropout": "y", "clipgrad": True}
HISTORY: dict[str, Any] = {"clipgrad": True, "clipgrad_mode": "history", "weight_decay": 0.1}
EVERYTHING: dict[str, dict[str, Any]] = {
    "SAEHD": GAN | {"true_face_power": 0.01, "eyes_mouth_prio": True, "face_style_power": 1.0, "bg_style_power": 1.0},
    "AMP": GAN | HISTORY | {"loss_function": "MS-SSIM+L1"},
    "SAEHDBW": GAN | HISTORY | {"loss_function": "MS-SSIM", "lr": 1e-4},
    "Quick96": HISTORY,
    "Quick64": {},
    "XSeg": HISTORY,
}
"""Options that switch on all that has a state of its own."""


def spec_of(name: str) -> ModelSpec:
    """The model, with a small network where its sizes are settled."""
    spec = make_spec(base=4) if name == "XSeg" else MODELS[name]
    settled = {row.key for row in spec.rows if row.ask == "fixed"}
    wanted = {key: value for key, value in (DIMS | {"resolution": 64}).items() if key in settled}
    return replace(spec, rows=tuple(row for row in spec.rows if row.key not in wanted) + fixed(**wanted))


def small(name: str, seed: int = 0, training: bool = True, **changes: Any) -> Task:
    """Model `name`, 64 px, batches of 2, with other options where given."""
    spec = spec_of(name)
    kept = {row.key for row in spec.rows if row.stored}
    stored = {"resolution": 64, "batch_size": 2, **SIZES[name]} | {k: v for k, v in changes.items() if k in kept}
    given = {key: value for key, value in changes.items() if key not in kept}
    return spec.build(spec.resolve(given, stored), seed=seed, training=training)


def random_batch(task: Task, seed: int = 0, count: int = 2) -> Batch:
    """Noise in the arrays that the task's samples have."""
    rng = np.random.default_rng(seed)
    sides = {}
    for side, request in task.spec.requests(task.values).items():
        sides[side] = Side(**{name: rng.random((count, *request.shape(name)), np.float32) for name in request.names})
    return Batch(**sides)
