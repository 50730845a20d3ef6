"""Memory: whether an error means that there was too little, what a device has, how to give back what is not needed.

PyTorch names the shortage in many ways: an exception of its own on graphics cards, a plain RuntimeError on the
processor and from the libraries below it. torch is imported only where a card is asked; errors are told by their words.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import re
from dataclasses import dataclass

from core.mainmemory import MainMemory, trim

WORDS = (
    "out of memory",  # CUDA, HIP, XPU, MPS, CUDA's own "CUDA error: out of memory"
    "can't allocate memory",  # PyTorch on the processor: Linux, macOS
    "not enough memory",  # the same on Windows; MKL
    "cannot allocate memory",
    "failed to allocate memory",
    "insufficient memory",  # OpenCV
    "alloc_failed",  # CUDNN_STATUS_..., CUBLAS_STATUS_..., HIPBLAS_STATUS_...
    "allocfailed",  # miopenStatusAllocFailed
    "bad_alloc",
    "bad allocation",  # bad_alloc in the words of Microsoft's library
    "can't start new thread",  # Python: no room for its stack, or too few processes are allowed
    "failed to map segment",  # Linux, loading a library
    "could not create a memory",  # oneDNN, which never names the reason
    "could not create a primitive",
    "could not execute a primitive",
)
WINDOWS = (8, 14, 1455)  # ERROR_NOT_ENOUGH_MEMORY, ERROR_OUTOFMEMORY, ERROR_COMMITMENT_LIMIT
UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
ASKED = re.compile(r"tr(?:ied|ying) to allocate (\d+(?:\.\d+)?)\s*([kmgt]?)", re.IGNORECASE)


@dataclass(frozen=True)
class Usage:
    """Bytes of a device's memory; None what nobody tells. peak: the most this program held at a time; on main memory
    since its start or the last `forget_peak`. held: what it holds now."""

    where: str
    peak: int | None = None
    held: int | None = None
    free: int | None = None
    total: int | None = None

    def words(self) -> str:
        """`Main memory: at most 2.1 GB were held by this program, 0.3 GB of 15.9 GB are free now.`"""
        peak = "how much this program held is unknown" if self.peak is None else f"at most {size(self.peak)} were held "
        peak += "" if self.peak is None else "by this program"
        total = "" if self.total is None else f" of {size(self.total)}"
        free = "how much is free is unknown" if self.free is None else f"{size(self.free)}{total} are free now"
        return f"{self.where}: {peak}, {free}."


def size(count: float) -> str:
    """Bytes in words: `1.5 GB`, `30 MB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a card or in main memory."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and (error.errno or getattr(error, "winerror", None)):
        return error.errno == errno.ENOMEM or getattr(error, "winerror", None) in WINDOWS
    if not isinstance(error, RuntimeError | ImportError | OSError) and type(error).__module__ != "cv2":
        return False
    return type(error).__name__ == "OutOfMemoryError" or any(word in str(error).lower() for word in WORDS)


def where(error: BaseException, device: str) -> str:
    """The device whose memory ran out, `device` or `cpu`: a training on a card needs main memory too."""
    main = any(word in str(error) for word in ("CPUAllocator", "can't start new thread"))
    card = isinstance(error, RuntimeError) and not main
    return device if card else "cpu"


def asked(error: BaseException) -> int | None:
    """The bytes that could not be had, as far as the error tells."""
    if (found := ASKED.search(str(error))) is None:
        return None
    return int(float(found[1]) * UNITS[(found[2] or "b").lower()])


def usage(device: str, main: MainMemory | None = None) -> Usage:
    """What a device (PyTorch's name: `cpu`, `cuda:0`, `xpu:0`, `mps`) has and holds. main: how main memory is asked."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        main = main or MainMemory()
        return Usage("Main memory", main.peak(), main.held(), main.free(), main.total())
    import torch

    if kind in ("cuda", "xpu"):
        card = torch.cuda if kind == "cuda" else torch.xpu
        free, total = card.mem_get_info(device)
        held = card.memory_allocated(device)
        # What PyTorch keeps for later is free to this program.
        free += card.memory_reserved(device) - held
        return Usage("Graphics card", card.max_memory_allocated(device), held, free, total)
    if kind == "mps":
        total, held = torch.mps.recommended_max_memory(), torch.mps.current_allocated_memory()
        return Usage("Graphics card", None, held, max(0, total - torch.mps.driver_allocated_memory()), total)
    return Usage(device)


def forget_peak(device: str) -> None:
    """From now on the peak is counted anew, where the system can."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        MainMemory().forget_peak()
    elif kind in ("cuda", "xpu"):
        import torch

        (torch.cuda if kind == "cuda" else torch.xpu).reset_peak_memory_stats(device)


def give_back(device: str) -> None:
    """Gives what nothing uses any more back to the device, so that other sizes find room."""
    gc.collect()
    trim()
    kind = device.partition(":")[0]
    if kind in ("cuda", "xpu", "mps"):
        import torch

        # A card that is this short may refuse even this; what is kept is then used again by the next step.
        with contextlib.suppress(RuntimeError):
            {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.mps}[kind].empty_cache()
