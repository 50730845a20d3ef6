"""AMP: one decoder for both persons and a code that can be turned from dst to src by degrees.

Each of a code's channels is of inter_src or of inter_dst. While training, src's faces have a random share
`morph_factor` of their channels from inter_src, drawn anew for each face and iteration, and dst's faces none. So the
decoder learns to draw any mixture, and a swap takes as much of src as its `morph_value` says. The two inters are random
and stay so: what a channel means is learned by encoder and decoder.
"""

from __future__ import annotations

from numbers import Real
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from core.batch import Batch, Captions, Page
from core.nn import CHANNELS_LAST, Decoder, Encoder, Inter, init_weights
from core.options import Answers, Option, Values
from core.upload import send
from models.adversary import Adversary, PatchDiscriminator
from models.common import KNOBS, RUNNING, altered, fixed, pick, swap_requests
from models.net import OPTIMIZER, Draws, SwapNet
from models.pages import rows_of, swap_area
from models.recipe import Recipe
from models.spec import ModelSpec
from models.swap import SwapTask
from models.terms import Drawn, Inputs, against_artefacts, around_dst

FLAGS = "utd"
STEP = 32  # pixels of the input for each of a code's
INTERS = ("inter_src", "inter_dst")
INTERS_OPTIMIZER = "facesmith_inters_opt"
"""The file of the optimizer that moves the inters, where `train_inters` is on: DFL's holds no moments of theirs."""
MORPH_LIST = (0.25, 0.5, 0.65, 0.75, 1.0)


