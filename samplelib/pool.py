"""Worker processes that do jobs: started, fed, watched, and replaced when they die.

One seat a worker, one thread a seat: the thread starts the process, reads its answers, hands it the next job, and
when the process dies puts its unfinished jobs back and starts another. So workers are kept busy while the main
thread trains. Everything to tell goes through `results`, so that the caller hears of it in its own thread.

Not multiprocessing: its spawn imports the parent's main module (and torch with it) into every worker. Messages
are JSON lines over pipes; samples go through shared buffers. Workers see the end of their parent, however it
dies, as the end of their input.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from core import child
from core.sharedbuf import SharedBuffer

MAX_ATTEMPTS = 3
"""Deaths in a row (of a worker that never came up, or over one and the same job) that end the loader."""

_AHEAD = 2  # jobs a worker holds: one in work, one so that it never waits for the parent
_GOODBYE_S = 3.0
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""More workers, not more threads in each, are what uses the cores."""


@dataclass
class Job:
    """Samples of one side for rows `row`... of a batch in a place of the ring. numbers start at `number`; one face
    index a sample, and, with colour transfer, the index of the face that gives the colours. part: `sample`, or what of
    those faces is only to be prepared (`samplelib.facefeed`)."""

    place: int
    side: str
    row: int
    number: int
    indexes: list[int]
    colours: list[int] | None = None
    part: str = "sample"
    attempts: int = 0

    def message(self) -> dict[str, Any]:
        return {
            "place": self.place,
            "side": self.side,
            "row": self.row,
            "number": self.number,
            "indexes": self.indexes,
            "colours": self.colours,
            "part": self.part,
        }


@dataclass(frozen=True)
class Done:
    """A job is finished. broken: (side, face index, reason) of faces that could not be decoded."""

    job: Job
    broken: list[tuple[str, int, str]]


@dataclass(frozen=True)
class Note:
    """Something to tell the user."""

    text: str


@dataclass(frozen=True)
class Fatal:
    """The pool cannot go on."""

    text: str


@dataclass
class _Seat:
    number: int
    process: subprocess.Popen[bytes] | None = None
    jobs: deque[Job] = field(default_factory=deque)
    failed_starts: int = 0
    moved: float = 0.0  # when it last answered, or got its first job
    given_up: bool = False  # ended because it did not answer


