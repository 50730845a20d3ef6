"""What networks compute in: every model in every mode that a processor has, and what devices are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import EVERYTHING, random_batch, small, spec_of
from torch import Tensor, nn
from training import command, here

from core import precision
from core.guard import Guard, State
from core.modeldir import ModelDir
from core.optim import RMSprop
from core.options import OptionError
from core.precision import FIRST_SCALE, GROW_AFTER, LEAST_SCALE, Precision, Scaler, settle
from models import MODELS, Task
from models.swap import SwapTask
from models.xseg import XSegTask

NAMES = list(MODELS)


def gradients(name: str, mode: str) -> dict[str, Tensor]:
    """Of the first step, by part."""
    task = small(name, mp_mode=mode, **EVERYTHING[name])
    assert isinstance(task, SwapTask | XSegTask)
    batch = random_batch(task)
    if name == "XSeg":  # of labels that are noise too nothing is learned: gradients would be rounding
        batch.face.label[..., :32], batch.face.label[..., 32:] = 1, 0
    task.losses(batch).sum().backward()
    return {
        stem: torch.cat([w.grad.flatten() for w in module.parameters() if w.grad is not None])
        for stem, module in task.modules.items()
        if any(w.grad is not None for w in module.parameters())
    }


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_goes_the_same_way(name: str) -> None:
    exact = gradients(name, "full")
    # A U-Net of 45 norms has each layer's rounding in all that follow.
    for mode, least in (("bfloat", 0.92 if name == "XSeg" else 0.98), ("float16", 0.995)):
        for stem, gradient in gradients(name, mode).items():
            assert gradient.dtype == torch.float32
            assert torch.cosine_similarity(gradient, exact[stem], 0) > least, (mode, stem)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["bfloat", "float16"])
def test_every_model_steps_and_keeps_float32(name: str, mode: str, tmp_path: Path) -> None:
    task = small(name, mp_mode=mode, **EVERYTHING[name])
    batch = random_batch(task)
    for _ in range(3):
        assert all(np.isfinite(float(loss)) for loss in task.step(batch).values())
        assert bool(task.health["updated"])
    assert all(weight.dtype == torch.float32 for module in task.modules.values() for weight in module.parameters())
    pages = task.preview(batch)
    task.save(tmp_path, "a")
    directory = ModelDir(tmp_path, "a", name)
    for stem in (*task.network_parts, *task.optional_parts):
        part = directory.read_part(stem)
        assert part is not None
        numbers = {array.dtype for array in part.values() if array.dtype.kind != "i"}  # counters are whole
        assert numbers == {np.dtype("float32")}, stem
    assert "mp_mode" not in directory.read_data().options and directory.read_kept()["mp_mode"] == mode
    spec = spec_of(name)
    again = spec.build(spec.resolve({}, directory.read_data().options, kept=directory.read_kept()), seed=task.seed)
    assert again.precision.mode == mode and again.load(tmp_path, "a") == []
    for (title, rows), (_, cells) in zip(pages, again.preview(batch), strict=True):
        assert np.array_equal(rows, cells), f"{title}: previews are drawn in full precision"
    one, two = (each.step(batch) for each in (task, again))
    if mode == "bfloat":
        assert {key: float(loss) for key, loss in one.items()} == {key: float(loss) for key, loss in two.items()}


def test_weights_are_converted_once_a_step() -> None:
    task = small("SAEHD", mp_mode="bfloat", face_style_power=1.0, bg_style_power=1.0)
    assert isinstance(task, SwapTask)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        task.losses(random_batch(task))
    shape = list(task.net.get_parameter("decoder_src.upscale0.conv1.weight").shape)
    casts = [
        event for event in profile.events()
        if event.name == "aten::to" and event.input_shapes and event.input_shapes[0] == shape
        and event.cpu_parent is not None and event.cpu_parent.name == "aten::conv2d"
    ]  # fmt: skip
    copies = sum(event.name == "aten::_to_copy" and event.input_shapes[:1] == [shape] for event in profile.events())
    assert copies == 2, f"decoder_src and decoder_dst have one each of that shape: {copies}, {len(casts)}"


class Heavy(nn.Module):
    """One weight whose gradient is as large as one likes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


