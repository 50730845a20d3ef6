"""Functions of a network, compiled by PyTorch's own compiler as they are first called, and plain where that fails.

It is functions that are compiled and not modules, so that weights keep their names and whatever else calls the network
finds it as it was. Every size of batch is compiled for itself. What does not compile costs a line and no training: the
step that failed is done once more without.
"""

from __future__ import annotations

import logging
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from core.capability import supports
from core.memory import out_of_memory

MODES = ("off", "default", "max")
PLACES = ("torch/_dynamo/", "torch/_inductor/", "torch/_functorch/", "/triton/", "torchinductor_")
"""Files of the compiler, and those that it writes."""
WARNINGS = (r"The \.grad attribute of a Tensor that is not a leaf", r"`torch\.jit\.script_method` is deprecated")
"""Of the compiler about its own work."""
Result = TypeVar("Result")
Function = Callable[..., Any]


class Compiler:
    """`compiler(function)` is the function as it should be run. mode: one of MODES; `max` also tries several kernels
    for each product and, where the device has graphs, records a step's kernels. `tell`: where lines for the user go.

    Raises ValueError for another mode.
    """

    def __init__(
        self,
        mode: str,
        device: torch.device,
        tell: Callable[[str], object] = lambda text: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"compile: got {mode!r}, allowed is {' / '.join(MODES)}")
        self.mode, self.tell = mode, tell
        self._device, self._clock = device, clock
        self._graphs = mode == "max" and supports(device, "graphs")
        self._made: dict[Function, Function] = {}
        self._seconds = 0.0  # of this step, spent on what was called for the first time

    def __call__(self, function: Function) -> Function:
        if self.mode == "off":
            return function
        if function not in self._made:
            if not self._made and not self._begin():
                return function
            self._made[function] = self._timed(function)
        return self._made[function]

    def step(self, run: Callable[[], Result], moved: Callable[[], object]) -> Result:
        """run(), a whole training step; once more where compiling failed before what `moved()` tells has changed."""
        if self.mode == "off":
            return run()
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()
        before, self._seconds = moved(), 0.0
        try:
            result = run()
            if self._seconds:
                self.tell(f"Compiled in {self._seconds:.0f} s.")
            return result
        except Exception as error:  # compilers raise whatever they like
            if not of_compiler(error) or moved() != before:
                raise
            self._give_up(error)
        return run()

    def let_go(self) -> None:
        """Forgets what is compiled, and gives back the memory of recorded graphs. The next call compiles anew."""
        if self._made:
            self._made = {}
            torch.compiler.reset()

    def _begin(self) -> bool:
        """Whether there is any sense in trying."""
        if not supports(self._device, "compile"):
            card = "" if self._device.type == "mps" else " It needs Triton, and on NVIDIA a card from Volta on."
            self.tell(f"PyTorch cannot compile for this device.{card} Training goes on without compiling.")
            self.mode = "off"
            return False
        # What fails is told here, in a line; what else they log is for PyTorch's developers.
        torch._logging.set_logs(dynamo=logging.CRITICAL, inductor=logging.CRITICAL, aot=logging.CRITICAL)
        for line in WARNINGS:
            warnings.filterwarnings("ignore", line)
        return True

    def _timed(self, function: Function) -> Function:
        """The function compiled; a first call, which takes long, is announced and timed."""
        modes = {"default": "default", "max": "max-autotune" if self._graphs else "max-autotune-no-cudagraphs"}
        compiled = torch.compile(function, dynamic=False, mode=modes[self.mode])
        known: set[object] = set()

        def call(*args: Any) -> Any:
            kind = _kind(args)
            if kind in known:
                return compiled(*args)
            if not self._seconds:
                self.tell("Compiling: the first iterations take longer, minutes where the network is large.")
            started = self._clock()
            try:
                result = compiled(*args)
            except Exception as error:
                if torch.is_grad_enabled() or not of_compiler(error):
                    raise  # to `step`
                self._give_up(error)
            else:
                known.add(kind)
                self._seconds += max(self._clock() - started, 1e-9)
                return result
            return function(*args)

        return call

    def _give_up(self, error: Exception) -> None:
        self.mode = "off"
        self.let_go()
        self.tell(
            f"Compiling failed ({_reason(error)}). Training goes on without it; --compile off does not try it again."
        )


def of_compiler(error: BaseException) -> bool:
    """Whether an error comes from compiling or from what was compiled, and is no lack of memory."""
    if out_of_memory(error):
        return False
    files = (frame.filename.replace("\\", "/") for frame in traceback.extract_tb(error.__traceback__))
    return any(place in file for file in files for place in PLACES)


def _reason(error: Exception) -> str:
    """The first line of an error, short: compilers quote whole programs."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= 200 else f"{line[:200]}..."


def _kind(args: tuple[Any, ...]) -> object:
    """What calls have in common that are compiled once."""
    shapes = tuple((x.shape, x.dtype) if isinstance(x, Tensor) else type(x) for x in args)
    return shapes, torch.is_grad_enabled(), torch.is_autocast_enabled(_device(args))


def _device(args: tuple[Any, ...]) -> str:
    return next((x.device.type for x in args if isinstance(x, Tensor)), "cpu")
