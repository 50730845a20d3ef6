"""Processes that the program starts of itself: window, page, sample workers, the doctor's questions.

Standard library only, as the doctor's are started where no package works.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
"""Where `python -m` finds the program. A child's working folder too: `-m` puts that first in the path, and no `core`
of the user's folder is to be taken for ours."""


def environment(**more: str) -> dict[str, str]:
    """This process's variables, with the program first in the path of modules, and `more`."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def detached(fds: tuple[int, ...] = (), *, console: bool = False) -> dict[str, Any]:
    """Arguments of Popen that keep the terminal's Ctrl-C from a child: the parent ends it, once it has saved.

    fds: open files that it gets, by number (POSIX). console: whether it may use the parent's one under Windows."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | (0 if console else subprocess.CREATE_NO_WINDOW)}
    return {"start_new_session": True, "pass_fds": fds}


def ending(code: int) -> str:
    """How a process ended, from its exit code as Popen has it: "SIGKILL", "exit code 1"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
