"""The JSON files that are ours: small, of a known format, and perhaps made by a stranger."""

from __future__ import annotations

import json
from typing import Any


def parse(raw: bytes, version: int, max_bytes: int) -> dict[str, Any]:
    """The table of a file whose `format` is `version`. Raises ValueError with the reason for anything else."""
    if len(raw) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes:,} bytes")
    try:
        stored = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(stored, dict) or type(stored.get("format")) is not int or stored["format"] != version:
        raise ValueError(f"it is not of format {version}")
    return stored
