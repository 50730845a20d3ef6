"""A step's numbers on their way from a card. There is none here: events and copies are made up, and tensors of the
device `meta`, of which no number can be read, show that a step reads none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_models import EVERYTHING, SIZES, random_batch, small, spec_of
from torch import Tensor

from core import readback
from core.readback import Late, late


class Card:
    """Of PyTorch's modules for devices what is used; `told` lists what happens."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def Event(self) -> SimpleNamespace:
        return SimpleNamespace(
            record=lambda stream: self.told.append(f"recorded on {stream}"),
            synchronize=lambda: self.told.append("waited"),
        )

    def current_stream(self, device: torch.device) -> str:
        return f"the stream of {device}"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """Tensors of the processor are taken for those of a card."""
    found, empty = Card(), torch.empty

    def pinned(*sizes: Any, pin_memory: bool = False, **more: Any) -> Tensor:
        if pin_memory:
            found.told.append(f"room for {sizes[0]}")
        return empty(*sizes, **more)

    monkeypatch.setattr(readback, "_far", lambda device: True)
    monkeypatch.setattr(torch, "get_device_module", lambda device: found)
    monkeypatch.setattr(readback.torch, "empty", pinned)
    return found


def test_one_copy_and_one_wait_for_all_numbers_of_a_step(card: Card) -> None:
    got = late({"src_loss": torch.tensor(0.25), "updated": torch.tensor(False), "iteration": 7})
    assert card.told == ["room for 2", "recorded on the stream of cpu"]
    assert got["iteration"] == 7 and isinstance(got["src_loss"], Late)
    assert repr(got["src_loss"]) == "Late(on its way)"
    assert float(got["src_loss"]) == 0.25 and not got["updated"] and float(got["src_loss"]) == 0.25
    assert card.told == ["room for 2", "recorded on the stream of cpu", "waited"]
    assert repr(got["src_loss"]) == "Late(0.25)"


def test_the_processors_own_numbers_stay_as_they_are() -> None:
    loss = torch.tensor(0.25)
    assert late({"loss": loss})["loss"] is loss
    assert late({}) == {}


def test_losses_and_signs_of_health_come_together(card: Card) -> None:
    task = small("Quick64")
    losses = task.step(random_batch(task))
    assert [text for text in card.told if text.startswith("room")] == ["room for 4"]
    assert "waited" not in card.told
    task.step(random_batch(task))
    assert bool(task.health["updated"]) and float(task.health["contrast"]) > 0
    assert card.told.count("waited") == 1
    assert task.data.loss_history.array()[0].tolist() == [float(loss) for loss in losses.values()]
    assert card.told.count("waited") == 2


@pytest.mark.parametrize("name", SIZES)
def test_a_step_reads_nothing_from_the_device(name: str) -> None:
    """PyTorch refuses to read a number of `meta`; so a step there would fail where it waits for a card."""
    spec = spec_of(name)
    task = spec.build(spec.resolve({}, {"resolution": 64, "batch_size": 2, **SIZES[name], **EVERYTHING[name]}), "meta")
    batch = random_batch(task)
    for _ in range(2):
        losses = task.step(batch)
    assert {loss.device.type for loss in losses.values()} == {"meta"}
    with pytest.raises(RuntimeError, match="meta"):
        float(losses[task.loss_names[0]])
