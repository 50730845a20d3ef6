"""Option rows shared by the models. Each is written once here; a model lists the keys it asks, in DFL's order (`pick`).

Labels, keys and defaults are DFL's; ranges are the wider of DFL's and MVE's. DFL clamps a number outside its range
silently; these rows ask again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from core.batch import SampleRequest
from core.options import Answers, Option, Values
from models.knobs import KNOBS
from models.running import PANEL, RUNNING

LONG_NAMES = {"h": "half_face", "mf": "midfull_face", "f": "full_face", "wf": "whole_face", "head": "head"}
FACE_TYPES = tuple(LONG_NAMES)
CT_MODES = ("none", "rct", "lct", "mkl", "idt", "sot")

ARCHI_PATTERN = re.compile(r"(df|liae)(-[udtc]+)?")


def check_archi(text: str) -> str:
    """`df` or `liae`, optionally a dash and letters of u, d, t, c; raises ValueError saying so."""
    archi = text.strip().lower()
    if not ARCHI_PATTERN.fullmatch(archi):
        raise ValueError("df or liae, optionally followed by - and letters of u d t c, such as df-ud or liae-udt")
    return archi


def is_df(answers: Answers) -> bool:
    return str(answers["archi"]).startswith("df")


def tidy_resolution(resolution: int, answers: Answers) -> int:
    """DFL: a multiple of 16, of 32 with `d`. `t` needs 32 too: its encoder halves five times."""
    flags = str(answers.get("archi", "")).partition("-")[2]
    step = 32 if "d" in flags or "t" in flags else 16
    return resolution // step * step


def even(number: int, _: Answers) -> int:
    return number + number % 2


def default_mask_dims(so_far: Answers) -> int:
    """DFL: a third of the stored or default d_dims (not of the one just typed), made even."""
    return even(int(so_far["d_dims"]) // 3, so_far)


def default_patch_size(answers: Answers) -> int:
    """DFL: an eighth of the resolution just chosen."""
    return int(answers["resolution"]) // 8


def asks_masked_training(answers: Answers) -> bool:
    """Only face types that show more than the face's own mask area are asked."""
    return answers["face_type"] in ("wf", "head")


def asks_gan_size(answers: Answers) -> bool:
    return bool(answers["gan_power"])


def only_df(power: float, answers: Answers) -> float:
    """DFL: true face needs src and dst to share an inter; with liae it is 0."""
    return power if is_df(answers) else 0.0


def in_pretraining(value: Any) -> Callable[[Answers], Any]:
    """What pretraining makes of an option, whatever was chosen."""
    return lambda chosen: value if chosen.get("pretrain") else None


SESSION = (
    Option(
        "autobackup_hour", "int", "Autobackup every N hour",
        "Copies the model to its autobackups folder whenever another N hours have passed; the oldest copies are "
        "dropped, see backup_naming and max_backups. 0 switches it off.",
        advice="1 or 2 is a good safety net for long trainings.",
        default=0, low=0, high=24, shown="0..24", group="session",
    ),
    Option(
        "write_preview_history", "bool", "Write preview history",
        "Saves a preview picture of always the same faces at regular intervals into the model's history folder, so "
        "that you can leaf through how it learned.",
        advice="Costs little time and some disk space.",
        default=False, group="session",
    ),
    Option(
        "choose_preview_history", "bool", "Choose image for the preview history",
        "Lets you pick the faces of the preview history in the window: p shows the next ones, space the next page, "
        "Enter takes them. Without a window other faces are drawn at random; --history-faces takes them by name. n "
        "keeps the present ones, or takes the first that come.",
        advice="Pick faces with the expressions and directions that matter to you.",
        default=False, stored=False, once=True, when=lambda answers: bool(answers["write_preview_history"]),
        condition="if preview history is written", group="session",
    ),
    Option(
        "target_iter", "int", "Target iteration",
        "Training saves and pauses when this iteration is reached. 0 trains until you stop it.",
        advice="Useful for comparing settings, and for letting a machine stop by itself.",
        default=0, low=0, group="session",
    ),
    Option(
        "random_src_flip", "bool", "Flip SRC faces randomly",
        "Mirrors some of the src faces.",
        advice="Helps when src lacks one side of the face. A mirrored face is a slightly different person, so leave it "
        "off when src covers all directions. Pretraining flips both sides.",
        default=False, forced=in_pretraining(True), group="session",
    ),
    Option(
        "random_dst_flip", "bool", "Flip DST faces randomly",
        "Mirrors some of the dst faces, which makes the swap more robust in directions that dst shows rarely.",
        advice="Recommended, unless src and dst are flipped already.",
        default=True, forced=in_pretraining(True), group="session",
    ),
    Option(
        "batch_size", "int", "Batch_size",
        "How many faces of each side the network sees per iteration. More is steadier and needs more memory.",
        advice="4 to 16 are usual. It can be changed at any time.",
        default=4, low=1, default_text="4; 8 on a card of 4 GB or more", group="session",
    ),
)  # fmt: skip

