"""Values of command-line flags that several verbs take: argparse types that say what is allowed."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path


def folder(text: str) -> Path:
    """A folder's path; empty is refused, as an unset shell variable would otherwise mean the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("got an empty path, allowed is a folder")
    return Path(text)


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number of a range, for argparse."""

    def parse(text: str) -> int:
        if not re.fullmatch("-?[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"got {text!r}, allowed is a whole number from {low} to {high}")
        return int(text)

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """A number of a range, for argparse."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"got {text!r}, allowed is a number from {low:g} to {high:g}")
        return value

    return parse


def seconds(text: str) -> float:
    """`30s`, `2m`, `1h` or plain seconds -> seconds; 0 is allowed."""
    found = re.fullmatch("([0-9]{1,9})([smh]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, allowed is a whole number of seconds, or with s, m or h: 30, 2m, 1h; 0 for never"
        )
    return int(found[1]) * {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


def save_cadence(text: str) -> tuple[float, int]:
    """`25m`, `2h`, `90s` -> (seconds, 0); `500it` -> (0, iterations)."""
    units = {"it": 0.0, "s": 1.0, "m": 60.0, "h": 3600.0}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    number = text[: len(text) - len(unit)]
    if not unit or not re.fullmatch("[0-9]{1,9}", number) or int(number) == 0:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, allowed is a whole number above 0 and s, m, h or it: 25m, 500it"
        )
    return (0.0, int(number)) if unit == "it" else (int(number) * units[unit], 0)
