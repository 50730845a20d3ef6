"""SAEHD: the df and liae networks with flags u, d, t, c; SAEHDBW, Quick96 and Quick64, which are variants of it.

df: one inter, a decoder for each person. liae: inter_AB sees both persons, inter_B only dst; one decoder. The
networks differ in nothing else, so each is a SwapNet of some 30 lines; `models.swap` trains any SwapNet.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from core import losses
from core.nn import Decoder, Encoder, Inter, init_weights
from core.options import Values
from models.adversary import Adversary, CodeDiscriminator, PatchDiscriminator
from models.common import KNOBS, PANEL, RUNNING, SESSION, check_archi, fixed, pick, swap_requests, unasked
from models.net import Draws, SwapNet
from models.pages import swap_captions, swap_pages
from models.recipe import Recipe
from models.spec import ModelSpec
from models.swap import SwapTask
from models.terms import Drawn, Inputs, against_artefacts


class DF(SwapNet):
    """code = inter(encoder(x)); decoder_src and decoder_dst draw."""

    fresh_after_pretraining = ("inter",)

    def __init__(self, values: Values, flags: str, low: int, channels: int = 3) -> None:
        super().__init__()
        self.channels, width = channels, values["ae_dims"]
        self.encoder = Encoder(channels, values["e_dims"], values["resolution"], flags)
        self.inter = Inter(self.encoder.length, width, width, low, flags)
        self.decoder_src = Decoder(width, values["d_dims"], values["d_mask_dims"], flags, channels)
        self.decoder_dst = Decoder(width, values["d_dims"], values["d_mask_dims"], flags, channels)

    def code(self, x: Tensor, side: str, generator: Draws = None) -> Tensor:
        code: Tensor = self.inter(self.encoder(x))
        return code

    def decoder_of(self, side: str) -> Decoder:
        return self.decoder_src if side == "src" else self.decoder_dst

    def codes(self, x: Tensor, generator: Draws = None) -> Tensor:
        return self.code(x, "src")

    def decode_both(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        src, dst = codes.chunk(2)
        faces, masks = zip(self.decoder_src(src), self.decoder_dst(dst), strict=True)
        return torch.cat(faces), torch.cat(masks)

    def swap_code(self, dst_code: Tensor) -> Tensor:
        return dst_code


class LIAE(SwapNet):
    """src code = [AB, AB], dst code = [B, AB], swap code = [AB, AB] of the dst image; one decoder."""

    fresh_after_pretraining = ("inter_AB", "inter_B")

    def __init__(self, values: Values, flags: str, low: int, channels: int = 3) -> None:
        super().__init__()
        self.channels, width = channels, values["ae_dims"]
        self.encoder = Encoder(channels, values["e_dims"], values["resolution"], flags)
        self.inter_AB = Inter(self.encoder.length, width, 2 * width, low, flags)
        self.inter_B = Inter(self.encoder.length, width, 2 * width, low, flags)
        self.decoder = Decoder(4 * width, values["d_dims"], values["d_mask_dims"], flags, channels)

    def code(self, x: Tensor, side: str, generator: Draws = None) -> Tensor:
        encoded = self.encoder(x)
        shared = self.inter_AB(encoded)
        return torch.cat((shared if side == "src" else self.inter_B(encoded), shared), 1)

    def decoder_of(self, side: str) -> Decoder:
        return self.decoder

    def codes(self, x: Tensor, generator: Draws = None) -> Tensor:
        encoded = self.encoder(x)
        shared = self.inter_AB(encoded)
        first = torch.cat((shared.chunk(2)[0], self.inter_B(encoded.chunk(2)[1])))
        return torch.cat((first, shared), 1)

    def decode_both(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        return self.decode(codes, "dst")

    def swap_code(self, dst_code: Tensor) -> Tensor:
        shared = dst_code.chunk(2, 1)[1]
        return torch.cat((shared, shared), 1)

    def trained(self, values: Values) -> tuple[str, ...]:
        """Without random warp inter_AB rests, as DFL does: src's likeness then settles in what is left."""
        return tuple(part for part in self.parts if part != "inter_AB" or values["random_warp"])


