"""What a piece of work on a folder says while nobody sees its bar."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from mainscripts.job import Job


def test_lines_now_and_then_where_there_is_no_terminal(tmp_path: Path) -> None:
    out, now = io.StringIO(), [0.0]
    args = argparse.Namespace(input_dir=tmp_path, sets=[], ask=False)
    job = Job(args, (), io.StringIO(), out, clock=lambda: now[0])
    with job.progress("Applying") as report:
        for done in range(1001):  # 10 a second
            report(done, 1000)
            now[0] += 0.1
    assert out.getvalue().splitlines() == [f"Applying: {done:,} of 1,000" for done in range(100, 1000, 100)]
    out.truncate(out.seek(0))
    with job.progress("Applying") as report:
        for done in range(8):  # one in 20 seconds, of very many
            report(done, 100_000)
            now[0] += 20
        for done in range(8, 12):  # at once
            report(done, 12)
    assert out.getvalue().splitlines() == [f"Applying: {done} of 100,000" for done in (2, 4, 6)] + [
        "Applying: 8 of 12"
    ]


def test_small_work_says_nothing(tmp_path: Path) -> None:
    out = io.StringIO()
    job = Job(argparse.Namespace(input_dir=tmp_path, sets=[], ask=False), (), io.StringIO(), out, clock=lambda: 0.0)
    with job.progress("Applying") as report:
        for done in range(7):
            report(done, 6)
    assert out.getvalue() == ""