NETWORK = (
    Option(
        "resolution", "int", "Resolution",
        "Side of the square face the network learns, in pixels, rounded down to a multiple of 16 (32 with d or t).",
        advice="Twice the resolution needs about four times the memory and time: 128 to 256 suits most cards.",
        default=128, low=64, high=640, aliases=("res",), ask="create", tidy=tidy_resolution, group="network",
    ),
    Option(
        "face_type", "choice", "Face type",
        "How much of the head is learned: h half face, mf mid-full, f full face from brow to chin, wf whole face "
        "with forehead, head with hair. Your facesets must show at least as much.",
        advice="f and wf are the usual choices; head wants XSeg masks and a high resolution.",
        default="f", choices=FACE_TYPES, ask="create", group="network",
    ),
    Option(
        "archi", "text", "AE architecture",
        "df keeps src's likeness best and wants similar head shapes; liae adapts better to dst's light and shape. "
        "Letters after a dash: u more likeness, d doubles the resolution at the same cost, t sharper and slower, "
        "c cosine activation (experimental).",
        advice="df-ud and liae-ud are good starts. A trained liae is reused for another pair by deleting inter_AB.",
        default="liae-ud", ask="create", check=check_archi,
        shown="df or liae, then maybe - and letters of u d t c, such as df-ud", group="network",
    ),
    Option(
        "ae_dims", "int", "AutoEncoder dimensions",
        "Width of the bottleneck that holds identity and expression. Too small and expressions are lost; more costs "
        "memory.",
        advice="256 is balanced; more for high resolutions.",
        default=256, low=32, high=2048, ask="create", group="network",
    ),
    Option(
        "e_dims", "int", "Encoder dimensions",
        "Base width of the encoder, which reads the faces. Made even.",
        advice="64 is balanced; more helps it tell features apart and costs memory.",
        default=64, low=16, high=256, ask="create", tidy=even, group="network",
    ),
    Option(
        "d_dims", "int", "Decoder dimensions",
        "Base width of the decoder, which draws the faces. Made even.",
        advice="More gives finer detail; this is where most of the memory goes.",
        default=64, low=16, high=256, ask="create", tidy=even, group="network",
    ),
    Option(
        "d_mask_dims", "int", "Decoder mask dimensions",
        "Base width of the part that draws the mask. Made even.",
        advice="A third of the decoder dimensions is enough for ordinary masks; use more for XSeg masks with fine "
        "outlines.",
        default=default_mask_dims, low=16, high=256, ask="create", tidy=even,
        default_text="a third of the default decoder dimensions: 22", group="network",
    ),
)  # fmt: skip

LOSS = (
    Option(
        "masked_training", "bool", "Masked training",
        "Learns the masked face only and leaves the background alone, so that all capacity goes into the face. Off, "
        "the network also learns what surrounds the face.",
        advice="Recommended, above all with XSeg masks.",
        default=True, when=asks_masked_training, condition="if the face type is wf or head", group="loss",
    ),
    Option(
        "eyes_mouth_prio", "bool", "Eyes and mouth priority",
        "Weighs errors at eyes and mouth far more: sharper eyes, correct gaze, better teeth.",
        advice="Switch it on once the faces are clear, or from the start if the gaze goes wrong; off again before GAN.",
        default=False, group="loss", spellings=((None, False),), aliases=("eye_mouth_priority",),
    ),
    Option(
        "uniform_yaw", "bool", "Uniform yaw distribution of samples",
        "Draws every head direction equally often, so that rare side faces are learned too.",
        advice="For the early part of a training whose facesets have few profiles. Pretraining switches it on.",
        default=False, forced=in_pretraining(True), group="loss",
    ),
    Option(
        "blur_out_mask", "bool", "Blur out mask",
        "Blurs what lies just outside the mask in the training pictures, so that hair or background edges there do "
        "not leak into the face.",
        advice="Wants good masks (XSeg) on both sides.",
        default=False, group="loss",
    ),
)  # fmt: skip

