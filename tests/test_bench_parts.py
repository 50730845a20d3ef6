"""What the benchmarks share, and those of saves and starts: fields, plausible numbers, what is told where one fails."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from training import here

from mainscripts import bench_all, bench_common, bench_start


def test_functions_take_turns_and_the_warm_up_is_not_counted() -> None:
    order, ticks = [], iter(range(100))
    functions: dict[str, Callable[[], object]] = {name: lambda name=name: order.append(name) for name in "ab"}  # type: ignore[misc]
    times = bench_common.in_turn(functions, 2, 1, lambda: float(next(ticks)))
    assert "".join(order) == "ababab"
    assert times == {"a": [1000.0, 1000.0], "b": [1000.0, 1000.0]}
    assert bench_common.spread("ms", [3.0, 1.04, 2.0]) == {"ms": 2.0, "ms_min": 1.0, "ms_max": 3.0}
    assert bench_common.ratio([3.0, 1.0, 2.0], [4.0]) == 0.5


def test_a_table_leaves_empty_columns_out() -> None:
    columns = (
        bench_common.plain("what", "what"), bench_common.plain("not there", "x"), bench_common.plain("is", "is"),
        bench_common.ranged("ms", "ms"),
    )  # fmt: skip
    rows = [{"what": "one", "is": True, "ms": 1234.5, "ms_min": 1.5, "ms_max": 2000.0}, {"what": "two", "is": False}]
    assert bench_common.table(rows, columns) == ["what  is   ms", "one   yes  1,234 (1.5 to 2,000)", "two   no"]


def test_the_machine_in_words() -> None:
    row = bench_common.machine(lambda: datetime(2026, 11, 21))
    assert {"bench", "date", "cpu", "cores", "ram_gb", "load", "torch", "python", "commit"} <= set(row)
    words = bench_common.machine_words(row)
    assert words.startswith(f"2026-11-21: {row['cpu']}, {row['cores']} cores") and "torch " in words
    assert bench_common.machine_words({**row, "ram_gb": None, "load": None, "commit": ""}).endswith("commit unknown")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_disk_is_named(tmp_path: Path) -> None:
    assert " on " in bench_common.disk_of(tmp_path)
    assert bench_common.disk_of(Path("/proc")) == "proc on proc"


def test_save(tmp_path: Path) -> None:
    small = [word for pair in ("ae_dims=32", "e_dims=16", "d_dims=16", "d_mask_dims=16") for word in ("--set", pair)]
    done = here(
        ["", "", "bench", "save", "--preset", "df-ud-64", *small, "--rounds", "1", "--dir", str(tmp_path), "--json"]
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["bench"], row["model"], row["optimizer"]) for row in rows] == [
        ("save", "SAEHD", True),
        ("save", "SAEHD", False),
    ]
    for row in rows:
        assert 0 < row["blocks_ms"] < row["ms"] and row["floor_ms"] > 0 and row["bytes_ms"] > 0 and row["ratio"] > 0
        assert row["disk"] == bench_common.disk_of(tmp_path)
    assert 2.5 < rows[0]["mb"] / rows[1]["mb"] < 3.5  # two moments for each weight
    assert not list(tmp_path.iterdir())


def test_save_needs_a_folder(tmp_path: Path) -> None:
    done = here(["", "", "bench", "save", "--dir", str(tmp_path / "none")])
    assert done.returncode == 2 and "allowed is a folder that is there" in done.stderr


STARTED = """
import sys
for text in [
    "Running trainer.\\n", "Loading PyTorch... 1 s\\n", "Loading samples...\\n",
    "src: 3 faces\\nLoading x_SAEHD model...\\n",
    "Initializing models...", " 1.0 s\\nLoading weights...", "\\nLoading weights: 1 of 8\\nStarting sample workers...",
    " 0.1 s\\nFirst preview...", " 1 s\\nFirst iteration...", "1 s\\n[12:00:01][#000001]",
]:
    sys.stdout.write(text); sys.stdout.flush()
sys.exit(int(sys.argv[1]))
"""


def test_a_start_is_taken_apart() -> None:
    found = bench_start.start([sys.executable, "-c", STARTED, "0"])
    assert list(found) == list(bench_start.ENDS) and all(seconds >= 0 for seconds in found.values())
    row = bench_start.parts([found, found])
    assert row["s"] == pytest.approx(sum(found.values()), abs=0.01)


@pytest.mark.parametrize("words", [[STARTED, "3"], ["print('no such flag')"]])
def test_a_start_that_fails_is_told(words: list[str]) -> None:
    with pytest.raises(bench_start.StartError, match=r"did not start \(exit code [03]\)"):
        bench_start.start([sys.executable, "-c", *words])


def test_all_runs_each_and_says_which_failed(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Sequence[str]] = []

    def child(words: Sequence[str]) -> tuple[int, list[dict[str, Any]]]:
        asked.append(words)
        row = {
            "bench": words[0],
            "what": "new",
            "s": 1.0,
            "s_min": 1.0,
            "s_max": 1.0,
            "model": "SAEHD",
            "resolution": 64,
        }
        return (1, []) if words[0] == "save" else (0, [row])

    assert main_all(["--precision", "full", "bfloat"], child) == 1
    told = capsys.readouterr()
    assert [words[0] for words in asked] == ["step", "samples", "save", "start"]
    assert list(asked[0][-3:]) == ["--precision", "full", "bfloat"]
    assert "An iteration, and the floor below it" in told.out and "failed: save" in told.err
    assert main_all(["--json", "--quick", "--only", "start"], child) == 0
    machine, row = map(json.loads, capsys.readouterr().out.splitlines())
    assert (machine["bench"], row["bench"]) == ("machine", "start")


def main_all(words: list[str], child: bench_all.Start) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    bench_all.add_arguments(parser)
    return bench_all.run_by(parser.parse_args(words), child)


@pytest.mark.slow
def test_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    done = here(["", "", "bench", "all", "--quick", "--json"])
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["bench"] for row in rows] == ["machine", "step", "samples", "save", "save", *["start"] * 5]
    for row in rows[5:7]:
        assert row["s"] == pytest.approx(sum(row[key] for key in bench_start.ENDS), abs=0.02)
