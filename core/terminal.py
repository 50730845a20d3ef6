"""The terminals behind `core.prompts`: a person at a keyboard, or a list of answers on standard input."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable
from typing import TextIO

from core.prompts import AnswerError, Leave


class KeyboardTerminal:
    """A person: line editing and recall by prompt_toolkit. Ctrl-C, Ctrl-D and a closed terminal leave."""

    strict = False

    def __init__(self, stdin: TextIO, stdout: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        # Asking where the cursor is stalls terminals that do not answer (serial lines, recorders).
        os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")
        from prompt_toolkit import PromptSession

        self._stdin, self._stdout, self._clock = stdin, stdout, clock
        self._session: PromptSession[str] = PromptSession()

    def say(self, text: str) -> None:
        print(text, file=self._stdout, flush=True)

    def ask(self, prompt: str) -> str:
        try:
            return self._session.prompt(prompt)
        except (KeyboardInterrupt, EOFError):
            raise Leave from None

    def enter_within(self, seconds: float) -> bool:
        deadline = self._clock() + seconds
        try:
            while (left := deadline - self._clock()) > 0:
                if _key_waiting(self._stdin, left):
                    return self._stdin.readline() != ""
        except KeyboardInterrupt:
            raise Leave from None
        return False


class WatchedTerminal:
    """A person who is asked while a training waits. Leaves as soon as `gone()`, which is looked at all the while: a
    signal or the window may end what the question is about."""

    strict = False

    def __init__(self, stdin: TextIO, stdout: TextIO, gone: Callable[[], bool]) -> None:
        self._stdin, self._stdout, self._gone = stdin, stdout, gone

    def say(self, text: str) -> None:
        print(text, file=self._stdout, flush=True)

    def ask(self, prompt: str) -> str:
        with contextlib.suppress(OSError):  # the terminal was closed
            print(prompt, end="", file=self._stdout, flush=True)
            while not self._gone():
                if _key_waiting(self._stdin, 0.2):
                    if line := self._stdin.readline():
                        return line.rstrip("\r\n")
                    break
            self.say("")
        raise Leave

    def enter_within(self, seconds: float) -> bool:
        raise AssertionError("questions during a training are not skipped")


class ListTerminal:
    """Answers from a stream, one a line (`--ask` with standard input from a file or pipe)."""

    strict = True

    def __init__(self, answers: TextIO, stdout: TextIO) -> None:
        self._answers, self._stdout = answers, stdout

    def say(self, text: str) -> None:
        print(text, file=self._stdout, flush=True)

    def ask(self, prompt: str) -> str:
        line = self._answers.readline()
        if not line:
            raise AnswerError(f"Question {prompt.strip(' :')!r}: no answer left on standard input.")
        answer = line.rstrip("\r\n")
        self.say(prompt + answer)
        return answer

    def enter_within(self, seconds: float) -> bool:
        raise AssertionError("a list of answers is not waited for")


def _key_waiting(stdin: TextIO, seconds: float) -> bool:
    """Waits up to `seconds` for a finished line (POSIX) or a key (Windows console)."""
    if sys.platform == "win32":
        import msvcrt

        time.sleep(min(seconds, 0.05))
        return bool(msvcrt.kbhit())
    return bool(select.select([stdin], [], [], seconds)[0])
