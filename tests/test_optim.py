"""Optimizers step by step against DFL's recordings, and their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core import dflfile, optim
from core.lrdropout import BLOCK, KEPT, POOL
from core.nn import from_dfl, to_dfl
from core.optim import AdaBelief, LrDropout, Optimizer, RMSprop

CASES = ["", "_clip1", "_lr1e-2", "_lrcos5", "_lrdropout"]
KINDS: dict[str, type[Optimizer]] = {"adabelief": AdaBelief, "rmsprop": RMSprop}


class Recorded(LrDropout):
    """The masks DFL drew."""

    def __init__(self, masks: Any, tensors: int) -> None:
        super().__init__(0)
        self.masks, self.tensors = masks, tensors

    def begin(self, iteration: int, sizes: Sequence[int], device: torch.device) -> None:
        assert len(sizes) == self.tensors
        self.step = iteration - 1

    def moves(self, tensor: int, start: int, count: int, out: torch.Tensor) -> torch.Tensor:
        mask = from_dfl(self.masks[f"mask_{self.step}_{tensor}"])
        return (mask.permute(0, 2, 3, 1) if mask.dim() == 4 else mask).reshape(-1)[start : start + count].float()


def parameter(array: np.ndarray) -> torch.nn.Parameter:
    tensor = from_dfl(array)
    return torch.nn.Parameter(tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_steps_like_dfl(golden: Path, kind: str, case: str) -> None:
    recorded = np.load(golden / "ops" / f"{kind}{case}.npz")
    hyper = json.loads(str(recorded["hyper"]))
    weights = {f"net/v{i}": parameter(recorded[f"w0_{i}"]) for i in range(3)}
    optimizer = KINDS[kind](
        weights,
        lr=hyper["lr"],
        clip_norm=hyper.get("clipnorm", 0.0),
        lr_cos=hyper.get("lr_cos", 0),
        dropout=Recorded(recorded, 3) if "lr_dropout" in hyper else None,
    )
    for step in range(hyper["steps"]):
        for i, weight in enumerate(weights.values()):
            start = recorded[f"w_{step}_{i}" if step else f"w0_{i}"]
            with torch.no_grad():
                weight.copy_(from_dfl(start))
            weight.grad = parameter(recorded[f"g_{step}_{i}"]).detach()
        optimizer.step()
        for i, weight in enumerate(weights.values()):
            # With lr_cos DFL reads the step counter while another thread counts it up: only steps that saw it counted.
            if "cos_step_offset" not in recorded or recorded["cos_step_offset"][step, i] == 1:
                np.testing.assert_allclose(to_dfl(weight), recorded[f"w_{step + 1}_{i}"], rtol=1e-5, atol=2e-7)
    saved = dflfile.load(golden / "ops" / f"{kind}{case}.npy")
    state = optimizer.state()
    assert list(state) == list(saved)
    for name, array in state.items():
        assert array.dtype == saved[name].dtype
        assert array.shape == saved[name].shape
        np.testing.assert_allclose(array, saved[name], rtol=2e-5, atol=1e-9)


def make(kind: type[Optimizer], seed: int = 0, **options: Any) -> tuple[dict[str, torch.nn.Parameter], Optimizer]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a/w/weight": (6, 5, 3, 3), "a/w/bias": (6,), "b/d/weight": (700, 401)}
    weights = {
        name: torch.nn.Parameter(
            torch.randn(shape, generator=generator).contiguous(
                memory_format=torch.channels_last if len(shape) == 4 else torch.contiguous_format
            )
        )
        for name, shape in shapes.items()
    }
    return weights, kind(weights, **options)


def train(weights: dict[str, torch.nn.Parameter], optimizer: Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        sum((weight * weight).sum() + weight.sum() for weight in weights.values()).backward()  # type: ignore[union-attr]
        optimizer.step()


@pytest.mark.parametrize("clip_norm", [0.0, 1.0, 1e-4, 1e-21, 1e-36])
@pytest.mark.parametrize("kind", KINDS.values())
def test_flat_buffers_and_chunks_step_alike(kind: type[Optimizer], clip_norm: float) -> None:
    results = []
    for flat in (False, True):
        weights, optimizer = make(kind, lr=1e-2, clip_norm=clip_norm, lr_cos=500, flat=flat)
        train(weights, optimizer, 3)
        results.append({**{name: to_dfl(weight) for name, weight in weights.items()}, **optimizer.state()})
    for name, array in results[0].items():
        moment = name not in weights
        atol = 1e-7 * (clip_norm or 1.0) if moment else 1e-7
        np.testing.assert_allclose(array, results[1][name], rtol=1e-5, atol=atol, err_msg=name)


@pytest.mark.parametrize("flat", [False, True])
def test_resting_weights_keep_their_moments_in_the_file(flat: bool) -> None:
    weights, optimizer = make(AdaBelief, trained=["a/w/weight", "a/w/bias"], flat=flat)
    before = weights["b/d/weight"].detach().clone()
    train(weights, optimizer, 2)
    assert torch.equal(weights["b/d/weight"], before)
    state = optimizer.state()
    assert not state["ms_b/d/weight_0:0"].any()
    assert state["ms_a/w/weight_0:0"].any()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", KINDS.values())
def test_a_reloaded_optimizer_goes_on_as_if_never_stopped(kind: type[Optimizer], flat: bool) -> None:
    weights, optimizer = make(kind, dropout=LrDropout(5), lr_cos=500, flat=flat)
    train(weights, optimizer, 2)
    others, resumed = make(kind, dropout=LrDropout(5), lr_cos=500, flat=flat)
    with torch.no_grad():
        for name, weight in others.items():
            weight.copy_(weights[name])
    assert resumed.load_state(dflfile.load(dflfile.dumps(optimizer.state()))) == ""
    for pair in ((weights, optimizer), (others, resumed)):
        train(*pair, 2)
    assert resumed.iterations == 4
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())


def test_a_file_of_the_other_optimizer_gives_its_count_only() -> None:
    weights, optimizer = make(RMSprop)
    train(weights, optimizer, 3)
    _, other = make(AdaBelief)
    assert "fresh moments" in other.load_state(optimizer.state())
    assert other.iterations == 3
    assert not any(array.any() for name, array in other.state().items() if name != "iters:0")


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("ms_a/w/bias_0:0", np.zeros(7, np.float32), r"ms_a/w/bias_0:0: expected \(6,\) float32, found \(7,\)"),
        ("vs_a/w/bias_0:0", None, "vs_a/w/bias_0:0 is missing"),
        ("iters:0", None, "iters:0"),
        ("iters:0", np.float32(3), "iters:0"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(name: str, array: Any, told: str) -> None:
    weights, optimizer = make(AdaBelief)
    train(weights, optimizer, 1)
    before = optimizer.state()
    found = {key: value for key, value in (before | {name: array}).items() if value is not None}
    with pytest.raises(ValueError, match=told):
        optimizer.load_state(found)
    assert optimizer.iterations == 1
    assert all(np.array_equal(value, before[key]) for key, value in optimizer.state().items())


def test_a_missing_gradient_is_named() -> None:
    weights, optimizer = make(AdaBelief)
    weights["a/w/bias"].sum().backward()
    with pytest.raises(RuntimeError, match="a/w/weight has no gradient"):
        optimizer.step()


def test_lr_dropout_moves_three_tenths_drawn_anew() -> None:
    dropout, count, share = LrDropout(7), 1 << 20, KEPT / 256
    masks = []
    for iteration in (1, 2):
        dropout.begin(iteration, [count, count], torch.device("cpu"))
        for tensor in (0, 1):
            moves = dropout.moves(tensor, 0, count, torch.empty(count))
            assert torch.equal(moves[BLOCK : 2 * BLOCK], dropout.moves(tensor, BLOCK, BLOCK, torch.empty(0)))
            masks.append(moves.double() - share)
    # So many of them are independent.
    spread = (share * (1 - share) / POOL) ** 0.5
    for i, mask in enumerate(masks):
        assert set(mask.unique().tolist()) == {-share, 1 - share}
        assert abs(mask.mean()) < 5 * spread
        for lag in (1, 2, 3, 4, 8, 64, 1024):
            assert abs((mask[lag:] * mask[:-lag]).mean()) < 5 * spread**2 * POOL**0.5, f"neighbours {lag} apart agree"
        for other in masks[:i]:
            assert abs((mask * other).mean()) < 5 * spread**2 * POOL**0.5


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", KINDS.values())
def test_lr_dropout_holds_back_updates_not_moments(kind: type[Optimizer], flat: bool) -> None:
    weights, optimizer = make(kind, lr=1e-2, dropout=LrDropout(1), flat=flat)
    plain_weights, plain = make(kind, lr=1e-2, flat=flat)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    train(weights, optimizer, 1)
    train(plain_weights, plain, 1)
    moved = weights["b/d/weight"] != before["b/d/weight"]
    assert abs(moved.float().mean().item() - KEPT / 256) < 0.01
    torch.testing.assert_close(weights["b/d/weight"][moved], plain_weights["b/d/weight"][moved])
    assert all(np.array_equal(array, plain.state()[name]) for name, array in optimizer.state().items())


@pytest.mark.parametrize("chunk", [1 << 19, 211])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_an_optimizer_in_main_memory_steps_alike(
    kind: type[Optimizer], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moments live apart from the weights; weights and gradients visit them, in many pieces or one a tensor."""
    monkeypatch.setattr(optim, "CHUNK", chunk)
    (one, here), (two, apart) = (
        make(kind, clip_norm=0.5, lr_cos=500, dropout=LrDropout(3), offload=offload) for offload in (False, True)
    )
    for step in range(3):
        for weights in (one, two):
            for weight in weights.values():
                weight.grad = torch.full_like(weight, 0.1 * (step + 1))
        here.step()
        apart.step()
    assert all(torch.equal(one[name], two[name]) for name in one)
    for name, array in here.state().items():
        np.testing.assert_array_equal(array, apart.state()[name])
    assert apart.flat_gradient is None and apart.home.type == "cpu"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("reads_are_free", [True, False], ids=["read", "on the device"])
