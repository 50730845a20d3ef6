"""Who tells what a training is busy with before its sinks are up, and who watches it from start to end."""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from core.console import ConsoleSink
from core.events import Event, Warned
from core.runlog import RunLog, log_sink
from core.stages import Stages
from core.watchdog import Watchdog


@contextlib.contextmanager
def watched(log: RunLog, seconds: float, stdout: TextIO) -> Iterator[Stages]:
    """Stages that are told on `stdout` and kept in the log, with a watchdog after `seconds` (0: none); an error that
    ends a thread is told too."""
    console, keep = ConsoleSink(stdout), log_sink(log)

    def tell(event: Event) -> None:
        console(event)
        keep(event)

    stages = Stages(tell, time.monotonic)
    log.warn = lambda text: stages.tell(Warned(text))
    before, threading.excepthook = threading.excepthook, lambda args: _thread_ended(args, stages)
    try:
        with Watchdog(stages, log, seconds, time.monotonic):
            yield stages
    finally:
        threading.excepthook = before


@contextlib.contextmanager
def crashes_kept(path: Path | None) -> Iterator[None]:
    """Where Python itself dies, of a driver's crash say, the lines it stood at go to the log: nobody else can tell."""
    if path is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("ab"))
        except OSError:  # the log has warned
            yield
            return
        faulthandler.enable(file)
        stack.callback(faulthandler.disable)
        yield


def _thread_ended(args: threading.ExceptHookArgs, stages: Stages) -> None:
    if args.exc_value is None or args.exc_type is SystemExit:
        return
    name = args.thread.name if args.thread is not None else "unknown"
    said = (str(args.exc_value) or "no text").splitlines()[0]
    text = f"A part of the program ({name}) has ended by an error, training goes on without it: "
    text += f"{args.exc_type.__name__}: {said}. Please report it with the log."
    if name == "console":  # the very one who would tell it
        print(f"\nWarning: {text}", file=sys.stderr, flush=True)
    stages.tell(Warned(text, "".join(traceback.format_exception(args.exc_value))))
