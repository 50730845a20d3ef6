"""How much faster several processes make a training step: the same joined batch with 1, 2, ... of them.

`together` starts the processes, each of which runs this module; `bench step --processes N` calls it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from core.child import ROOT
from mainscripts.train_place import Place, environment

WARM_UP = 2
LIMIT_S = 3600.0


def together(
    model: str, options: Mapping[str, Any], processes: int, rounds: int = 10, devices: str = "cpu"
) -> dict[str, Any]:
    """Milliseconds of a step of `processes` processes that share options["batch_size"] faces: `ms`, `ms_min`, `ms_max`,
    and `waiting`, the share of it that process 0 adds up gradients and waits. options: as `ModelSpec.resolve` takes
    them. devices: cpu, whose cores are divided among them, or cuda, a card for each. Raises RuntimeError with what a
    process said that failed."""
    from core.distributed import open_store
    from samplelib.loader import usable_cores

    store = open_store()
    running: list[subprocess.Popen[str]] = []
    asked = json.dumps({"model": model, "options": dict(options), "rounds": rounds, "devices": devices})
    for rank in range(processes):
        env = {**os.environ, **environment(rank, processes, store.port, usable_cores())}
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "mainscripts.bench_world", asked], cwd=ROOT, env=env, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    try:
        said = [process.communicate(timeout=LIMIT_S) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, errors) in zip(running, said, strict=True):
        if process.returncode:
            raise RuntimeError(errors.strip() or f"a process ended with {process.returncode}")
    result: dict[str, Any] = json.loads(said[0][0])
    return result


def main(asked: Mapping[str, Any]) -> None:
    """One of the processes; process 0 prints the result."""
    import torch.distributed as dist

    from core.distributed import ALONE, Group, World, no_libuv
    from mainscripts.bench_floor import random_batch
    from models import MODELS
    from models.running import faces_per_iteration

    place = Place.of(os.environ) or Place(0, 1, 0, 1)
    device = "cpu" if asked["devices"] == "cpu" else f"{asked['devices']}:{place.local_rank}"
    spec = MODELS[asked["model"]]
    values = spec.resolve(asked["options"])
    task = spec.build(values, device=device)
    world: World = ALONE
    if place.size > 1:
        no_libuv()
        store = dist.TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), is_master=False)
        world = Group(store, place.rank, place.size, place.local, device)
        task.join(world)
    size = faces_per_iteration(values)
    rows = world.rows(size)
    batch = random_batch(task, size).map(lambda array: array[rows.start : rows.stop])
    if place.rank:
        while world.hear() is None:
            task.step(batch)
        world.close()
        return
    times = []
    for _ in range(WARM_UP + asked["rounds"]):
        started = time.perf_counter()
        losses = task.step(batch)
        float(next(iter(losses.values())))  # reading waits for the device
        times.append((time.perf_counter() - started) * 1e3)
    ms = times[WARM_UP:]
    told = {"processes": place.size, "ms": round(statistics.median(ms), 1), "ms_min": round(min(ms), 1),
            "ms_max": round(max(ms), 1), "waiting": round(world.waiting, 3)}  # fmt: skip
    world.close()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
