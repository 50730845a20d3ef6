"""SAEHD: the df and liae networks with flags u, d, t, c, and the model's specification.

df: one inter, a decoder for each person. liae: inter_AB sees both persons, inter_B only dst; one decoder. The
networks differ in nothing else, so each is a SwapNet of some 30 lines; `models.swap` trains any SwapNet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.nn import Decoder, Encoder, Inter, init_weights
from core.options import Values
from models.adversary import Adversary, CodeDiscriminator, PatchDiscriminator
from models.common import RUNNING, SESSION, check_archi, pick, swap_requests
from models.net import SwapNet
from models.pages import swap_pages
from models.recipe import Recipe
from models.spec import ModelSpec
from models.swap import SwapTask
from models.terms import Inputs, against_artefacts


class DF(SwapNet):
    """code = inter(encoder(x)); decoder_src and decoder_dst draw."""

    fresh_after_pretraining = ("inter",)

    def __init__(self, values: Values, flags: str, low: int) -> None:
        super().__init__()
        width = values["ae_dims"]
        self.encoder = Encoder(3, values["e_dims"], values["resolution"], flags)
        self.inter = Inter(self.encoder.length, width, width, low, flags)
        self.decoder_src = Decoder(width, values["d_dims"], values["d_mask_dims"], flags)
        self.decoder_dst = Decoder(width, values["d_dims"], values["d_mask_dims"], flags)

    def code(self, x: Tensor, side: str, generator: torch.Generator | None = None) -> Tensor:
        code: Tensor = self.inter(self.encoder(x))
        return code

    def decoder_of(self, side: str) -> Decoder:
        return self.decoder_src if side == "src" else self.decoder_dst

    def codes(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
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

    def __init__(self, values: Values, flags: str, low: int) -> None:
        super().__init__()
        width = values["ae_dims"]
        self.encoder = Encoder(3, values["e_dims"], values["resolution"], flags)
        self.inter_AB = Inter(self.encoder.length, width, 2 * width, low, flags)
        self.inter_B = Inter(self.encoder.length, width, 2 * width, low, flags)
        self.decoder = Decoder(4 * width, values["d_dims"], values["d_mask_dims"], flags)

    def code(self, x: Tensor, side: str, generator: torch.Generator | None = None) -> Tensor:
        encoded = self.encoder(x)
        shared = self.inter_AB(encoded)
        return torch.cat((shared if side == "src" else self.inter_B(encoded), shared), 1)

    def decoder_of(self, side: str) -> Decoder:
        return self.decoder

    def codes(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
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


def make_net(values: Values, generator: torch.Generator) -> SwapNet:
    """The network of `archi` with fresh weights drawn from `generator`. Raises ValueError for sizes it cannot have."""
    kind, _, flags = check_archi(values["archi"]).partition("-")
    step = 32 if "d" in flags or "t" in flags else 16
    if values["resolution"] < step or values["resolution"] % step:
        raise ValueError(
            f"resolution: got {values['resolution']} with archi {values['archi']}, allowed are multiples of {step}."
        )
    low = values["resolution"] // (32 if "d" in flags else 16)
    net: SwapNet = (DF if kind == "df" else LIAE)(values, flags, low)
    init_weights(net, generator)
    return net


def make_adversaries(values: Values, net: SwapNet, generator: torch.Generator) -> dict[str, Adversary]:
    """Those whose power is not 0, by the stem of their file. True face judges codes, so it needs df's one inter."""
    found: list[Adversary] = []
    if values["true_face_power"] and isinstance(net, DF):
        judge = CodeDiscriminator(values["ae_dims"], net.inter.side)
        found.append(Adversary("code_discriminator", "D_code_opt", "dis", judge, values["true_face_power"]))
    if values["gan_power"]:
        patches = PatchDiscriminator(values["gan_patch_size"], 3, values["gan_dims"])
        found.append(Adversary("GAN", "GAN_opt", "D_src", patches, values["gan_power"]))
    for adversary in found:
        init_weights(adversary.net, generator)
    return {adversary.stem: adversary for adversary in found}


def beside(values: Values, inputs: Inputs, face: Tensor) -> list[Tensor]:
    """Masked training leaves the surroundings to the GAN, which would fill them with dots."""
    return [against_artefacts(face, inputs)] if values["gan_power"] and values["masked_training"] else []


RECIPE = Recipe(make_net, make_adversaries, swap_pages, beside)
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
    + RUNNING,
    requests=swap_requests,
    task=lambda spec, values, **where: SwapTask(spec, values, RECIPE, **where),
)
