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

TINY = ["resolution=64", "archi=df-ud", "ae_dims=32", "e_dims=16", "d_dims=16", "d_mask_dims=16", "batch_size=2"]


def bench(*words: str, timeout: int = 120) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "main.py", "bench", *words, "--json"], cwd=ROOT, capture_output=True, text=True,
        timeout=timeout, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_step() -> None:
    dims = ["--resolution", "64", "--ae-dims", "32", "--e-dims", "16", "--d-dims", "16", "--d-mask-dims", "16"]
    (row,) = bench("step", *dims, "--batch-size", "2", "--rounds", "1")
    for key in ("bench", "model", "archi", "resolution", "batch", "precision", "device", "ms", "floor_ms", "ratio"):
        assert key in row
    assert row["bench"] == "step" and row["resolution"] == 64 and row["batch"] == 2


def test_samples(tmp_path: Path) -> None:
    src, dst = make_folder(tmp_path / "s", 4), make_folder(tmp_path / "d", 4)
    words = ["--src", str(src), "--dst", str(dst), "--resolution", "64", "--workers", "1", "--rounds", "1"]
    (row,) = bench("samples", *words, "--seconds", "0.2")
    for key in ("bench", "resolution", "ct_mode", "workers", "samples_per_s", "samples_per_s_per_core"):
        assert key in row


def swap_errors(iterations: int, marks: int, faces: int, timeout: int) -> list[float]:
    sets = [word for pair in TINY for word in ("--set", pair)]
    sizes = ["--iterations", str(iterations), "--marks", str(marks), "--faces", str(faces), "--held-out", "8"]
    rows = bench("swap", *sets, *sizes, timeout=timeout)
    assert rows[0]["bench"] == "swap" and [row["iteration"] for row in rows[1:]] == [
        iterations * mark // marks for mark in range(1, marks + 1)
    ]
    return [float(str(row.get("error", row.get("unswapped")))) for row in rows]


def test_swap_against_the_truth() -> None:
    unswapped, *errors = swap_errors(4, 2, 6, timeout=120)
    assert unswapped > 0 and len(errors) == 2


@pytest.mark.slow
def test_the_error_against_the_true_swap_falls() -> None:
    unswapped, *errors = swap_errors(600, 3, 100, timeout=900)
    assert errors[2] < errors[1] < errors[0] and errors[2] < 0.6 * unswapped
