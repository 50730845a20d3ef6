"""Several processes that train one model together, a device each, on torch.distributed.

Process 0 leads: it alone asks, saves, draws and decides. Each iteration it says `step`, and all make the same one from
their rows of one joined batch. Gradients are summed before they are clipped, so that any number of processes takes the
step that one with the whole batch would take. Whatever else happens is said by process 0 too, between two steps.

A process that ends meanwhile is noticed in the next sum, before a weight has changed: `Lost`. So a wait here looks
again and again instead of resting in a driver, which nothing could call back. `World` is a training of one process,
where all of this is nothing.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

FOREVER = timedelta(days=300)  # a training may pause at its target; who is gone is found out by `check`, not by time
BUCKET = 1 << 22  # elements: 16 MB are summed while the next are packed
EVIDENCE_S = 5.0  # a process ends a moment after its connections
CLOSE_S = 10.0
STEP, TOLD = 0, 1
END = {"word": "end"}


def no_libuv() -> None:
    """PyTorch for Windows comes without the library that its stores use elsewhere."""
    if sys.platform == "win32":
        os.environ.setdefault("USE_LIBUV", "0")


def open_store() -> dist.TCPStore:
    """A store of this process's own where others of this machine find each other, at any free port."""
    libuv = sys.platform != "win32"
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, use_libuv=libuv)


def outer_store() -> dist.Store:
    """The store that the environment names, as torchrun sets it."""
    no_libuv()
    store: dist.Store = next(iter(dist.rendezvous("env://", timeout=timedelta(seconds=1800))))[0]
    return store


class Lost(RuntimeError):
    """Another process of the training is gone; the text says which and why, as far as it is known."""


