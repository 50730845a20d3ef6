"""What the verbs share: exit codes, whom to ask, and one line for whatever goes wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

from core.modeldir import ModelError
from core.options import OptionError
from core.prompts import AnswerError, Leave, Terminal
from core.terminal import KeyboardTerminal, ListTerminal

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_COLLAPSED, EXIT_LEFT = 0, 1, 2, 3, 130


def find_terminal(stdin: TextIO, stdout: TextIO, ask: bool) -> Terminal | None:
    """A person at a keyboard; with `ask` the lines of standard input; else nobody."""
    if stdin.isatty() and stdout.isatty():
        return KeyboardTerminal(stdin, stdout)
    return ListTerminal(stdin, stdout) if ask else None


def guarded(work: Callable[[], int]) -> int:
    """The exit code of `work`, or of what stopped it, which is told in one line."""
    from samplelib.faceset import FacesetError
    from samplelib.loader import LoaderError

    try:
        return work()
    except (OptionError, AnswerError) as error:
        return refuse(str(error), EXIT_USAGE)
    except (Leave, KeyboardInterrupt):
        print("\nLeft without changing anything.", file=sys.stderr, flush=True)
        return EXIT_LEFT
    except OSError as error:
        return refuse(f"{error.filename or 'The system'}: {error.strerror or error}.")
    except (ModelError, FacesetError, LoaderError) as error:
        return refuse(str(error))


def refuse(message: str, code: int = EXIT_FAILED) -> int:
    print(f"Error: {message}", file=sys.stderr, flush=True)
    return code
