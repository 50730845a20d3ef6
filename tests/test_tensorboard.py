"""Losses and previews for TensorBoard, read back with its own reader."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from training import command, here

from core.events import Previewed, Stepped
from core.modeldata import ModelError
from core.tensorboard import TensorBoard


def test_a_training_is_seen_in_tensorboard(faces: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="extra tensorboard")
    board = tmp_path / "böard"
    words = ["--no-preview", "--target-iter", "3", "--exit-at-target", "--tensorboard", str(board)]
    done = here(command(faces, tmp_path / "model", *words))
    assert done.returncode == 0, done.stderr
    events = reader.EventAccumulator(str(board / "new_SAEHD"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/src_loss")] == [1, 2, 3]
    assert "SAEHD" in events.Tags()["images"] and "Synthetic media" in str(events.Tensors("about/text_summary"))


def test_every_hundredth_iteration_tells_its_time(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="extra tensorboard")
    board = TensorBoard(tmp_path, "mine")
    for iteration in range(99, 202):
        board(Stepped(iteration, {"loss": 0.5}, 120.0, 3.0))
    tile = np.zeros((4, 6, 3), np.uint8)
    tile[..., 0] = 200  # blue
    board(Previewed(201, [("page", [[tile, tile], [tile, tile]])]))
    board(Previewed(201, [("history page", [[tile]])], history=True))
    board.close()
    events = reader.EventAccumulator(str(tmp_path / "mine"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("ms/iteration")] == [(100, 120.0), (200, 120.0)]
    assert events.Tags()["images"] == ["page"]
    (picture,) = events.Images("page")
    assert (picture.width, picture.height) == (12, 8)


def test_a_missing_package_is_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModelError, match=r"pip install -e \"\.\[tensorboard\]\""):
        TensorBoard(tmp_path, "mine")


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="extra tensorboard")
    (tmp_path / "board").write_text("")
    with pytest.raises(ModelError, match=r"--tensorboard .*board: cannot be written"):
        TensorBoard(tmp_path / "board", "mine")
