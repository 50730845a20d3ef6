"""SAEHD: the df and liae networks with flags u, d, t, c, and the model's specification.

df: one inter, a decoder for each person. liae: inter_AB sees both persons, inter_B only dst; one decoder. The
networks differ in nothing else, so each is a SwapNet of under 30 lines; `models.swap` trains any SwapNet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.batch import SampleRequest
from core.nn import Decoder, Encoder, Inter, init_weights
from core.options import Values
from models.common import LOSS, NETWORK, SESSION, TRAIN, check_archi
from models.spec import ModelSpec
from models.swap import SwapNet, SwapTask

FACE_TYPES = {"h": "half_face", "mf": "midfull_face", "f": "full_face", "wf": "whole_face", "head": "head"}


class DF(SwapNet):
    """code = inter(encoder(x)); decoder_src and decoder_dst draw."""

    def __init__(self, values: Values, flags: str, low: int) -> None:
        super().__init__()
        width = values["ae_dims"]
        self.encoder = Encoder(3, values["e_dims"], values["resolution"], flags)
        self.inter = Inter(self.encoder.length, width, width, low, flags)
        self.decoder_src = Decoder(width, values["d_dims"], values["d_mask_dims"], flags)
        self.decoder_dst = Decoder(width, values["d_dims"], values["d_mask_dims"], flags)

    def code(self, x: Tensor, side: str) -> Tensor:
        code: Tensor = self.inter(self.encoder(x))
        return code

    def decode(self, code: Tensor, side: str) -> tuple[Tensor, Tensor]:
        drawn: tuple[Tensor, Tensor] = self.decoder_src(code) if side == "src" else self.decoder_dst(code)
        return drawn

    def codes(self, x: Tensor) -> Tensor:
        return self.code(x, "src")

    def decode_both(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        src, dst = codes.chunk(2)
        faces, masks = zip(self.decoder_src(src), self.decoder_dst(dst), strict=True)
        return torch.cat(faces), torch.cat(masks)

    def swap_code(self, x: Tensor) -> Tensor:
        return self.code(x, "dst")


class LIAE(SwapNet):
    """src code = [AB, AB], dst code = [B, AB], swap code = [AB, AB] of the dst image; one decoder."""

    def __init__(self, values: Values, flags: str, low: int) -> None:
        super().__init__()
        width = values["ae_dims"]
        self.encoder = Encoder(3, values["e_dims"], values["resolution"], flags)
        self.inter_AB = Inter(self.encoder.length, width, 2 * width, low, flags)
        self.inter_B = Inter(self.encoder.length, width, 2 * width, low, flags)
        self.decoder = Decoder(4 * width, values["d_dims"], values["d_mask_dims"], flags)

    def code(self, x: Tensor, side: str) -> Tensor:
        encoded = self.encoder(x)
        shared = self.inter_AB(encoded)
        return torch.cat((shared if side == "src" else self.inter_B(encoded), shared), 1)

    def decode(self, code: Tensor, side: str) -> tuple[Tensor, Tensor]:
        drawn: tuple[Tensor, Tensor] = self.decoder(code)
        return drawn

    def codes(self, x: Tensor) -> Tensor:
        encoded = self.encoder(x)
        shared = self.inter_AB(encoded)
        first = torch.cat((shared.chunk(2)[0], self.inter_B(encoded.chunk(2)[1])))
        return torch.cat((first, shared), 1)

    def decode_both(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        return self.decode(codes, "dst")

    def swap_code(self, x: Tensor) -> Tensor:
        return self.code(x, "src")

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


def requests(values: Values) -> dict[str, SampleRequest]:
    """The samples each side needs."""
    return {
        side: SampleRequest(
            resolution=values["resolution"],
            face_type=FACE_TYPES[values["face_type"]],
            flip=values[f"random_{side}_flip"],
            random_warp=values["random_warp"],
            uniform_yaw=values["uniform_yaw"],
        )
        for side in ("src", "dst")
    }


SAEHD = ModelSpec(
    name="SAEHD",
    rows=(*SESSION, *NETWORK, *LOSS, *TRAIN),
    requests=requests,
    task=lambda spec, values, **where: SwapTask(spec, values, make_net, **where),
    inactive={
        "models_opt_on_gpu": None,
        "random_hsv_power": 0.0,
        "gan_power": 0.0,
        "gan_patch_size": None,
        "gan_dims": None,
        "true_face_power": 0.0,
        "face_style_power": 0.0,
        "bg_style_power": 0.0,
        "ct_mode": "none",
        "pretrain": False,
    },
)
