"""The stages of a start, named when they begin and timed when they end, and then the heartbeat of the training.

`core.watchdog` looks at `Stages.doing` from another thread to tell what is stuck. Waiting for a person never counts.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from core.batch import Batch
from core.events import Advanced, Event, Noted, Previewed, Staged, Started, Stepped, TargetReached
from core.prompts import Kind, Terminal

FACES = "Is the disk or the network drive with the faces slow, asleep or away?"
MODEL = "Is the disk or the network drive with the model slow, asleep or away?"
TORCH = "The first start after an installation is slow, and a virus scanner that reads every file makes it slower."
DEVICE = (
    "The graphics driver does not answer: another program may hold the card. If it stays so, restart the machine or "
    "update the driver; --cpu-only trains without it."
)
BUSY = "Other programs may use all processors or all memory, so that this one hardly gets its turn."
COMPILING = "The first work on a graphics card may compile for minutes, once. If it stays so, update the driver."
COMPILED = "Compiling takes minutes where the network is large. --compile off does without it."
WORKERS = (
    "Sample processes may be held up by a virus scanner, by other programs that use all processors, or by the disk "
    "with the faces. --workers 0 does without such processes."
)

LONG_S = 1.0
"""From so many seconds on it is told how far a stage is..."""
ADVANCE_S = 0.2
"""...this often."""


@dataclass(frozen=True)
class Doing:
    """What the program is busy with. since: when it began, or last got on; hint: what may hold it up. repeated: one of
    the iterations of a training, which are measured."""

    name: str
    hint: str
    since: float
    repeated: bool = False


class Stages:
    """One run's stages. tell: where events go; may be replaced (`tell_by`) as better listeners come up. clock: seconds,
    monotonic."""

    def __init__(self, tell: Callable[[Event], object], clock: Callable[[], float]) -> None:
        self.doing: Doing | None = None
        self.times: list[tuple[str, float]] = []
        self._tell, self._clock = tell, clock
        self._telling = threading.RLock()  # the watchdog tells too
        self._iterations: deque[float] = deque(maxlen=31)
        self._stage: tuple[str, float, bool] | None = None
        self._waited = 0.0  # seconds of the stage that somebody was waited for
        self._advanced = -math.inf

    def tell(self, event: Event) -> None:
        with self._telling:
            self._tell(event)

    def say(self, text: str) -> None:
        self.beat()
        self.tell(Noted(text))

    @contextlib.contextmanager
    def tell_by(self, tell: Callable[[Event], object]) -> Iterator[None]:
        """Events go to `tell` meanwhile."""
        with self._telling:
            before, self._tell = self._tell, tell
        try:
            yield
        finally:
            with self._telling:
                self._tell = before

    @contextlib.contextmanager
    def stage(self, name: str, hint: str, shown: bool = True) -> Iterator[None]:
        """A stage: told when it begins and, unless it fails, when it ends. shown: to the user too."""
        self.begin(name, hint, shown)
        try:
            yield
        except BaseException:  # Ctrl-C ends a stage too; the time it took belongs in the log
            self.end(failed=True)
            raise
        self.end()

    def begin(self, name: str, hint: str, shown: bool = True) -> None:
        """A stage begins; one that has not ended is given up."""
        now = self._clock()
        self._stage, self._waited = (name, now, shown), 0.0
        self.doing = Doing(name, hint, now)
        if shown:
            self.tell(Staged(name))

    def end(self, failed: bool = False) -> None:
        """The stage has ended, if there is one."""
        if self._stage is not None:
            name, begun, shown = self._stage
            seconds = self._clock() - begun - self._waited
            self.rest()
            self.times.append((name, seconds))
            if shown:
                self.tell(Staged(name, seconds, failed))

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Somebody is waited for: nothing is stuck, and no stage's time runs."""
        begun, before, self.doing = self._clock(), self.doing, None
        try:
            yield
        finally:
            now = self._clock()
            self._waited += now - begun
            if before is not None:
                self.doing = Doing(before.name, before.hint, now, before.repeated)

    def now(self) -> float:
        return self._clock()

    def beat(self) -> None:
        """It gets on: what is stuck from now on is another thing."""
        if (doing := self.doing) is not None:
            self.doing = Doing(doing.name, doing.hint, self._clock(), doing.repeated)

    def advance(self, done: int, total: int) -> None:
        """So much of the stage is done: a beat now and then, told where it takes long. May be called for each of many
        thousand parts."""
        now = self._clock()
        if now - self._advanced < ADVANCE_S:
            return
        self._advanced = now
        self.beat()
        if self._stage is not None:
            name, begun, shown = self._stage
            if shown and now - begun - self._waited >= LONG_S:
                self.tell(Advanced(done, total, name))

    def iterate(self, name: str, hint: str) -> None:
        """A step of an iteration begins."""
        self._stage = None
        self.doing = Doing(name, hint, self._clock(), repeated=True)

    def rest(self) -> None:
        """Nothing is to be done until somebody asks for it."""
        self.doing = self._stage = None

    def took(self, seconds: float) -> None:
        """An iteration took so long."""
        self._iterations.append(seconds)

    def usual(self) -> float:
        """Seconds that an iteration takes; 0 while that is unknown."""
        return statistics.median(tuple(self._iterations)) if self._iterations else 0.0

    def table(self) -> str:
        """`Start: 6.3 s (loading samples 0.1, initializing models 1.2)`"""
        parts = [f"{name[:1].lower()}{name[1:]} {seconds:.1f}" for name, seconds in self.times if seconds >= 0.05]
        return f"Start: {sum(seconds for _, seconds in self.times):.1f} s ({', '.join(parts)})"


