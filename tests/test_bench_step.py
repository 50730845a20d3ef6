"""`bench step` runs and prints what its readers rely on. No timing is asserted."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from small_models import SIZES as MODEL_SIZES
from small_models import small
from torch.utils.flop_counter import FlopCounterMode

from core.nn import Conv, ConvTransposed, Dense
from main import main
from mainscripts.bench_floor import Floor, random_batch, step
from mainscripts.bench_step import PRESETS, choices, matrix_share
from models import MODELS

SIZES = {"resolution": 64, "ae-dims": 32, "e-dims": 16, "d-dims": 16, "d-mask-dims": 16, "batch-size": 1, "rounds": 1}
SMALL = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]
PROMISED = {
    "bench", "model", "archi", "resolution", "batch", "precision", "device", "ms", "ms_min", "ms_max", "floor_ms",
    "floor_ms_min", "floor_ms_max", "ratio", "rounds", "peak_mb", "peak_of",
}  # fmt: skip


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["bench", "step", *words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_json_object_a_line_for_each_size(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "--archi", "df-ud", "liae-tc", *SMALL, "--rounds", "3")
    assert [(row["bench"], row["archi"], row["batch"]) for row in found] == [
        ("step", "df-ud", 1),
        ("step", "liae-tc", 1),
    ]
    for row in found:
        assert set(row) >= PROMISED
        assert 0 < row["ms_min"] <= row["ms"] <= row["ms_max"]
        assert 0 < row["floor_ms_min"] <= row["floor_ms"] <= row["floor_ms_max"]
        assert row["ratio"] == pytest.approx(row["ms"] / row["floor_ms"], rel=0.1)
        assert row["peak_mb"] is None or 0 <= row["peak_mb"] < 4000
        assert (row["precision"], row["device"], row["rounds"]) == ("full", "cpu", 3)


def test_updates_and_waiting_for_samples(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows(capsys, *SMALL, "--updates", "--data", "--workers", "0")
    assert row["update_ms"] > 0 and row["update_ratio"] == pytest.approx(row["update_ms"] / row["adam_ms"], rel=0.1)
    assert row["workers"] == 0 and 0 < row["data_ms"] < row["fed_ms"] and 0 < row["data_wait_percent"] < 100


@pytest.mark.slow
def test_a_batch_shared_among_processes(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows(capsys, *SMALL, "--batch-size", "2", "--set", "accumulate=2", "--processes", "2")
    assert row["processes"] == 2 and 0 < row["together_ms_min"] <= row["together_ms"] <= row["together_ms_max"]
    assert 0 <= row["waiting_percent"] <= 100
    assert main(["bench", "step", *SMALL, "--batch-size", "2", "--processes", "3"]) == 2
    assert "batch_size: got 2 for 3 processes" in capsys.readouterr().err


def test_share_of_the_matrix_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainscripts.bench_rate.matrix_rate", lambda device, dtype: 1e12)
    task = small("Quick64")
    floor = Floor(task, random_batch(task, 2))
    assert 0 < matrix_share(task, floor, 200.0, "cpu") == matrix_share(task, floor, 100.0, "cpu") / 2


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--model", "AMP", "--set", "inter_dims=32", *SMALL, "--precision", "bfloat"]) == 0
    title, line = capsys.readouterr().out.splitlines()
    assert title.startswith("model  px  batch  precision  options        device  ms/iteration")
    assert line.startswith("AMP    64  1      bfloat     inter_dims=32  cpu     ") and line.endswith("tensors")


def test_a_wrong_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--archi", "dfx"], "archi: got 'dfx'"),
        (["--model", "AMP", "--archi", "df"], "'archi' is not an option of this model"),
        (["--model", "Quick96", "--resolution", "64"], "'resolution' is not an option of this model"),
        (["--model", "AMO"], "allowed is SAEHD"),
        (["--device", "cuda:77"], "--device: got 'cuda:77', allowed is cpu"),
        (["--precision", "half"], "got 'half', allowed is full"),
        (["--set", "batch_size"], "write --set key=value"),
        (["--set", "mp_mode=bfloat"], "say --precision bfloat"),
        (["--preset", "XSeg", "--model", "AMP"], "--model: --preset has its own"),
    ):
        assert main(["bench", "step", *words]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", MODEL_SIZES)
def test_the_floor_is_every_layer_once(name: str) -> None:
    task: Any = small(name)
    batch = random_batch(task, 2)
    before = {key: weight.clone() for key, weight in task.net.state_dict().items()}
    floor = Floor(task, batch)
    layers = [module for module in floor.net.modules() if isinstance(module, Conv | ConvTransposed | Dense)]
    assert {id(layer.module) for layer in floor.layers} == {id(module) for module in layers}
    # The first layer needs no gradient of the picture.
    assert [layer.x.requires_grad for layer in floor.layers].count(False) == 1
    floor()
    assert all(weight.grad is None for weight in (*floor.net.parameters(), *task.net.parameters()))
    assert all(torch.equal(weight, before[key]) for key, weight in task.net.state_dict().items())
    step(task, batch)  # its batch is one to train on


def test_the_floor_is_the_arithmetic_of_a_step() -> None:
    """Nothing is left out and nothing counted twice: a step multiplies as often, but for its heads, which it joins."""
    task: Any = small("SAEHD", archi="df-u")
    batch = random_batch(task, 2)
    floor, counts = Floor(task, batch), []
    for run in (floor, lambda: step(task, batch)):
        with FlopCounterMode(display=False) as counter:
            run()
        flops = counter.get_flop_counts()["Global"]
        counts.append(sum(n for kind, n in flops.items() if "group" not in str(kind)))
    assert 0.9 < counts[0] / counts[1] <= 1.0  # what is more in a step are the blurs of its losses


def test_the_floor_computes_in_the_precision_of_the_step() -> None:
    task: Any = small("SAEHD", mp_mode="bfloat")
    floor = Floor(task, random_batch(task, 2))
    assert {layer.gradient.dtype for layer in floor.layers} == {torch.bfloat16}
    assert all(weight.dtype == torch.float32 for weight in floor.net.parameters())
    floor()


def test_presets_are_what_their_models_take() -> None:
    from argparse import Namespace

    sized = dict.fromkeys(("ae_dims", "e_dims", "d_dims", "d_mask_dims", "batch_size", "model", "archi", "resolution"))
    found = list(choices(Namespace(preset=["all"], sets=[], **sized)))
    assert [name for name, _ in found] == [name for name, _ in PRESETS.values()]
    for name, given in found:
        values = MODELS[name].resolve(given)
        assert values["batch_size"] == 4 and all(values[key] == value for key, value in given.items())
