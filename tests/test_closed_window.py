"""What is said where the preview window goes away: to a person at a terminal, and where there is none."""

from __future__ import annotations

import io
import queue
from pathlib import Path

from core.window import CLOSED
from mainscripts.train_sinks import Sinks


class Terminal(io.StringIO):
    """Standard input of a person; nobody types."""

    def isatty(self) -> bool:
        return True


def said(folder: Path, stdin: io.StringIO, *reasons: str) -> list[str]:
    out = io.StringIO()
    with Sinks(folder / "new_SAEHD", queue.Queue(), stdin, out, window=False, stays=True) as sinks:
        for reason in reasons:
            sinks._lost(reason)
    return out.getvalue().splitlines()


def test_it_is_asked_once(tmp_path: Path) -> None:
    question, again, dead = said(tmp_path, Terminal(), CLOSED, CLOSED, "the process ended (SIGKILL)")
    assert question.startswith("The preview window was closed. Save and stop training? ( Enter:yes w:open it again )")
    assert "Meanwhile training goes on" in question
    assert again.startswith("The preview window was closed; training goes on")
    assert dead.startswith("Warning: The process ended (SIGKILL); training goes on") and "w in the terminal" in dead


def test_without_a_terminal_it_goes_on_and_says_so(tmp_path: Path) -> None:
    (line,) = said(tmp_path, io.StringIO(), CLOSED)
    assert line.startswith("The preview window was closed; training goes on, and previews go to JPG files")
