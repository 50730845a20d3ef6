"""The keys of a training, read in a terminal one by one, without Enter.

For that the terminal hands out single keys instead of lines, and nothing else of it is changed: what is typed shows,
and Ctrl-C, Ctrl-Z, Ctrl-S work. A process that is killed outright cannot undo it. What it leaves is mild then: shells
set their own mode; other programs that read lines have no backspace until `stty sane`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TextIO

from core.events import Command
from core.sinks import ask
from core.window_keys import COMMAND_KEYS, DIGITS

HELP = """Keys in the terminal:
  s or 2   save
  b or 0   save, then make a backup
  p or 3   draw the preview anew
  o or 7   other options; training goes on with them
  w        open the window again
  Enter    save and end, as Ctrl-C"""
TOGETHER_S = 0.03
"""What comes within this time of each other was not typed key by key."""
ESCAPE_S = 0.1
CLOSE_S = 2.0


class StopKeys:
    """Reads the terminal in a thread: the window's keys are its commands, Enter is a stop; after that, and after
    `close()`, the terminal is as before and what is typed is left to others. What was typed earlier is dropped: an
    Enter too many at the questions must not stop the training. Pasted text and cursor keys do nothing, nor do keys
    without a meaning here. Does nothing where `stdin` is no terminal."""

    def __init__(
        self,
        stdin: TextIO | None,
        commands: queue.Queue[Command],
        others: Mapping[str, Callable[[], object]] = MappingProxyType({}),
        pasted: Callable[[], object] = lambda: None,
    ) -> None:
        """others: what further keys do (one lower-case character each, "\\r" for Enter), called in the thread. They
        go before the window's keys, and may be changed at any time. pasted: called for a text that came at once."""
        self._commands, self._others, self._pasted = commands, others, pasted
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if stdin is None or stdin.closed or not stdin.isatty():
            return
        self._thread = threading.Thread(target=self._run, args=(stdin.fileno(),), name="stop key", daemon=True)
        self._thread.start()

    @property
    def active(self) -> bool:
        """Whether Enter stops training now."""
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """The terminal is as before when this returns. From one of `others`: as soon as that has returned."""
        self._closing.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)

    def _run(self, handle: int) -> None:
        if sys.platform == "win32":
            self._watch_console()
        else:
            self._watch_terminal(handle)

    def _watch_console(self) -> None:
        if sys.platform == "win32":
            import msvcrt

            while msvcrt.kbhit():
                msvcrt.getwch()
            while not self._closing.wait(0.1):
                typed = ""
                while msvcrt.kbhit() and not self._closing.is_set():
                    typed += msvcrt.getwch()
                    if not msvcrt.kbhit():
                        self._closing.wait(TOGETHER_S)
                if typed and self._told(typed):
                    return

    def _watch_terminal(self, handle: int) -> None:
        if sys.platform != "win32":
            # Between a look at who owns the terminal and setting it, another job may have taken it over.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
            with contextlib.suppress(OSError), _single_keys(handle) as take:
                while not self._closing.is_set():
                    if not take():
                        self._closing.wait(0.5)
                    elif (typed := self._typed(handle)) and self._told(typed):
                        return

    def _typed(self, handle: int) -> str:
        """A key, or all that came with it: a text, the sequence of a cursor key. Empty where nothing was typed."""
        typed, wait = b"", 0.1
        while select.select([handle], [], [], wait)[0] and not self._closing.is_set():
            piece = os.read(handle, 1024)
            if not piece:  # Ctrl-D where lines are read, or a terminal that is gone: told again and again
                self._closing.wait(0.5)
                break
            typed = (typed + piece)[:1024]
            wait = ESCAPE_S if typed.startswith(b"\x1b") else TOGETHER_S
        return typed.decode("utf-8", "replace")

    def _told(self, typed: str) -> bool:
        """Hands a typed key on; whether it is a stop."""
        keys = set(typed.lower().replace("\n", "\r"))
        if len(keys) > 1:  # the same one again and again is a key that is held
            if typed[0] not in "\x00\xe0\x1b":
                self._pasted()
            return False
        key = keys.pop()
        key = DIGITS.get(key, key)
        if key in self._others:
            self._others[key]()
            return False
        if key not in COMMAND_KEYS:
            return False
        ask(self._commands, COMMAND_KEYS[key])
        return COMMAND_KEYS[key] == "stop"


@contextlib.contextmanager
def _single_keys(handle: int) -> Iterator[Callable[[], bool]]:
    """A function that has the terminal hand out single keys, unless another job owns it; to be called again and again,
    as a shell sets its own mode whenever it has the terminal. Afterwards lines are handed out again."""
    if sys.platform != "win32":
        import termios

        local, special, kept = 3, 6, list[tuple[int, bytes | int]]()

        def take() -> bool:
            """Raises OSError once the terminal is gone."""
            if _in_background(handle):  # reading would stop the whole process (SIGTTIN)
                return False
            try:
                mode = termios.tcgetattr(handle)
                if mode[local] & termios.ICANON:
                    kept[:] = [(place, mode[special][place]) for place in (termios.VMIN, termios.VTIME)]
                    mode[local] &= ~termios.ICANON
                    mode[special][termios.VMIN], mode[special][termios.VTIME] = 1, 0
                    termios.tcsetattr(handle, termios.TCSANOW, mode)
            except termios.error as error:
                raise OSError(*error.args) from error
            return True

        with contextlib.suppress(termios.error):
            if not _in_background(handle):
                termios.tcflush(handle, termios.TCIFLUSH)
        try:
            yield take
        finally:
            with contextlib.suppress(termios.error):
                if kept and not _in_background(handle):  # else the shell has set its own mode
                    mode = termios.tcgetattr(handle)
                    mode[local] |= termios.ICANON
                    for place, value in kept:
                        mode[special][place] = value
                    termios.tcsetattr(handle, termios.TCSANOW, mode)


def _in_background(handle: int) -> bool:
    """Whether another job owns the terminal. A terminal that is not our controlling one is free to read."""
    if sys.platform == "win32":
        return False
    try:
        return os.tcgetpgrp(handle) != os.getpgrp()
    except OSError:
        return False
