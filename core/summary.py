"""The boxed summary: printed at start and written to `<model>_summary.txt`, in DFL's layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.shown import PLAIN, plain, printable, shorten, shown


def summary(
    full_name: str, iteration: int, options: Mapping[str, Any], forced: Mapping[str, Any], device: str = "CPU",
    session: str = "", kept: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    """DFL's summary box. options: as stored; forced: those that another option overrides, with the value in effect.
    session: the name of this part of the training, or nothing. kept: options that are not in DFL's record and not at
    their defaults."""
    rows: list[tuple[str, str] | str] = [("Model name", full_name), ""]
    rows += [("Session name", session), ""] if session else []
    rows += [("Current iteration", str(iteration)), ""]
    rows += ["Model Options", ""]
    ours = {key: value for key, value in (kept or {}).items() if key != "session_name"}
    for key, value in {**options, **ours}.items():
        text = _text(value) + (f" (override: {forced[key]})" if key in forced else "")
        rows.append((shorten(printable(key)), text))
    rows += ["", "Running On", "", ("Using device", device), ""]

    pairs = [row for row in rows if isinstance(row, tuple)]
    left = max(len(name) for name, _ in pairs) + 1
    right = max(len(value) for _, value in pairs) + 1
    width = left + right + 2
    titles = ("Model Options", "Running On")
    lines = [f"=={' Model Summary ':=^{width}}==", f"=={'':{width}}=="]
    for row in rows:
        if isinstance(row, tuple):
            lines.append(f"== {row[0]:>{left - 1}}: {row[1]:<{right}}==")
        else:
            lines.append(f"=={f' {row} ':-^{width}}==" if row in titles else f"=={'':{width}}==")
    lines.append("=" * (width + 4))
    return "\n".join(lines)


def _text(value: Any) -> str:
    """An option's value. Options that are not ours come from strangers."""
    value = plain(value)
    return shorten(printable(str(value))) if type(value) in PLAIN else shown(value)
