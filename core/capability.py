"""What a device can do, by asking PyTorch: kinds of numbers, locked memory, streams, graphs, compiling.

What a device cannot do is done another way or in float32; who asks decides. `core.device.abilities` tries kinds of
numbers out instead, for a driver that promises more than it keeps.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Mapping

import torch

Answer = Callable[[torch.device], bool]
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
    device = torch.device(device)
    answer = TABLE.get(device.type, UNKNOWN).get(what, False)
    return answer if isinstance(answer, bool) else answer(device)


def capabilities(device: torch.device | str) -> dict[str, bool]:
    """Every one of CAPABILITIES, for one device. A kind of device that is not known here has float32 alone."""
    return {what: supports(device, what) for what in CAPABILITIES}


def _half_on_cuda(device: torch.device) -> bool:
    return _is_amd() or torch.cuda.get_device_capability(device) >= (5, 3)


def _bfloat_on_cuda(device: torch.device) -> bool:
    return _is_amd() or torch.cuda.get_device_capability(device) >= (8, 0)


def _tf32_on_cuda(device: torch.device) -> bool:
    return not _is_amd() and torch.cuda.get_device_capability(device) >= (8, 0)


def _compile_on_cuda(device: torch.device) -> bool:
    # 7.0 is Triton's own limit
    return _has_triton(device) and (_is_amd() or torch.cuda.get_device_capability(device) >= (7, 0))


def _is_amd() -> bool:
    return torch.version.hip is not None


def _of_xpu(name: str) -> Answer:
    return lambda device: bool(getattr(torch.xpu.get_device_properties(device), name, False))


def _bfloat_on_mps(_: torch.device) -> bool:
    return bool(torch.backends.mps.is_macos_or_newer(14, 0))


def _bfloat_on_cpu(_: torch.device) -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        # PyTorch also says yes to processors that have AVX-512 alone, where it is slower than float32.
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in names)
    return _mkldnn("_is_mkldnn_bf16_supported")


def _half_on_cpu(_: torch.device) -> bool:
    return _mkldnn("_is_mkldnn_fp16_supported")


def _mkldnn(question: str) -> bool:
    try:
        return bool(getattr(torch.ops.mkldnn, question)())
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False


def _has_triton(_: torch.device) -> bool:
    return importlib.util.find_spec("triton") is not None


TABLE: Mapping[str, Mapping[str, Answer | bool]] = {
    "cpu": {
        "float32": True, "float64": True, "float16": _half_on_cpu, "bfloat16": _bfloat_on_cpu, "compile": True,
    },
    "cuda": {  # NVIDIA, and AMD through ROCm
        "float32": True, "float64": True, "float16": _half_on_cuda, "bfloat16": _bfloat_on_cuda, "tf32": _tf32_on_cuda,
        "pinned": True, "streams": True, "graphs": True, "compile": _compile_on_cuda,
    },
    "xpu": {  # Intel
        "float32": True, "float64": _of_xpu("has_fp64"), "float16": _of_xpu("has_fp16"),
        "bfloat16": _of_xpu("has_bfloat16_conversions"), "pinned": True, "streams": True, "compile": _has_triton,
    },
    # Apple. PyTorch's compiler for it is an early one.
    "mps": {"float32": True, "float16": True, "bfloat16": _bfloat_on_mps},
}  # fmt: skip
UNKNOWN: Mapping[str, Answer | bool] = {"float32": True}
