"""The soak itself (`pytest -m soak`, half an hour; FACESMITH_SOAK_MINUTES), and that what it measures with is right."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from soak import gauge
from tests_support import ROOT, soon

session = pytest.importorskip("soak.session", reason="pexpect drives a pseudo-terminal (test extra)")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc")


def test_a_slope_is_told_in_an_hour_and_leaps_do_not_move_it() -> None:
    times = [2.0 * i for i in range(200)]
    assert gauge.slope(times, [100 + second / 60 for second in times]) == pytest.approx(60)
    assert gauge.slope(times, [100 + 50 * (second > 300) for second in times]) == 0


def test_the_worst_process_of_each_kind_counts_after_its_warm_up() -> None:
    def memory(second: float) -> dict[tuple[str, int], float]:
        early = 50 * min(second, 40)  # start-up is no leak
        return {("trainer", 1): early, ("worker", 2): early, ("worker", 3): early + second / 36}

    readings = [gauge.Reading(float(second), second, memory(second), 0.0, 0, 0) for second in range(0, 200, 2)]
    found = gauge.slopes(readings, 45)
    assert found["trainer"] == pytest.approx(0) and found["worker"] == pytest.approx(100)
    assert gauge.slopes(readings[:50], 45) == {}  # too short to tell


def test_processes_are_found_by_what_they_inherit() -> None:
    words = [sys.executable, "-c", "import time; time.sleep(60)", "samplelib.worker"]
    with subprocess.Popen(words, env={**os.environ, gauge.MARK: "of this test"}) as process:
        assert soon(lambda: gauge.family("of this test") == {process.pid: "worker"})
        assert soon(lambda: gauge.look("of this test", 0.0, 7).memory[("worker", process.pid)] > 1)
        process.kill()
    assert gauge.family("of this test") == {}


def test_lines_are_expected_or_strange() -> None:
    heard = session.Heard(io.StringIO())
    for piece in (
        '\x1b[?12lRunning trainer.\r\n==     Current iteration: 41          ==\r\nStarting. Press "Enter" to stop',
        " training and save model.\r\n\r[12:00:00][#000042][0011ms][0.5000][0.6000]\rSaving....", "            \r",
        "[12:00:01][#000043][0011ms][0.5000][nan]\r\n\r[12:00:02][#000044][0011ms][0.5000]",
    ):  # fmt: skip
        heard.write(piece)
    assert (heard.stored, heard.iteration, heard.saved) == (41, 43, 43) and heard.running and not heard.strange
    heard.write("\r\nTraceback (most recent call last):\r\nError: no\r\nDone.\r\n")
    assert heard.strange == ["Traceback (most recent call last):", "Error: no"] and heard.done
    assert (heard.iteration, heard.saved) == (44, 44)


@pytest.mark.soak
def test_half_an_hour_in_everybodys_hands(tmp_path: Path) -> None:
    minutes = os.environ.get("FACESMITH_SOAK_MINUTES", "30")
    words = [sys.executable, "-m", "tests.soak", "--minutes", minutes, "--json", str(tmp_path / "soak.json")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