def test_a_step_that_is_not_finite_is_discarded(kind: type[Optimizer], reads_are_free: bool) -> None:
    """Weights and moments stay to the bit; a good step is the same whether it was watched or not."""
    yes = torch.tensor(True)
    weights, optimizer = make(kind, clip_norm=1.0, dropout=LrDropout(3))
    twins, unwatched = make(kind, clip_norm=1.0, dropout=LrDropout(3))
    optimizer.reads_are_free = reads_are_free
    train(weights, optimizer, 1)
    train(twins, unwatched, 1)
    before = {**{name: weight.detach().clone() for name, weight in weights.items()}}
    moments = {name: array for name, array in optimizer.state().items() if name != "iters:0"}
    for broken, ok in ((float("nan"), yes), (float("inf"), yes), (0.0, torch.tensor(False))):
        for weight in weights.values():
            weight.grad = torch.ones_like(weight)
        weights["a/w/bias"].grad[2] = broken  # type: ignore[index]
        assert not optimizer.step(ok)
        assert all(torch.equal(weight, before[name]) for name, weight in weights.items())
        assert all(np.array_equal(array, optimizer.state()[name]) for name, array in moments.items())
    unwatched.iterations = optimizer.iterations
    for several, one, ok in ((weights, optimizer, yes), (twins, unwatched, None)):
        for weight in several.values():
            weight.grad = torch.full_like(weight, 0.3)
        assert bool(one.step(ok)) == (ok is not None)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, twins[name], rtol=1e-6, atol=1e-9)
