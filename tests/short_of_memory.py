"""The program with too little memory, for real: `python tests/short_of_memory.py WHEN MB train ...` lets the process
take MB megabytes more than it has from WHEN on: `build` (the network is made) or the number of an iteration. With
`over N` for MB, as one word, batches of more than N faces raise what PyTorch raises, and nothing is really short. With
`augment` for WHEN, samples made on the device do so from the third batch on.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import main
from core import devicesamples
from core.memory import give_back
from mainscripts import train_setup
from models.swap import SwapTask


def limit(megabytes: int) -> None:
    give_back("cpu")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def arrange(when: str, how: str) -> None:
    if when == "augment":
        refuse_samples(int(how.split()[1]))
        return
    if how.startswith("over "):
        refuse(int(when), int(how.split()[1]))
        return
    megabytes = int(how)
    if when == "build":
        build = train_setup.build

        def tight(*given: Any) -> Any:
            limit(megabytes)
            return build(*given)

        train_setup.build = tight
        return
    step = SwapTask.train_step

    def train_step(self: SwapTask, batch: Any) -> dict[str, Any]:
        if self.iteration + 1 == int(when) and resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            limit(megabytes)
        return step(self, batch)

    SwapTask.train_step = train_step  # type: ignore[method-assign]


def refuse(iteration: int, most: int) -> None:
    step = SwapTask.train_step

    def train_step(self: SwapTask, batch: Any) -> dict[str, Any]:
        if self.iteration + 1 >= iteration and len(batch.src.warped) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return step(self, batch)

    SwapTask.train_step = train_step  # type: ignore[method-assign]


def refuse_samples(most: int) -> None:
    made = devicesamples.augment
    batches: list[int] = []

    def augment(request: Any, faces: Any, drawn: Any, reference: Any) -> Any:
        batches.append(len(drawn.inverse))
        if len(batches) > 4 and batches[-1] > most:  # two sides a batch
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return made(request, faces, drawn, reference)

    devicesamples.augment = augment


if __name__ == "__main__":
    arrange(sys.argv[1], sys.argv[2])
    sys.argv[1:3] = []
    sys.exit(main.main())