class Asked:
    """A terminal at which no time counts while somebody is asked."""

    def __init__(self, terminal: Terminal, stages: Stages) -> None:
        self.strict = terminal.strict
        self._terminal, self._stages = terminal, stages

    def say(self, text: str, kind: Kind = "") -> None:
        self._terminal.say(text, kind)

    def ask(self, prompt: str, choices: Sequence[str] = ()) -> str:
        with self._stages.waiting():
            return self._terminal.ask(prompt, choices)

    def enter_within(self, seconds: float, line: Callable[[float], str]) -> bool:
        with self._stages.waiting():
            return self._terminal.enter_within(seconds, line)


class Pulse:
    """Stands between the loop and both its ends, and learns from what passes how far it is: its first samples, preview
    and iteration are stages of the start, every later iteration is a beat. An iterator of batches, and a sink."""

    def __init__(self, stages: Stages, batches: Iterator[Batch], emit: Callable[[Event], object], hint: str) -> None:
        """hint: what may hold up an iteration."""
        self._stages, self._batches, self._emit, self._hint = stages, batches, emit, hint
        self._next = "samples"  # what the start waits for: samples, preview, iteration, or nothing any more
        self._iteration = self._target = 0
        self._paused = False  # at the target
        self._mark: float | None = None

    def __iter__(self) -> Pulse:
        return self

    def __next__(self) -> Batch:
        stages = self._stages
        if self._next == "samples":
            with stages.stage("First samples", WORKERS):
                batch = next(self._batches)
            self._next = "preview"
            stages.begin("First preview", self._hint)
            return batch
        self._started()  # a second batch: the first iteration is over
        now = stages.now()
        if self._mark is not None:
            stages.took(now - self._mark)
        self._mark = None if self._paused else now
        stages.iterate("waiting for samples", WORKERS)
        batch = next(self._batches)
        stages.iterate(f"iteration {self._iteration + 1}", self._hint)
        return batch

    def emit(self, event: Event) -> None:
        """Hands an event on."""
        if isinstance(event, Started | Stepped):
            self._iteration = event.iteration
        if isinstance(event, Stepped):
            self._started()
        elif isinstance(event, Started):
            self._target = event.target
        self._emit(event)
        if isinstance(event, Previewed) and not event.history:
            if self._next == "preview":
                self._next = "iteration"
                self._stages.end()
                if 0 < self._target <= self._iteration:  # there will be none
                    self._started()
                else:
                    self._stages.begin("First iteration", self._hint)
            elif self._paused:
                self._stages.rest()
        elif isinstance(event, TargetReached):
            self._paused = True
            self._stages.rest()

    def _started(self) -> None:
        if self._next == "iteration":
            self._next = ""
            self._stages.end()
            self._emit(Noted(self._stages.table(), aside=True))
            self._stages.iterate(f"iteration {self._iteration + 1}", self._hint)
