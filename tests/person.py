"""Somebody at a terminal, and what a program leaves behind."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from tests_support import ROOT, soon
from training import ENVIRONMENT

pexpect = pytest.importorskip("pexpect", reason="pexpect drives a pseudo-terminal (test extra)")
MARK = "FACESMITH_TEST_MARK"
LEFT_OUT = ("DISPLAY", "WAYLAND_DISPLAY", "COLUMNS", "LINES")
"""pytest's own screen and size are not this person's."""


class Person:
    """Starts a program in a pseudo-terminal. scratch: its folder for temporary files; display: its screen."""

    def __init__(self, words: list[str], scratch: Path | None = None, display: str = "") -> None:
        environment = {key: value for key, value in ENVIRONMENT.items() if key not in LEFT_OUT}
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        environment |= dict([self.mark.split("=")]) | {"TERM": "xterm"}
        environment |= {"TMPDIR": str(scratch)} if scratch else {}
        environment |= {"DISPLAY": display} if display else {}
        self.child = pexpect.spawn(
            words[0], words[1:], cwd=str(ROOT), env=environment, encoding="utf-8", timeout=60, dimensions=(40, 140)
        )

    def answers(self, question: str, answer: str) -> None:
        self.child.expect_exact(question)
        self.child.send(answer + "\r")

    def code(self) -> int:
        """Its exit code, or minus the signal that ended it, once it has. A program that ends by itself leaves the
        terminal as it was."""
        self.child.expect(pexpect.EOF)
        tidy = self.hands_out_lines()
        self.child.close()
        if self.child.exitstatus is None:
            return -int(self.child.signalstatus)
        assert tidy
        return int(self.child.exitstatus)

    def hands_out_lines(self) -> bool:
        """Whether the terminal does, and shows what is typed."""
        import termios

        local = termios.tcgetattr(self.child.child_fd)[3]
        return bool(local & termios.ICANON and local & termios.ECHO)

    def family(self) -> list[int]:
        """The program and all it started, whoever their parent is by now."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                try:
                    environment = (folder / "environ").read_bytes()
                except OSError:  # ended meanwhile, or somebody else's
                    continue
                if self.mark.encode() in environment:
                    found.append(int(folder.name))
        return found

    def left_behind(self) -> list[str]:
        """Processes of the family that do not end by themselves soon, and shared memory with a name."""
        soon(lambda: not self.family())
        memory = Path("/dev/shm")
        names = [path.name for path in memory.iterdir()] if memory.is_dir() else []
        others = "facesmith-fuzz"  # of a test that runs beside this one
        return [
            *(f"process {pid}" for pid in self.family()),
            *(name for name in names if "facesmith" in name and not name.startswith(others)),
        ]
