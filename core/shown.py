"""Values from files of strangers as they stand in messages and boxes: short and printable, whatever they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LONGEST = 80
SECRETS = ("--preview-web-token",)
"""Flags whose values are nobody else's business."""
PLAIN = (type(None), bool, int, float, str)


def plain(value: Any) -> Any:
    """A numpy number as Python's; everything else as it is."""
    return value.item() if getattr(value, "shape", None) == () else value


def printable(text: str) -> str:
    """The text with what would disturb a terminal or cannot be encoded replaced by `?`."""
    return "".join(c if c.isprintable() else "?" for c in text)


def shorten(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def shown(value: Any, longest: int = LONGEST) -> str:
    """A value for a message: text in quotes, plain values as Python writes them, anything else by its type."""
    value = plain(value)
    if type(value) not in PLAIN:
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length():,} bits"
    if isinstance(value, str):
        value = value[:longest]
    return shorten(repr(value), longest)


def without_secrets(words: Sequence[str]) -> list[str]:
    """A command line whose secrets are dots, for logs and terminals. argparse takes beginnings of flags too."""
    clean: list[str] = []
    for word in words:
        flag, equals, _ = word.partition("=")
        secret = any(len(flag) > len("--preview-web-") and name.startswith(flag) for name in SECRETS)
        if clean and clean[-1] in SECRETS:
            clean.append("...")
        elif secret:
            clean += [SECRETS[0], "..."] if equals else [SECRETS[0]]
        else:
            clean.append(word)
    return clean
