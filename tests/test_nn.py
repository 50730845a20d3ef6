"""Blocks against DFL's recordings, weights in and out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from core import nn


def nchw(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())


def nhwc(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def test_shape_operations(golden: Path) -> None:
    recorded = np.load(golden / "ops" / "shape_ops.npz")
    assert np.array_equal(nhwc(nn.depth_to_space(nchw(recorded["x12"]))), recorded["depth_to_space_2"])
    assert np.array_equal(nchw(recorded["x12"]).flatten(1).numpy(), recorded["flatten"])
    normed = nn.pixel_norm(torch.from_numpy(recorded["f"])).numpy()
    np.testing.assert_allclose(normed, recorded["pixel_norm"], atol=1e-6)
    np.testing.assert_allclose(nhwc(nn.x_cos_x(nchw(recorded["x"]), 0.1)), recorded["act_c_xcosx"], atol=1e-6)


def test_depth_to_space_stays_channels_last_and_has_a_gradient() -> None:
    x = torch.randn(2, 12, 3, 5, dtype=torch.float64).requires_grad_()
    assert nn.depth_to_space(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.autograd.gradcheck(nn.depth_to_space, x)


def test_dense(golden: Path) -> None:
    recorded = np.load(golden / "ops" / "dense.npz")
    dense = nn.Dense(6, 4)
    nn.load_state(dense, {name: recorded[f"w_{name}"] for name in ("weight:0", "bias:0")})
    np.testing.assert_allclose(dense(torch.from_numpy(recorded["x"])).detach().numpy(), recorded["y"], atol=1e-6)


@pytest.mark.parametrize(
    "name", ["k1_s1_SAME_r16", "k3_s1_SAME_r16", "k3_s2_SAME_r15", "k3_s2_SAME_r16", "k4_s2_SAME_r16", "k5_s2_SAME_r16"]
)
def test_convolution(shared: Path, name: str) -> None:
    recorded = np.load(shared / "golden" / "ops" / f"conv2d_{name}.npz")
    kernel, _, inputs, outputs = recorded["w_weight:0"].shape
    conv = nn.Conv(inputs, outputs, kernel, int(name[4]))
    nn.load_state(conv, {key: recorded[f"w_{key}"] for key in ("weight:0", "bias:0")})
    np.testing.assert_allclose(nhwc(conv(nchw(recorded["x"]))), recorded["y"], atol=2e-6)


def test_fresh_weights_are_glorot_uniform(golden: Path) -> None:
    recorded = json.loads((golden / "ops" / "init_stats.json").read_text())
    for key, module in (
        ("conv2d_default_3x3x64x128", nn.Conv(64, 128, 3)),
        ("conv2d_default_5x5x3x32", nn.Conv(3, 32, 5)),
        ("conv2d_default_1x1x64x3", nn.Conv(64, 3, 1)),
        ("dense_default_200x100", nn.Dense(200, 100)),
    ):
        nn.init_weights(module, torch.Generator().manual_seed(3))
        limit = recorded[key]["glorot_uniform_limit"]
        weight = module.weight.detach()
        assert 0.97 * limit < weight.abs().max() <= limit
        assert abs(weight.std().item() / (limit / 3**0.5) - 1) < 0.1  # 192 values in the smallest
        assert not module.bias.any()


def test_fresh_weights_depend_on_the_seed_only() -> None:
    first, again, other = (nn.Decoder(4, 2, 2, "ud") for _ in range(3))
    for module, seed in ((first, 1), (again, 1), (other, 2)):
        nn.init_weights(module, torch.Generator().manual_seed(seed))
    a, b, c = nn.state(first), nn.state(again), nn.state(other)
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["res0/conv1/weight:0"], c["res0/conv1/weight:0"])


def test_weights_go_out_and_in_unchanged() -> None:
    module = nn.Encoder(3, 4, 64, "t")
    nn.init_weights(module, torch.Generator().manual_seed(0))
    saved = nn.state(module)
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in saved.values())
    other = nn.Encoder(3, 4, 64, "t")
    frozen = {name: array.copy() for name, array in saved.items()}
    for array in frozen.values():
        array.flags.writeable = False  # as a reader of files may hand them over
    nn.load_state(other, frozen)
    assert all(np.array_equal(array, saved[name]) for name, array in nn.state(other).items())
    with torch.no_grad():
        other.res1.conv1.weight.zero_()
    assert frozen["res1/conv1/weight:0"].any(), "the module shares memory with the arrays it was given"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weight:0": np.zeros((3, 3, 4, 2), np.float32)}, r"weight:0: expected \(3, 3, 2, 4\) float32, found"),
        ({"bias:0": np.zeros(4, np.float64)}, r"bias:0: expected \(4,\) float32, found \(4,\) float64"),
        ({"extra:0": np.zeros(4, np.float32)}, "extra:0 is not part"),
        ({"bias:0": None}, "bias:0 is missing"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_change_nothing(change: dict[str, np.ndarray | None], told: str) -> None:
    conv = nn.Conv(2, 4, 3)
    nn.init_weights(conv, torch.Generator().manual_seed(0))
    before = nn.state(conv)
    found = {name: array for name, array in (before | change).items() if array is not None}
    found = {name: array + 1 if name in before and name not in change else array for name, array in found.items()}
    with pytest.raises(ValueError, match=told):
        nn.load_state(conv, found)
    assert all(np.array_equal(array, before[name]) for name, array in nn.state(conv).items())
