"""How exactly a network computes while it trains (`mp_mode`, MVE's names), and what a device can do of it.

Weights, moments, losses and files are float32 in every mode; convolutions, dense layers and what lies between them run
in what the mode says. float16 has so small a range that its gradients are multiplied before the backward pass and
divided again in the update (`Scaler`). PyTorch's own scaler walks all gradients once more and wants one of PyTorch's
optimizers; here the division is a factor of the update, which has to pass over them anyway.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from core.capability import supports
from core.device import Device, abilities
from core.optim import Optimizer
from core.options import OptionError
from core.shapes import ShapeCast

PRECISIONS = ("full", "full_t", "float16", "bfloat")
DTYPES = {"float16": torch.float16, "bfloat": torch.bfloat16}
FIRST_SCALE, LEAST_SCALE, GROW_AFTER = 2.0**16, 1.0, 2000  # PyTorch's, but for the least


class Precision:
    """A mode on a device. `mode`: the one in effect; `notes`: lines for the user about it.

    Raises OptionError for a mode there is not, and for one that an NVIDIA card or a processor cannot compute. Other
    devices fall back to full, with a note: what their drivers can do changes from one version to the next.
    """

    def __init__(self, mode: str, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.mode, self.notes = settle(mode, self.device)
        self.dtype = DTYPES.get(self.mode, torch.float32)
        self._shapes = ShapeCast(self.dtype)

    @property
    def scales(self) -> bool:
        """Whether gradients need a scale, and so clipping."""
        return self.mode == "float16"

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Round a forward pass and its losses: weights are converted once however often `autocast` is entered in it.
        By itself it converts nothing."""
        if self.device.type == "cuda":
            # Both belong to the process. By PyTorch's own default convolutions take TF32 and products do not.
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.mode == "full_t"
        with self._convert(False):
            yield

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Round a network's own operations: they compute in the mode's type. What comes out may be of that type."""
        return self._convert(True)

    def _convert(self, on: bool) -> contextlib.AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        if self.device.type == "meta":
            return self._shapes.casting() if on else self._shapes.keeping()
        return torch.autocast(self.device.type, self.dtype, enabled=on)


class Scaler:
    """Backward pass and update of a loss, with the factor that float16 needs between them: halved by a step whose
    gradients are not finite, which is left out, doubled by 2,000 good ones in a row. In other modes there is none.

    It lives on the device, where nothing waits for it, and for one run: a resumed one finds its own within a few steps.
    """

    def __init__(self, precision: Precision) -> None:
        self.active = precision.scales
        self._scale = torch.tensor(FIRST_SCALE, device=precision.device)
        self._good = torch.zeros((), dtype=torch.int32, device=precision.device)

    def backward(self, loss: Tensor) -> None:
        (loss * self._scale if self.active else loss).backward()

    @torch.no_grad()
    def step(self, optimizers: Sequence[Optimizer], ok: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """An update of each optimizer, of all or of none as far as the first can tell. ok: 0-d bool, whether the loss
        was finite, or None to update whatever comes (float16 wants to know).

        Returns whether weights were moved, and whether the model is well: it is too where only the factor was too
        large. None for `ok` of None.
        """
        if not self.active:
            updated = optimizers[0].step(ok)
            for optimizer in optimizers[1:]:
                optimizer.step(updated)
            return updated, updated
        if ok is None:
            raise ValueError("float16: the update has to know whether the loss was finite")
        inverse, moved, all_moved = 1 / self._scale, ok, ok
        for number, optimizer in enumerate(optimizers):
            done = optimizer.step(moved, inverse)
            assert done is not None  # it was asked
            moved, all_moved = (done if number == 0 else moved), all_moved & done
        well = moved | (ok & (self._scale > LEAST_SCALE))
        self._good = (self._good + 1) * all_moved
        grow = self._good >= GROW_AFTER
        self._good *= ~grow
        too_large = ok & ~all_moved
        self._scale = torch.where(too_large, self._scale / 2, torch.where(grow, self._scale * 2, self._scale))
        self._scale.clamp_(LEAST_SCALE)
        return moved, well


def settle(
    mode: str, device: torch.device, able: Callable[[torch.device, str], str] | None = None
) -> tuple[str, list[str]]:
    """The mode in effect and lines about it; see `Precision`. able: of a device and a mode, why it cannot be."""
    if mode not in PRECISIONS:
        raise OptionError(f"mp_mode: got {mode!r}, allowed is {' / '.join(PRECISIONS)}.")
    if mode == "full" or device.type == "meta":
        return mode, []
    if reason := (able or missing)(device, mode):
        if device.type in ("cpu", "cuda") and torch.version.hip is None:
            raise OptionError(f"mp_mode: got {mode}, but {reason}. Take another mode: --set mp_mode=full.")
        return "full", [f"mp_mode {mode}: {reason}. It computes in full precision instead."]
    if device.type == "cpu" and (reason := slow(mode)):
        return mode, [f"mp_mode {mode}: {reason}. It works, but full is faster here."]
    return mode, []


def missing(device: torch.device, mode: str) -> str:
    """What the device lacks for the mode, in words; empty where nothing."""
    can = abilities(Device("", "", str(device)))
    if mode == "full_t":
        return "" if can["tf32"] else "TF32 is something that only NVIDIA cards from the Ampere generation on have"
    kind = "bfloat16" if mode == "bfloat" else "float16"
    # An older NVIDIA card computes bfloat16 by detours, slower than float32.
    if kind == "bfloat16" and device.type == "cuda" and torch.version.hip is None and not can["tf32"]:
        return "this card has no bfloat16, which came with the Ampere generation; float16 is what it has"
    return "" if can[kind] else f"{device.type} cannot compute in {kind}"


def pays(mode: str, device: torch.device) -> bool:
    """Whether the device can compute in a mode, and is no slower by it."""
    return not missing(device, mode) and not (device.type == "cpu" and slow(mode))


def slow(mode: str) -> str:
    """Why a mode is no help on this processor; empty where it is one."""
    kind = str(DTYPES[mode]).removeprefix("torch.")
    return "" if supports("cpu", kind) else f"this processor has no {kind}"
