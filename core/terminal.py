"""The terminals behind `core.prompts`: a person at a keyboard, or a list of answers on standard input."""

from __future__ import annotations

import contextlib
import math
import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from core.prompts import KEYS, AnswerError, Kind, Leave

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyBindings

ESC_SECONDS = 0.1


class KeyboardTerminal:
    """A person: line editing, recall (Up, Down) and completion (Tab) by prompt_toolkit. Esc, Ctrl-C, Ctrl-D and a
    closed terminal leave.

    gone: looked at all the while, where a training waits for the answer: a signal or the window may end what the
    question is about. patience: seconds without a key after which nobody is there. Both leave too.
    """

    strict = False

    def __init__(
        self,
        stdin: TextIO,
        stdout: TextIO,
        clock: Callable[[], float] = time.monotonic,
        *,
        gone: Callable[[], bool] | None = None,
        patience: float = math.inf,
    ) -> None:
        self._gone, self._patience, self._last = gone, patience, clock()
        # Asking where the cursor is stalls terminals that do not answer (serial lines, recorders).
        os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")
        from prompt_toolkit import PromptSession
        from rich.console import Console

        self._stdout, self._clock, self._told = stdout, clock, False
        self._session: PromptSession[str] = PromptSession(key_bindings=leaving_keys())
        self._session.app.ttimeoutlen = ESC_SECONDS
        self._session.app.timeoutlen = ESC_SECONDS
        self._console = Console(file=stdout, highlight=False, markup=False, emoji=False)

    def say(self, text: str, kind: Kind = "") -> None:
        if kind:
            self._console.print(text, style={"help": "cyan", "wrong": "yellow"}[kind])
        else:
            print(text, file=self._stdout, flush=True)

    def ask(self, prompt: str, choices: Sequence[str] = ()) -> str:
        from prompt_toolkit.completion import WordCompleter

        if not self._told:
            self._told = True
            self.say(KEYS, "help")
        words = WordCompleter(list(choices), ignore_case=True, sentence=True) if choices else None
        settings: dict[str, Any] = {"completer": words, "complete_while_typing": False}
        if self._gone is not None:
            # In the main thread asyncio would take the signals, which are the training's.
            settings |= {"pre_run": self._watch, "in_thread": True}
        try:
            return self._session.prompt(prompt, **settings)
        except (KeyboardInterrupt, EOFError):
            raise Leave from None
        except OSError:
            if self._gone is None:
                raise
            raise Leave from None  # the terminal was closed

    def _watch(self) -> None:
        """Beside the question: leaves when what it is about has gone, or nobody is there."""
        import asyncio

        app, text = self._session.app, self._session.default_buffer
        self._last = self._clock()

        async def look() -> None:
            before = text.text
            while not app.is_done:
                await asyncio.sleep(0.2)
                if text.text != before:
                    before, self._last = text.text, self._clock()
                if self._gone is not None and (self._gone() or self._clock() - self._last > self._patience):
                    if not app.is_done:
                        app.exit(exception=KeyboardInterrupt())
                    return

        app.create_background_task(look())

    def enter_within(self, seconds: float, line: Callable[[float], str]) -> bool:
        """Other keys than Enter are kept for the next question."""
        import asyncio

        from prompt_toolkit.application import Application
        from prompt_toolkit.input.typeahead import store_typeahead
        from prompt_toolkit.key_binding import KeyPress, KeyPressEvent
        from prompt_toolkit.layout import FormattedTextControl, Layout, Window

        deadline, others = self._clock() + seconds, list[KeyPress]()
        keys = leaving_keys()

        @keys.add("enter")
        @keys.add("c-j")
        def _entered(event: KeyPressEvent) -> None:
            event.app.exit(result=True)

        @keys.add("<any>")
        def _other(event: KeyPressEvent) -> None:
            others.extend(event.key_sequence)

        def text() -> str:
            return line(seconds if app.is_done else deadline - self._clock())

        app: Application[bool] = Application(
            Layout(Window(FormattedTextControl(text), wrap_lines=True, dont_extend_height=True)), key_bindings=keys,
            refresh_interval=0.25, include_default_pygments_style=False,
        )  # fmt: skip
        app.ttimeoutlen = app.timeoutlen = ESC_SECONDS

        async def wait() -> None:
            await asyncio.sleep(seconds)
            if not app.is_done:
                app.exit(result=False)

        def begin() -> None:
            app.create_background_task(wait())

        try:
            return app.run(pre_run=begin)
        except (KeyboardInterrupt, EOFError):
            raise Leave from None
        finally:
            store_typeahead(app.input, others)


