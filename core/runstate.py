"""What a run needs beyond DFL's files to go on exactly as if it had not stopped: its seed, how many batches it has
trained on, and the options that DFL's record has no key for.

Everything random is a function of the first two and of counters that DFL's files hold (docs/architecture.md,
Randomness). Kept in the model folder as `<name>_<Class>_facesmith_state.json`, which DFL never looks at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.ownjson import parse

FORMAT = 1
MAX_BYTES = 1 << 16  # of the file; ours has about 80, and 30 for each option
MOST_OPTIONS, LONGEST = 200, 1000  # entries, letters of a key or text
LIMITS = {"iteration": 1 << 40, "seed": (1 << 31) - 1, "position": 1 << 40}
"""The largest believed values: at a thousand iterations a second 2**40 takes 35 years; seeds are --seed's."""


@dataclass(frozen=True)
class RunState:
    """iteration: the one at which the files beside it were saved. position: batches trained on, so the number of the
    next one; batches that were only previewed do not count. options: those kept here (`Values.kept`); they hold for
    files of another iteration too."""

    iteration: int
    seed: int
    position: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        table: dict[str, Any] = {"format": FORMAT, **{key: getattr(self, key) for key in LIMITS}}
        if self.options:
            table["options"] = dict(self.options)
        return (json.dumps(table) + "\n").encode()

    @classmethod
    def from_json(cls, raw: bytes) -> RunState:
        """Raises ValueError with the reason for anything but what `to_json` writes; further keys are let be."""
        stored = parse(raw, FORMAT, MAX_BYTES)
        for key, limit in LIMITS.items():
            number = stored.get(key)
            if type(number) is not int or not 0 <= number <= limit:
                shown = f"{number!a}"[:40] if isinstance(number, (int, float, str)) else type(number).__name__
                raise ValueError(f"its {key} is {shown}, where a whole number from 0 to {limit} stands")
        return cls(**{key: stored[key] for key in LIMITS}, options=_options(stored.get("options", {})))


def _options(table: Any) -> dict[str, Any]:
    """Whether an option takes such a value is for its row to say."""
    if not isinstance(table, dict) or len(table) > MOST_OPTIONS:
        raise ValueError(f"its options are no table of at most {MOST_OPTIONS} values")
    for key, value in table.items():
        if type(value) not in (bool, int, float, str) or any(
            len(text) > LONGEST for text in (key, value) if isinstance(text, str)
        ):
            raise ValueError("its options hold something else than short texts and numbers")
    return table
