"""The command line as a whole: help that answers at once, and readers that do not read it to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import ROOT

from main import VERBS


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_help_waits_for_what_is_large(verb: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "main.py", *verb, "--help"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.startswith(f"usage: main.py {' '.join(verb)}")
    loaded = {line.rpartition(" ")[2] for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "cv2", "rich.console", "prompt_toolkit", "onnx", "av"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["trian"]], ids=" ".join)
@pytest.mark.parametrize("flags", [[], ["-u"]], ids=["kept", "at once"])
def test_a_full_disk_for_output(words: list[str], flags: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, *flags, "main.py", *words], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True,
            check=False,
        )  # fmt: skip
    assert "Traceback" not in done.stderr
    if words == ["--help"]:  # argparse itself keeps quiet about it
        assert done.returncode == 1 and done.stderr == "Error: the output cannot be written: No space left on device.\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows tells nobody that the reader is gone")
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["trian"]], ids=" ".join)
@pytest.mark.parametrize("flags", [[], ["-u"]], ids=["kept", "at once"])
def test_nobody_reads(words: list[str], flags: list[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, *flags, "main.py", *words], cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    os.close(theirs)
    if words == ["trian"]:
        assert done.returncode == 2 and "is not a verb" in done.stderr
    else:
        assert done.stderr == "" and done.returncode in (0, 141)  # argparse itself keeps quiet about it


@pytest.mark.skipif(os.name == "nt", reason="closes the streams with a shell")
def test_without_input_and_output() -> None:
    """As desktops and services start programs: the streams are closed, not only empty."""
    line = f"{sys.executable} main.py model list --model-dir /no/such <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], cwd=ROOT, check=False).returncode == 1
    line = f"{sys.executable} main.py model --help <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], cwd=ROOT, check=False).returncode == 0
