"""The benchmarks run, and print one JSON object a line with the promised keys. No figure is judged by the clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sample_faces import make_folder
from tests_support import ROOT
from training import here

from core.imagelib import color_transfer
from main import main
from mainscripts import bench_samples, bench_sizes

TINY = ["resolution=64", "archi=df-ud", "ae_dims=32", "e_dims=16", "d_dims=16", "d_mask_dims=16", "batch_size=2"]


def bench(*words: str, timeout: int = 120) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "main.py", "bench", *words, "--json"], cwd=ROOT, capture_output=True, text=True,
        timeout=timeout, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def bench_here(*words: str) -> list[dict[str, object]]:
    """As `bench`, in this process, which has PyTorch already."""
    done = here(["", "", "bench", *words, "--json"])
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_samples(tmp_path: Path) -> None:
    src, dst = make_folder(tmp_path / "s", 4), make_folder(tmp_path / "d", 4)
    words = ["--src", str(src), "--dst", str(dst), "--resolution", "64", "--workers", "1", "--rounds", "1"]
    rows = bench("samples", *words, "--seconds", "0.2", "--ct-mode", "none", "rct", "--hsv", "0.1")
    for row in rows:
        for key in ("bench", "resolution", "ct_mode", "workers", "samples_per_s", "samples_per_s_per_core", "cache",
                    "pss_mb", "first_batch_s"):  # fmt: skip
            assert key in row
        assert row["pss_mb"] is None or 20 < float(str(row["pss_mb"])) < 250
    assert [(row["ct_mode"], row["hsv_power"]) for row in rows] == [("none", 0.1), ("rct", 0.1)]


def test_sizes_that_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_sizes, "COUNTED", (64, 640))  # fewer than there are
    monkeypatch.setattr(bench_sizes, "WIDTHS", {"tiny": (32, 16, 16, 16), "small": (64, 32, 32, 16)})
    exact, half = bench_here("sizes"), bench_here("sizes", "--set", "mp_mode=bfloat")
    assert [row["card_gb"] for row in exact] == list(bench_sizes.CARDS) and half[0]["mp_mode"] == "bfloat"
    table = [(int(str(row["tiny"])), int(str(row["small"]))) for row in (*exact, *half)]
    assert table[: len(exact)] == sorted(table[: len(exact)]) and all(tiny >= small for tiny, small in table)
    assert sum(map(sum, table[len(exact) :])) > sum(map(sum, table[: len(exact)])), "half precision leaves room"
    assert main(["bench", "sizes", "--set", "resolution=64"]) == 2
    assert "--set resolution: the table lists sizes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-size", "0"], "from 1 to 1024"),
        (["--rounds", "0"], "from 1 to 1000"),
        (["--seconds", "0"], "from 0.1 to 3600"),
        (["--workers", "-1"], "from 0 to 64"),
        (["--resolution", "0"], "from 16 to 1024"),
        (["--hsv", "nan"], "from 0 to 1"),
        (["--augment-on", "device", "--device", "bogus"], "allowed is cpu"),
    ],
)
def test_flags_that_cannot_be(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    src, dst = make_folder(tmp_path / "s", 2), make_folder(tmp_path / "d", 2)
    try:
        code = main(["bench", "samples", "--src", str(src), "--dst", str(dst), *words])
    except SystemExit as left:  # argparse
        code = int(left.code or 0)
    assert code == 2 and message in capsys.readouterr().err


def test_stages_of_a_sample(tmp_path: Path) -> None:
    src, dst = make_folder(tmp_path / "s", 4), make_folder(tmp_path / "d", 4)
    words = ["--src", str(src), "--dst", str(dst), "--resolution", "64", "96", "--ct-mode", "rct", "--stages"]
    rows = bench_here("samples", *words)
    assert [(row["bench"], row["resolution"]) for row in rows] == [("samples_stages", 64), ("samples_stages", 96)]
    for row in rows:
        ms = row["ms"]
        assert isinstance(ms, dict) and list(ms) == ["read", "decode", "prepare", "draw", "geometry", "colour", "copy"]
        every = sum(ms[name] for name in ("draw", "geometry", "colour", "copy"))
        assert row["ms_cached"] == pytest.approx(every, abs=1e-3) and min(ms.values()) >= 0
        assert 0 < float(str(row["floor_memory_ms"])) < float(str(row["floor_remap_ms"]))


def test_samples_made_on_the_device(tmp_path: Path) -> None:
    src, dst = make_folder(tmp_path / "s", 4), make_folder(tmp_path / "d", 4)
    words = ["--src", str(src), "--dst", str(dst), "--resolution", "64", "--workers", "1", "--rounds", "1"]
    rows = bench_here("samples", *words, "--seconds", "0.1", "--augment-on", "cpu", "device", "--device", "cpu")
    assert [row["augment_on"] for row in rows] == ["cpu", "device"]
    assert all(float(str(row["samples_per_s"])) > 0 for row in rows)


def test_color() -> None:
    assert list(bench_samples.MODES) == ["none", *color_transfer.MODES]
    rows = bench_here("color", "--size", "16", "24", "--rounds", "1")
    assert [(row["bench"], row["mode"], row["size"]) for row in rows] == [
        ("color", mode, size) for size in (16, 24) for mode in ("rct", "lct", "mkl", "idt", "sot")
    ]
    assert all(isinstance(row["ms"], float) and row["ms"] > 0 for row in rows)


def swap_forms(iterations: int, marks: int, faces: int) -> list[float]:
    sets = [word for pair in TINY for word in ("--set", pair)]
    sizes = ["--iterations", str(iterations), "--marks", str(marks), "--faces", str(faces), "--held-out", "8"]
    rows = bench_here("swap", *sets, *sizes)
    assert [row["iteration"] for row in rows] == [iterations * mark // marks for mark in range(marks + 1)]
    assert [row["drawn"] for row in rows] == ["unswapped", *["swap"] * marks]
    assert all(isinstance(row["error"], float) and row["error"] >= 0 for row in rows)
    return [float(str(row["form"])) for row in rows]


def test_swap_against_the_truth() -> None:
    assert swap_forms(4, 2, 6)[0] > 0


@pytest.mark.slow
def test_the_error_against_the_true_swap_falls() -> None:
    unswapped, *forms = swap_forms(900, 3, 100)
    assert forms[2] < forms[0] < unswapped


def test_precisions_beside_other_seeds() -> None:
    sets = [word for pair in TINY for word in ("--set", pair)]
    rows = bench_here("precision", *sets, "--iterations", "2", "--marks", "2", "--faces", "4", "--held-out", "4")
    assert [(row["precision"], row["seed"]) for row in rows] == [("full", 0), ("bfloat", 0), ("full", 1), ("full", 2)]
    assert rows[0]["apart"] == 0 and rows[0]["error"] != rows[1]["error"]
    assert all(row["iteration"] == 2 and abs(float(str(row["apart"]))) < 50 for row in rows)
