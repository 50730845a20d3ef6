"""Where the time of an iteration goes: some iterations of a training under PyTorch's profiler, told as a table.

Parts of an iteration (`Task.timed`, and what surrounds a step) are measured by the clock, each without the parts inside
it; a card is waited for at both ends of a part, as its work would else count for whoever reads a number back. Operators
are the profiler's. A training that is not profiled runs none of this.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from core import memory
from core.batch import Batch, Page
from core.roles import Saver

WARM_UP = 5  # iterations: the first ones fetch memory and choose how to compute
PARTS = ("samples", "forward", "losses", "backward", "optimizer", "adversaries", "preview", "saving")
OTHER = "everything else"
OPERATORS = 12  # lines
WIDTH = 44  # letters of an operator's name

Timed = Callable[[str], contextlib.AbstractContextManager[Any]]
_NOTHING: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()


def untimed(_: str) -> contextlib.AbstractContextManager[Any]:
    """The `timed` of a training that is not profiled: costs less than a microsecond."""
    return _NOTHING


class Parts:
    """Seconds of named parts, each without those inside it. wait: returns when the device has done its work."""

    def __init__(self, clock: Callable[[], float], wait: Callable[[], None]) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._clock, self._wait = clock, wait
        self._inside = [OTHER]
        self._mark: float | None = None

    def begin(self) -> None:
        self._wait()
        self._mark = self._clock()

    def end(self) -> None:
        self._count()
        self._mark = None

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        self._count()
        self._inside.append(name)
        try:
            with record_function(name):
                yield
        finally:
            self._count()
            self._inside.pop()

    def _count(self) -> None:
        """What passed since the last mark is the innermost part's."""
        if self._mark is not None:
            self._wait()
            now = self._clock()
            self.seconds[self._inside[-1]] += now - self._mark
            self._mark = now


def hush() -> None:
    """PyTorch's profiler writes no lines of its own to the terminal; to be called before its first use."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")


class Profile:
    """The profile of `count` iterations, from the end of the fifth on. title: what is trained, for the table's head.
    device: PyTorch's name. tell: takes the table, and what went wrong. trace: a file for chrome://tracing."""

    def __init__(
        self, count: int, title: str, device: str, clock: Callable[[], float], tell: Callable[[str], None],
        trace: Path | None = None,
    ) -> None:  # fmt: skip
        self._count, self._title, self._device, self._tell, self._trace = count, title, device, tell, trace
        self._steps = 0
        self._task: Any = None
        card = device != "cpu"
        self._parts = Parts(clock, torch.accelerator.synchronize if card else lambda: None)
        wanted = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}.get(device.partition(":")[0])
        activities = [ProfilerActivity.CPU]
        if wanted is not None and wanted in torch.profiler.supported_activities():
            activities.append(wanted)
        self._profiler = profile(activities=activities, acc_events=True)
        self._running = self._over = False

    def watch(self, task: Any, batches: Iterator[Batch], saver: Saver) -> tuple[Any, Iterator[Batch], Any]:
        """What stands for them in a `Trainer`."""
        self._task = task
        return _Task(task, self), _batches(batches, self.timed), _Saver(saver, self.timed)

    def timed(self, name: str) -> contextlib.AbstractContextManager[Any]:
        return self._parts.timed(name) if self._running else _NOTHING

    def stepped(self) -> None:
        """After each iteration."""
        self._steps += 1
        if self._steps == WARM_UP and not self._over:
            self._start()
        elif self._steps == WARM_UP + self._count:
            self.finish()

    def _start(self) -> None:
        hush()
        memory.forget_peak(self._device)
        self._profiler.start()
        self._running, self._task.timed = True, self.timed
        self._parts.begin()

    def finish(self) -> None:
        """Ends it and tells what there is; without effect where it is over."""
        if self._over:
            return
        self._over = True
        done = self._steps - WARM_UP
        if not self._running:
            self._tell(f"No profile: it begins after {WARM_UP} iterations, and the training ended before.")
            return
        self._parts.end()
        self._running, self._task.timed = False, untimed
        peak = memory.usage(self._device)
        self._profiler.stop()
        if done:
            self._tell(self._table(done, peak))
        if self._trace is not None:
            try:
                self._profiler.export_chrome_trace(str(self._trace))
                self._tell(f"The trace is in {self._trace}: chrome://tracing or https://ui.perfetto.dev shows it.")
            except (OSError, RuntimeError) as error:
                self._tell(f"--profile-trace {self._trace}: cannot be written ({error}).")

    def _table(self, done: int, peak: memory.Usage) -> str:
        """At most 80 columns wide."""
        seconds = self._parts.seconds
        whole = sum(seconds.values())
        each, percent = 1e3 / done, 100 / whole
        lines = [f"Profile of {done} iterations, {self._title}: {whole * each:,.1f} ms each"]
        if self._device != "cpu":
            lines.append("The card is waited for after every part, so they take longer than usual.")
        lines += ["", f"  {'part of an iteration':{WIDTH}} {'':>9} {'ms':>9} {'%':>6}"]
        for name in (*PARTS, OTHER):
            if name in seconds:
                lines.append(
                    f"  {name:{WIDTH}} {'':>9} {seconds[name] * each:>9,.2f} {seconds[name] * percent:>6.1f}"
                )
        lines += ["", f"  {'operator, without those it calls':{WIDTH}} {'calls':>9} {'ms':>9} {'%':>6}"]
        for name, calls, took in self._operators()[:OPERATORS]:
            short = name if len(name) <= WIDTH else f"{name[: WIDTH - 3]}..."
            lines.append(f"  {short:{WIDTH}} {calls / done:>9,.1f} {took * each:>9,.2f} {took * percent:>6.1f}")
        held = "unknown" if peak.peak is None else memory.size(peak.peak)
        return "\n".join([*lines, "", f"  Most memory held meanwhile: {held} ({peak.where.lower()})"])

    def _operators(self) -> list[tuple[str, int, float]]:
        """(name, calls, seconds), the longest first: on a card its kernels, else the operators on the processor."""
        found = [event for event in self._profiler.key_averages() if event.key not in PARTS]
        on_card = any(event.self_device_time_total for event in found)
        times = [event.self_device_time_total if on_card else event.self_cpu_time_total for event in found]
        table = [(event.key, int(event.count), took / 1e6) for event, took in zip(found, times, strict=True)]
        return sorted(table, key=lambda row: -row[2])


class _Task:
    """A task whose steps are counted and whose previews are timed; else it is the task."""

    def __init__(self, task: Any, watch: Profile) -> None:
        self._task, self._watch = task, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def step(self, batch: Batch) -> dict[str, Any]:
        found: dict[str, Any] = self._task.step(batch)
        self._watch.stepped()
        return found

    def preview(self, batch: Batch) -> list[Page]:
        with self._watch.timed("preview"):
            pages: list[Page] = self._task.preview(batch)
        return pages


class _Saver:
    """A saver for which the loop's time is measured."""

    def __init__(self, saver: Saver, timed: Timed) -> None:
        self._saver, self._timed = saver, timed
        self.failed = saver.failed

    def save(self, losses: dict[str, float] | None, position: int) -> None:
        with self._timed("saving"):
            self._saver.save(losses, position)

    def backup(self) -> None:
        with self._timed("saving"):
            self._saver.backup()

    def wait(self) -> None:
        with self._timed("saving"):
            self._saver.wait()


def _batches(batches: Iterator[Batch], timed: Timed) -> Iterator[Batch]:
    while True:
        with timed("samples"):
            try:
                batch = next(batches)
            except StopIteration:
                return
        yield batch
