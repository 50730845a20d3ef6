"""Real collapses of a small model: what is on the disk afterwards is good, and training goes on or says why not."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from core.batch import Batch
from core.device import CPU
from core.events import Event, Stepped, Stopped, Warned
from core.guard import Guard, GuardRules
from core.modeldir import ModelDir
from core.trainer import Cadence, Trainer
from mainscripts.train_faces import Folders
from mainscripts.train_run import SavedModel
from mainscripts.train_setup import Setup
from models.swap import SwapTask
from models.terms import contrast
from tests.test_saehd_golden import SPEC, random_batch, small

RULES = GuardRules(skips=5, learning=30, patience=25, smoothing=5, contrast_from=60)
ILL = 60  # the iteration from which something goes wrong
LR = 5e-4  # both sides draw something by then


CAUSES = ("huge lr", "nan picture", "infinite gradient")
CASES = [
    (CAUSES[1], True),
    *(pytest.param(cause, True, marks=pytest.mark.slow) for cause in CAUSES[2:]),
    *(pytest.param(cause, True, marks=pytest.mark.slow) for cause in ("style power 100", "huge lr")),
    *(pytest.param(cause, False, marks=pytest.mark.slow) for cause in CAUSES),
]


def smooth_batch(seed: int) -> Batch:
    """Soft blobs of colour, which a small network can learn."""
    coarse = random_batch(4, seed=seed)
    return coarse.map(lambda array: F.interpolate(torch.from_numpy(array), size=64, mode="bicubic").clamp(0, 1).numpy())


class Disk:
    """A saver that writes at once."""

    def __init__(self, task: SwapTask, folder: Path) -> None:
        self.task, self.folder = task, folder

    def save(self, losses: dict[str, float] | None, position: int) -> None:
        self.task.save(self.folder, "a")

    def backup(self) -> None: ...

    def wait(self) -> None: ...

    def failed(self) -> bool:
        return False


class Cause(SwapTask):
    """A model that something happens to from iteration ILL on."""

    cause = ""
    cured = False

    def train_step(self, batch: Batch) -> dict[str, Any]:
        ill = self.iteration >= ILL and not self.cured
        if self.cause == "huge lr":
            self.optimizer.lr = 3.0 if ill else LR
        if ill and self.cause == "nan picture":
            batch.src.warped[0, 0, 3, 3] = np.nan
        if ill and self.cause == "infinite gradient":
            handle = self.net.encoder.down1.downs_0.conv1.bias.register_hook(lambda gradient: gradient * float("inf"))
            losses = super().train_step(batch)
            handle.remove()
            return losses
        if ill and self.cause == "float16":
            with torch.autocast("cpu", dtype=torch.float16):
                return super().train_step(batch)
        if self.cause == "style power 100":
            self.values["face_style_power"] = self.values["bg_style_power"] = 100.0 if ill else 0.0
        return super().train_step(batch)


def train(folder: Path, cause: str, cured: bool) -> tuple[str, list[Event]]:
    task = small("df-u")
    task.__class__ = Cause
    assert isinstance(task, Cause)
    task.cause = cause
    task.optimizer.lr = LR
    directory = ModelDir(folder, "a", "SAEHD")
    setup = Setup(SPEC, directory, None, task.values, CPU, {}, {}, seed=0, position=0, folders=Folders({}, None, None))
    rescue = SavedModel(setup, task)
    roll_back = rescue.roll_back

    def healed() -> list[str]:
        task.cured = cured
        return roll_back()

    rescue.roll_back = healed  # type: ignore[method-assign]

    def batches() -> Iterator[Batch]:
        while True:
            yield smooth_batch(task.iteration % 4)

    events: list[Event] = []
    trainer = Trainer(
        "a", task, batches(), events.append, queue.Queue(), Disk(task, folder),
        Cadence(target=140, exit_at_target=True, save_iterations=10), lambda: 0.0, guard=Guard(RULES), rescue=rescue,
    )  # fmt: skip
    return trainer.run(), events


@pytest.mark.parametrize(("cause", "cured"), CASES)
def test_the_model_survives(tmp_path: Path, cause: str, cured: bool) -> None:
    reason, events = train(tmp_path, cause, cured)
    texts = [event.text for event in events if isinstance(event, Warned)]
    assert reason == ("target" if cured else "collapse")
    for told in ("has collapsed", "Back at the last good state", "clipgrad: False -> True"):
        assert any(told in text for text in texts), told
    plain = {"face_style_power": 0, "bg_style_power": 0}  # milder styles are kept, and are part of the loss
    saved = SPEC.build(SPEC.resolve(plain, stored=ModelDir(tmp_path, "a", "SAEHD").read_data().options))
    saved.load(tmp_path, "a")
    losses = saved.step(smooth_batch(1))
    healthy = [event.losses["src_loss"] for event in events if isinstance(event, Stepped) and event.iteration < ILL]
    assert float(losses["src_loss"]) < 1.5 * np.median(healthy), "what is on the disk is good"
    assert all(np.isfinite(array).all() for part in saved.parts().values() for array in part.values())
    if cured:
        assert saved.iteration == 141 and saved.values.chosen["clipgrad"] is True
    else:
        assert saved.iteration <= ILL + 1 and isinstance(events[-1], Stopped)
        suspect = tmp_path / "a_SAEHD_facesmith_suspect"
        assert (suspect / "a_SAEHD_encoder.npy").exists() and str(suspect) in " ".join(texts)


@pytest.mark.slow
def test_float16_without_a_scale_needs_no_rescue(tmp_path: Path) -> None:
    """Losses are computed in float32 whatever is round them; their sums of squares once overflowed."""
    reason, events = train(tmp_path, "float16", cured=False)
    assert reason == "target" and not any("collaps" in event.text for event in events if isinstance(event, Warned))
    losses = [event.losses["src_loss"] for event in events if isinstance(event, Stepped)]
    assert np.isfinite(losses).all() and losses[-1] < np.median(losses[:ILL])


def test_a_step_that_is_not_finite_leaves_no_trace_in_any_optimizer() -> None:
    task = small("df-u", gan_power=0.1, gan_dims=4, gan_patch_size=8, true_face_power=0.01)
    task.step(random_batch())
    before = task.parts()
    batch = random_batch()
    batch.src.target[0, 0, 3, 3] = np.nan
    losses = task.step(batch)
    assert not torch.isfinite(losses["src_loss"]) and not task.health["updated"]
    after = task.parts()
    for stem, part in before.items():
        assert all(np.array_equal(array, after[stem][name]) for name, array in part.items() if name != "iters:0"), stem


def test_the_contrast_is_that_of_the_side_which_has_less() -> None:
    target = torch.rand(4, 3, 64, 64)
    assert contrast(0.5 * target, target) == pytest.approx(0.5, abs=1e-3)
    for gone in (slice(0, 2), slice(2, 4)):
        face = target.clone()
        face[gone] = 0.4
        assert contrast(face, target) < 1e-3
