"""Discriminators against DFL's recordings; who moves when; the terms only a GAN, true face or styles bring."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from core import losses
from core.batch import Batch
from core.nn import load_state, state
from models.adversary import CodeDiscriminator, PatchDiscriminator, patch_strides
from models.swap import SwapTask
from models.terms import SIDES, Drawn, background_style, face_style
from tests.test_saehd_golden import nchw, nhwc, random_batch, small


def recorded_net(recorded: np.lib.npyio.NpzFile, net: torch.nn.Module) -> torch.nn.Module:
    load_state(net, {key[2:].replace(".", "/"): recorded[key] for key in recorded.files if key.startswith("w_")})
    assert [f"w_{name.replace('/', '.')}" for name in state(net)] == [k for k in recorded.files if k.startswith("w_")]
    return net


@pytest.mark.parametrize("patch", [3, 8, 16, 40])
def test_patch_discriminator(golden: Path, request: pytest.FixtureRequest, patch: int) -> None:
    name = f"ops/unet_patch_disc_ps{patch}_base4.npz"
    recorded = np.load(golden / name if patch == 3 else request.getfixturevalue("shared") / "golden" / name)
    net = recorded_net(recorded, PatchDiscriminator(patch, 3, 4))
    with torch.no_grad():
        center, out = net(torch.from_numpy(nchw(recorded["x"])))
    np.testing.assert_allclose(nhwc(center), recorded["center_out"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(nhwc(out), recorded["out"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_code_discriminator(golden: Path, side: int) -> None:
    recorded = np.load(golden / f"ops/code_discriminator_res{side}_ch8.npz")
    net = recorded_net(recorded, CodeDiscriminator(8, side, 8))
    with torch.no_grad():
        (out,) = net(torch.from_numpy(nchw(recorded["x"])))
    np.testing.assert_allclose(nhwc(out), recorded["y"], rtol=1e-5, atol=1e-5)


def test_layers_of_every_patch_size(golden: Path) -> None:
    table = json.loads((golden / "ops/unet_find_archi.json").read_text())
    assert len(table) == 638
    for patch, layers in table.items():
        assert [stride for _, stride in layers] == list(patch_strides(int(patch))), patch


def test_style_loss(shared: Path) -> None:
    recorded = np.load(shared / "golden/ops/style_loss.npz")
    drawn, target = (torch.from_numpy(nchw(recorded[name])) for name in ("target", "style"))
    for radius in (0.0, 8.0):
        drawn.requires_grad_(True)
        loss = losses.style_loss(target, drawn, radius, 1000.0)
        np.testing.assert_allclose(loss.detach().numpy(), recorded[f"loss_r{radius}_w1000"], rtol=1e-5)
        (gradient,) = torch.autograd.grad(loss.sum(), drawn)
        expected = recorded[f"grad_target_r{radius}"]
        assert np.linalg.norm(nhwc(gradient) - expected) < 5e-5 * np.linalg.norm(expected)


def test_total_variation(golden: Path) -> None:
    recorded = np.load(golden / "ops/shape_ops.npz")
    ours = losses.total_variation(torch.from_numpy(nchw(recorded["x"])))
    np.testing.assert_allclose(ours.numpy(), recorded["total_variation_mse"], rtol=1e-5)


def test_sides_that_do_not_halve_evenly() -> None:
    """496 px with its suggested patch of 62 halves five times: DFL stops there."""
    center, out = PatchDiscriminator(62, 3, 4)(torch.rand(1, 3, 112, 80))
    assert out.shape == (1, 1, 112, 80) and center.shape[2:] == (4, 3)


GAN = {"gan_power": 0.1, "gan_dims": 4, "gan_patch_size": 8}


def moved(task: SwapTask, batch: Batch) -> set[str]:
    """The files that one step changes, optimizers left out."""
    before = task.parts()
    task.step(batch)
    after = task.parts()
    return {stem for stem in task.modules if any((before[stem][n] != after[stem][n]).any() for n in before[stem])}


def test_adversaries_are_trained_with_the_network_but_not_in_pretraining() -> None:
    network = {"encoder", "inter", "decoder_src", "decoder_dst"}
    options = {**GAN, "true_face_power": 0.01}
    assert moved(small("df-ud", **options), random_batch()) == network | {"GAN", "code_discriminator"}
    pretraining = small("df-ud", **options, pretrain=True)
    assert moved(pretraining, random_batch()) == network, "DFL: code discriminator there, but at rest"
    assert "GAN" not in pretraining.parts() and "code_discriminator" in pretraining.parts()
    assert set(small("liae-ud", **options).adversaries) == {"GAN"}, "liae has no true face"


@pytest.mark.parametrize("archi", ["df-ud", "liae-ud"])
def test_a_gan_changes_the_gradient_but_not_the_displayed_losses(archi: str) -> None:
    batch = random_batch()
    plain, against = small(archi), small(archi, gan_power=5.0, gan_dims=4, gan_patch_size=8)
    against.load_parts({stem: plain.parts()[stem] for stem in plain.network_parts})
    losses_of = [[float(loss) for loss in task.step(batch).values()] for task in (plain, against)]
    assert losses_of[0] == losses_of[1]
    one, two = (task.parts()["src_dst_opt"] for task in (plain, against))
    assert max(np.abs(one[name] - two[name]).max() for name in one if name.startswith("ms_encoder")) > 1e-6


def test_the_generator_pass_leaves_no_gradient_in_the_discriminator() -> None:
    task = small("df-ud", **GAN)
    task.losses(random_batch()).sum().backward()
    assert all(weight.grad is None for weight in task.adversaries["GAN"].net.parameters())


@pytest.mark.parametrize("archi", ["df-ud", "liae-ud"])
def test_where_the_gradients_of_the_styles_flow(archi: str) -> None:
    task, batch = small(archi), random_batch()
    inputs = task.inputs(batch)
    codes = task.net.codes(inputs.warped)
    dst = Drawn(SIDES, codes, *task.net.decode_both(codes)).of("dst")
    drawer = "decoder_src" if archi.startswith("df") else "decoder"

    def reached(term: torch.Tensor) -> set[str]:
        task.net.zero_grad()
        term.sum().backward(retain_graph=True)
        grads = {name: weight.grad for name, weight in task.net.named_parameters() if weight.grad is not None}
        return {name.split(".")[0] + "." + name.split(".")[1] for name, grad in grads.items() if grad.abs().max() > 0}

    by_face = reached(face_style(task.net, dst, task.precision))
    assert by_face and all(name.startswith(f"{drawer}.") for name in by_face), "src's decoder only, not the code"
    assert not any("upscalem" in name or "out_convm" in name for name in by_face), "the mask is no part of it"
    term = background_style(task.net, dst.code, inputs, task.precision)
    by_background = {name.split(".")[0] for name in reached(term)}
    shared = {"inter"} if archi.startswith("df") else {"inter_AB"}
    assert by_background == {"encoder", drawer} | shared


def test_styles_count_for_src_only_and_not_in_pretraining() -> None:
    batch = random_batch()
    plain = small("df-ud")
    for styles in ({"face_style_power": 10.0}, {"bg_style_power": 10.0}):
        styled, pretraining = small("df-ud", **styles), small("df-ud", pretrain=True, **styles)
        for task in (styled, pretraining):
            task.load_parts({stem: plain.parts()[stem] for stem in plain.network_parts})
        base, more, same = (task.losses(batch).detach() for task in (plain, styled, pretraining))
        assert (more[:2] > base[:2]).all() and torch.equal(more[2:], base[2:]) and torch.equal(same, base)
