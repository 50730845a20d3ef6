"""What a training says, as lines for other programs: every event as JSON, or the losses as a CSV table."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from core.events import Event, Previewed, Started, Stepped, Warned


class EventLog:
    """Sink: appends each event as one line of JSON, `{"event": "Stepped", "time": 1790000000.1, "iteration": 5, ...}`.

    Pictures are left out: a preview is told by the titles of its pages, a start without its history. Numbers that are
    not finite are null. Where the file cannot be written `warn` gets one event, and no more is written.
    """

    def __init__(self, path: Path, warn: Callable[[Event], None], clock: Callable[[], float] = time.time) -> None:
        self._file = _Lines(path, "--events", warn)
        self._clock = clock

    def __call__(self, event: Event) -> None:
        fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
        if isinstance(event, Started):
            del fields["history"]
        elif isinstance(event, Previewed):
            fields["pages"] = [title for title, _ in event.pages]
            del fields["captions"]
        told = {"event": type(event).__name__, "time": round(self._clock(), 3), **fields}
        self._file.write(json.dumps(_plain(told)) + "\n")

    def close(self) -> None:
        self._file.close()


class LossTable:
    """Sink: appends iteration, time, losses and milliseconds of every iteration to a CSV file; a heading comes before
    the first line of a new file."""

    def __init__(self, path: Path, warn: Callable[[Event], None], clock: Callable[[], float] = time.time) -> None:
        self._empty = not path.exists() or path.stat().st_size == 0
        self._file = _Lines(path, "--loss-csv", warn)
        self._clock = clock

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Stepped):
            return
        if self._empty:
            self._empty = False
            self._row("iteration", "time", *event.losses, "ms", "data_ms")
        losses = [f"{loss:.6g}" for loss in event.losses.values()]
        self._row(event.iteration, f"{self._clock():.3f}", *losses, f"{event.ms:.1f}", f"{event.data_ms:.1f}")

    def _row(self, *cells: Any) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        self._file.write(text.getvalue())

    def close(self) -> None:
        self._file.close()


class _Lines:
    """A file that is appended to, line by line; readers see each at once."""

    def __init__(self, path: Path, flag: str, warn: Callable[[Event], None]) -> None:
        self._path, self._flag, self._warn = path, flag, warn
        self._file: IO[str] | None = path.open("a", encoding="utf-8", newline="")

    def write(self, line: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            self.close()
            self._warn(Warned(f"{self._flag} {self._path}: no more is written ({error.strerror})."))

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # what could not be written is tried once more
                file.close()


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)
