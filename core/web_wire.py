"""What the trainer tells the process of the preview page: a line of JSON, then the raw bytes that it announces.

No pickles: a page's process reads nothing that could run. Both ends are ours, and the pipe is private to them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Head = dict[str, Any]


def write(stream: BinaryIO, head: Mapping[str, Any], *arrays: npt.NDArray[Any]) -> None:
    """One message: plain values, and arrays as they lie in memory (their shapes belong into `head`). Raises OSError."""
    parts = [np.ascontiguousarray(array) for array in arrays]
    line = json.dumps({**head, "bytes": [part.nbytes for part in parts]})
    stream.write(line.encode() + b"\n")
    for part in parts:
        stream.write(part.reshape(-1).view(np.uint8).data)
    stream.flush()


def read(stream: BinaryIO) -> tuple[Head, list[bytes]] | None:
    """The next message; None at the end of the stream, also where it ends within a message."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    head: Head = json.loads(line)
    parts = [stream.read(size) for size in head["bytes"]]
    if any(len(part) != size for part, size in zip(parts, head["bytes"], strict=True)):
        return None
    return head, parts
