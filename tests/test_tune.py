"""What is set for a graphics card before a network is made for it; the cards are made up."""

from __future__ import annotations

import os

import pytest
import torch

from core.device import CPU, SCRATCH_BOUND, Device, scratch_mb, tune

CARD = Device("0", "a card", "cuda:0", 24 << 30)


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards all is as it was."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setenv(SCRATCH_BOUND, "")
    monkeypatch.delenv(SCRATCH_BOUND)
    monkeypatch.setattr(torch.version, "hip", None)


def test_an_nvidia_card_tries_convolutions_with_bounded_scratch_memory() -> None:
    tune(CARD)
    assert torch.backends.cudnn.benchmark and os.environ[SCRATCH_BOUND] == "768"
    assert [scratch_mb(gigabytes << 30) for gigabytes in (2, 8, 24, 141)] == [128, 256, 768, 1024]


def test_a_bound_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCRATCH_BOUND, "64")
    tune(CARD)
    assert os.environ[SCRATCH_BOUND] == "64"


@pytest.mark.parametrize("device", [CPU, Device("0", "Arc", "xpu:0", 16 << 30), Device("0", "Apple GPU", "mps")])
def test_other_devices_are_left_alone(device: Device) -> None:
    tune(device)
    assert not torch.backends.cudnn.benchmark and SCRATCH_BOUND not in os.environ


def test_so_are_amd_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    tune(CARD)
    assert not torch.backends.cudnn.benchmark


def test_weights_stay_channels_last_on_their_way_and_in_flat_buffers() -> None:
    """The layout that convolutions are fast in, also where the optimizer has moved weights into one buffer, as it does
    on cards."""
    from small_models import small

    from core.optim import AdaBelief

    task = small("SAEHD")
    net = task.net.to("meta")  # type: ignore[attr-defined]
    wide = [weight for weight in net.parameters() if weight.dim() == 4 and min(weight.shape[1:3]) > 1]
    assert wide and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in wide)
    AdaBelief(dict(net.named_parameters()), flat=True)
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in wide)
    assert all(weight.grad.is_contiguous(memory_format=torch.channels_last) for weight in wide)
