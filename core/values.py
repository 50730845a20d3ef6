"""Where answers come from: `--set key=value` on the command line, `--options FILE`, questions, the stored model,
defaults.

One validation for all: the rows'. Later sources give way to earlier ones. Files are JSON or, by their ending, YAML.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core import yamltext
from core.options import OptionError
from core.shown import PLAIN, plain, printable, shorten, shown
from core.yamltext import YamlError

MAX_BYTES = 1 << 20
INSTALL = 'pip install -e ".[yaml]"'


def parse_sets(pairs: Iterable[str]) -> dict[str, str]:
    """`["batch_size=8", ...]` -> {"batch_size": "8"}; the last of equal keys counts. Raises OptionError."""
    given: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise OptionError(f"--set {pair}: got no value, write --set key=value, such as --set batch_size=8.")
        given[key.strip()] = value.strip()
    return given


def is_yaml(path: Path) -> bool:
    return path.suffix.lower() in yamltext.SUFFIXES


def read_table(path: Path, flag: str) -> dict[str, Any]:
    """The table of a JSON or YAML file; in YAML all values are texts. flag: how the file was given, for messages.
    Raises OptionError."""
    kind = "YAML" if is_yaml(path) else "JSON"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if kind == "YAML":
            stored = yamltext.parse(raw)
        else:
            stored = json.loads(raw, object_pairs_hook=_once_each) if len(raw) <= MAX_BYTES else None
    except OSError as error:
        raise OptionError(f"{flag} {path}: cannot be read ({error.strerror or error}).") from None
    except ModuleNotFoundError:
        raise OptionError(f"{flag} {path}: reading YAML needs PyYAML. To install: {INSTALL}, or take JSON.") from None
    except (_TwiceError, YamlError) as error:
        raise OptionError(f"{flag} {path}: {error}.") from None
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{flag} {path}: is no JSON ({error}). --save-options writes such a file.") from None
    if not isinstance(stored, dict):
        example = "batch_size: 8" if kind == "YAML" else '{"batch_size": 8}'
        raise OptionError(f"{flag} {path}: expected a table of options, such as {example}.")
    return stored


class _TwiceError(ValueError):
    """A key stands twice in one table."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(key for key in table if sum(key == other for other, _ in pairs) > 1)
        raise _TwiceError(f"{shorten(printable(twice))} stands there twice")
    return table


def entries(table: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(section or "", key, value) of a table, of whose values some may be tables themselves."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ((key, name, one) for name, one in value.items())
        else:
            yield "", key, value


def read_options(path: Path, flag: str = "--options") -> dict[str, Any]:
    """Key -> value of a file; tables within it (sections) are laid flat. Raises OptionError."""
    answers: dict[str, Any] = {}
    for _, name, one in entries(read_table(path, flag)):
        if type(plain(one)) not in PLAIN:
            told = shorten(printable(name))
            raise OptionError(f"{flag} {path}: {told}: got {type(one).__name__}, allowed is a text or a number.")
        if name in answers and answers[name] != one:
            told = f"{shorten(printable(name))} stands there twice, as {shown(answers[name])} and {shown(one)}"
            raise OptionError(f"{flag} {path}: {told}.")
        answers[name] = one
    return answers


def file_text(path: Path, table: Mapping[str, Any]) -> str:
    """The table as `read_table` reads it from a file of that name."""
    return yamltext.write(table) if is_yaml(path) else json.dumps(table, indent=2) + "\n"
