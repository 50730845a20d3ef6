"""facesmith's main program with something wrong in it: `python tests/stop_stage.py WHAT train ...`, to be stopped.

WHAT: `hang` (iteration 4 hears nothing and never ends), `slow` (writing never ends from the second save on), `error`
(iteration 4 fails), `nothing`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from core.modeldir import ModelDir
from main import program
from models.swap import SwapTask

step, write = SwapTask.train_step, ModelDir.write


def deaf() -> None:
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(60)


def stuck_step(task: SwapTask, batch: Any) -> dict[str, Any]:
    if task.iteration == 3:
        deaf()
    return step(task, batch)


def failing_step(task: SwapTask, batch: Any) -> dict[str, Any]:
    if task.iteration == 3:
        raise RuntimeError("the card fell off the bus")
    return step(task, batch)


def slow_write(directory: ModelDir, parts: Any, data: Any, *rest: Any) -> None:
    if data.iter > 1:
        deaf()
    write(directory, parts, data, *rest)


if __name__ == "__main__":
    what = sys.argv.pop(1)
    if what in ("hang", "error"):
        SwapTask.train_step = stuck_step if what == "hang" else failing_step  # type: ignore[method-assign]
    elif what == "slow":
        ModelDir.write = slow_write  # type: ignore[assignment, method-assign]
    sys.exit(program())
