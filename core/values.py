"""Where answers come from: `--set key=value` on the command line, questions, the stored model, defaults.

One validation for all: the rows'. Later sources give way to earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.options import OptionError


def parse_sets(pairs: Iterable[str]) -> dict[str, str]:
    """`["batch_size=8", ...]` -> {"batch_size": "8"}; the last of equal keys counts. Raises OptionError."""
    given: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise OptionError(f"--set {pair}: got no value, write --set key=value, such as --set batch_size=8.")
        given[key.strip()] = value.strip()
    return given
