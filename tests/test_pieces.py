"""A batch in pieces, one side after the other: the same gradients, losses and codes as all at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from core.batch import Batch, Side
from models.spec import Task, pieces
from tests.small_models import EVERYTHING, SIZES, random_batch, small

EXACT = 1e-5


def gradients(task: Task) -> dict[str, torch.Tensor]:
    found = {}
    for stem, module in task.modules.items():
        for name, weight in module.named_parameters():
            if weight.grad is not None:
                found[f"{stem}/{name}"] = weight.grad.detach().clone()
    return found


def one_step(name: str, steps: int = 1, **changes: Any) -> tuple[dict[str, float], dict[str, torch.Tensor], Task]:
    """Of four faces a side, whatever the pieces. The seed is one where no activation lies so near to its threshold that
    rounding puts it on the other side, as it does in one of some twenty."""
    task = small(name, seed=int(name != "XSeg"), **EVERYTHING[name] | changes)
    told: dict[str, float] = {}
    for number in range(steps):
        told = {key: float(loss) for key, loss in task.step(random_batch(task, number, count=4)).items()}
    return told, gradients(task), task


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest relative L2 distance of a part's gradients."""
    assert a.keys() == b.keys() and a
    worst = 0.0
    for part in {name.partition("/")[0] for name in a}:
        names = [name for name in a if name.partition("/")[0] == part]
        one, two = (torch.cat([grads[name].flatten() for name in names]).double() for grads in (a, b))
        worst = max(worst, float((one - two).norm() / one.norm()))
    return worst


WAYS = [
    {"accumulate": 2, "batch_size": 2},
    {"accumulate": 4, "batch_size": 1, "keep_graph": False},
    {"keep_graph": False},
    {"checkpointing": True},
    {"accumulate": 2, "batch_size": 2, "checkpointing": True, "keep_graph": False},
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: ",".join(f"{k}={v}" for k, v in way.items()))
@pytest.mark.parametrize("name", SIZES)
def test_pieces_have_the_gradients_of_the_whole(name: str, way: dict[str, Any]) -> None:
    way = {key: value for key, value in way.items() if name != "XSeg" or key != "keep_graph"}
    if not way:
        pytest.skip("XSeg has one side")
    told, whole, task = one_step(name)
    parts_told, parts, other = one_step(name, **way)
    assert distance(whole, parts) < EXACT
    assert parts_told == pytest.approx(told, rel=EXACT)
    assert float(other.health["contrast"]) == pytest.approx(float(task.health["contrast"]), rel=1e-4)


def test_pieces_are_views_of_about_equal_size() -> None:
    faces = np.arange(7, dtype=np.float32)
    cut = pieces(Batch(src=Side(target=faces), dst=Side(target=faces)), 3)
    assert [len(piece.src.target) for piece in cut] == [3, 3, 1]
    assert all(np.shares_memory(piece.dst.target, faces) for piece in cut)
    assert [len(piece.src.target) for piece in pieces(Batch(src=Side(target=faces[:2])), 5)] == [1, 1]
    with pytest.raises(ValueError, match="7 faces of src and 6 faces of dst"):
        pieces(Batch(src=Side(target=faces), dst=Side(target=faces[:6])), 2)