def leaving_keys() -> KeyBindings:
    """Esc and Ctrl-C. Esc is also how arrow keys begin, so it counts once nothing has followed for a moment."""
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape")
    @keys.add("c-c")
    def _leave(event: KeyPressEvent) -> None:
        event.app.exit(exception=KeyboardInterrupt())

    return keys


class WatchedTerminal:
    """A person whose terminal can show nothing but lines, asked while a training waits. gone, patience: as of
    `KeyboardTerminal`."""

    strict = False

    def __init__(
        self,
        stdin: TextIO,
        stdout: TextIO,
        gone: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        patience: float = math.inf,
    ) -> None:
        self._stdin, self._stdout, self._gone = stdin, stdout, gone
        self._clock, self._patience = clock, patience

    def say(self, text: str, kind: Kind = "") -> None:
        print(text, file=self._stdout, flush=True)

    def ask(self, prompt: str, choices: Sequence[str] = ()) -> str:
        with contextlib.suppress(OSError):  # the terminal was closed
            print(prompt, end="", file=self._stdout, flush=True)
            began = self._clock()
            while not self._gone() and self._clock() - began <= self._patience:
                if _key_waiting(self._stdin, 0.2):
                    if line := self._stdin.readline():
                        return line.rstrip("\r\n")
                    break
            self.say("")
        raise Leave

    def enter_within(self, seconds: float, line: Callable[[float], str]) -> bool:
        raise AssertionError("questions during a training are not skipped")


class PlainTerminal(WatchedTerminal):
    """A person whose terminal says that it is dumb (TERM=dumb: editors' shells, recorders): nothing but lines."""

    def __init__(self, stdin: TextIO, stdout: TextIO) -> None:
        super().__init__(stdin, stdout, gone=lambda: False)

    def enter_within(self, seconds: float, line: Callable[[float], str]) -> bool:
        self.say(line(seconds))
        return _key_waiting(self._stdin, seconds) and bool(self._stdin.readline())


def while_training(
    stdin: TextIO, stdout: TextIO, gone: Callable[[], bool], patience: float = math.inf
) -> KeyboardTerminal | WatchedTerminal:
    """The person at the terminal, for a question that a training waits for."""
    if os.environ.get("TERM") == "dumb":
        return WatchedTerminal(stdin, stdout, gone, patience=patience)
    return KeyboardTerminal(stdin, stdout, gone=gone, patience=patience)


class ListTerminal:
    """Answers from a stream, one a line (`--ask` with standard input from a file or pipe)."""

    strict = True

    def __init__(self, answers: TextIO, stdout: TextIO) -> None:
        self._answers, self._stdout = answers, stdout

    def say(self, text: str, kind: Kind = "") -> None:
        print(text, file=self._stdout, flush=True)

    def ask(self, prompt: str, choices: Sequence[str] = ()) -> str:
        line = self._answers.readline()
        if not line:
            raise AnswerError(f"Question {prompt.strip(' :')!r}: no answer left on standard input.")
        answer = line.rstrip("\r\n")
        self.say(prompt + answer)
        return answer

    def enter_within(self, seconds: float, line: Callable[[float], str]) -> bool:
        raise AssertionError("a list of answers is not waited for")


def _key_waiting(stdin: TextIO, seconds: float) -> bool:
    """Waits up to `seconds` for a finished line (POSIX) or a key (Windows console)."""
    if sys.platform == "win32":
        import msvcrt

        time.sleep(min(seconds, 0.05))
        return bool(msvcrt.kbhit())
    return bool(select.select([stdin], [], [], seconds)[0])
