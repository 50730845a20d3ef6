"""What a device can do, by asking PyTorch: kinds of numbers, locked memory, streams, graphs, compiling.

What a device cannot do is done another way or in float32; who asks decides. `core.device.abilities` tries kinds of
numbers out instead, for a driver that promises more than it keeps.
"""

from __future__ import annotations

import importlib.util
import platform

import torch

CAPABILITIES = ("float32", "float64", "float16", "bfloat16", "tf32", "pinned", "streams", "graphs", "compile")


def supports(device: torch.device | str, what: str) -> bool:
    """Whether a device (`cuda:0`) has one of CAPABILITIES. Raises ValueError for a name that is none of them.

    float16, bfloat16: convolutions in it run in hardware, not in steps through float32. tf32: products of float32 may
    be sped up so. pinned: a copy out of locked memory need not be waited for. streams: such a copy can run beside the
    step. graphs: kernels can be recorded and run again in one call. compile: `torch.compile` has a back end for it;
    a compiler may still be missing.
    """
    if what not in CAPABILITIES:
        raise ValueError(f"got {what!r}, allowed is one of {', '.join(CAPABILITIES)}")
    return capabilities(device)[what]


def capabilities(device: torch.device | str) -> dict[str, bool]:
    """Every one of CAPABILITIES, for one device. A kind of device that is not known here has float32 alone."""
    device = torch.device(device)
    ask = {"cpu": _cpu, "cuda": _cuda, "xpu": _xpu, "mps": _mps}.get(device.type)
    found = {} if ask is None else ask(device)
    return dict.fromkeys(CAPABILITIES, False) | {"float32": True} | found


def _cpu(_: torch.device) -> dict[str, bool]:
    return {"float64": True, "float16": _half_on_cpu(), "bfloat16": _bfloat_on_cpu(), "compile": True}


def _cuda(device: torch.device) -> dict[str, bool]:
    """NVIDIA, and AMD through ROCm, which PyTorch calls cuda too."""
    found = {"float64": True, "pinned": True, "streams": True, "graphs": True}
    if torch.version.hip is not None:
        return found | {"float16": True, "bfloat16": True, "compile": _has_triton()}
    version = torch.cuda.get_device_capability(device)
    return found | {
        "float16": version >= (5, 3),
        "bfloat16": version >= (8, 0),
        "tf32": version >= (8, 0),
        "compile": version >= (7, 0) and _has_triton(),  # Triton's own limit
    }


def _xpu(device: torch.device) -> dict[str, bool]:
    card = torch.xpu.get_device_properties(device)
    return {
        "float64": bool(getattr(card, "has_fp64", False)),
        "float16": bool(getattr(card, "has_fp16", False)),
        "bfloat16": bool(getattr(card, "has_bfloat16_conversions", False)),
        "pinned": True,
        "streams": True,
        "compile": _has_triton(),
    }


def _mps(_: torch.device) -> dict[str, bool]:
    # Metal has bfloat16 since macOS 14; PyTorch's compiler for it is an early one, and losses differ.
    return {"float16": True, "bfloat16": torch.backends.mps.is_macos_or_newer(14, 0)}


def _bfloat_on_cpu() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        # PyTorch also says yes to processors that have AVX-512 alone, where it is slower than float32.
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in names)
    return _mkldnn("_is_mkldnn_bf16_supported")


def _half_on_cpu() -> bool:
    return _mkldnn("_is_mkldnn_fp16_supported")


def _mkldnn(question: str) -> bool:
    try:
        return bool(getattr(torch.ops.mkldnn, question)())
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
