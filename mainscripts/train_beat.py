"""Signs of life of processes that torchrun has started: on one machine or several, nobody here is their parent."""

from __future__ import annotations

import os
import threading
import time

import torch.distributed as dist

EVERY_S = 2.0
GONE_S = 30.0


class Beat:
    """Gives a sign every two seconds, and watches those of process 0, or as process 0 of all. Where the store itself is
    gone, whoever kept it is: process 0 is told by `check`, any other ends."""

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:
        self._store, self._rank = dist.PrefixStore("beat", store), rank
        self._watched = range(1, size) if rank == 0 else range(1)
        self._over = threading.Event()
        self._reason = ""
        self._thread = threading.Thread(target=self._run, name="signs of life", daemon=True)
        self._thread.start()

    def __enter__(self) -> Beat:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(EVERY_S)

    def check(self) -> str:
        """Why another process must be given up; empty where none must."""
        return self._reason

    def failed(self, text: str) -> None:
        """Leaves word for process 0 of why this one ends."""
        try:
            self._store.set(f"word {self._rank}", text)
        except (RuntimeError, OSError):  # then it sees that this process is gone
            return

    def _run(self) -> None:
        last: dict[int, tuple[bytes, float]] = {}
        count = 0
        while not self._over.wait(EVERY_S):
            count += 1
            try:
                self._store.set(str(self._rank), str(count))
                for rank in self._watched:
                    self._look(rank, last)
            except (RuntimeError, OSError) as error:
                if self._over.wait(EVERY_S):  # it is over for all
                    return
                self._reason = f"The store of the processes is gone: {str(error).splitlines()[0]}"
                if self._rank:
                    os._exit(1)
                return

    def _look(self, rank: int, last: dict[int, tuple[bytes, float]]) -> None:
        if self._store.check([f"word {rank}"]):
            said = self._store.get(f"word {rank}").decode(errors="replace")
            self._reason = f"Process {rank} has ended: {said}"
            return
        if not self._store.check([str(rank)]):
            return  # it has not come yet
        sign, now = self._store.get(str(rank)), time.monotonic()
        before = last.get(rank)
        if before is None or before[0] != sign:
            last[rank] = sign, now
        elif now - before[1] > GONE_S:
            self._reason = f"Process {rank} has given no sign of life for {GONE_S:.0f} s."
