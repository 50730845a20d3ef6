"""What a run needs beyond DFL's files to go on exactly as if it had not stopped: its seed, and how many batches it has
trained on.

Everything random is a function of these two and of counters that DFL's files hold (docs/architecture.md, Randomness).
Kept in the model folder as `<name>_<Class>_facesmith_state.json`, which DFL never looks at.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from core.ownjson import parse

FORMAT = 1
MAX_BYTES = 4096  # of the file; ours has about 80
LIMITS = {"iteration": 1 << 40, "seed": (1 << 31) - 1, "position": 1 << 40}
"""The largest believed values: at a thousand iterations a second 2**40 takes 35 years; seeds are --seed's."""


@dataclass(frozen=True)
class RunState:
    """iteration: the one at which the files beside it were saved. position: batches trained on, so the number of the
    next one; batches that were only previewed do not count."""

    iteration: int
    seed: int
    position: int

    def to_json(self) -> bytes:
        return (json.dumps({"format": FORMAT, **asdict(self)}) + "\n").encode()

    @classmethod
    def from_json(cls, raw: bytes) -> RunState:
        """Raises ValueError with the reason for anything but what `to_json` writes; further keys are let be."""
        stored = parse(raw, FORMAT, MAX_BYTES)
        for key, limit in LIMITS.items():
            number = stored.get(key)
            if type(number) is not int or not 0 <= number <= limit:
                shown = f"{number!a}"[:40] if isinstance(number, (int, float, str)) else type(number).__name__
                raise ValueError(f"its {key} is {shown}, where a whole number from 0 to {limit} stands")
        return cls(**{key: stored[key] for key in LIMITS})
