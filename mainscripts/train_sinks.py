"""Who hears what the trainer says: terminal line, preview window or preview files, preview history."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from core.console import ConsoleSink, columns, overwrites
from core.eventlog import EventLog, LossTable
from core.events import Advanced, Command, Event, Noted, Previewed, Stepped, Warned
from core.history import PreviewFiles, PreviewHistory
from core.keyboard import HELP, StopKeys
from core.modeldata import ModelError
from core.plateau import Plateau
from core.sinks import Background
from core.tensorboard import TensorBoard
from core.web import WebPage
from core.window import CLOSED, Window, display_problem
from mainscripts.train_web import Web


class Sinks:
    """Every listener of one training. `emit` hands an event to all of them and never waits for one.

    prefix: folder and full name of the model, where preview files go. window: whether a window is wanted.
    stays: whether training pauses at its target. log: keeps what is told.
    memory: bytes that the training holds. plateau: see `core.plateau`; events, loss_csv, tensorboard: files for other
    programs. web: the preview page, where one is wanted. Raises OSError or ModelError where one of them cannot be
    opened.
    """

    def __init__(
        self,
        prefix: Path,
        commands: queue.Queue[Command],
        stdin: TextIO,
        stdout: TextIO,
        *,
        window: bool,
        stays: bool,
        log: Callable[[Event], object] = lambda event: None,
        memory: Callable[[], int | None] = lambda: None,
        plateau: int = 0,
        events: Path | None = None,
        loss_csv: Path | None = None,
        tensorboard: Path | None = None,
        web: Web | None = None,
    ) -> None:
        self._stack = contextlib.ExitStack()
        self._sinks: list[Callable[[Event], object]] = []
        self._stdin, self._commands = stdin, commands
        self._keyboard = stdin.isatty()
        self._keys = StopKeys(None, commands)
        self._stack.callback(lambda: self._keys.close())
        self._window_open = self._asked = False
        problem = display_problem(os.environ, sys.platform) if window else "not wanted"
        self._log = Background(log, name="log")
        self._stack.callback(self._log.close, 30.0)
        self._console = self._add(
            ConsoleSink(
                stdout,
                width=lambda: columns(stdout),
                live=overwrites(stdout, os.environ),
                stays=stays and (self._keyboard or not problem or web is not None),
                key="Enter" if self._keyboard or not problem else "",
                keys="?" if self._keyboard else "",
                memory=memory,
            ),
            "console",
        )
        self._files = PreviewFiles(prefix, self._warn, active=bool(problem))
        self._add(self._files, "preview files")
        self._prefix = prefix
        self._history: PreviewHistory | None = None
        if plateau:
            self._sinks.append(Plateau(plateau, self.emit))
        try:
            self._open_files(events, loss_csv, tensorboard)
        except (OSError, ModelError):
            self._stack.close()
            raise
        self._web: WebPage | None = None
        if web is not None:
            self._open_page(web, commands, memory)
        self._window: Window | None = None
        if not problem:
            self._window_open = True
            self._window = Window(commands, self._lost)
            self._sinks.append(self._window)
            self._stack.callback(self._window.close)
        elif window:
            hint = "" if web is not None else " --preview-web shows them in a browser."
            self.emit(Warned(f"No preview window ({problem}): previews go to {prefix}_preview_*.jpg.{hint}"))

    def __enter__(self) -> Sinks:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def listen(self) -> None:
        """From now on keys in the terminal count. May be called again once an Enter was used up."""
        if self._keyboard:
            self._keys.close()
            others = {"w": self.open_window, "?": self.tell_keys, "h": self.tell_keys}
            self._keys = StopKeys(self._stdin, self._commands, others, self._pasted)

    def let_go(self) -> None:
        """The terminal as it was, where the program is about to end at once."""
        self._keys.close()

    def tell_keys(self) -> None:
        self.emit(Noted(HELP))

    def _pasted(self) -> None:
        self.emit(Noted("Several characters at once: none of them is taken for a key. ? shows the keys."))

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """The terminal for a question: all that was said is printed, and keys are not listened for meanwhile."""
        self._keys.close()
        self._console(Noted(""))  # ends the line that is overwritten
        self._console.drain()
        try:
            yield
        finally:
            self.listen()

    def keep_history(self, most: int = 0) -> None:
        """Previews of the history are written from now on, at most so many of them (0: all). May be called again."""
        if self._history is None:
            self._history = PreviewHistory(self._prefix, self._warn, most)
            self._add(self._history, "preview history")
        self._history.limit(most)

    def open_window(self) -> None:
        """The window again, where it was closed or has died."""
        if self._window is None:
            self._warn("This training was started without a window.")
        elif self._window.reopen():
            self._window_open = True
            self._files.rest()
            self.emit(Noted("The preview window is opened again."))

    def has_window(self) -> bool:
        return self._window_open

    def attended(self) -> bool:
        """Whether somebody can still give a command: a keyboard, an open window, or the preview page."""
        return self._keyboard or self._window_open or (self._web is not None and self._web.alive)

    def emit(self, event: Event) -> None:
        for sink in self._sinks:
            sink(event)
        if not isinstance(event, Stepped | Previewed | Advanced):  # not to wake its thread for nothing
            self._log(event)

    def _add(self, sink: Callable[[Event], object], name: str, steps: int = 1000) -> Background:
        background = Background(sink, steps=steps, name=name)
        self._stack.callback(background.close, 30.0)
        self._sinks.append(background)
        return background

    def _open_files(self, events: Path | None, loss_csv: Path | None, tensorboard: Path | None) -> None:
        """The files for other programs: first opened, so last closed, when all is written."""
        if tensorboard is not None:
            board = TensorBoard(tensorboard, self._prefix.name)
            self._stack.callback(board.close)
            self._add(board, "tensorboard", steps=1_000_000)
        for path, kind in ((events, EventLog), (loss_csv, LossTable)):
            if path is not None:
                lines = kind(path, self.emit)
                self._stack.callback(lines.close)
                self._add(lines, f"lines to {path.name}", steps=1_000_000)

    def _open_page(self, web: Web, commands: queue.Queue[Command], memory: Callable[[], int | None]) -> None:
        try:
            self._web = WebPage(
                commands, self.emit, self._page_lost, address=web.address, token=web.token, names=web.names,
                options=web.options, memory=memory,
            )  # fmt: skip
        except OSError as error:
            self._page_lost(f"the preview page cannot be started: {error}")
            return
        self._sinks.append(self._web)
        self._stack.callback(self._web.close)

    def _warn(self, text: str) -> None:
        self.emit(Warned(text))

    def _lost(self, reason: str) -> None:
        """The window is gone: go on without it."""
        self._window_open = False
        self._files.activate()
        what = f"{reason[:1].upper()}{reason[1:]}".rstrip(" .?!")
        goes_on = "training goes on, and previews go to JPG files in the model folder."
        if reason != CLOSED:
            again = " w in the terminal opens it again." if self._keyboard else ""
            self.emit(Warned(f"{what}; {goes_on}{again}"))
        elif self._keyboard and not self._asked:  # once: training does not wait for the answer
            self._asked = True
            self.emit(Noted(f"{what}. Save and stop training? ( Enter:yes w:open it again ) Meanwhile {goes_on}"))
        else:
            self.emit(Noted(f"{what}; {goes_on}"))

    def _page_lost(self, reason: str) -> None:
        what = f"{reason[:1].upper()}{reason[1:]}".rstrip(" .?!")
        self.emit(Warned(f"{what}. Training goes on without it."))
