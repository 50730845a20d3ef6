"""The way of a batch to a CUDA device. There is none here, so its calls are recorded, with stream and order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from core.batch import Batch, Side
from core.upload import Upload


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

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: step)
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
