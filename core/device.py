"""Which devices PyTorch has, how much memory they have, names for the user. How much is in use: core/memory.py."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Device:
    """A device a model can be trained on. key: what the user types (`CPU`, `0`); memory: bytes, 0 when unknown."""

    key: str
    name: str
    torch_name: str
    memory: int = 0


CPU = Device("CPU", "CPU", "cpu")
SCRATCH_BOUND = "CUDNN_CONV_WSCAP_DBG"


def gpus() -> list[Device]:
    """Graphics devices in the driver's order, by capability: CUDA (NVIDIA, AMD through ROCm), Intel XPU, Apple MPS."""
    found: list[Device] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            found.append(Device(str(index), properties.name, f"cuda:{index}", properties.total_memory))
    elif hasattr(torch, "xpu") and torch.xpu.is_available():
        for index in range(torch.xpu.device_count()):
            card = torch.xpu.get_device_properties(index)
            found.append(Device(str(index), card.name, f"xpu:{index}", card.total_memory))
    elif torch.backends.mps.is_available():
        found.append(Device("0", "Apple GPU", "mps"))
    return found


def best(devices: list[Device]) -> Device:
    """The GPU with most memory, or the CPU."""
    return max(devices, key=lambda device: device.memory, default=CPU)


def describe(device: Device) -> str:
    """Name and memory for the summary: `NVIDIA H100 (79.1 GB)`."""
    return f"{device.name} ({device.memory / 2**30:.1f} GB)" if device.memory else device.name


def tune(device: Device) -> None:
    """Before a network is made for the device: the fastest convolutions are found by trying, once for each size.

    On NVIDIA cards only: AMD's library takes minutes for it. Which one wins may differ from run to run, and with it the
    last digits. cuDNN has the bound of its scratch memory from the environment, where a user's own stays.
    """
    if not device.torch_name.startswith("cuda") or torch.version.hip is not None:
        return
    os.environ.setdefault(SCRATCH_BOUND, str(scratch_mb(device.memory)))
    torch.backends.cudnn.benchmark = True


def scratch_mb(memory: int) -> int:
    """The most MB of scratch memory that a convolution may take: a 32nd of the card, 128 to 1024."""
    return min(1024, max(128, memory >> 25))


def abilities(device: Device) -> dict[str, bool]:
    """Whether a device computes in `float32`, `bfloat16` and `float16`, tried on a small product, and whether float32
    products may be sped up by `tf32`. Raises nothing: what a driver refuses is False."""
    found = {name: _computes(device, getattr(torch, name)) for name in ("float32", "bfloat16", "float16")}
    nvidia = device.torch_name.startswith("cuda") and torch.version.hip is None
    found["tf32"] = nvidia and torch.cuda.get_device_capability(device.torch_name) >= (8, 0)
    return found


def _computes(device: Device, dtype: torch.dtype) -> bool:
    try:
        ones = torch.ones(16, 16, dtype=dtype, device=device.torch_name)
        return float((ones @ ones).float().mean()) == 16.0
    except (RuntimeError, TypeError):
        return False


def built_for(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether a build of PyTorch with code for these architectures (`sm_86`, `compute_90`) runs on an NVIDIA card: code
    serves later cards of its generation, an intermediate form every later one."""
    for kind, number in re.findall(r"(sm|compute)_(\d+)", " ".join(architectures)):
        major, minor = divmod(int(number), 10)
        if (kind == "compute" or major == capability[0]) and (major, minor) <= capability:
            return True
    return False
