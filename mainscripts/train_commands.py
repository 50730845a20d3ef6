"""Commands for a running training from a file, one a line, for scripts and other front ends:

    save | backup | preview | stop | set batch_size=8 random_warp=n
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

from core.events import Command, Event, Warned
from core.options import OptionError
from core.shown import printable, shorten
from core.values import parse_sets

POLL_S = 0.5
MAX_LINE = 10_000


class CommandFile:
    """Reads the lines that others append to `path` while the `with` lasts; what stood there before is left alone, and a
    file that has become shorter is read from its beginning."""

    def __init__(self, path: Path, commands: queue.Queue[Command], emit: Callable[[Event], None]) -> None:
        self._path, self._commands, self._emit = path, commands, emit
        self._at, self._rest, self._unreadable = self._size() or 0, b"", False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="command file", daemon=True)

    def __enter__(self) -> CommandFile:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closing.wait(POLL_S):
            self.look()

    def look(self) -> None:
        """Obeys the lines that have come since."""
        size = self._size()
        if size is None or size == self._at:
            return
        if size < self._at:
            self._at, self._rest = 0, b""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                new = file.read(MAX_LINE)
        except OSError as error:
            if not self._unreadable:
                self._unreadable = True
                self._emit(Warned(f"--commands {self._path}: cannot be read ({error.strerror})."))
            return
        self._at += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        if len(self._rest) > MAX_LINE:
            self._rest = b""
        for line in lines:
            if text := line.decode("utf-8", "replace").strip():
                self._obey(text)

    def _obey(self, text: str) -> None:
        name, *words = text.split()
        if name in ("save", "backup", "preview", "stop") and not words:
            self._commands.put(Command(name))  # type: ignore[arg-type]
            return
        try:
            if name != "set" or not words:
                raise OptionError("allowed is save, backup, preview, stop, or set and options such as batch_size=8.")
            self._commands.put(Command("options", {"given": parse_sets(words)}))
        except OptionError as error:
            said = str(error).replace("--set ", "")
            self._emit(Warned(f"--commands: got {shorten(printable(text))!r}; {said}"))

    def _size(self) -> int | None:
        try:
            return self._path.stat().st_size
        except OSError:
            return None
