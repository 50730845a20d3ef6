"""Which devices PyTorch has, how much memory they have, names for the user. How much is in use: core/memory.py."""

from __future__ import annotations

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
