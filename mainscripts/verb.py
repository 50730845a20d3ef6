"""What the verbs share: exit codes, whom to ask, and one message for whatever goes wrong.

Imports nothing that needs a package: a broken one has to be told too.
"""

from __future__ import annotations

import os
import select
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from core.failures import explain
from core.options import OptionError
from core.prompts import AnswerError, Leave, Terminal
from core.runlog import RunLog
from core.terminal import KeyboardTerminal, ListTerminal, PlainTerminal

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_COLLAPSED, EXIT_LEFT = 0, 1, 2, 3, 130
EXIT_UNREAD = 141
"""Nobody reads the output any more (`| head`): what a shell reports of other programs then."""
WRITTEN_FOR_USERS = (
    ("core.modeldir", "ModelError"),
    ("samplelib.faceset", "FacesetError"),
    ("samplelib.loader", "LoaderError"),
    ("core.distributed", "Lost"),
)
TRACEBACK = "FACESMITH_TRACEBACK"
"""Set to anything: tracebacks are shown, not only kept in the log."""


def find_terminal(stdin: TextIO, stdout: TextIO, ask: bool) -> Terminal | None:
    """A person at a keyboard; with `ask` the lines of standard input; else nobody."""
    if stdin.isatty() and stdout.isatty():
        dumb = os.environ.get("TERM") == "dumb"
        return PlainTerminal(stdin, stdout) if dumb else KeyboardTerminal(stdin, stdout)
    return ListTerminal(stdin, stdout) if ask else None


def guarded(work: Callable[[], int], log: RunLog | None = None, left: str = "Left without changing anything.") -> int:
    """The exit code of `work`, or of what stopped it, which is told in one message; its traceback goes to the log
    (default: a file in the temporary folder)."""
    try:
        return work()
    except (OptionError, AnswerError) as error:
        return refuse(str(error), EXIT_USAGE)
    except (Leave, KeyboardInterrupt):
        print(f"\n{left}", file=sys.stderr, flush=True)
        return EXIT_LEFT
    except Exception as error:  # noqa: BLE001  # the last one who can tell the user
        if log is None and isinstance(error, BrokenPipeError) and _unread(sys.stdout):
            return EXIT_UNREAD
        return fail(error, log)


def _unread(stdout: TextIO) -> bool:
    """Whether the reader of the output went away; a broken pipe may also be another one. What is still to be written
    then goes nowhere, as Python would complain at its end. False on Windows, which cannot be asked."""
    if sys.platform == "win32":
        return False
    try:
        handle = stdout.fileno()
    except OSError:  # no file
        return False
    poll = select.poll()
    poll.register(handle, 0)
    if not poll.poll(0):
        return False
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), handle)
    return True


def fail(error: Exception, log: RunLog | None) -> int:
    """Tells an error and where its traceback is; returns the exit code. A message that was written for users says
    everything: where the log is no file of a model, it is not pointed to for that."""
    message, complete = message_of(error), log is None and isinstance(error, _written_for_users())
    log = RunLog(sys.argv) if log is None else log
    log.note(f"Error: {message}")
    log.failure(error)
    path = log.flush()
    show_traceback(error)
    return refuse(message if path is None or complete else f"{message}\nDetails: {path}")


def show_traceback(error: Exception) -> None:
    """For who asks for it."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)


def message_of(error: Exception) -> str:
    """What to tell the user of an error."""
    return str(error) if isinstance(error, _written_for_users()) else explain(error)


def refuse(message: str, code: int = EXIT_FAILED) -> int:
    print(f"Error: {message}", file=sys.stderr, flush=True)
    return code


def _written_for_users() -> tuple[type[Exception], ...]:
    """Errors whose text is the message. One whose module was never imported cannot have been raised, and importing it
    here may be what failed."""
    modules = [(sys.modules.get(module), name) for module, name in WRITTEN_FOR_USERS]
    return tuple(getattr(module, name) for module, name in modules if hasattr(module, name))
