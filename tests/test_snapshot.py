"""Snapshots hold what DFL's files hold, in memory that is used again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from core.nn import to_dfl
from core.optim import AdaBelief
from core.snapshot import Snapshot
from models import MODELS

SIZES = {"resolution": 64, "ae_dims": 32, "e_dims": 16, "d_dims": 16, "d_mask_dims": 16}


def tensors() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    kernel = torch.randn(3, 5, 2, 2, generator=generator)
    flat = torch.randn(60, generator=generator)
    return [
        kernel,
        kernel.contiguous(memory_format=torch.channels_last),
        flat.view(3, 2, 2, 5).permute(0, 3, 1, 2),  # as the one buffer of an optimizer holds it
        torch.nn.Parameter(torch.randn(7, 3, generator=generator)),
        torch.randn(4, generator=generator).to(torch.float16),
        torch.tensor(2.5),
    ]


def test_the_same_arrays_as_for_a_file() -> None:
    snapshot = Snapshot()
    for tensor in tensors():
        held, wanted = snapshot(tensor), to_dfl(tensor)
        assert held.dtype == np.float32 and held.shape == wanted.shape and (held == wanted).all()


def test_memory_is_used_again_and_nothing_of_it_is_the_models() -> None:
    snapshot, given = Snapshot(), tensors()
    first = [snapshot(tensor) for tensor in given]
    before = [array.copy() for array in first]
    with torch.no_grad():
        for tensor in given:
            tensor.add_(1)
    assert all((held == kept).all() for held, kept in zip(first, before, strict=True))
    snapshot.restart()
    second = [snapshot(tensor) for tensor in given]
    for held, again, tensor in zip(first, second, given, strict=True):
        assert np.shares_memory(held, again) and (again == to_dfl(tensor)).all()


def test_a_model_that_changed_gets_other_memory() -> None:
    snapshot, given = Snapshot(), tensors()
    held = [snapshot(tensor) for tensor in given][1]
    for changed in ([*given[:2], torch.ones(9, 9), *given[3:]], given[:2]):
        snapshot.restart()
        arrays = [snapshot(tensor) for tensor in changed]
        assert all((array == to_dfl(tensor)).all() for array, tensor in zip(arrays, changed, strict=True))
        assert np.shares_memory(arrays[1], held)


def test_a_transposed_kernel_keeps_its_own_order() -> None:
    """The same shape in another memory order is not the same memory."""
    snapshot, kernel = Snapshot(), torch.randn(3, 5, 2, 2)
    for order in (kernel, kernel.contiguous(memory_format=torch.channels_last), kernel):
        snapshot.restart()
        assert (snapshot(order) == to_dfl(kernel)).all()


@pytest.mark.parametrize("archi", ["df", "liae-udtc"])
def test_a_whole_model(archi: str) -> None:
    options = {**SIZES, "archi": archi, "gan_power": 0.1, "gan_patch_size": 8, "gan_dims": 4}
    spec = MODELS["SAEHD"]
    task, snapshot = spec.build(spec.resolve(options)), Snapshot()
    for _ in range(2):
        snapshot.restart()
        copied, wanted = task.parts(snapshot), task.parts()
        assert [*copied] == [*wanted] and all([*part] == [*wanted[stem]] for stem, part in copied.items())
        assert all((part[name] == wanted[stem][name]).all() for stem, part in copied.items() for name in part)


def test_an_optimizer_of_flat_buffers() -> None:
    weights = {"a/w": torch.nn.Parameter(torch.randn(3, 5, 2, 2)), "a/b": torch.nn.Parameter(torch.randn(3))}
    optimizer = AdaBelief(weights, flat=True)
    for weight in weights.values():
        assert weight.grad is not None
        weight.grad.normal_()
    optimizer.step()
    copied, wanted = optimizer.state(Snapshot()), optimizer.state()
    assert list(copied) == list(wanted) and all((copied[name] == wanted[name]).all() for name in wanted)
