"""Trainings as processes: the command line of a small model, and what a folder holds."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

from tests_support import ROOT

from core.runlog import ENDING
from main import main

SMALL = ["resolution=64", "face_type=f", "archi=df-ud", "ae_dims=32", "e_dims=16", "d_dims=16", "d_mask_dims=16"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def command(faces: Path, model: Path, *more: str, small: bool = True) -> list[str]:
    sets = [word for pair in (*SMALL, "batch_size=2") for word in ("--set", pair)] if small else []
    return [
        sys.executable, str(ROOT / "main.py"), "train", "--model", "SAEHD", "--cpu-only", "--workers", "1",
        "--training-data-src-dir", str(faces / "data_src" / "aligned"),
        "--training-data-dst-dir", str(faces / "data_dst" / "aligned"), "--model-dir", str(model), *sets, *more,
    ]  # fmt: skip


def run(words: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=120, cwd=ROOT, env=ENVIRONMENT, check=False
    )


def here(words: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """As `run`, in this process: a process of its own takes three seconds to load PyTorch. For what a process is not
    needed for."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(words[2:])
            except SystemExit as left:  # argparse
                code = int(left.code or 0)
    finally:
        sys.stdin = before
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def digest(folder: Path) -> dict[str, str]:
    """Checksums of all files but the log, which tells of failures too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(ENDING)
    }