class AmpNet(SwapNet):
    """dst code = inter_dst(encoder(x)); src code = the same, a random share `morph_factor` of its channels replaced by
    those of inter_src(encoder(x)). Without a generator the first ones are."""

    knobs = MappingProxyType({"morph_value": (0.0, 0.35, 1.0)})

    def __init__(self, values: Values) -> None:
        super().__init__()
        resolution, inputs, self.channels = values["resolution"], values["ae_dims"], values["inter_dims"]
        self.encoder = Encoder(3, values["e_dims"], resolution, FLAGS, bottleneck=inputs)
        self.inter_src = Inter(inputs, 0, self.channels, resolution // STEP, FLAGS)
        self.inter_dst = Inter(inputs, 0, self.channels, resolution // STEP, FLAGS)
        self.decoder = Decoder(self.channels, values["d_dims"], values["d_mask_dims"], FLAGS, mask_first=True)
        self.of_src = int(self.channels * values["morph_factor"])
        self.randoms = self.channels
        self.register_buffer("index", torch.arange(self.channels, dtype=torch.float32), persistent=False)
        self.index: Tensor

    def code(self, x: Tensor, side: str, generator: Draws = None) -> Tensor:
        encoded = self.encoder(x)
        own: Tensor = self.inter_dst(encoded)
        return own if side == "dst" else mix(self.inter_src(encoded), own, self.random_share(len(x), generator))

    def decoder_of(self, side: str) -> Decoder:
        return self.decoder

    def codes(self, x: Tensor, generator: Draws = None) -> Tensor:
        encoded = self.encoder(x)
        own, dst = self.inter_dst(encoded).chunk(2)
        src = self.inter_src(encoded.chunk(2)[0])
        return torch.cat((mix(src, own, self.random_share(len(src), generator)), dst))

    def decode_both(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        return self.decode(codes, "dst")

    def faces_of_both(self, codes: Tensor) -> Tensor:
        return self.decoder.face(codes)

    def codes_of_dst(self, x: Tensor, morph_value: Any = 1.0) -> tuple[Tensor, Tensor]:
        """morph_value: how much of the swap is src's, [0, 1]; or a tensor (1,), or (N,) with one for each face. Raises
        ValueError for a number outside."""
        if isinstance(morph_value, Real):  # numpy's too; what torch.fx traces with is none
            number = float(morph_value)
            if not 0 <= number <= 1:
                raise ValueError(f"morph_value: got {number}, allowed is a number from 0 (dst) to 1 (src).")
            morph_value = torch.tensor([number], device=x.device)
        encoded = self.encoder(x)
        own = self.inter_dst(encoded)
        return own, mix(self.inter_src(encoded), own, self.share(morph_value))

    def share(self, morph_value: Tensor) -> Tensor:
        """(K,) -> (K, channels, 1, 1): 1 for the channels of src, which are the first, 0 for the others."""
        count = (morph_value * self.channels).floor().view(-1, 1)
        return (count - self.index).clamp(0, 1).view(-1, self.channels, 1, 1)

    def drawn(self, count: int, generator: torch.Generator) -> Tensor:
        return self.random_share(count, generator)

    def random_share(self, count: int, generator: Draws) -> Tensor:
        """(count, channels, 1, 1): 1 for the channels of src, as many for each face, drawn by `generator`."""
        device = self.index.device
        if isinstance(generator, Tensor):
            return generator
        if generator is None:
            return (self.index < self.of_src).to(torch.float32).view(1, -1, 1, 1)
        order = torch.rand(count, self.channels, generator=generator).argsort(1)
        share = torch.zeros(count, self.channels).scatter_(1, order[:, : self.of_src], 1.0)
        return send(share.view(count, -1, 1, 1), device)

    def trained(self, values: Values) -> tuple[str, ...]:
        return tuple(part for part in self.parts if part not in INTERS or values["train_inters"])

    def optimized(self, values: Values) -> dict[str, tuple[str, ...]]:
        own = {OPTIMIZER: tuple(part for part in self.parts if part not in INTERS)}
        return own | ({INTERS_OPTIMIZER: INTERS} if values["train_inters"] else {})


def mix(src: Tensor, dst: Tensor, share: Tensor) -> Tensor:
    """Channels of `src` where share is 1, of `dst` where it is 0."""
    if isinstance(src, Tensor):  # and not what traces it
        share = share.to(src.dtype)
    return src * share + dst * (1 - share)


def make_net(values: Values, generator: torch.Generator) -> AmpNet:
    """The network with fresh weights drawn from `generator`. Raises ValueError for sizes it cannot have."""
    if values["resolution"] < STEP or values["resolution"] % STEP:
        raise ValueError(f"resolution: got {values['resolution']}, allowed are multiples of {STEP}.")
    net = AmpNet(values)
    init_weights(net, generator)
    return net


def make_adversaries(values: Values, _: SwapNet, generator: torch.Generator) -> dict[str, Adversary]:
    """The GAN, if its power is not 0. Its loss is the mean over eight maps: two each of four kinds of examples."""
    if not values["gan_power"]:
        return {}
    patches = PatchDiscriminator(values["gan_patch_size"], 3, values["gan_dims"])
    init_weights(patches, generator)
    return {"GAN": Adversary("GAN", "GAN_opt", "GAN", patches, values["gan_power"], share=1 / 8)}


def beside(values: Values, inputs: Inputs, drawn: Drawn) -> list[Tensor]:
    """dst's surroundings count a little in any case, since the swap is put into them; src's with a GAN."""
    terms = [around_dst(drawn.of("dst").face, inputs)] if "dst" in drawn.sides else []
    if values["gan_power"] and "src" in drawn.sides:
        terms.append(against_artefacts(drawn.of("src").face, inputs))
    return terms


def morph_pages(task: SwapTask, batch: Batch) -> list[Page]:
    """DFL's pages, each of the first face of src and of dst: `AMP morph 1.0` (S, D, DD by its mask; SS, DD, SD),
    `AMP morph list` (DD, SD at 0.25, 0.5; 0.65, 0.75, 1) and the same masked.

    The first page's swap is at `preview_mf`. The encoder sees each face once, and all drawings are one batch.
    """
    net = task.net
    assert isinstance(net, AmpNet)
    first = float(task.values["preview_mf"])
    x = torch.cat([task.upload(batch[side].target[:1], "target") for side in ("src", "dst")])
    encoded = net.encoder(x.contiguous(memory_format=CHANNELS_LAST))
    from_src, from_dst = net.inter_src(encoded), net.inter_dst(encoded)
    morphs = list(dict.fromkeys((0.0, *MORPH_LIST, first)))
    shares = torch.cat((net.random_share(1, task.draws()), net.share(torch.tensor(morphs, device=task.device))))
    places = [0] + [1] * len(morphs)  # which face each share is of: src, then dst
    faces, masks = net.decode(mix(from_src[places], from_dst[places], shares), "src")
    areas = [swap_area(task, masks[1:2], mask) for mask in masks[1:].split(1)]
    areas[0] = masks[1:2]  # of dst itself
    drawn = dict(zip(morphs, faces[1:].split(1), strict=True))
    cut = {morph: drawn[morph] * area for morph, area in zip(morphs, areas, strict=True)}
    src, dst = x.split(1)
    title = task.spec.name
    pages = {f"{title} morph {first}": [[src, dst, cut[0.0]], [faces[:1], drawn[0.0], drawn[first]]]}
    for ending, cells in (("", drawn), (" masked", cut)):
        line = [cells[morph] for morph in (0.0, *MORPH_LIST)]
        pages[f"{title} morph list{ending}"] = [line[:3], line[3:]]
    return [(name, [rows_of(row)[0] for row in rows]) for name, rows in pages.items()]


def morph_captions(task: SwapTask, batch: Batch) -> Captions:
    """The names of the two faces, on the page that shows them."""
    title = f"{task.spec.name} morph {float(task.values['preview_mf'])}"
    return {title: [[batch.src.name_of(0), batch.dst.name_of(0), ""]]}


def tidy_resolution(resolution: int, _: Answers) -> int:
    return resolution // STEP * STEP


OWN = (
    Option(
        "inter_dims", "int", "Inter dimensions",
        "Number of channels of the code, each of which is src's or dst's.",
        advice="No fewer than AutoEncoder dimensions. More is finer and costs memory: it is the width of what the "
        "decoder is given.",
        default=1024, low=32, high=2048, ask="create", group="network",
    ),
    Option(
        "morph_factor", "float", "Morph factor.",
        "Which share of the code of src's faces is of inter_src while training; the rest is of inter_dst.",
        advice="0.5 suits most pairs. With less the swap keeps more of dst.",
        default=0.5, low=0.1, high=0.5, shown="0.1 .. 0.5", ask="create", group="network",
    ),
    Option(
        "preview_mf", "float", "Preview morph factor.",
        "How much of src the swap on the first preview page has. The page of the list always shows the same five.",
        advice="What you will merge with.",
        default=1.0, low=0.0, high=1.0, ask="advance", stored=False, group="session",
    ),
    Option(
        "train_inters", "bool", "Train the inters",
        "Beyond DeepFaceLab: moves the two inters too, which in AMP stay random for ever. Their optimizer has a file "
        "of its own (facesmith_inters_opt.npy), so that DeepFaceLab reads the model as any other; switched off again, "
        "it leaves the inters as they are.",
        advice="An experiment; it needs memory for them.",
        default=False, ask="advance", stored=False, group="training",
    ),
    altered(
        "random_src_flip",
        advice="Helps when src lacks one side of the face. A mirrored face is a slightly different person, so leave it "
        "off when src covers all directions.",
    ),
    altered("batch_size", default=8, default_text="8"),
    altered(
        "resolution", default=224, tidy=tidy_resolution,
        help="Side of the square face the network learns, in pixels, rounded down to a multiple of 32.",
    ),
    altered(
        "face_type", default="wf", choices=("f", "wf", "head"),
        help="How much of the head is learned: f full face from brow to chin, wf whole face with forehead, head with "
        "hair. Your facesets must show at least as much.",
        advice="wf is the usual choice; head wants XSeg masks and a high resolution.",
    ),
    altered("uniform_yaw", advice="For the early part of a training whose facesets have few profiles."),
    altered(
        "random_warp",
        advice="On for most of the training, until the faces hardly get clearer; then off for sharpness.",
    ),
)  # fmt: skip

RECIPE = Recipe(make_net, make_adversaries, morph_pages, morph_captions, beside, both_scales=True, judges_dst=True)

AMP = ModelSpec(
    name="AMP",
    rows=pick(
        *("autobackup_hour", "write_preview_history", "choose_preview_history", "target_iter"),
        *("random_src_flip", "random_dst_flip", "batch_size"),
        *("resolution", "face_type", "ae_dims", "inter_dims", "e_dims", "d_dims", "d_mask_dims", "morph_factor"),
        *("uniform_yaw", "blur_out_mask", "lr_dropout", "models_opt_on_gpu", "random_warp"),
        *("gan_power", "gan_patch_size", "gan_dims", "ct_mode", "clipgrad", "preview_mf", "train_inters"),
        own=OWN,
    )
    + KNOBS
    + RUNNING
    + fixed(adabelief=True, masked_training=True, eyes_mouth_prio=True),
    requests=swap_requests,
    task=lambda spec, values, **where: SwapTask(spec, values, RECIPE, **where),
)