def test_the_scale_falls_and_grows() -> None:
    net = Heavy()
    optimizer = RMSprop({"net/weight": net.weight}, clip_norm=1.0)
    scaler = Scaler(Precision("float16", "cpu"))

    def step(gradient: float, loss: float = 1.0) -> tuple[bool, bool]:
        optimizer.zero_grad()
        scaler.backward((net.weight * gradient).sum())
        moved, well = scaler.step((optimizer,), torch.tensor(loss).isfinite())
        assert moved is not None and well is not None
        return bool(moved), bool(well)

    before = net.weight.detach().clone()
    assert step(float("inf")) == (False, True) and scaler._scale == FIRST_SCALE / 2, "too large a scale is no collapse"
    assert torch.equal(net.weight, before)
    assert step(1.0) == (True, True) and scaler._scale == FIRST_SCALE / 2 and not torch.equal(net.weight, before)
    assert step(1.0, float("nan")) == (False, False) and scaler._scale == FIRST_SCALE / 2, "the forward pass diverged"
    while scaler._scale > LEAST_SCALE:
        assert step(float("inf")) == (False, True)
    guard = Guard()
    while guard.state is State.HEALTHY:
        moved, well = step(float("inf"))
        guard.observe(1, {"loss": 1.0}, well)
    assert guard.state is State.COLLAPSED and not moved
    for _ in range(GROW_AFTER):
        step(1.0)
    assert scaler._scale == 2 * LEAST_SCALE


def test_gradients_are_unscaled_before_they_are_clipped() -> None:
    one, two = Heavy(), Heavy()
    for net, mode in ((one, "full"), (two, "float16")):
        optimizer = RMSprop({"net/weight": net.weight}, clip_norm=1.0)
        scaler = Scaler(Precision(mode, "cpu"))
        for gradient in (0.1, 30.0):
            optimizer.zero_grad()
            scaler.backward((net.weight * gradient).sum())
            scaler.step((optimizer,), torch.tensor(True))
    assert torch.equal(one.weight, two.weight)


def test_float16_clips() -> None:
    values = MODELS["SAEHD"].resolve({"mp_mode": "float16"})
    assert values["clipgrad"] is True and values.chosen["clipgrad"] is False
    for name in NAMES:
        task = small(name, mp_mode="float16")
        assert all(optimizer.clip_norm == 1.0 for optimizer in task.optimizers.values())  # type: ignore[attr-defined]


def test_what_a_device_cannot_is_refused_or_told() -> None:
    lacks = "this card has no bfloat16"
    for device in ("cuda", "cpu"):
        with pytest.raises(OptionError, match=f"mp_mode: got bfloat, but {lacks}.*mp_mode=full"):
            settle("bfloat", torch.device(device), lambda device, mode: lacks)
    for device in ("mps", "xpu"):
        mode, (note,) = settle("bfloat", torch.device(device), lambda device, mode: lacks)
        assert mode == "full" and lacks in note and note.endswith("It computes in full precision instead.")
    assert settle("full_t", torch.device("cuda"), lambda device, mode: "") == ("full_t", [])
    with pytest.raises(OptionError, match="only NVIDIA cards from the Ampere generation on"):
        Precision("full_t", "cpu")
    with pytest.raises(OptionError, match="mp_mode: got 'half', allowed is full / full_t / float16 / bfloat"):
        Precision("half", "cpu")


@pytest.mark.parametrize(("ampere", "able"), [(False, {"bfloat": False, "float16": True, "full_t": False}),
                                              (True, {"bfloat": True, "float16": True, "full_t": True})])  # fmt: skip
def test_what_a_card_has(monkeypatch: pytest.MonkeyPatch, ampere: bool, able: dict[str, bool]) -> None:
    # An older card computes bfloat16 by detours: the product that is tried works.
    found = {"float32": True, "bfloat16": True, "float16": True, "tf32": ampere}
    monkeypatch.setattr(precision, "abilities", lambda device: found)
    for mode, can in able.items():
        assert (precision.missing(torch.device("cuda:0"), mode) == "") is can


def test_a_slow_processor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    has: dict[str, bool] = {"bfloat16": False}
    monkeypatch.setattr("core.precision.supports", lambda device, kind: has[kind])
    assert Precision("bfloat", "cpu").notes == [
        "mp_mode bfloat: this processor has no bfloat16. It works, but full is faster here."
    ]
    has["bfloat16"] = True
    assert Precision("bfloat", "cpu").notes == []


def test_chosen_kept_and_refused_on_the_command_line(faces: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    args = ["--no-preview", "--exit-at-target", "--workers", "0", "--cpu-only"]
    done = here(command(faces, model, *args, "--target-iter", "2", "--set", "mp_mode=bfloat"))
    assert done.returncode == 0, done.stdout + done.stderr
    done = here(command(faces, model, *args, "--target-iter", "3", small=False))
    assert done.returncode == 0 and "mp_mode=bfloat" in done.stdout, done.stdout
    done = here(command(faces, model, *args, "--target-iter", "4", "--set", "mp_mode=full_t", small=False))
    assert done.returncode == 2 and "TF32 is something that only NVIDIA cards" in done.stdout + done.stderr


def swap_of(task: Task, images: np.ndarray) -> np.ndarray:
    return np.asarray(task.swap(images).face)


def test_a_swap_is_drawn_in_full_precision() -> None:
    images = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    assert np.array_equal(*(swap_of(small("SAEHD", mp_mode=mode), images) for mode in ("full", "bfloat")))
