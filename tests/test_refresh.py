"""Previews that nobody asked for: they leave no trace in the model, are told apart, and name their faces."""

from __future__ import annotations

import argparse
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_saehd_golden import random_batch, small
from test_trainer import FakeSaver

from core.batch import Batch, Side
from core.events import Event, Previewed
from core.tensorboard import TensorBoard
from core.trainer import Cadence, Trainer
from mainscripts.flags import seconds


def batches() -> Iterator[Batch]:
    seed = 0
    while True:
        yield random_batch(seed=seed)
        seed += 1


def trained(preview_seconds: float) -> tuple[dict[str, Any], list[Previewed]]:
    """Every tensor of a model after 3 iterations, and the previews that were drawn meanwhile."""
    task = small(
        "df", lr_dropout="y", gan_power=0.1, gan_dims=4, gan_patch_size=8, true_face_power=0.01, clipgrad=True
    )
    events: list[Event] = []
    cadence = Cadence(target=3, exit_at_target=True, save_seconds=0, preview_seconds=preview_seconds)
    trainer = Trainer(
        "m", task, batches(), events.append, queue.Queue(), FakeSaver(), cadence, lambda: float(task.iteration)
    )
    trainer.run()
    parts = {f"{stem}/{name}": array for stem, part in task.parts().items() for name, array in part.items()}
    return parts, [event for event in events if isinstance(event, Previewed)]


def test_the_model_is_the_same_to_the_byte() -> None:
    plain, asked = trained(0)
    refreshed, drawn = trained(1)
    assert [event.iteration for event in asked] == [0, 1, 3]
    assert [event.iteration for event in drawn] == [0, 1, 2, 3]
    assert plain.keys() == refreshed.keys() and len(plain) > 100
    for name, array in plain.items():
        assert array.tobytes() == refreshed[name].tobytes(), name


def test_pages_name_their_faces() -> None:
    batch = random_batch(288, 3)
    for side, arrays in batch.items():
        arrays.named(lambda row, side=side: f"{side} {row}")
    task = small("df-ud", resolution=288)
    pages, captions = task.preview(batch), task.captions(batch)
    assert [title for title, _ in pages] == list(captions)
    assert captions["SAEHD src-src"][1] == ["src 1", ""] and captions["SAEHD masked pred"][1] == ["dst 1", ""]
    full = small("df-ud", resolution=288)
    full.values["force_full_preview"] = True
    pages, captions = full.preview(batch), full.captions(batch)
    assert [title for title, _ in pages] == list(captions) == ["SAEHD", "SAEHD masked"]
    assert [len(row) for _, rows in pages for row in rows] == [5] * 4
    assert captions["SAEHD masked"][0] == ["src 0", "", "dst 0", "", ""]


def test_faces_without_names_have_none() -> None:
    assert small("df").captions(Batch(src=Side(target=np.zeros(1)), dst=Side()))["SAEHD"] == [[""] * 5]


def test_tensorboard_keeps_few_of_them(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="extra tensorboard")
    now = 0.0
    board = TensorBoard(tmp_path, "mine", clock=lambda: now)
    pages = [("page", [[np.zeros((4, 4, 3), np.uint8)]])]
    for iteration, refreshed in [(1, True), (2, True), (3, False), (4, True), (5, True)]:
        now = 601.0 if iteration == 5 else 300.0
        board(Previewed(iteration, pages, refreshed=refreshed))
    board.close()
    events = reader.EventAccumulator(str(tmp_path / "mine"))
    events.Reload()
    assert [event.step for event in events.Images("page")] == [1, 3]


@pytest.mark.parametrize(("text", "expected"), [("0", 0), ("10", 10), ("90s", 90), ("25m", 1500), ("2h", 7200)])
def test_seconds(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "1.5", "5it", "m", "1 h", "1e3"])
def test_seconds_refuse(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"allowed is a whole number of seconds"):
        seconds(text)
