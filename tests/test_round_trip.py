"""Every architecture: train with everything that has a state of its own, save, load, train on as if never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import EVERYTHING, random_batch, small

from core.modeldir import ModelDir
from models import MODELS
from models.swap import SwapTask
from tests.test_saehd_golden import ARCHIS

KINDS: list[tuple[str, dict[str, Any]]] = [
    *(("SAEHD", {"archi": archi}) for archi in ARCHIS),
    ("AMP", {}),
    ("AMP", {"train_inters": True}),
]


def advance(task: SwapTask, until: int) -> None:
    while task.iteration < until:
        task.step(random_batch(task, seed=task.iteration))


@pytest.mark.parametrize(("name", "kind"), KINDS, ids=lambda given: "".join(map(str, getattr(given, "values", list)())))
def test_stopping_changes_nothing(tmp_path: Path, name: str, kind: dict[str, Any]) -> None:
    spec = MODELS[name]
    through = small(name, **EVERYTHING[name], **kind)
    assert isinstance(through, SwapTask)
    advance(through, 3)
    through.save(tmp_path, "a")
    directory = ModelDir(tmp_path, "a", name)
    unstored = {key: value for key, value in (EVERYTHING[name] | kind).items() if key not in through.data.options}
    again = spec.build(spec.resolve(unstored, stored=directory.read_data().options), seed=0)
    assert isinstance(again, SwapTask) and again.load(tmp_path, "a") == []
    for task in (through, again):
        advance(task, 5)
    one, two = through.parts(), again.parts()
    stems = {"GAN", "GAN_opt"} | ({"code_discriminator", "D_code_opt"} if "df" in kind.get("archi", "") else set())
    assert list(one) == list(two) and stems <= set(one)
    assert all(np.array_equal(array, two[stem][name]) for stem, part in one.items() for name, array in part.items())
    assert np.array_equal(through.data.loss_history.array(), again.data.loss_history.array())
    assert through.data.options == again.data.options
    assert {int(one[stem]["iters:0"]) for stem in through.optimizers} == {5}
