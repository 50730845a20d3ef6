"""YAML for tables of options: read with PyYAML (the extra `yaml`), written without it.

Every value is read as the text that stands there, and the option's own row says what it means. YAML 1.1 itself would
make a number of `12:30` and a date of `2026-11-21`, and would leave `1e-5` a text. No tag is obeyed, so a file can name
no Python object; a key that stands twice in one table is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from core.shown import printable, shorten

SUFFIXES = (".yaml", ".yml")
NOTHING = ("", "~", "null")
DEPTH = 4  # a table of tables of lists; more is no table of options
MAX_BYTES = 1 << 17  # PyYAML takes seconds for more


class YamlError(ValueError):
    """A text that is no table. Says why, and on which line."""


def parse(raw: bytes) -> Any:
    """Tables as dict, lists as list, everything else as text or, where nothing stands there, None. Raises YamlError,
    and ModuleNotFoundError without PyYAML."""
    import yaml

    if len(raw) > MAX_BYTES:
        raise YamlError(f"it is larger than {MAX_BYTES:,} bytes")
    try:
        return _value(yaml.compose(raw, Loader=yaml.BaseLoader), 0)
    except RecursionError:
        raise YamlError("it is nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = f" on line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise YamlError(f"{error.problem or error.context}{line}") from None
    except (yaml.YAMLError, OverflowError) as error:  # the latter for a letter that there is not: "\UFFFFFFFF"
        raise YamlError(" ".join(str(error).split())) from None


def _value(node: Any, depth: int) -> Any:
    import yaml

    if node is None:
        return None
    line = node.start_mark.line + 1
    if depth > DEPTH:
        raise YamlError(f"it is nested too deeply on line {line}")
    if isinstance(node, yaml.ScalarNode):
        return None if node.style is None and node.value.lower() in NOTHING else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_value(each, depth + 1) for each in node.value]
    table: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise YamlError(f"a key is no text on line {line}")
        if key.value in table:
            raise YamlError(f"{shorten(printable(key.value))} stands there twice, again on line {line}")
        table[key.value] = _value(value, depth + 1)
    return table


def write(table: Mapping[str, Any], comment: str = "") -> str:
    """A table of plain values, or of tables of them. Text is quoted, since `n` or `1.0` without quotes mean something
    else to other programs."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += [f"{key}:", *(f"  {name}: {_text(one)}" for name, one in value.items())]
        else:
            lines.append(f"{key}: {_text(value)}")
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    """A value as JSON writes it, which YAML reads too; but 1e-05 would be a text."""
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")
    return text
