"""One of several processes that train small models together, for tests/test_distributed.py: steps of a joined batch,
and in process 0 the same steps alone. Prints a line of JSON a model.

    RANK=0 WORLD_SIZE=2 PORT=... python tests/world_stage.py 5 SAEHD AMP
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from small_models import EVERYTHING, random_batch, small

from core.batch import Batch
from core.distributed import Group, World
from mainscripts import train_follow
from models import Task

STEPS = 3
Weights = dict[str, np.ndarray]
FIRST = 8  # in iteration 9 Quick96 trains on the batch of the step before


def build(name: str, seed: int, batch_size: int) -> Task:
    return small(name, seed=seed, **EVERYTHING[name], batch_size=batch_size)


def steps(task: Task, world: World, batch_size: int, alone: Task) -> dict[str, float]:
    """Steps together, each compared with one of `alone` from the same weights: the largest differences."""
    found: dict[str, float] = {}
    batches, wholes = parts(task, world, batch_size), parts(alone, World(), batch_size)
    batch, whole = next(batches), next(wholes)
    for number in range(STEPS):
        if number and not task.repeats:
            batch, whole = next(batches), next(wholes)
        before = weights(alone)
        told, own = task.step(batch), alone.step(whole)
        off = difference(before, weights(alone), weights(task))
        off["losses"] = max(abs(float(own[key] - told[key])) for key in own)
        found = {key: max(value, found.get(key, 0.0)) for key, value in off.items()}
        if number == 0:  # as after a collapse
            task.soften()
            alone.soften()
            world.say({"word": "reload", "softer": True})
            task.join(world)
        alone.load_parts(task.parts())  # else rounding grows: weights shaken by 1e-7 go other ways within three steps
    return found


def difference(before: Weights, alone: Weights, task: Weights) -> dict[str, float]:
    """far: share of the weights that are not within 1e-5. The others: how far apart, over how far they have gone."""

    def off(one: Weights, other: Weights, moments: bool) -> np.ndarray:
        keys = [key for key in alone if ("_opt/" in key) == moments]
        return np.concatenate([(one[key] - other[key]).ravel() for key in keys])

    def apart(moments: bool) -> float:
        return float(np.linalg.norm(off(alone, task, moments)) / np.linalg.norm(off(alone, before, moments)))

    far = float((np.abs(off(alone, task, False)) > 1e-5).mean())
    return {"far": far, "distance": apart(False), "moments": apart(True)}


def parts(task: Task, world: World, batch_size: int) -> Iterator[Batch]:
    """What a process trains on of the batches of all."""
    rows = world.rows(batch_size)
    for number in itertools.count():
        yield random_batch(task, number, batch_size).map(lambda array: array[rows.start : rows.stop])


def weights(task: Task) -> Weights:
    return {f"{stem}/{name}": np.asarray(a) for stem, part in task.parts().items() for name, a in part.items()}


def main() -> None:
    torch.set_num_threads(1)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.TCPStore("127.0.0.1", int(os.environ["PORT"]), is_master=rank == 0, wait_for_workers=False)
    world = Group(store, rank, size, patience=60)
    batch_size, *names = sys.argv[1:]
    for name in names:
        task = build(name, 3 if rank == 0 else 99, int(batch_size))  # their start weights come from process 0
        task.seed = 3
        for optimizer in task.optimizers.values():
            if optimizer.dropout is not None:
                optimizer.dropout.seed += 3 - 99 if rank else 0
        if rank == 0:
            task.data.iter = FIRST
        task.join(world)
        if rank == 0:
            alone = build(name, 3, int(batch_size))
            alone.data.iter = FIRST
            told = steps(task, world, int(batch_size), alone)
            world.say({"word": "next"})
            print(json.dumps({"model": name, **told, "iterations": [alone.iteration, task.iteration]}), flush=True)
        else:
            setup: Any = SimpleNamespace(world=world)
            assert train_follow._steps(setup, task, parts(task, world, int(batch_size))) == {"word": "next"}
    if rank == 0:
        print(world.account(), flush=True)
        world.close()
    else:
        assert world.hear() == {"word": "end"}
        world.close()


if __name__ == "__main__":
    main()
