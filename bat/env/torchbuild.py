"""Which build of PyTorch suits this machine: the decision, with its reason in words.

Pure: what is on the machine comes in as a `Card`, what the user wants as the environment. `find_card` asks the
machine through two functions that are passed in. Standard library only, as nothing is installed yet when it runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

TORCH = "torch==2.13.0"
WHEELS = "https://download.pytorch.org/whl/"
CUDA_13_DRIVER = 580  # first driver series that runs CUDA 13
CUDA_13_CAPABILITY = 7.5  # CUDA 13 dropped Maxwell, Pascal and Volta
CUDA_128_CAPABILITY = 10.0  # Blackwell came with CUDA 12.8
ROCM = ("rocm7.2", "rocm7.1", "rocm7.0", "rocm6.4")

Run = Callable[[list[str]], "str | None"]
Read = Callable[[str], "str | None"]


@dataclass(frozen=True)
class Card:
    """What graphics card was found: kind is `nvidia`, `rocm`, `mps` or `none`; `seen` says what and where.

    driver: NVIDIA driver series (580). capability: the newest card's compute capability. 0 where unknown.
    """

    kind: str
    seen: str
    driver: int = 0
    capability: float = 0.0


@dataclass(frozen=True)
class Attempt:
    """One thing to ask pip for. index: a wheel index, or None for the ones pip is set up with. dependencies: whether
    what this build depends on is only there, too (ROCm's triton is; CUDA's libraries are on the package index)."""

    requirement: str
    index: str | None
    dependencies: bool = False


@dataclass(frozen=True)
class Choice:
    """Attempts, best first, and why. gpu: whether torch should see a card afterwards."""

    attempts: tuple[Attempt, ...]
    why: str
    gpu: bool


def find_card(system: str, environ: Mapping[str, str], run: Run, read: Read) -> Card:
    """Looks for a card.

    system: `platform.system()`. run: a command's output, or None where it is missing or fails. read: a file's text
    (empty for a folder or a device), or None where it is missing.
    """
    if system == "Darwin":
        return Card("mps", "macOS")
    windows = environ.get("SystemRoot", r"C:\Windows") + r"\System32\nvidia-smi.exe"
    for smi in ("nvidia-smi", windows if system == "Windows" else "/usr/lib/wsl/lib/nvidia-smi"):
        for fields in ("name,driver_version,compute_cap", "name,driver_version"):  # old drivers know no compute_cap
            listed = run([smi, f"--query-gpu={fields}", "--format=csv,noheader"])
            rows = [[cell.strip() for cell in line.split(",")] for line in (listed or "").splitlines() if "," in line]
            if rows:
                capability = max(_number(row[-1]) for row in rows) if "compute_cap" in fields else 0.0
                return Card("nvidia", f"{rows[0][0]}, driver {rows[0][1]}", int(_number(rows[0][1])), capability)
    if system == "Windows":
        return Card("none", "no NVIDIA card found")
    kernel = read("/proc/driver/nvidia/version")
    if kernel is not None:
        version = re.search(r"\b(\d{3,})\.\d", kernel)
        return Card("nvidia", "the NVIDIA driver in /proc/driver/nvidia", int(version.group(1)) if version else 0)
    if re.search(r"\bgfx\d", run(["rocminfo"]) or ""):
        return Card("rocm", "an AMD card listed by rocminfo")
    if read("/dev/kfd") is not None:
        if read("/opt/rocm") is not None:
            return Card("rocm", "an AMD card (/dev/kfd) and ROCm in /opt/rocm")
        return Card("none", "an AMD device (/dev/kfd) but no ROCm; for its build set FACESMITH_TORCH_INDEX")
    return Card("none", "no NVIDIA or AMD card found")


def _number(text: str) -> float:
    """The number a field starts with ("580.65.06" -> 580.65, "[N/A]" -> 0)."""
    found = re.match(r"\d+(\.\d+)?", text)
    return float(found.group()) if found else 0.0


def choose(system: str, card: Card, environ: Mapping[str, str]) -> Choice:
    """The builds to try for this card. FACESMITH_TORCH (a requirement) and FACESMITH_TORCH_INDEX (a wheel index; empty
    means pip's own) win over what was found."""
    requirement = environ.get("FACESMITH_TORCH", "").strip() or TORCH
    gpu = card.kind != "none"
    override = environ.get("FACESMITH_TORCH_INDEX")
    if override is not None:
        index = override.strip() or None
        why = f"{f'build of {index}' if index else 'standard build'}, as FACESMITH_TORCH_INDEX asks ({card.seen})"
        return Choice((Attempt(requirement, index, dependencies=index is not None),), why, gpu)
    builds, what = _builds(system, card)
    attempts = tuple(Attempt(requirement, WHEELS + build if build else None, build in ROCM) for build in builds)
    asked = f"FACESMITH_TORCH asks for {requirement}; " if requirement != TORCH else ""
    return Choice(attempts, f"{asked}{what} ({card.seen})", gpu)


def _builds(system: str, card: Card) -> tuple[tuple[str | None, ...], str]:
    """Folders of PyTorch's wheel index, best first (None: the package index), and their name for the user."""
    if card.kind == "mps":
        return (None,), "standard build with Apple's Metal"
    if card.kind == "rocm":
        return ROCM, "ROCm build"
    if card.kind == "none":
        # The standard package is the CPU build on Windows, and the CUDA one (gigabytes) on Linux.
        return ((None,) if system == "Windows" else ("cpu", None)), "CPU build"
    old_driver = 0 < card.driver < CUDA_13_DRIVER
    old_card = 0 < card.capability < CUDA_13_CAPABILITY
    if not old_driver and not old_card:
        return (("cu130", "cu128", "cu126") if system == "Windows" else (None,)), "CUDA 13 build"
    if card.capability >= CUDA_128_CAPABILITY:
        return ("cu128",), "CUDA 12.8 build for this older driver"
    return ("cu126", "cu128"), f"CUDA 12 build for this older {'card' if old_card else 'driver'}"
