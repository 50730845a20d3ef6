"""The keys of a training in a pseudo-terminal: what each does, and that the terminal is as before in the end."""

from __future__ import annotations

import io
import os
import queue
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_support import soon

from core.events import Command
from core.keyboard import StopKeys

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
if sys.platform != "win32":
    import fcntl
    import pty
    import termios

PAUSE = 0.1  # longer than what counts as coming together


class Desk:
    """A terminal, who types on it, and what came of it."""

    def __init__(self) -> None:
        self.hand, end = pty.openpty()
        self.stdin = os.fdopen(end)
        self.commands: queue.Queue[Command] = queue.Queue()
        self.others: list[str] = []
        self.before = self.mode()
        self.keys = StopKeys(None, self.commands)

    def listen(self) -> None:
        others = {key: lambda key=key: self.others.append(key) for key in "?w"}
        self.keys = StopKeys(self.stdin, self.commands, others, lambda: self.others.append("pasted"))
        assert self.keys.active and soon(lambda: not self.lines())

    def type(self, text: str) -> None:
        os.write(self.hand, text.encode())
        if self.keys.active:
            soon(lambda: not self.waiting())
        time.sleep(PAUSE)

    def waiting(self) -> int:
        """Bytes that nobody has read yet."""
        count = fcntl.ioctl(self.stdin.fileno(), termios.FIONREAD, bytes(4))
        return int.from_bytes(count, sys.byteorder)

    def mode(self) -> list[object]:
        return list(termios.tcgetattr(self.stdin.fileno()))

    def lines(self) -> bool:
        """Whether the terminal hands out lines."""
        return bool(termios.tcgetattr(self.stdin.fileno())[3] & termios.ICANON)

    def asked(self) -> list[str]:
        return [command.name for command in self.commands.queue]


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.keys.close()
    desk.stdin.close()
    os.close(desk.hand)


def test_each_key_counts_at_once(desk: Desk) -> None:
    desk.listen()
    for key in "s0Poxw?l +-ыé7\t":
        desk.type(key)
    assert desk.asked() == ["save", "backup", "preview", "options"] and desk.others == ["w", "?"]
    desk.type("\r")
    assert desk.asked()[-1] == "stop"
    assert soon(lambda: not desk.keys.active) and desk.mode() == desk.before
    desk.type("rest\n")
    assert desk.stdin.readline() == "rest\n"  # what comes after Enter is not ours


@pytest.mark.parametrize("text", ["\x1b[A", "\x1bOp", "\x1b", "\x1bs", "\x1b[200~s\x1b[201~", "\x7f", "\x04"])
def test_cursor_keys_do_nothing(desk: Desk, text: str) -> None:
    desk.listen()
    desk.type(text)
    assert desk.asked() == desk.others == [] and desk.keys.active


def test_a_paste_is_no_storm_of_commands(desk: Desk) -> None:
    desk.listen()
    desk.type("python main.py --set batch_size=8\nsop\n" * 50)
    assert soon(lambda: desk.others) and set(desk.others) == {"pasted"} and desk.asked() == []
    desk.type("s\r")
    assert desk.asked() == [] and desk.keys.active
    desk.type("ssss")  # a key that is held down
    assert desk.asked() == ["save"]


def test_only_lines_are_switched_off(desk: Desk) -> None:
    """Typing shows and Ctrl-C works all the while: this is what a process that is killed leaves behind."""
    desk.listen()
    before, now = desk.before, desk.mode()
    assert now[3] == before[3] & ~termios.ICANON and now[3] & termios.ECHO and now[3] & termios.ISIG
    assert now[:3] == before[:3]
    desk.keys.close()
    assert desk.mode() == before


def test_a_shell_that_sets_its_own_mode(desk: Desk) -> None:
    """As at Ctrl-Z and fg."""
    desk.listen()
    termios.tcsetattr(desk.stdin.fileno(), termios.TCSANOW, desk.before)
    assert soon(lambda: not desk.lines())
    desk.type("s")
    desk.keys.close()
    assert desk.asked() == ["save"] and desk.mode() == desk.before


def test_what_was_typed_before_is_dropped_and_after_it_left(desk: Desk) -> None:
    desk.type("\r\rs")
    desk.listen()
    desk.keys.close()
    desk.type("mine\n")
    assert desk.stdin.readline() == "mine\n" and desk.asked() == []


def test_further_keys_go_first_and_may_change(desk: Desk) -> None:
    others = {"\r": lambda: desk.others.append("enter")}
    desk.keys = StopKeys(desk.stdin, desk.commands, others)
    assert soon(lambda: not desk.lines())
    desk.type("\r")
    assert desk.others == ["enter"] and desk.keys.active
    others.clear()
    desk.type("\r")
    assert desk.asked() == ["stop"]


def test_a_key_may_end_the_listening(desk: Desk) -> None:
    desk.keys = StopKeys(desk.stdin, desk.commands, {"w": lambda: desk.keys.close()})
    assert soon(lambda: not desk.lines())
    desk.type("w")
    assert soon(lambda: not desk.keys.active) and desk.mode() == desk.before


def test_a_terminal_that_goes_away_ends_it() -> None:
    hand, end = pty.openpty()
    with os.fdopen(end) as stdin:
        keys = StopKeys(stdin, queue.Queue())
        os.close(hand)
        keys.close()
        assert not keys.active


def test_no_terminal_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    path.write_text("\n\n")
    with path.open() as stdin:
        for source in (stdin, None, io.StringIO("\n")):
            keys = StopKeys(source, queue.Queue())
            assert not keys.active
            keys.close()
        assert stdin.readline() == "\n"
