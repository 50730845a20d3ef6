"""How a training is asked to end from outside: Ctrl-C, a polite kill, a closed terminal, logging off.

A thread of its own hears signals, so that even a loop that hangs in a driver ends in time. Whoever must leave before
the save is complete says which save stands; the workers and the window end with this process, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from core.events import Command, Commands, Event, Failed, Warned
from mainscripts.verb import EXIT_FAILED, EXIT_LEFT

ABORT_SECONDS = 3.0  # for a loop that does not notice the second Ctrl-C
LAST_WORDS = 0.5  # for the sinks to print them


class Stops:
    """Turns signals into a stop command, in the main thread's `with`.

    commands: the way to the loop. within: seconds that a stop asked for by the system (not by Ctrl-C) may take, 0 for
    as long as it takes. end: ends the process at once with an exit code, `os._exit`. To be set once they are there:
    emit, who tells the user; standing, which save the model folder holds; let_go, gives the terminal back; code, the
    exit code once all is saved.
    """

    def __init__(self, commands: Commands, within: float, end: Callable[[int], object] = os._exit) -> None:
        self._commands, self._within, self._end = commands, within, end
        self.emit: Callable[[Event], object] = lambda event: print(getattr(event, "text", ""), file=sys.stderr)
        self.standing: Callable[[], str] = lambda: "Nothing has been trained yet."
        self.let_go: Callable[[], object] = lambda: None
        self.code: int | None = None
        self.asked = threading.Event()
        self.aborted = False
        self._raised = False
        self._over = threading.Event()

    def __enter__(self) -> Stops:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        # What nohup and a shell's & have had ignored stays ignored.
        heard = [number for number in _numbers() if signal.getsignal(number) is not signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._interrupt) for number in heard}
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        self._console = contextlib.ExitStack()
        self._console.enter_context(_console_events(self._asked_by_system, self._over))
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._console.close()
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            # Once all is saved, what comes while the rest is put away must not change the exit code.
            signal.signal(number, handler if self.code is None else signal.SIG_IGN)
        self._writer.close()
        self._thread.join(1.0)
        self._reader.close()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, once it runs Python code again."""
        if self.aborted and not self._raised and self.code is None:
            self._raised = True
            raise KeyboardInterrupt

    def _listen(self) -> None:
        while numbers := self._reader.recv(64):
            for number in numbers:
                if number not in self._handlers:
                    continue
                if self.code is not None:  # all is saved, only goodbye is left
                    self._later(ABORT_SECONDS, self.code, "")
                elif number != signal.SIGINT:
                    self._asked_by_system(signal.Signals(number).name)
                elif not self.asked.is_set():
                    self._ask(Command("stop"))
                elif not self.aborted:
                    self._abort()

    def _ask(self, command: Command) -> None:
        self.asked.set()
        self._commands.put(command)

    def _asked_by_system(self, what: str) -> None:
        self._ask(Command("stop", {"quick": True}))
        limit = f" within {self._within:g} s" if self._within else ""
        self.emit(Warned(f"{what}: saving and leaving{limit}. {self.standing()}"))
        if self._within:
            text = f"Left after {self._within:g} s, before everything was saved."
            self._later(self._within - LAST_WORDS, EXIT_FAILED, text)

    def _abort(self) -> None:
        self.aborted = True
        self._later(ABORT_SECONDS, EXIT_LEFT, "Aborted in the middle of it.")
        # Sent again, because the handler may have run before `aborted` was set; and it ends waiting for locks.
        if sys.platform == "win32":
            signal.raise_signal(signal.SIGINT)
        else:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _later(self, seconds: float, code: int, text: str) -> None:
        threading.Thread(target=self._leave, args=(seconds, code, text), name="last moment", daemon=True).start()

    def _leave(self, seconds: float, code: int, text: str) -> None:
        """Ends the process after that time, unless it has ended by itself."""
        if self._over.wait(max(seconds, 0.0)):
            return
        if self.code is None:
            self.emit(Failed(f"{text} {self.standing()}"))
            if self._over.wait(LAST_WORDS):
                return
        self.let_go()
        self._end(code if self.code is None else self.code)


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """While there is nothing to save yet, a polite kill and a closed terminal leave as Ctrl-C does. Afterwards all
    signals are as they were, whatever was done with them meanwhile."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    handlers = {number: signal.getsignal(number) for number in _numbers()}
    for number, handler in handlers.items():
        if number != signal.SIGINT and handler is not signal.SIG_IGN:
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _numbers() -> list[int]:
    if sys.platform == "win32":
        return [signal.SIGINT, signal.SIGTERM, signal.SIGBREAK]
    return [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@contextlib.contextmanager
def _console_events(ask: Callable[[str], object], over: threading.Event) -> Iterator[None]:
    """Windows: a closed console window, logging off and shutting down, which are no signals in Python."""
    if sys.platform == "win32":
        import ctypes
        from ctypes import wintypes

        names = {2: "The console window was closed", 5: "Logging off", 6: "Shutting down"}

        def handle(event: int) -> bool:
            if event not in names:
                return False
            ask(names[event])
            over.wait(20.0)  # Windows ends the process as soon as this returns, or some seconds later
            return True

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        handler = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)(handle)
        kernel.SetConsoleCtrlHandler(handler, True)
        try:
            yield
        finally:
            kernel.SetConsoleCtrlHandler(handler, False)
    else:
        yield
