"""What a device is said to be able to do, by what PyTorch answers; the cards are made up."""

from __future__ import annotations

import importlib.util
import platform
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core import capability
from core.capability import CAPABILITIES, capabilities, supports


@pytest.fixture(autouse=True)
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    has_triton(monkeypatch, True)


def has_triton(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there or None if name == "triton" else find(name))


def nvidia(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int]) -> dict[str, bool]:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: version)
    return capabilities("cuda:1")


def test_the_processor() -> None:
    found = capabilities(torch.device("cpu"))
    assert tuple(found) == CAPABILITIES
    assert found["float32"] and found["float64"] and found["compile"]
    assert not any(found[name] for name in ("tf32", "pinned", "streams", "graphs"))


@pytest.mark.parametrize(("avx", "amx", "wanted"), [(False, False, False), (True, False, True), (False, True, True)])
def test_bfloat16_on_processors(monkeypatch: pytest.MonkeyPatch, avx: bool, amx: bool, wanted: bool) -> None:
    """oneDNN computes in it on any of them, most of which are slower so."""
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(capability, "_mkldnn", lambda question: False)
    assert supports("cpu", "bfloat16") == wanted
    assert not supports("cpu", "float16")


def test_nvidia_by_its_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    assert all(nvidia(monkeypatch, (9, 0)).values())
    turing = nvidia(monkeypatch, (7, 5))
    assert turing["float16"] and turing["compile"] and not turing["bfloat16"] and not turing["tf32"]
    maxwell = nvidia(monkeypatch, (5, 2))
    assert not maxwell["float16"] and not maxwell["compile"]
    assert maxwell["float32"] and maxwell["pinned"] and maxwell["streams"] and maxwell["graphs"]


def test_without_triton_nothing_is_compiled_for_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    has_triton(monkeypatch, False)
    assert not nvidia(monkeypatch, (9, 0))["compile"]


def test_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    found = capabilities("cuda:0")
    assert found["bfloat16"] and found["float16"] and found["graphs"] and not found["tf32"]


def test_intel(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(has_fp64=False, has_fp16=True, has_bfloat16_conversions=True)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: card)
    found = capabilities("xpu:0")
    assert found["bfloat16"] and found["pinned"] and found["streams"] and not found["float64"] and not found["graphs"]


@pytest.mark.parametrize("new", [False, True])
def test_apple(monkeypatch: pytest.MonkeyPatch, new: bool) -> None:
    def asked(major: int, minor: int) -> bool:
        assert (major, minor) == (14, 0)
        return new

    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", asked)
    found = capabilities("mps")
    assert found["float16"] and found["bfloat16"] == new
    assert not any(found[name] for name in ("float64", "pinned", "streams", "graphs", "compile", "tf32"))


def test_what_is_not_known_has_float32_alone() -> None:
    found: dict[str, Any] = capabilities("meta")
    assert [name for name, there in found.items() if there] == ["float32"]
    with pytest.raises(ValueError, match=r"got 'fp16', allowed is one of float32, .*compile"):
        supports("cpu", "fp16")