class World:
    """A training of one process. rank: the number of this process; size: of all; local: how many share this machine."""

    rank, size, local = 0, 1, 1
    broken = False  # a step was begun that not all will end: nothing can be said any more

    def rows(self, batch_size: int) -> range:
        """The rows of a joined batch that this process makes and trains on; the first processes have one more where it
        does not divide."""
        less, more = divmod(batch_size, self.size)
        start = self.rank * less + min(self.rank, more)
        return range(start, start + less + (self.rank < more))

    @contextlib.contextmanager
    def step(self, iteration: int) -> Iterator[None]:
        """Around a training step: has the other processes make theirs."""
        yield

    def say(self, told: Mapping[str, Any]) -> None:
        """Process 0 to all others, who `hear` it: plain JSON."""

    def hear(self) -> dict[str, Any] | None:
        """What process 0 says; None where it is to make a step. Raises Lost."""
        raise RuntimeError("a process that is alone hears nothing")

    def reduce(self, gradients: Sequence[Tensor], ok: Tensor | None) -> Tensor | None:
        """Sums gradients over all processes, in place; 1-D, contiguous. ok: a 0-d bool, whether this process's share is
        sound; returns whether all are. Raises Lost; nothing but gradients has changed then."""
        return ok

    def mean(self, values: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        """Means over the joined batch, of means over `count` faces here."""
        return dict(values)

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Gives all processes what process 0 has, in place. Raises Lost."""

    @property
    def waiting(self) -> float:
        """The share of an iteration that goes into adding up gradients and waiting for the others."""
        return 0.0

    def account(self) -> str:
        """How well they work together, in a line; empty where there is nothing to tell yet."""
        return ""

    def close(self) -> None:
        """Ends the others, who hear `end`. Twice is fine."""


ALONE = World()


class Group(World):
    """One of several processes. device: of the tensors that are summed. check: why another one must be given up, empty
    where none must; it is asked every tenth of a second that something is waited for. Raises Lost where the others do
    not come within `patience` seconds."""

    def __init__(
        self,
        store: dist.Store,
        rank: int,
        size: int,
        local: int = 1,
        device: str = "cpu",
        check: Callable[[], str] = lambda: "",
        patience: float = 1800.0,
    ) -> None:
        self.rank, self.size, self.local = rank, size, local
        self._device, self._check = torch.device(device), check
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
        self._closed = self._ended = False
        self._reason = ""
        self._steps, self._in_steps, self._waited = 0, 0.0, 0.0
        self._meet(dist.PrefixStore("here", store), patience)
        kind, engine = self._device.type, {"cuda": "nccl", "xpu": "xccl"}.get(self._device.type, "gloo")
        there = engine != "gloo" and dist.is_backend_available(engine)
        self._staged = kind != "cpu" and not there  # Windows has no NCCL: by way of main memory
        backend = f"cpu:gloo,{kind}:{engine}" if there else "gloo"
        self._connect(backend, dist.PrefixStore("group", store), patience)

    def _meet(self, store: dist.Store, patience: float) -> None:
        """Waits until all are there: torch.distributed itself would wait for one that has ended at its start."""
        store.set(str(self.rank), "")
        end = time.monotonic() + patience
        for rank in range(self.size):
            while not store.check([str(rank)]):
                if reason := self._check():
                    raise Lost(reason)
                if time.monotonic() > end:
                    raise Lost(f"Process {rank} has not come within {patience:.0f} s.")
                time.sleep(0.05)

    def _connect(self, backend: str, store: dist.Store, patience: float) -> None:
        """In a thread: where one ends meanwhile it would wait for ever, and no signal would be heard."""
        over, problems = threading.Event(), ["one of them has ended"]

        def connect() -> None:
            try:
                dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=FOREVER)
                problems.clear()
            except (RuntimeError, ValueError) as error:
                problems.append(str(error))
            finally:
                over.set()

        threading.Thread(target=connect, name="connecting", daemon=True).start()
        self._until(over.is_set, patience)
        if problems:
            raise self._lost(f"The processes cannot connect: {problems[-1]}")

    @contextlib.contextmanager
    def step(self, iteration: int) -> Iterator[None]:
        started = time.perf_counter()
        if self.broken:
            raise Lost(self._reason)
        try:
            if self.rank == 0:
                self._send(STEP, iteration, b"")
            yield
        except BaseException:
            self.broken = True  # the others are in the midst of a step that this one will not end
            raise
        if self._steps == 0:  # the first makes plans and buffers
            self._waited = 0.0
        else:
            self._in_steps += time.perf_counter() - started
        self._steps += 1

    def say(self, told: Mapping[str, Any]) -> None:
        if self.rank == 0 and not self.broken:
            self._send(TOLD, 0, json.dumps(told).encode())

    def hear(self) -> dict[str, Any] | None:
        head = torch.zeros(3, dtype=torch.int64)
        self._wait(self._broadcast(head))
        kind, _, length = head.tolist()
        if kind == STEP:
            return None
        text = torch.zeros(length, dtype=torch.uint8)
        self._wait(self._broadcast(text))
        told: dict[str, Any] = json.loads(bytes(text.tolist()))
        self._ended = told == END
        return told

    def _send(self, kind: int, number: int, text: bytes) -> None:
        self._wait(self._broadcast(torch.tensor([kind, number, len(text)])))
        if text:
            self._wait(self._broadcast(torch.tensor(list(text), dtype=torch.uint8)))

    def reduce(self, gradients: Sequence[Tensor], ok: Tensor | None) -> Tensor | None:
        self._settle()
        started = time.perf_counter()
        bad = torch.zeros(1, device=self._device) if ok is None else (~ok).to(torch.float32).view(1)
        pieces = [piece for gradient in gradients for piece in gradient.split(BUCKET)]
        whole = [piece for piece in pieces if piece.numel() == BUCKET]
        small = [piece for piece in pieces if piece.numel() < BUCKET]
        under_way = [self._sum(piece) for piece in whole]
        packed = self._pack([*small, bad])
        under_way += [self._sum(bucket) for bucket, _ in packed]
        for finish in under_way:
            finish()
        for bucket, tensors in packed:
            parts = bucket.split([tensor.numel() for tensor in tensors])
            torch._foreach_copy_(tensors, list(parts))
        self._waited += time.perf_counter() - started
        return None if ok is None else bad[0] == 0

    def _pack(self, tensors: Sequence[Tensor]) -> list[tuple[Tensor, list[Tensor]]]:
        """Few buckets of many tensors, each with those that it holds."""
        groups: list[list[Tensor]] = [[]]
        filled = 0
        for tensor in tensors:
            if filled + tensor.numel() > BUCKET and groups[-1]:
                groups.append([])
                filled = 0
            groups[-1].append(tensor)
            filled += tensor.numel()
        return [(torch.cat([tensor.detach() for tensor in group]), group) for group in groups]

    def _sum(self, tensor: Tensor) -> Callable[[], None]:
        """Begins the sum of a tensor, in place; what ends it."""
        shared = tensor.cpu() if self._staged else tensor
        work = self._all_reduce(shared)

        def finish() -> None:
            self._wait(work)
            if self._staged:
                tensor.copy_(shared)

        return finish

    def mean(self, values: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        started = time.perf_counter()
        told = torch.stack([*(value.detach() * count for value in values.values()), torch.tensor(float(count)).to(
            self._device, non_blocking=True)])  # fmt: skip
        shared = told.cpu() if self._staged else told
        try:
            work = self._all_reduce(shared)
            if self._device.type == "cpu" or self._staged:
                self._wait(work)
            else:
                work.wait()  # the device does, not this process: the numbers are read a step later
        except Lost:  # the update is made: it counts, and the next step tells
            return dict(values)
        shared = shared.to(self._device)
        self._waited += time.perf_counter() - started
        return dict(zip(values, shared[:-1] / shared[-1], strict=True))

    @torch.no_grad()
    def spread(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            shared = whole.cpu() if self._staged else whole
            self._wait(self._broadcast(shared))
            if self.rank:
                tensor.copy_(shared)

    def _settle(self) -> None:
        """Until the device has done what is queued: else its own work would count as waiting for the others."""
        if self._device.type != "cpu":
            event = torch.Event(self._device)
            event.record()
            self._until(event.query)

    def _broadcast(self, tensor: Tensor) -> Any:
        """Begins to give everybody what process 0 has. Raises Lost where nobody is there any more."""
        try:
            return dist.broadcast(tensor, 0, async_op=True)
        except RuntimeError as error:
            raise self._lost(str(error)) from None

    def _all_reduce(self, tensor: Tensor) -> Any:
        """Begins a sum. Raises Lost where nobody is there any more."""
        try:
            return dist.all_reduce(tensor, async_op=True)
        except RuntimeError as error:
            raise self._lost(str(error)) from None

    def _wait(self, work: Any, seconds: float = math.inf) -> None:
        self._until(work.is_completed, seconds)
        try:
            work.wait()
        except RuntimeError as error:
            raise self._lost(str(error)) from None

    def _until(self, done: Callable[[], bool], seconds: float = math.inf) -> None:
        nap, began = 2e-5, time.monotonic()
        asked = began
        while not done():
            time.sleep(nap)
            now = time.monotonic()
            nap = min(nap * 1.3, 1e-3 if now - began < 10 else 0.02)
            if now - began > seconds:
                raise self._lost(f"a process has not answered for {seconds:.0f} s", known=True)
            if now - asked > 0.1:
                asked = now
                if reason := self._check():
                    raise self._lost(reason, known=True)

    def _lost(self, reason: str, known: bool = False) -> Lost:
        self.broken = True
        end = time.monotonic() + EVIDENCE_S
        while not known and time.monotonic() < end:
            if found := self._check():
                reason, known = found, True
            else:
                time.sleep(0.05)
        if self._device.type != "cpu" and not self._staged:
            with contextlib.suppress(RuntimeError, AttributeError):  # else whoever reads a number would wait for ever
                dist.distributed_c10d._abort_process_group()
        # gloo begins with a line of its source
        short = re.sub(r"^\[\S*\] ", "", reason.splitlines()[0]).partition(". ")[0]
        own = f"Another process has ended or cannot be reached ({short}). Its own output may tell why."
        self._reason = reason if known else own
        return Lost(self._reason)

    @property
    def waiting(self) -> float:
        return min(self._waited / self._in_steps, 1.0) if self._steps > 1 else 0.0

    def account(self) -> str:
        if self._steps < 2:
            return ""
        return (
            f"{self.size} processes: {self.waiting:.1%} of an iteration goes into adding up gradients and waiting for "
            f"each other (scaling efficiency {1 - self.waiting:.1%})."
        )

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Lost, RuntimeError):
            self.say(END)
            # One that leaves for another reason would be taken for a part of the others' step.
            if not self.broken and (self.rank == 0 or self._ended):
                self._wait(self._all_reduce(torch.zeros(1)), CLOSE_S)  # all have heard it
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
