"""Small things several tests need."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def soon(condition: Callable[[], object], seconds: float = 40.0) -> bool:
    """Whether the condition comes true within `seconds`: generous, as machines are sometimes busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False
