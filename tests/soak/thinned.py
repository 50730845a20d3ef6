"""`main.py` with a network that really trains in one iteration of a hundred only, and repeats earlier losses in others:

    python -m tests.soak.thinned train ...

All else is as ever: loop, samples, losses, saves, window. So a leak that takes a hundred thousand iterations to show
is seen in minutes.
"""

from __future__ import annotations

import sys
from typing import Any

from core.batch import Batch
from main import main
from models.swap import SwapTask

EVERY = 100
_train, _known = SwapTask.train_step, list[dict[str, Any]]()


def _thinned(self: SwapTask, batch: Batch) -> dict[str, Any]:
    if len(_known) < 20 or self.iteration % EVERY == 0:
        _known.append(_train(self, batch))
        del _known[:-50]
    return dict(_known[self.iteration % len(_known)])


if __name__ == "__main__":
    SwapTask.train_step = _thinned  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
