"""What the doctor says of one thing, and the child processes it asks. Standard library only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core import child

SECONDS = 120.0
"""How long a package may take to load: from a cold network drive a minute is possible."""

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. advice: what to do; every problem has some. data: figures for programs (`--json`)."""

    name: str
    state: State
    text: str
    advice: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        row = {"name": self.name, "state": self.state, "text": self.text, "advice": self.advice}
        return {**row, "data": dict(self.data)}


def safely(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of a check. One that fails itself is a problem, never the end of the report."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001  # the doctor is for machines where anything may be broken
        told = f"could not be looked at: {type(error).__name__}: {error}"
        return [Finding(name, "problem", told, "Please report it, with this line.")]


def ask(what: str, *arguments: str, seconds: float = SECONDS) -> dict[str, Any]:
    """The answer of mainscripts/doctor_probe.py; whatever goes wrong is an answer with `error` and `advice`."""
    environ = child.environment(PYTHONIOENCODING="utf-8")
    command = [sys.executable, "-m", "mainscripts.doctor_probe", what, *arguments]
    try:
        done = subprocess.run(
            command, cwd=child.ROOT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            encoding="utf-8", errors="replace", timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        advice = "A driver or a network drive that does not answer does that: restart the machine."
        return {"error": f"did not answer within {seconds:.0f} s", "advice": advice, "missing": False}
    except OSError as error:
        advice = "Close other programs, or raise the limit on processes (ulimit -u)."
        return {"error": f"no process could be started: {error.strerror}", "advice": advice, "missing": False}
    from mainscripts.doctor_probe import ANSWER

    for line in reversed(done.stdout.splitlines()):
        if line.startswith(ANSWER):
            answer: dict[str, Any] = json.loads(line[len(ANSWER) :])
            return answer
    words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    last = f": {words[-1][:300]}" if words else ""
    advice = "Remove the folder .venv and start a launcher in bat/, which sets everything up anew."
    return {"error": f"crashes Python when it is loaded ({child.ending(done.returncode)}){last}", "advice": advice,
            "missing": False}  # fmt: skip
