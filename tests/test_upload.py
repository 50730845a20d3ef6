"""The way of a batch to a CUDA device. There is none here, so its calls are recorded, with stream and order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from core.batch import Batch, Side
from core.upload import Upload, alongside, send


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_arrive_whole_on_a_card() -> None:
    arrays = [np.full((4, 3, 64, 64), number, np.float32) for number in range(20)]
    for array, batch in zip(arrays, Upload((Batch(src=Side(warped=a)) for a in arrays), "cuda:0"), strict=True):
        copy = batch.src.warped.clone()
        array[...] = -1  # the next batch is written where this one lay
        assert copy.device.type == "cuda" and (copy == copy[0, 0, 0, 0]).all() and copy.min() >= 0


def test_a_batch_is_copied_on_its_own_stream_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    inside = [False]

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.name = "copies"

        def wait_stream(self, other: Stream) -> None:
            told.append(f"{self.name} waits for {other.name}")

    step = Stream(torch.device("cpu"))
    step.name = "step"

    @contextlib.contextmanager
    def on(stream: Stream) -> Iterator[None]:
        assert stream.name == "copies"
        inside[0] = True
        yield
        inside[0] = False

    def pinned(array: np.ndarray, device: torch.device) -> Tensor:
        assert inside[0]
        told.append(f"{array.shape} pinned")
        return torch.from_numpy(array).clone()

    def kept(tensor: Tensor, stream: Stream) -> None:
        told.append(f"{tuple(tensor.shape)} kept for {stream.name}")

    card = SimpleNamespace(Stream=Stream, stream=on, current_stream=lambda device: step)
    monkeypatch.setattr(torch, "get_device_module", lambda device: card)
    monkeypatch.setattr("core.upload.upload", pinned)
    monkeypatch.setattr(Tensor, "record_stream", kept)
    ring = np.ones((2, 3), np.float32)
    batches = Upload(iter([Batch(src=Side(warped=ring), dst=Side(warped=torch.ones(4)))]), "cpu")
    batch = next(batches)
    ring[...] = 0
    assert (batch.src.warped == 1).all() and isinstance(batch.src.warped, Tensor)
    assert told == [
        "(2, 3) pinned", "step waits for copies", "(2, 3) kept for step", "(4,) kept for step",
    ]  # fmt: skip
    with pytest.raises(StopIteration):
        next(batches)


def test_who_takes_copies_beside_its_work() -> None:
    assert {kind: alongside(kind) for kind in ("cuda", "xpu", "mps", "cpu")} == {
        "cuda": True, "xpu": True, "mps": False, "cpu": False,
    }  # fmt: skip


def test_a_copy_is_not_waited_for_where_its_memory_can_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is made up: its copies go to the processor."""
    told: list[str] = []

    def pinned(tensor: Tensor) -> Tensor:
        told.append("locked")
        return tensor

    def copied(tensor: Tensor, device: torch.device, non_blocking: bool = False) -> Tensor:
        told.append("not waited for" if non_blocking else "waited for")
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pinned)
    monkeypatch.setattr(Tensor, "to", copied)
    for kind, wanted in (("cuda:0", ["locked", "not waited for"]), ("mps", ["waited for"]), ("cpu", ["waited for"])):
        told.clear()
        send(torch.ones(3), torch.device(kind))
        assert told == wanted, kind
