"""Learning rate, weight decay, the modes of gradient clipping: what they do to a step, and what is kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import random_batch, small, spec_of

from core import autoclip
from core.autoclip import LENGTH, NormHistory
from core.modeldir import ModelDir
from core.optim import KEPT, AdaBelief, LrDropout, Optimizer, RMSprop
from core.options import OptionError
from models import MODELS
from models.knobs import KNOBS
from models.saehd import SAEHD

LR = {"Quick96": 2e-4, "Quick64": 2e-4, "XSeg": 1e-4}
KINDS: list[type[Optimizer]] = [AdaBelief, RMSprop]


def make(kind: type[Optimizer], **options: Any) -> tuple[dict[str, torch.nn.Parameter], Optimizer]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a/weight": (4, 3, 3, 3), "b/weight": (5, 7), "b/bias": (7,), "b/rest": (2, 2)}
    weights = {
        name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()
    }  # fmt: skip
    return weights, kind(weights, trained=list(weights)[:3], **options)


def draw(weights: dict[str, torch.nn.Parameter], step: int, size: float = 1.0) -> None:
    """Gradients of that norm, also where they are views of one buffer."""
    generator = torch.Generator().manual_seed(100 + step)
    found = [torch.randn(weight.shape, generator=generator) for weight in weights.values()]
    norm = torch.stack([gradient.norm() for gradient in found[:3]]).norm()
    for weight, gradient in zip(weights.values(), found, strict=True):
        gradient = gradient * size / norm
        if weight.grad is None:
            weight.grad = gradient
        else:
            weight.grad.copy_(gradient)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_weight_decay_shrinks_kernels_besides_the_update(kind: type[Optimizer], flat: bool) -> None:
    weights, optimizer = make(kind, lr=0.01, flat=flat, weight_decay=0.5)
    plain_weights, plain = make(kind, lr=0.01, flat=flat)
    for step in range(3):
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        for w in (weights, plain_weights):
            draw(w, step)
        with torch.no_grad():
            for name, weight in plain_weights.items():
                weight.copy_(before[name])
        for one in (optimizer, plain):
            one.step()
        for name, weight in weights.items():
            kernel = name in ("a/weight", "b/weight")
            wanted = plain_weights[name].detach() - (0.005 * before[name] if kernel else 0)
            torch.testing.assert_close(weight.detach(), wanted)
            assert name != "b/rest" or torch.equal(weight, before[name]), "it is not trained"
    moments, others = optimizer.state(), plain.state()
    assert all(np.array_equal(array, others[name]) for name, array in moments.items()), "they do not see it"


def test_weight_decay_goes_with_the_rate_and_the_share_that_moves() -> None:
    weights, optimizer = make(AdaBelief, lr=0.01, weight_decay=0.5, lr_cos=8, dropout=LrDropout(1))
    optimizer.iterations = 1  # a quarter of the period: the next rate is cos(2 pi 2 / 8) + 1 half of 0.01
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    before = weights["a/weight"].detach().clone()
    optimizer.step()
    torch.testing.assert_close(weights["a/weight"].detach(), before * (1 - 0.005 * 0.5 * KEPT / 256))


@pytest.mark.parametrize("flat", [False, True])
def test_a_step_that_is_left_out_does_not_shrink_them(flat: bool) -> None:
    for reads_are_free in (True, False):  # as on a card: decided without being read
        weights, optimizer = make(AdaBelief, flat=flat, weight_decay=10.0, lr=0.1, clip_history=True)
        optimizer.reads_are_free = reads_are_free
        draw(weights, 0)
        assert optimizer.step(torch.tensor(True))
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        draw(weights, 1, size=float("inf"))
        done = optimizer.step(torch.tensor(True))
        assert done is not None and not done and optimizer.iterations == 2
        assert all(torch.equal(weight, before[name]) for name, weight in weights.items())


def test_the_limit_is_the_tenth_percentile_of_the_last_thousand() -> None:
    history, rng = NormHistory(torch.device("cpu")), np.random.default_rng(0)
    norms = rng.lognormal(0, 1, 2300).astype(np.float32)
    for step, norm in enumerate(norms, 1):
        found = history.limit(torch.tensor(norm), step)
        if step in (1, 2, 7, 999, 1000, 1001, 2300):
            assert float(found) == pytest.approx(np.percentile(norms[max(0, step - LENGTH) : step], 10), rel=1e-5)


def test_norms_that_tell_nothing_do_not_count() -> None:
    history = NormHistory(torch.device("cpu"))
    for step, norm in enumerate((float("nan"), float("inf"), 0.0), 1):
        assert history.limit(torch.tensor(norm), step) == float("inf"), "nothing is clipped"
    assert history.limit(torch.tensor(3.0), 4) == 3.0
    assert history.limit(torch.tensor(float("nan")), 5) == 3.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flat", [False, True])
def test_clipping_by_history_is_scaling_the_gradient(kind: type[Optimizer], flat: bool) -> None:
    weights, optimizer = make(kind, lr=0.01, flat=flat, clip_history=True)
    other, plain = make(kind, lr=0.01, flat=flat)
    sizes = [2.0, 1.0, 50.0, 3.0, 0.2]
    for step, size in enumerate(sizes):
        limit = np.percentile(sizes[: step + 1], 10)
        draw(weights, step, size)
        draw(other, step, min(size, float(limit)))
        optimizer.step()
        plain.step()
        for name, weight in weights.items():
            torch.testing.assert_close(weight, other[name], atol=2e-6, rtol=1e-4)


def test_norms_of_other_steps_are_not_taken() -> None:
    _, optimizer = make(AdaBelief, clip_history=True)
    _, without = make(AdaBelief)
    assert optimizer.norms is not None
    optimizer.norms.limit(torch.tensor(2.0), 1)
    optimizer.iterations = 1
    optimizers = {"opt": optimizer, "other": without}
    part = autoclip.part(optimizers, lambda tensor: tensor.numpy().copy())
    assert set(part) == {"opt/iters:0", "opt/norms:0"} and autoclip.part({"other": without}, lambda t: t) == {}
    optimizer.norms.forget()
    autoclip.take(optimizers, part)
    assert optimizer.norms.ring[1] == 2 and optimizer.norms.ring.sum() == 2
    for steps, ring in ((2, part["opt/norms:0"]), (1, part["opt/norms:0"][:5]), (1, np.ones(LENGTH))):
        autoclip.take(optimizers, part)
        autoclip.take(optimizers, {"opt/iters:0": np.int64(steps), "opt/norms:0": ring})
        assert not optimizer.norms.ring.any()
    autoclip.take(optimizers, part)
    optimizer.forget()
    assert not optimizer.norms.ring.any()


@pytest.mark.parametrize("name", MODELS)
def test_defaults_are_the_models_own_and_nothing_is_written_of_them(name: str, tmp_path: Path) -> None:
    task = small(name)
    for optimizer in task.optimizers.values():  # type: ignore[attr-defined]
        assert (optimizer.lr, optimizer.weight_decay, optimizer.norms) == (LR.get(name, 5e-5), 0.0, None)
    task.step(random_batch(task))
    task.save(tmp_path, "a")
    directory = ModelDir(tmp_path, "a", name)
    assert not {row.key for row in KNOBS} & set(directory.read_data().options)
    assert directory.read_kept() == {} and not list(tmp_path.glob("*facesmith_norms*"))


@pytest.mark.parametrize("name", MODELS)
def test_choices_reach_every_optimizer(name: str, tmp_path: Path) -> None:
    given = {"lr": 3e-5, "weight_decay": 0.25, "clipgrad": True, "clipgrad_mode": "history"}
    gan = {"gan_power": 0.1, "gan_dims": 4, "gan_patch_size": 8} if spec_of(name).takes("gan_power") else {}
    task = small(name, **given, **gan)
    for stem, optimizer in task.optimizers.items():  # type: ignore[attr-defined]
        assert optimizer.lr == 3e-5 and optimizer.norms is not None, stem
        assert optimizer.weight_decay == (0 if stem == "GAN_opt" else 0.25), stem
    task.step(random_batch(task))
    task.save(tmp_path, "a")
    kept = ModelDir(tmp_path, "a", name).read_kept()
    assert {key: kept[key] for key in ("lr", "weight_decay", "clipgrad_mode")} == {
        "lr": 3e-5, "weight_decay": 0.25, "clipgrad_mode": "history",
    }  # fmt: skip
    assert task.soften() == [] or gan


@pytest.mark.parametrize("name", MODELS)
def test_the_rate_of_every_optimizer_falls_before_the_target(name: str) -> None:
    gan = {"gan_power": 0.1, "gan_dims": 4, "gan_patch_size": 8} if spec_of(name).takes("gan_power") else {}
    task = small(name, target_iter=5, lr_fade=4, **gan)
    seen = []
    for _ in range(6):
        task.step(random_batch(task))
        shares = {optimizer.lr_share for optimizer in task.optimizers.values()}  # type: ignore[attr-defined]
        assert len(shares) == 1
        seen += shares
    assert seen == [1.0, 1.0, 0.75, 0.5, 0.25, 1.0], "who trains on after the target has the whole rate"
    with pytest.raises(OptionError, match="lr_fade"):
        small(name, target_iter=5, lr_fade=-1)


def test_who_has_no_target_has_the_whole_rate() -> None:
    task = small("SAEHD", lr_fade=4)
    task.step(random_batch(task))
    assert {optimizer.lr_share for optimizer in task.optimizers.values()} == {1.0}  # type: ignore[attr-defined]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_half_the_rate_moves_half_as_far(kind: type[Optimizer], flat: bool) -> None:
    moved = []
    for share in (1.0, 0.5):
        weights, optimizer = make(kind, lr=0.01, flat=flat, weight_decay=0.1)
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        draw(weights, 0)
        optimizer.lr_share = share
        optimizer.step()
        moved.append({name: weight.detach() - before[name] for name, weight in weights.items()})
    for name, whole in moved[0].items():
        torch.testing.assert_close(moved[1][name], whole / 2, rtol=1e-3, atol=1e-6)


def test_a_rate_of_0_moves_nothing() -> None:
    task = small("SAEHD", lr=0.0, weight_decay=1.0)
    before = {stem: part for stem, part in task.parts().items() if not stem.endswith("_opt")}
    task.step(random_batch(task))
    after = task.parts()
    assert all(np.array_equal(array, after[stem][key]) for stem, part in before.items() for key, array in part.items())


@pytest.mark.parametrize("name", ["SAEHD", "XSeg"])
def test_a_collapse_brings_the_limit_of_1(name: str) -> None:
    task = small(name, clipgrad_mode="history")
    assert task.soften() == ["clipgrad: False -> True"]
    assert task.values["clipgrad_mode"] == "norm" and "clipgrad_mode" not in task.values.kept
    assert all(o.clip_norm == 1 and o.norms is None for o in task.optimizers.values())  # type: ignore[attr-defined]
    assert (task.values.kept if name == "XSeg" else task.values.chosen)["clipgrad"] is True


def test_words_for_the_loss_function() -> None:
    for given, meant in {
        "ssim": "SSIM", "SSIM": "SSIM", "m_ssim": "MS-SSIM", "ms_ssim": "MS-SSIM", "ms-ssim": "MS-SSIM",
        "ms-ssim+l1": "MS-SSIM+L1", "MS-SSIM+L1": "MS-SSIM+L1",
    }.items():  # fmt: skip
        assert SAEHD.resolve({"loss_function": given})["loss_function"] == meant
        assert SAEHD.resolve({"loss": given})["loss_function"] == meant
    with pytest.raises(OptionError, match="loss_function: got 'l1', allowed is SSIM / MS-SSIM / MS-SSIM\\+L1"):
        SAEHD.resolve({"loss_function": "l1"})
    with pytest.raises(OptionError, match="always SSIM"):
        MODELS["Quick96"].resolve({"loss_function": "MS-SSIM"})
    with pytest.raises(OptionError, match="is not an option of this model"):
        MODELS["XSeg"].resolve({"loss_function": "MS-SSIM"})
    with pytest.raises(OptionError, match=r"lr: got 1\.5, allowed is a number from 0 to 1"):
        SAEHD.resolve({"lr": 1.5})


@pytest.mark.parametrize("mode", ["bfloat", "float16"])
def test_norms_are_true_ones_in_every_precision(mode: str) -> None:
    """float16 multiplies its gradients on the way."""
    found = []
    for precision in ("full", mode):
        task = small("SAEHD", clipgrad=True, clipgrad_mode="history", loss_function="MS-SSIM+L1", mp_mode=precision)
        batch = random_batch(task)
        for _ in range(2):
            task.step(batch)
        found.append(task.optimizer.norms.ring[1:4].tolist())  # type: ignore[attr-defined]
    (*norms, none), (*others, other_none) = found
    assert norms == pytest.approx(others, rel=0.2) and min(norms) > 0 and none == other_none == 0