def make_net(values: Values, generator: torch.Generator, channels: int = 3) -> SwapNet:
    """The network of `archi` with fresh weights drawn from `generator`. Raises ValueError for sizes it cannot have."""
    kind, _, flags = check_archi(values["archi"]).partition("-")
    step = 32 if "d" in flags or "t" in flags else 16
    if values["resolution"] < step or values["resolution"] % step:
        raise ValueError(
            f"resolution: got {values['resolution']} with archi {values['archi']}, allowed are multiples of {step}."
        )
    low = values["resolution"] // (32 if "d" in flags else 16)
    net: SwapNet = (DF if kind == "df" else LIAE)(values, flags, low, channels)
    init_weights(net, generator)
    return net


def make_adversaries(values: Values, net: SwapNet, generator: torch.Generator) -> dict[str, Adversary]:
    """Those whose power is not 0, by the stem of their file. True face judges codes, so it needs df's one inter."""
    found: list[Adversary] = []
    if values["true_face_power"] and isinstance(net, DF):
        judge = CodeDiscriminator(values["ae_dims"], net.inter.side)
        found.append(Adversary("code_discriminator", "D_code_opt", "dis", judge, values["true_face_power"]))
    if values["gan_power"]:
        patches = PatchDiscriminator(values["gan_patch_size"], net.channels, values["gan_dims"])
        found.append(Adversary("GAN", "GAN_opt", "D_src", patches, values["gan_power"]))
    for adversary in found:
        init_weights(adversary.net, generator)
    return {adversary.stem: adversary for adversary in found}


def beside(values: Values, inputs: Inputs, drawn: Drawn) -> list[Tensor]:
    """Masked training leaves the surroundings to the GAN, which would fill them with dots."""
    wanted = values["gan_power"] and values["masked_training"] and "src" in drawn.sides
    return [against_artefacts(drawn.of("src").face, inputs)] if wanted else []


RECIPE = Recipe(make_net, make_adversaries, swap_pages, swap_captions, beside)
SAEHD = ModelSpec(
    name="SAEHD",
    rows=SESSION
    + pick(
        *("resolution", "face_type", "archi", "ae_dims", "e_dims", "d_dims", "d_mask_dims"),
        *("masked_training", "eyes_mouth_prio", "uniform_yaw", "blur_out_mask"),
        *("models_opt_on_gpu", "adabelief", "lr_dropout", "random_warp", "random_hsv_power"),
        *("gan_power", "gan_patch_size", "gan_dims", "true_face_power", "face_style_power", "bg_style_power"),
        *("ct_mode", "clipgrad", "pretrain"),
    )
    + KNOBS
    + RUNNING
    + PANEL,
    requests=swap_requests,
    task=partial(SwapTask, recipe=RECIPE),
    roomy={"batch_size": 8},
)

SAEHDBW = replace(
    SAEHD,
    name="SAEHDBW",
    requests=partial(swap_requests, channels=1),
    task=partial(SwapTask, recipe=replace(RECIPE, make_net=partial(make_net, channels=1))),
)
"""SAEHD on grey pictures: less memory, for small graphics cards. Source: the SAEHDBW fork."""


QUICK_SETTLED = {
    "face_type": "f", "archi": "df-ud",
    "masked_training": True, "eyes_mouth_prio": False, "blur_out_mask": False, "pretrain": False,
    "adabelief": False, "lr_dropout": "y", "random_warp": True, "random_hsv_power": 0.0, "loss_function": "SSIM",
    "gan_power": 0.0, "true_face_power": 0.0, "face_style_power": 0.0, "bg_style_power": 0.0,
}  # fmt: skip
QUICK = replace(
    RECIPE,
    lr_cos=0,
    soft_mask=lambda mask, resolution: losses.gaussian_blur(mask, max(1, resolution // 32)),
    unwarped_every=3,
)


def quick(name: str, **sizes: int) -> ModelSpec:
    """A small df-ud with settled options, which asks nothing. Source: DFL's Quick96."""
    settled = QUICK_SETTLED | sizes
    keys = [row.key for row in SAEHD.rows if row.key not in settled and not row.key.startswith(("gan_", "force_full"))]
    return ModelSpec(
        name=name,
        rows=unasked(*pick(*keys, random_dst_flip=False, lr=2e-4)) + fixed(**settled),
        requests=partial(swap_requests, names=("warped", "target", "mask"), scale=0.05),
        task=partial(SwapTask, recipe=QUICK),
    )


QUICK96 = quick("Quick96", resolution=96, ae_dims=128, e_dims=64, d_dims=64, d_mask_dims=16)
QUICK64 = quick("Quick64", resolution=64, ae_dims=64, e_dims=32, d_dims=32, d_mask_dims=16)
"""Quick96's training at a sixth of its time an iteration (two cores), for small machines."""
