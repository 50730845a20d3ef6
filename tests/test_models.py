"""Every model of the registry: built, stepped, previewed, saved, loaded, exported, trained from the command line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from small_models import EVERYTHING, SIZES, random_batch, small, spec_of
from training import here

from core import preview
from core.modelcheck import verify
from core.modeldir import ModelDir
from models import MODELS
from models.memory import changes, need
from models.sizes import check_sizes
from models.swap import SwapTask

NAMES = list(MODELS)
SWAPS = [name for name in NAMES if name != "XSeg"]
"""XSeg has no swap, and wants labelled faces: tests/test_xseg_train.py and test_xseg_onnx.py do the same with it."""
PROMPTED = {"archi": "df-ud", "ae_dims": 32, "inter_dims": 32, "e_dims": 16, "d_dims": 16, "d_mask_dims": 16}
"""Sizes that the questions allow, of models that ask for them."""


def test_every_model_has_small_sizes() -> None:
    assert set(SIZES) == set(NAMES) == set(EVERYTHING)


@pytest.mark.parametrize("name", NAMES)
def test_built_stepped_previewed_saved_loaded(name: str, tmp_path: Path) -> None:
    task = small(name)
    batch = random_batch(task)
    losses = task.step(batch)
    assert tuple(losses) == task.loss_names and all(np.isfinite(float(loss)) for loss in losses.values())
    pages = task.preview(batch)
    assert len({title for title, _ in pages}) == len(pages) and all(title.startswith(name) for title, _ in pages)
    for number in range(len(pages)):
        assert preview.draw_page(pages, number, task.data.loss_history.array(), task.loss_names, 1).dtype == np.uint8
    task.save(tmp_path, "a")
    directory = ModelDir(tmp_path, "a", name)
    assert verify(directory).problems == []
    stored = directory.read_data()
    spec = spec_of(name)
    assert set(stored.options) == {row.key for row in spec.rows if row.stored}
    values = spec.resolve({}, stored.options)
    assert dict(values) == dict(task.values), "what is stored gives the same options again"
    check_sizes(spec, values, directory)
    again = spec.build(values, seed=9)
    assert again.load(tmp_path, "a") == [] and again.iteration == 1
    one, two = task.parts(), again.parts()
    assert {stem: list(part) for stem, part in one.items()} == {stem: list(part) for stem, part in two.items()}
    assert all(np.array_equal(array, two[stem][key]) for stem, part in one.items() for key, array in part.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_task_reads_the_network_alone(name: str, tmp_path: Path) -> None:
    task = small(name)
    batch = random_batch(task)
    task.step(batch)
    task.save(tmp_path, "a")
    drawing = small(name, seed=5, training=False)
    assert drawing.load(tmp_path, "a") == [] and drawing.optional_parts == ()
    for (title, rows), (other, cells) in zip(task.preview(batch), drawing.preview(batch), strict=True):
        assert title == other
        if title != f"{name} morph {1.0}":  # has a drawing of its seed's random code
            assert np.array_equal(rows, cells)


@pytest.mark.parametrize("name", SWAPS)
def test_memory_is_counted_and_only_its_own_options_are_advised(name: str) -> None:
    task = small(name, **EVERYTHING[name])
    assert isinstance(task, SwapTask)
    holds = need(task.spec, task.values, card=False)
    sizes = [getattr(holds, part) for part in ("weights", "gradients", "moments", "batch")]
    assert all(sizes) and holds.gradients <= holds.weights
    changeable = {row.key for row in MODELS[name].rows if row.ask != "fixed"}
    advised = [change.text.removeprefix("--set ").partition("=")[0] for change in changes(task, 2, 99)]
    assert advised and set(advised) <= changeable


@pytest.mark.parametrize("name", SWAPS)
@pytest.mark.parametrize("quantize", [False, True])
def test_exported(name: str, quantize: bool, tmp_path: Path) -> None:
    if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnxruntime") is None:
        pytest.skip('needs onnx and onnxruntime: pip install -e ".[dfm]"')
    from models import dfm

    task = small(name, training=False)
    assert isinstance(task, SwapTask)
    told = dfm.export(task, tmp_path / f"a_{name}_model.dfm", name="a", quantize=quantize)
    assert max(told.values()) < (5e-3 if quantize else 1e-5)


@pytest.mark.parametrize("name", SWAPS)
def test_trained_from_the_command_line_stopped_and_resumed(
    name: str, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte as if it had not been stopped, with another number of workers."""
    spec = spec_of(name)
    monkeypatch.setitem(MODELS, name, spec)
    given = {"resolution": 64, "batch_size": 2, **PROMPTED, **EVERYTHING[name]}
    sets = [word for key, value in given.items() if spec.takes(key) for word in ("--set", f"{key}={value}")]

    def train(folder: Path, target: int, *more: str) -> str:
        words = ["train", "--model", name, "--cpu-only", "--no-preview", "--exit-at-target"]
        words += ["--training-data-src-dir", str(faces / "data_src" / "aligned")]
        words += ["--training-data-dst-dir", str(faces / "data_dst" / "aligned")]
        done = here(["", "", *words, "--model-dir", str(folder), "--target-iter", str(target), *more])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "Weights: " in train(tmp_path / "none", 4, "--dry-run", *sets) and not (tmp_path / "none").exists()
    train(tmp_path / "one", 4, "--workers", "0", "--seed", "3", *sets)
    train(tmp_path / "two", 3, "--workers", "0", "--seed", "3", *sets)
    train(tmp_path / "two", 4, "--workers", "2" if name == "SAEHD" else "0")
    one, two = (
        {path.name: path.read_bytes() for path in ModelDir(tmp_path / folder, "new", name).files()}
        for folder in ("one", "two")
    )
    assert one == two and len(one) > 5
    if None not in (importlib.util.find_spec("onnx"), importlib.util.find_spec("onnxruntime")):
        words = ["exportdfm", "--model-dir", str(tmp_path / "two"), "--model", name, "--force-model-name", "new"]
        done = here(["", "", *words])
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "two" / f"new_{name}_model.dfm").is_file()
