"""Where answers come from: `--set key=value` on the command line, `--options FILE`, questions, the stored model,
defaults.

One validation for all: the rows'. Later sources give way to earlier ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.options import OptionError
from core.shown import PLAIN, plain

MAX_BYTES = 1 << 20


def parse_sets(pairs: Iterable[str]) -> dict[str, str]:
    """`["batch_size=8", ...]` -> {"batch_size": "8"}; the last of equal keys counts. Raises OptionError."""
    given: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise OptionError(f"--set {pair}: got no value, write --set key=value, such as --set batch_size=8.")
        given[key.strip()] = value.strip()
    return given


def read_options(path: Path) -> dict[str, Any]:
    """Key -> value of a JSON file; tables within it (sections) are laid flat. Raises OptionError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        stored = json.loads(raw) if len(raw) <= MAX_BYTES else None
    except OSError as error:
        raise OptionError(f"--options {path}: cannot be read ({error.strerror or error}).") from None
    except (ValueError, RecursionError) as error:
        raise OptionError(f"--options {path}: is no JSON ({error}). --save-options writes such a file.") from None
    if not isinstance(stored, dict):
        raise OptionError(f'--options {path}: expected a table of options, such as {{"batch_size": 8}}.')
    answers: dict[str, Any] = {}
    for key, value in stored.items():
        for name, one in value.items() if isinstance(value, dict) else [(key, value)]:
            if type(plain(one)) not in PLAIN:
                raise OptionError(f"--options {path}: {name}: got {type(one).__name__}, allowed is a text or a number.")
            if name in answers and answers[name] != one:
                raise OptionError(f"--options {path}: {name} stands there twice, as {answers[name]!r} and {one!r}.")
            answers[name] = one
    return answers
