"""Every architecture: train with everything that has a state of its own, save, load, train on as if never stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.modeldir import ModelDir
from models.swap import SwapTask
from tests.test_saehd_golden import ARCHIS, SPEC, random_batch, small

EVERYTHING = {
    "gan_power": 0.1, "gan_dims": 4, "gan_patch_size": 8, "true_face_power": 0.01, "lr_dropout": "y", "clipgrad": True,
    "eyes_mouth_prio": True, "face_style_power": 1.0, "bg_style_power": 1.0,
}  # fmt: skip


def advance(task: SwapTask, until: int) -> None:
    while task.iteration < until:
        task.step(random_batch(seed=task.iteration))


@pytest.mark.parametrize("archi", ARCHIS)
def test_stopping_changes_nothing(tmp_path: Path, archi: str) -> None:
    through = small(archi, **EVERYTHING)
    advance(through, 5)
    through.save(tmp_path, "a")
    directory = ModelDir(tmp_path, "a", "SAEHD")
    again = SPEC.build(SPEC.resolve({}, stored=directory.read_data().options), seed=0)
    assert again.load(tmp_path, "a") == []
    for task in (through, again):
        advance(task, 8)
    one, two = through.parts(), again.parts()
    stems = {"GAN", "GAN_opt"} | ({"code_discriminator", "D_code_opt"} if archi.startswith("df") else set())
    assert list(one) == list(two) and stems <= set(one)
    assert all(np.array_equal(array, two[stem][name]) for stem, part in one.items() for name, array in part.items())
    assert np.array_equal(through.data.loss_history.array(), again.data.loss_history.array())
    assert through.data.options == again.data.options
    assert {int(one[stem]["iters:0"]) for stem in through.optimizers} == {8}