TRAINING = (
    Option(
        "models_opt_on_gpu", "bool", "Place models and optimizer on GPU",
        "Keeps the optimizer's memory on the graphics card. Off, it stays in main memory and the weights are updated "
        "there: a larger network or batch fits, and every iteration takes longer. Nothing changes on a CPU.",
        advice="Leave it on unless the card runs out of memory.",
        default=True, group="training",
    ),
    Option(
        "adabelief", "bool", "Use AdaBelief optimizer?",
        "AdaBelief learns faster and more accurately and needs one more number of memory per weight than RMSprop.",
        advice="Leave it on unless memory is short. Switching starts the optimizer's memory anew.",
        default=True, group="training",
    ),
    Option(
        "lr_dropout", "choice", "Use learning rate dropout",
        "Lets a random third of the weights move in each iteration, at a rate that swings: brings out fine detail and "
        "steadies the faces. y: on; cpu: on, with the draw made by the processor, which DeepFaceLab has to save card "
        "memory (here y takes no more than a megabyte); n: off.",
        advice="When the loss hardly moves any more: once before random warp is switched off, again after, before GAN.",
        default="n", choices=("n", "y", "cpu"), spellings=((False, "n"), (True, "y")),
        forced=in_pretraining("n"), group="training",
    ),
    Option(
        "random_warp", "bool", "Enable random warp of samples",
        "Bends the input pictures at random, which is what makes the two faces share expressions.",
        advice="On for most of the training, until the faces hardly get clearer; then off for sharpness. Without it "
        "liae's inter_AB rests.",
        default=True, forced=in_pretraining(False), group="training",
    ),
    Option(
        "random_hsv_power", "float", "Random hue/saturation/light intensity",
        "Shifts hue, saturation and light of the src faces that go into the network, so that it learns to ignore them.",
        advice="0.05 steadies the colours when src's light differs from picture to picture.",
        default=0.0, low=0.0, high=0.3, shown="0.0 .. 0.3", forced=in_pretraining(0.0), group="training",
    ),
    Option(
        "clipgrad", "bool", "Enable gradient clipping",
        "Limits how far one iteration can move the weights. Makes a collapse less likely, costs a little speed.",
        advice="With small batches, with style powers, or if a training collapsed before.",
        default=False, forced=lambda chosen: True if chosen.get("mp_mode") == "float16" else None, group="training",
    ),
    Option(
        "pretrain", "bool", "Enable pretraining mode",
        "Trains on the faces of many people (--pretraining-data-dir) instead of src and dst, so that a new model knows "
        "faces before it meets yours. Switched off again, the iteration counter and the inters start anew.",
        advice="For a new model, before its first pair: it then needs far fewer iterations for each.",
        default=False, group="training",
    ),
)  # fmt: skip

GAN = (
    Option(
        "gan_power", "float", "GAN power",
        "Trains a second network to tell drawn faces from real ones, and the model to fool it: fine skin detail. It "
        "needs more memory and time.",
        advice="0.1, late: random warp off, lr dropout done, most other options off. Make a backup first; too much or "
        "too early gives artefacts.",
        default=0.0, low=0.0, high=10.0, shown="0.0 .. 10.0", forced=in_pretraining(0.0), group="gan",
    ),
    Option(
        "gan_patch_size", "int", "GAN patch size",
        "Side in pixels of what the second network judges at a time. A larger patch sees more and learns slower.",
        advice="An eighth of the resolution. Changing it starts the GAN anew.",
        default=default_patch_size, follows=True, low=3, high=640, aliases=("patch_size",), when=asks_gan_size,
        condition="if GAN power is not 0", default_text="resolution / 8", group="gan",
    ),
    Option(
        "gan_dims", "int", "GAN dimensions",
        "Base width of the second network. More tells finer and costs memory.",
        advice="16 is enough for most. Changing it starts the GAN anew.",
        default=16, low=4, high=512, when=asks_gan_size, condition="if GAN power is not 0", group="gan",
    ),
)  # fmt: skip

