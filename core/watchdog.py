"""Tells where a program is stuck: a thread that looks at `core.stages`, says so once in one readable message, again at
growing intervals, and puts the stacks of all threads into the log. It ends nothing, and costs one look a second.
"""

from __future__ import annotations

import linecache
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

from core.events import Noted, Warned
from core.runlog import RunLog
from core.stages import MODEL, Doing, Stages

ROOT = Path(__file__).absolute().parent.parent
PACE = 8
"""How many times the usual iteration has to pass before one is called stuck."""
SAVING = ("core/saver.py", "core/savejournal.py", "core/disk.py")


class Watchdog:
    """Watches `stages` while entered. seconds: how long nothing may happen. ident: the thread to watch."""

    def __init__(
        self,
        stages: Stages,
        log: RunLog,
        seconds: float,
        clock: Callable[[], float],
        ident: int | None = None,
    ) -> None:
        self._stages, self._log, self._seconds, self._clock = stages, log, seconds, clock
        self._ident = threading.get_ident() if ident is None else ident
        self._pause = min(1.0, seconds / 4)
        self._seen: Doing | None = None
        self._told = 0.0  # seconds after which it was told last; 0: not yet
        self._looked = clock()
        self._asleep = 0.0  # seconds that the whole program was stopped
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        if self._seconds > 0:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(1.0)  # it may be held up by a terminal that is stopped

    def look(self) -> None:
        """One look; tells what there is to tell."""
        now, doing = self._clock(), self._stages.doing
        late = now - self._looked - self._pause
        self._looked = now
        if doing is not self._seen:
            if self._told and self._seen is not None and doing is not None:
                self._stages.tell(Noted(f"It goes on, after {_spell(doing.since - self._seen.since)}."))
            self._seen, self._told, self._asleep = doing, 0.0, 0.0
        elif late > self._pause + 1.0:  # stopped with Ctrl-Z, or the machine slept: the main thread could do nothing
            self._asleep += late
        if doing is None:
            return
        stuck = now - doing.since - self._asleep
        usual = self._stages.usual() if doing.repeated else 0.0
        if stuck >= max(self._seconds, PACE * usual, 2 * self._told):
            self._told = stuck
            self._tell(doing, stuck)

    def _run(self) -> None:
        while not self._closing.wait(self._pause):
            self.look()

    def _tell(self, doing: Doing, stuck: float) -> None:
        frames = sys._current_frames()
        places, inside = whereabouts(frames.get(self._ident))
        text = f"{doing.name}: no progress for {_spell(stuck)}. It stands at {places}."
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        dumps = [
            f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
            for ident, frame in frames.items()
            if ident != threading.get_ident()
        ]
        self._log.note(f"{text}\n{''.join(dumps)}")
        path = self._log.flush()  # the log first: the terminal may be what is stuck
        hint = MODEL if inside in SAVING else doing.hint
        rest = "It goes on waiting; Ctrl-C ends it, where it is too stuck for that a second Ctrl-C."
        stacks = f" All stacks: {path}" if path is not None else ""
        self._stages.tell(Warned(f"{text}\n{hint}\n{rest}{stacks}"))


def whereabouts(frame: FrameType | None) -> tuple[str, str]:
    """Where a thread stands: our own innermost line, and the innermost of all where that is not ours; and the file of
    the former, relative to the project."""
    if frame is None:
        return "no line of Python", ""
    innermost = frame
    ours: FrameType | None = frame
    while ours is not None and not _is_ours(ours):
        ours = ours.f_back
    if ours is None:
        return _line(innermost), ""
    path = Path(ours.f_code.co_filename).relative_to(ROOT).as_posix()
    place = _line(ours, path)
    return (place if ours is innermost else f"{place}, within {_line(innermost)}"), path


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith(str(ROOT)) and "site-packages" not in name


def _line(frame: FrameType, path: str = "") -> str:
    """`core/saver.py:97 in wait (self._turn.wait_for(...))`"""
    name = frame.f_code.co_filename
    code = linecache.getline(name, frame.f_lineno).strip()
    said = f" ({code[:80]})" if code else ""
    return f"{path or '/'.join(Path(name).parts[-2:])}:{frame.f_lineno} in {frame.f_code.co_name}{said}"


def _spell(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
