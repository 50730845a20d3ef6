"""Which of the processes of a training this one is. Needs no package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.options import OptionError

LEASH = "FACESMITH_STARTED_BY"
"""In the environment of a process that was started here: its parent's id. Its standard input ends with the parent."""


def environment(rank: int, count: int, port: int, cores: int) -> dict[str, str]:
    """What torchrun sets for one of `count` processes of this machine, who meet at `port`. cores: of the processor,
    shared by those that compute on it; 0 leaves their threads alone."""
    threads = {"OMP_NUM_THREADS": str(max(1, cores // count))} if cores else {}
    return {
        "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **threads,
    }  # fmt: skip


@dataclass(frozen=True)
class Place:
    """This process among those of its training, from the environment that torchrun sets."""

    rank: int
    size: int
    local_rank: int
    local: int

    @staticmethod
    def of(environment: Mapping[str, str]) -> Place | None:
        """None for a process that was started alone. Raises OptionError for an environment that says half of it."""
        names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        if "WORLD_SIZE" not in environment or "RANK" not in environment:
            return None
        try:
            rank, size, local_rank, local = (
                int(environment.get(name, default))
                for name, default in (("RANK", ""), ("WORLD_SIZE", ""), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
            )
        except ValueError:
            raise OptionError(f"{', '.join(names)}, LOCAL_RANK: not numbers as torchrun sets them.") from None
        if size < 2:
            return None
        if missing := [name for name in names if name not in environment]:
            raise OptionError(f"RANK and WORLD_SIZE are set, {', '.join(missing)} is not: start it with torchrun.")
        return Place(rank, size, local_rank, local)
