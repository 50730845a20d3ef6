"""Numbers of a step on their way from a card to main memory.

Reading a number of a card the plain way waits for all that is queued there, the next step too, and leaves the card idle
until the host has queued more. So a step's numbers are copied right behind it, all in one, into locked memory; whoever
reads them waits for that copy and for nothing after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from core.capability import supports


class Late:
    """One of a step's numbers: float() and bool() give it, once it has arrived."""

    def __init__(self, reading: _Reading, place: int) -> None:
        self._reading: _Reading | None = reading
        self._place, self._value = place, 0.0

    def __float__(self) -> float:
        if self._reading is not None:
            self._value, self._reading = self._reading.value(self._place), None
        return self._value

    def __bool__(self) -> bool:
        return bool(float(self))

    def __repr__(self) -> str:
        return f"Late({float(self)})" if self._reading is None else "Late(on its way)"


class _Reading:
    """The numbers of one step: the copy is queued here and waited for at the first look."""

    def __init__(self, numbers: list[Tensor], device: torch.device) -> None:
        self._host = torch.empty(len(numbers), pin_memory=True)
        self._host.copy_(torch.stack([number.detach().float() for number in numbers]), non_blocking=True)
        card = torch.get_device_module(device)
        self._arrived = card.Event()
        self._arrived.record(card.current_stream(device))
        self._values: list[float] | None = None

    def value(self, place: int) -> float:
        if self._values is None:
            self._arrived.synchronize()
            self._values = self._host.tolist()
            del self._host  # the locked memory serves the next step
        return self._values[place]


def late(numbers: Mapping[Any, Any]) -> dict[Any, Any]:
    """0-d tensors of a card as numbers that arrive later; whatever else as it is, and all of it where the device
    cannot copy beside its work: there reading a tensor is the way."""
    there = {name: x for name, x in numbers.items() if isinstance(x, Tensor) and _far(x.device)}
    if not there:
        return dict(numbers)
    reading = _Reading(list(there.values()), next(iter(there.values())).device)
    return {**numbers, **{name: Late(reading, place) for place, name in enumerate(there)}}


def _far(device: torch.device) -> bool:
    return device.type in ("cuda", "xpu") and supports(device, "pinned")
