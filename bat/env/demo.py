#!/usr/bin/env python3
"""The demo: two made-up people, a small SAEHD model, a couple of minutes. `bash bat/linux/demo.sh [flags of train]`.

Every number of the demo stands here. Runs again: the faces are kept and the model goes on from where it was, so
`--target-iter 10000` continues it. Needs neither a terminal nor a display.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WORKSPACE = ROOT / "workspace" / "demo"
NAME = "demo"
COUNT, SIZE = 200, 256  # faces of each person, and their side in pixels
TARGET = 1000
SAVE_EVERY = "20s"  # every save draws the preview anew: one sees it learn
OPTIONS = {
    "resolution": 64,
    "face_type": "wf",
    "archi": "df-ud",
    "ae_dims": 64,
    "e_dims": 32,
    "d_dims": 32,
    "d_mask_dims": 16,
    "batch_size": 4,
    "write_preview_history": "y",
}


def faces_command() -> list[str]:
    """Draws both people as a workspace."""
    return ["demo-faces", "--workspace", "--output-dir", str(WORKSPACE), "--count", str(COUNT), "--size", str(SIZE)]


def train_command(more: list[str]) -> list[str]:
    """Trains on both people and ends at the target. A later flag wins, so `more` can change anything."""
    sets = [part for key, value in OPTIONS.items() for part in ("--set", f"{key}={value}")]
    return [
        "train",
        "--training-data-src-dir", str(WORKSPACE / "data_src" / "aligned"),
        "--training-data-dst-dir", str(WORKSPACE / "data_dst" / "aligned"),
        "--model-dir", str(WORKSPACE / "model"),
        "--model", "SAEHD", "--force-model-name", NAME,
        "--target-iter", str(TARGET), "--exit-at-target", "--save-every", SAVE_EVERY, *sets, *more,
    ]  # fmt: skip


def run(command: list[str]) -> int:
    """Runs one verb of main.py. Without a terminal on its input it asks nothing."""
    command = [sys.executable, str(ROOT / "main.py"), *command]
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode


def main(more: list[str]) -> int:
    """Exit code of the first command that fails, else 0."""
    # Ctrl-C reaches the trainer too, which saves and leaves: wait for it instead of killing it.
    signal.signal(signal.SIGINT, lambda *_: None)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    drawn = min(len(list((WORKSPACE / side / "aligned").glob("*.jpg"))) for side in ("data_src", "data_dst"))
    code = run(faces_command()) if drawn < COUNT else 0
    code = code or run(train_command(more))
    if code:
        return code
    model = WORKSPACE / "model"
    pictures = sorted(path.name for path in model.glob(f"{NAME}_SAEHD_preview*.jpg"))
    print(f"\nModel:    {model} ({NAME}_SAEHD_*)")
    history = model / f"{NAME}_SAEHD_history"
    learned = f"; as it learned: {history}" if history.is_dir() else ""
    print(f"Previews: {', '.join(pictures) or 'in the window'}{learned}")
    print(f"Faces:    {WORKSPACE / 'data_src'} (src), {WORKSPACE / 'data_dst'} (dst)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
