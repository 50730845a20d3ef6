"""XSeg against what DeepFaceLab computed: blocks, logits, losses, gradients, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from core import dflfile
from core.batch import Batch, Side
from core.frn import blur_pool, norm_threshold
from core.nn import ConvTransposed, from_dfl, to_dfl
from models.xseg import XSegTask, make_spec


def nchw(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def nhwc(tensor: torch.Tensor) -> np.ndarray:
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_blur_pool(golden: Path, size: int) -> None:
    recorded = np.load(golden / "ops" / f"blurpool_f{size}.npz")
    np.testing.assert_allclose(nhwc(blur_pool(nchw(recorded["x"]), size)), recorded["y"], atol=1e-6)


def test_norm_and_threshold(golden: Path) -> None:
    norm, unit = (np.load(golden / "ops" / f"{name}.npz") for name in ("frnorm2d", "tlu"))
    weight, bias, eps = (torch.from_numpy(norm[f"w_{name}:0"]) for name in ("weight", "bias", "eps"))
    never = torch.full_like(weight, -1e9)
    np.testing.assert_allclose(nhwc(norm_threshold(nchw(norm["x"]), weight, bias, eps, never)), norm["y"], atol=2e-6)
    tau = torch.from_numpy(unit["w_tau:0"])
    np.testing.assert_array_equal(torch.maximum(nchw(unit["x"]), tau.view(1, -1, 1, 1)), nchw(unit["y"]))


def test_the_gradient_of_norm_and_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, as large pictures are, and against what PyTorch makes of the formula."""
    monkeypatch.setattr("core.frn.CHUNK", 20)
    generator = torch.Generator().manual_seed(1)
    x, *others = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 4, 3, 5), (4,), (4,), (1,), (4,))
    )
    weight, bias, eps, tau = others

    def plain(x: torch.Tensor) -> torch.Tensor:
        weight_, bias_, tau_ = (each.view(1, -1, 1, 1) for each in (weight, bias, tau))
        root = (x.square().mean((2, 3), keepdim=True) + eps.abs()).rsqrt()
        return torch.maximum(x * root * weight_ + bias_, tau_)

    torch.testing.assert_close(norm_threshold(x, weight, bias, eps, tau), plain(x))
    assert gradcheck(norm_threshold, (x, weight, bias, eps, tau))


def test_transposed_convolution(golden: Path) -> None:
    recorded = np.load(golden / "ops" / "conv2dtranspose_k3_s2_SAME.npz")
    layer = ConvTransposed(3, 7, 2)
    with torch.no_grad():
        layer.weight.copy_(from_dfl(recorded["w_weight:0"]))
        layer.bias.copy_(torch.from_numpy(recorded["w_bias:0"]))
    np.testing.assert_allclose(nhwc(layer(nchw(recorded["x"]))), recorded["y"], atol=1e-5)


@pytest.fixture(scope="module")
def recorded(shared: Path) -> tuple[XSegTask, Batch, dict[str, np.ndarray]]:
    """DFL's network of base 4 with its weights, the batch that it was shown, and what came out."""
    folder = shared / "golden" / "xseg"
    spec = make_spec(4)
    task = spec.build(spec.resolve({"batch_size": 2}))
    assert isinstance(task, XSegTask)
    assert task.load(folder, "") == ["256_opt: not saved with the model yet, so fresh."]
    found = {**np.load(folder / "io.npz"), **np.load(folder / "loss.npz")}
    image, label = (nchw(found[name].astype(np.float32) / 255) for name in ("x_u8", "target_u8"))
    return task, Batch(face=Side(image=image, label=label)), found


def test_masks(recorded: tuple[XSegTask, Batch, dict[str, np.ndarray]]) -> None:
    task, batch, found = recorded
    np.testing.assert_allclose(nhwc(task.mask(batch.face.image)), found["pred"], atol=5e-5)
    with torch.no_grad():
        drawn = torch.sigmoid(task.net(batch.face.image, skips=False))
    np.testing.assert_allclose(nhwc(drawn), found["pred_pretrain"], atol=5e-5)


def test_losses_and_gradients(recorded: tuple[XSegTask, Batch, dict[str, np.ndarray]]) -> None:
    task, batch, found = recorded
    losses = task.losses(batch)
    np.testing.assert_allclose(losses.detach().numpy(), found["loss_0"], rtol=1e-5)
    losses.sum().backward()
    ours, theirs = [], []
    for name, weight in task.net.named_parameters():
        assert weight.grad is not None
        ours.append(to_dfl(weight.grad).ravel())
        theirs.append(np.sqrt(found[f"gradsq1|opt|XSeg/{name.replace('.', '/')}_0:0"].ravel()))
    mine, wanted = np.abs(np.concatenate(ours)), np.concatenate(theirs)
    assert np.linalg.norm(mine - wanted) < 1e-3 * np.linalg.norm(wanted)


def test_files_as_deepfacelab_names_them(
    recorded: tuple[XSegTask, Batch, dict[str, np.ndarray]], tmp_path: Path, shared: Path
) -> None:
    task, batch, _ = recorded
    task.step(batch)
    task.save(tmp_path, "any")
    assert {path.name for path in tmp_path.iterdir()} >= {
        "XSeg_256.npy", "XSeg_256_opt.npy", "XSeg_data.dat", "XSeg_summary.txt",
    }  # fmt: skip
    ours, theirs = (dflfile.load(folder / "XSeg_256.npy") for folder in (tmp_path, shared / "golden" / "xseg"))
    assert [(name, a.shape, a.dtype) for name, a in ours.items()] == [
        (name, a.shape, a.dtype) for name, a in theirs.items()
    ]
    record = dflfile.load(tmp_path / "XSeg_data.dat")
    assert set(record["options"]) == {"face_type", "batch_size", "pretrain"} and record["iter"] == 1
    moments = dflfile.load(tmp_path / "XSeg_256_opt.npy")
    assert set(moments) == {"iters:0"} | {f"acc_XSeg/{name[:-2]}_0:0" for name in ours}