STYLE = (
    Option(
        "true_face_power", "float", "'True face' power.",
        "Pulls the codes of src's faces towards those of dst, with a network that tries to tell them apart: the result "
        "looks more like src, at the price of dst's expression.",
        advice="Only df has it. Late, and little: 0.01. Make a backup first.",
        default=0.0, low=0.0, high=1.0, shown="0.0000 .. 1.0", when=is_df, tidy=only_df,
        condition="if the architecture is df", group="style",
    ),
    Option(
        "face_style_power", "float", "Face style power",
        "Makes the swapped face take over the colours and contrast of dst's face inside the mask.",
        advice="0.001 to 10, once the face is clear, and not for ever. It can make a training collapse: make a backup "
        "first, and try colour transfer before it.",
        default=0.0, low=0.0, high=100.0, shown="0.0..100.0", forced=in_pretraining(0.0), group="style",
    ),
    Option(
        "bg_style_power", "float", "Background style power",
        "Makes the swapped face's surroundings follow those of dst, so that the seam is less visible. Src's likeness "
        "suffers.",
        advice="2 to 10 for face types that show background. It can make a training collapse: make a backup first.",
        default=0.0, low=0.0, high=100.0, shown="0.0..100.0", forced=in_pretraining(0.0), group="style",
    ),
    Option(
        "ct_mode", "choice", "Color transfer for src faceset",
        "Gives src's faces the colours of random dst faces while training: rct, lct and mkl match mean and spread, idt "
        "and sot the whole distribution (slower to compute).",
        advice="Try it when skin tone or light of src and dst differ: rct first, or what looks right at merging.",
        default="none", choices=CT_MODES, forced=in_pretraining("none"), group="style",
    ),
)  # fmt: skip

ROWS = {row.key: row for row in (*SESSION, *NETWORK, *LOSS, *TRAINING, *GAN, *STYLE, *KNOBS, *RUNNING, *PANEL)}


def pick(*keys: str, own: Iterable[Option] = (), **defaults: Any) -> tuple[Option, ...]:
    """The rows of `keys` in that order, a model's own before the shared ones, with other defaults where given. Raises
    KeyError for a row that is neither."""
    rows = ROWS | {row.key: row for row in own}
    return tuple(replace(rows[key], default=defaults[key]) if key in defaults else rows[key] for key in keys)


def unasked(*rows: Option) -> tuple[Option, ...]:
    """The rows of a model that asks nothing: answered in advance, or as their default."""
    return tuple(
        row if row.ask == "advance" else replace(row, ask="advance", condition="", default_text="") for row in rows
    )


def altered(key: str, **fields: Any) -> Option:
    """The shared row `key` with other fields."""
    return replace(ROWS[key], **fields)


def fixed(**values: Any) -> tuple[Option, ...]:
    """Shared rows of which a model knows one value only: neither asked, set nor stored, but there for whoever reads
    the options."""
    return tuple(
        replace(ROWS[key], default=value, ask="fixed", follows=False, stored=False, forced=None, tidy=None)
        for key, value in values.items()
    )


def swap_requests(values: Values, **more: Any) -> dict[str, SampleRequest]:
    """The samples each side of a swap model needs; more: what differs from `SampleRequest`. Colour transfer and HSV
    shift are for src, as in DFL."""
    common: dict[str, Any] = {
        "resolution": values["resolution"],
        "face_type": LONG_NAMES[values["face_type"]],
        "random_warp": values["random_warp"],
        "uniform_yaw": values["uniform_yaw"],
        **more,
    }
    hsv_power = values.get("random_hsv_power", 0.0)  # not every model has it
    return {
        "src": SampleRequest(
            **common, flip=values["random_src_flip"], ct_mode=values["ct_mode"], ct_from="dst", hsv_power=hsv_power
        ),
        "dst": SampleRequest(**common, flip=values["random_dst_flip"]),
    }
