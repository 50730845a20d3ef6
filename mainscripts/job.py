"""A piece of work on a folder of faces: whom to ask, where to say what, a bar while it takes long; stopped or out of
disk it says so in one message. What the verbs util and xseg share.

What is slow to load is loaded by the work that needs it: --help is to answer at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from core.disk import DISK, Disk, remedy
from core.options import Option, resolve
from core.prompts import Terminal, ask_row
from core.values import parse_sets
from mainscripts.verb import EXIT_LEFT, find_terminal, guarded, refuse

SOON_S, LATE_S = 2.0, 30.0
AGAIN = "Nothing is lost: start it again to go on."
Report = Callable[[int, int], None]
"""Told how many of how many are done."""


class Job:
    """One call of a verb with `--input-dir`, `--set` and `--ask`; rows: its questions. Raises OptionError for a wrong
    answer, before any work."""

    def __init__(
        self, args: argparse.Namespace, rows: Sequence[Option], stdin: TextIO, stdout: TextIO, disk: Disk = DISK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        from rich.console import Console

        self.args, self.disk, self._clock = args, disk, clock
        self.folder: Path = args.input_dir
        self.given = parse_sets(args.sets)
        resolve(rows, self.given, {}, {})
        self.terminal: Terminal | None = find_terminal(stdin, stdout, args.ask)
        self.console = Console(file=stdout)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def answer(self, row: Option, unasked: Any) -> Any:
        """The answer given in advance, or asked for; `unasked` where there is nobody to ask."""
        if row.key in self.given:
            return row.parse(self.given[row.key])
        return unasked if self.terminal is None else ask_row(self.terminal, row, row.default)

    @contextmanager
    def progress(self, what: str) -> Iterator[Report]:
        """A bar; where the output is no terminal, lines now and then."""
        if not self.console.is_terminal:
            yield Lines(what, self.say, self._clock)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


class Lines:
    """A line every tenth of the work, but not before two seconds after the last one, and every half minute."""

    def __init__(self, what: str, say: Callable[[str], object], clock: Callable[[], float]) -> None:
        self._what, self._say, self._clock = what, say, clock
        self._told, self._at = 0, clock()

    def __call__(self, done: int, total: int) -> None:
        passed = self._clock() - self._at
        tenth = 10 * (done - self._told) >= total and passed >= SOON_S
        if 0 < done < total and done > self._told and (tenth or passed >= LATE_S):
            self._say(f"{self._what}: {done:,} of {total:,}")
            self._told, self._at = done, self._clock()


def run_job(work: Callable[[Job], int], args: argparse.Namespace, rows: Sequence[Option]) -> int:
    """Does the work; see main.main for the exit codes."""

    def attempt() -> int:
        try:
            return work(Job(args, rows, sys.stdin, sys.stdout))
        except KeyboardInterrupt:
            print(f"\nStopped. {AGAIN}", file=sys.stderr, flush=True)
            return EXIT_LEFT
        except OSError as error:  # of a disk that is full it says neither where nor what to do
            why = f"{error.filename or args.input_dir}: {error.strerror or error}. "
            return refuse(f"{why}{remedy(error.errno, args.input_dir)}{AGAIN}")

    return guarded(attempt)
