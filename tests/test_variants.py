"""SAEHD's variants: Quick96 against DFL, what it trains on and asks; SAEHDBW's one channel from face to .dfm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from augmented import by_opencv, by_torch, chance
from sample_faces import mean_landmarks, noise, write_face
from small_models import random_batch, small
from test_augment import noisy
from test_saehd_golden import nchw, relative
from training import command, here

from core import dflfile
from core.batch import Batch, SampleRequest, Side
from core.modeldir import ModelDir
from core.options import OptionError
from models import MODELS, PartError
from models.common import fixed
from models.swap import SwapTask
from samplelib.faceset import Faceset
from samplelib.prepare import kinds, prepare
from samplelib.process import process


def quick(**sizes: int) -> SwapTask:
    """Quick96 with a small network, of the recorded size where none is given."""
    spec = MODELS["Quick96"]
    sizes = {"ae_dims": 12, "e_dims": 4, "d_dims": 6, "d_mask_dims": 4, **sizes}
    rows = tuple(row for row in spec.rows if row.key not in sizes) + fixed(**sizes)
    spec = replace(spec, rows=rows)
    task = spec.build(spec.resolve({}))
    assert isinstance(task, SwapTask)
    return task


def test_quick96_against_dfl(shared: Path) -> None:
    folder, task = shared / "golden" / "quick96", quick()
    start = {stem: dflfile.load(folder / "w0" / f"gold_Quick96_{stem}.npy") for stem in task.modules}
    task.load_parts(start)
    drawn = np.load(folder / "io.npz")
    swap = task.swap(nchw(drawn["dst"]))
    for name, image in (("src_dst", swap.face), ("src_dstm", swap.src_mask), ("dst_dstm", swap.dst_mask)):
        assert np.abs(image.numpy() - nchw(drawn[name])).max() < 1e-5
    given, losses = np.load(folder / "batch.npz"), np.load(folder / "loss.npz")
    sides = {
        side: Side(**{name: nchw(given[f"{name}_{side}"]) for name in ("warped", "target", "mask")})
        for side in ("src", "dst")
    }
    found = task.step(Batch(**sides))
    assert [float(found[name]) for name in task.loss_names] == pytest.approx(
        [float(losses["src_loss_0"]), float(losses["dst_loss_0"])], rel=1e-5
    )
    moments = task.parts()["src_dst_opt"]
    for key in losses.files:
        kind, _, name = key.partition("|src_dst_opt|")
        if kind == "gradsq1":  # the first step keeps a tenth of the square
            assert relative(moments[f"acc_{name}"] * 10, losses[key]) < 1e-4, name


def test_a_quick96_of_dfl_is_read_and_written(shared: Path, tmp_path: Path) -> None:
    for path in (shared / "golden" / "quick96").glob("gold_*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in (shared / "golden" / "quick96" / "w0").glob("gold_*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    task = quick()
    task.load(tmp_path, "gold")
    task.step(random_batch(task))
    task.save(tmp_path, "gold")
    data = ModelDir(tmp_path, "gold", "Quick96").read_data()
    assert data.iter == 1 and data.options["batch_size"] == 4 and "resolution" not in data.options
    assert [array.shape[-1] for array in data.sample_for_preview[0]] == [3, 3, 1]


def test_every_third_iteration_sees_the_last_batch_as_it_is() -> None:
    task, seen = quick(), []
    batch, forward = random_batch(task), task.net.codes

    def codes(x: torch.Tensor, *more: Any) -> torch.Tensor:
        seen.append(bool(torch.equal(x, task.both(batch, "target"))))
        return forward(x, *more)

    task.net.codes = codes  # type: ignore[method-assign]
    repeats = []
    for _ in range(7):
        repeats.append(task.repeats)
        task.step(batch)
    assert seen == repeats == [False, False, False, True, False, False, True]


def test_quick96_asks_nothing_and_has_no_other_sizes() -> None:
    spec = MODELS["Quick96"]
    assert not spec.asks and not any(row.ask in ("create", "always") for row in spec.rows)
    with pytest.raises(OptionError, match="resolution: got 128, but with this kind of model it is always 96"):
        spec.resolve({"resolution": 128})
    values = spec.resolve({"resolution": "96", "gan_power": 0, "batch_size": 2}, stored={"resolution": 1024})
    assert values["resolution"] == 96 and values["batch_size"] == 2 and "resolution" not in values.chosen


def train(faces: Path, model: Path, name: str, *more: str) -> str:
    words = command(faces, model, "--no-preview", "--exit-at-target", "--seed", "5", *more, small=False)
    words[words.index("SAEHD")] = name
    done = here(words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_start_files(faces: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    task = MODELS["Quick64"].build(MODELS["Quick64"].resolve({}), seed=3)
    for stem in ("encoder", "inter"):
        (start / f"{stem}.npy").write_bytes(dflfile.dumps(task.parts()[stem]))
    said = train(faces, tmp_path / "model", "Quick64", "--target-iter", "1", "--pretrained-model-dir", str(start))
    assert "has no decoder_src.npy, decoder_dst.npy: fresh weights; from there come encoder, inter." in said
    other = MODELS["Quick64"].build(MODELS["Quick64"].resolve({}))
    assert other.start_from(tmp_path / "nowhere")[0].endswith(": fresh weights.")
    other.start_from(start)
    assert np.array_equal(other.parts()["inter"]["dense1/weight:0"], task.parts()["inter"]["dense1/weight:0"])
    (start / "decoder_src.npy").write_bytes(dflfile.dumps({"out_conv/weight:0": np.zeros((1, 1, 2, 3), np.float32)}))
    before = other.parts()
    with pytest.raises(PartError, match=r"decoder_src\.npy: .* is missing"):
        other.start_from(start)
    assert all(np.array_equal(array, before["encoder"][key]) for key, array in other.parts()["encoder"].items())


@pytest.mark.parametrize("size", [48, 96])
@pytest.mark.parametrize("ct_mode", ["none", "rct"])
def test_grey_samples_are_the_grey_of_coloured_ones(size: int, ct_mode: str) -> None:
    request = SampleRequest(size, "whole_face", flip=True, ct_mode=ct_mode, ct_from="dst", hsv_power=0.1)
    faces = noisy(size)
    for make in (by_opencv, by_torch):
        made, coloured = make(replace(request, channels=1), faces), make(request, faces)
        for name, array in made.items():
            wanted = coloured[name]
            if name in ("warped", "target"):
                assert array.shape == (len(faces), 1, size, size)
                pictures = [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in wanted]
                wanted = np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[None] for image in pictures])
            # Colours are cut off at 0 and 1 before they become grey, grey is after.
            assert np.abs(array - wanted).mean() < 2e-3 and array.min() >= 0 and array.max() <= 1


def test_saehdbw_draws_grey_cells_from_one_channel(tmp_path: Path) -> None:
    task: Any = small("SAEHDBW", gan_power=0.1, gan_dims=4, face_style_power=1.0)
    batch = random_batch(task)
    assert batch.src.warped.shape[1] == batch.dst.target.shape[1] == 1
    for _ in range(2):
        assert all(np.isfinite(float(loss)) for loss in task.step(batch).values())
    assert task.parts()["encoder"]["down1/downs_0/conv1/weight:0"].shape == (5, 5, 1, 4)
    assert task.parts()["GAN"]["in_conv/weight:0"].shape[2] == 1
    for _, rows in task.preview(batch):
        for cell in (cell for row in rows for cell in row):
            assert cell.shape == (64, 64, 3) and np.array_equal(cell[..., 0], cell[..., 2])
    with pytest.raises(ValueError, match=r"target: got \(2, 3, 64, 64\)"):
        task.swap(np.zeros((2, 3, 64, 64), np.float32))


def test_a_grey_dfm_takes_and_gives_three_channels(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="extra dfm")
    import onnxruntime

    from models import dfm

    task: Any = small("SAEHDBW", training=False)
    path = tmp_path / "a_SAEHDBW_model.dfm"
    assert max(dfm.export(task, path, name="a").values()) < 1e-3
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(0).random((1, 64, 64, 3), dtype=np.float32)
    _, face, _ = session.run(None, {dfm.INPUT: picture})
    grey = cv2.cvtColor(picture[0], cv2.COLOR_BGR2GRAY)[None, None]
    assert face.shape == (1, 64, 64, 3) and np.array_equal(face[..., 0], face[..., 2])
    assert np.abs(face[..., 0] - task.swap(grey).face.numpy()[:, 0]).max() < 1e-3


def test_grey_jpgs_are_faces_too(tmp_path: Path) -> None:
    picture = noise(3, 96)
    for name, image in (("colour", picture), ("grey", cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))):
        write_face(tmp_path / f"{name}.jpg", image, mean_landmarks(96))
    faceset = Faceset.open(tmp_path, lambda text: pytest.fail(text))
    request = SampleRequest(64, "whole_face", channels=1, random_warp=False)
    colour, grey = (
        process(prepare(sample, kinds(request), request), request, chance(0))["target"] for sample in faceset.samples
    )
    assert grey.shape == (1, 64, 64) and np.abs(grey - colour).mean() < 0.01