class Pool:
    """`count` workers that are told `hello` first and then given jobs; answers come into `results`."""

    def __init__(self, count: int, hello: dict[str, Any], buffers: Sequence[SharedBuffer]) -> None:
        self.results: queue.SimpleQueue[Done | Note | Fatal] = queue.SimpleQueue()
        self._hello = hello
        self._fds = tuple(fd for buffer in buffers for fd in buffer.pass_fds)
        self._lock = threading.Lock()
        self._pending: deque[Job] = deque()
        self._closing = False
        self._seats = [_Seat(number) for number in range(count)]
        self._threads = [threading.Thread(target=self._attend, args=(seat,), daemon=True) for seat in self._seats]
        for thread in self._threads:
            thread.start()

    def pids(self) -> list[int]:
        """Process ids of the workers that are up."""
        with self._lock:
            return [seat.process.pid for seat in self._seats if seat.process is not None]

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs; they are begun in this order."""
        with self._lock:
            self._pending.extend(jobs)
            self._feed()

    def replace_stuck(self, seconds: float) -> None:
        """End the workers that have had a job for so long without an answer; others take over.

        Where the disk is away for all of them this changes nothing: a process that waits for a disk only ends when that
        answers."""
        with self._lock:
            for seat in self._seats:
                if seat.process is not None and seat.jobs and time.monotonic() - seat.moved >= seconds:
                    seat.given_up = True
                    seat.process.kill()

    def close(self) -> None:
        """End the workers; returns within seconds whatever they are doing. Twice is fine."""
        with self._lock:
            self._closing = True
            processes = [seat.process for seat in self._seats if seat.process is not None]
            for process in processes:
                _end_input(process)
        for process in processes:
            try:
                process.wait(_GOODBYE_S)
            except subprocess.TimeoutExpired:
                process.kill()
        for thread in self._threads:
            thread.join(_GOODBYE_S)

    def _feed(self) -> None:
        """Hand pending jobs to the least loaded workers. Call with the lock held."""
        while self._pending and not self._closing:
            ready = [seat for seat in self._seats if seat.process is not None and len(seat.jobs) < _AHEAD]
            if not ready:
                return
            seat = min(ready, key=lambda s: len(s.jobs))
            job = self._pending.popleft()
            if not seat.jobs:
                seat.moved = time.monotonic()
            seat.jobs.append(job)
            if seat.process is not None:
                _send(seat.process, job.message())

    def _attend(self, seat: _Seat) -> None:
        """A seat's thread: a process, then its successor, until the pool closes."""
        try:
            self._succeed(seat)
        except Exception as error:  # noqa: BLE001  # unheard of, the loader would wait for this seat's jobs for ever
            said = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
            with self._lock:
                process, seat.process = seat.process, None
            if process is not None:
                process.kill()
                process.wait()
                _end_input(process)
                if process.stdout is not None:
                    process.stdout.close()
            self.results.put(Fatal(f"the thread of a sample worker ended by an error: {said}"))

    def _succeed(self, seat: _Seat) -> None:
        while True:
            with tempfile.TemporaryFile() as errors:
                try:
                    process = self._start(seat, errors)
                except OSError as error:
                    self.results.put(Fatal(f"a sample worker cannot be started: {error}"))
                    return
                if process is None:
                    return
                came_up = self._listen(seat, process)
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()
                if not self._bury(seat, process, came_up, _tail(errors)):
                    return

    def _start(self, seat: _Seat, errors: IO[bytes]) -> subprocess.Popen[bytes] | None:
        """Start a process for the seat and give it its first jobs; None when the pool is closing."""
        with self._lock:
            if self._closing:
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", "samplelib.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=child.ROOT,
                env=child.environment(**_ONE_THREAD),
                **child.detached(self._fds, console=True),
            )
            seat.process = process
            _send(process, self._hello)
            self._feed()
            return process

    def _listen(self, seat: _Seat, process: subprocess.Popen[bytes]) -> bool:
        """Read the answers of a process until it ends. Returns whether it ever came up."""
        came_up = False
        for line in process.stdout or ():
            try:
                answer = json.loads(line)
            except ValueError:
                break  # cut off in the middle of a line: it died while writing
            if answer.get("ready"):
                came_up = True
                seat.failed_starts = 0
                continue
            if "note" in answer:
                self.results.put(Note(answer["note"]))
                continue
            if "fatal" in answer:
                self.results.put(Fatal(answer["fatal"]))
                continue
            with self._lock:
                job = seat.jobs.popleft()
                seat.moved = time.monotonic()
                self._feed()
            self.results.put(Done(job, [(side, index, reason) for side, index, reason in answer["broken"]]))
        return came_up

    def _bury(self, seat: _Seat, process: subprocess.Popen[bytes], came_up: bool, last_words: str) -> bool:
        """Put a dead worker's jobs back and say so. Returns whether the seat gets another."""
        with self._lock:
            seat.process = None
            _end_input(process)
            if self._closing:
                return False
            attempts, given_up, seat.given_up = 0, seat.given_up, False
            if given_up:
                pass  # no fault of its work: a slow disk must not end the training
            elif not came_up:
                attempts = seat.failed_starts = seat.failed_starts + 1
            elif seat.jobs:
                attempts = seat.jobs[0].attempts = seat.jobs[0].attempts + 1
            self._pending.extendleft(reversed(seat.jobs))
            seat.jobs.clear()
            self._feed()
        said = f": {last_words.splitlines()[-1].strip()}\n{last_words}" if last_words else ""
        if given_up:
            self.results.put(
                Note(f"a sample worker (process {process.pid}) gave no answer; another takes over its work")
            )
            return True
        how = f"a sample worker (process {process.pid}) ended unexpectedly ({child.ending(process.returncode)})"
        if attempts >= MAX_ATTEMPTS:
            self.results.put(Fatal(f"{how}, {attempts} times in a row{said}"))
            return False
        self.results.put(Note(f"{how}; another takes over its work{said}"))
        return True


def _send(process: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
    """Write a message. When the process is dead nobody gets it: its thread, about to see that, repeats the work."""
    if process.stdin is not None:
        with contextlib.suppress(OSError, ValueError):
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()


def _end_input(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _tail(errors: IO[bytes], limit: int = 4000) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - limit))
    return errors.read().decode(errors="replace").strip()
