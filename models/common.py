"""Option rows shared by the models, in the order DFL asks them.

Labels, keys, defaults and ranges are DFL's. DFL clamps a number outside its range silently; these rows ask again.
"""

from __future__ import annotations

import re

from core.options import Answers, Option

SESSION = (
    Option(
        "autobackup_hour", "int", "Autobackup every N hour",
        "Copies the model to its autobackups folder whenever another N hours have passed. The newest copy is 01, the "
        "oldest of the 24 is dropped. 0 switches it off; 1 or 2 is a good safety net for long trainings.",
        default=0, low=0, high=24, shown="0..24", group="session",
    ),
    Option(
        "write_preview_history", "bool", "Write preview history",
        "Saves a preview picture of always the same faces at regular intervals into the model's history folder, so "
        "that you can leaf through how it learned. Costs little time and some disk space.",
        default=False, group="session",
    ),
    Option(
        "choose_preview_history", "bool", "Choose image for the preview history",
        "Lets you pick the faces of the preview history in the window: p shows the next ones, space the next page, "
        "Enter takes them. n keeps the present ones, or takes the first that come.",
        default=False, stored=False, when=lambda answers: bool(answers["write_preview_history"]), group="session",
    ),
    Option(
        "target_iter", "int", "Target iteration",
        "Training saves and pauses when this iteration is reached. 0 trains until you stop it.",
        default=0, low=0, group="session",
    ),
    Option(
        "random_src_flip", "bool", "Flip SRC faces randomly",
        "Mirrors some of the src faces. Helps when src lacks one side of the face; a mirrored face is a slightly "
        "different person, so leave it off when src covers all directions.",
        default=False, group="session",
    ),
    Option(
        "random_dst_flip", "bool", "Flip DST faces randomly",
        "Mirrors some of the dst faces. Makes the swap more robust in directions that dst shows rarely; "
        "recommended unless src and dst are flipped already.",
        default=True, group="session",
    ),
    Option(
        "batch_size", "int", "Batch_size",
        "How many faces of each side the network sees per iteration. Larger learns more steadily and needs more "
        "memory; 4 to 16 are usual. It can be changed at any time.",
        default=4, low=1, group="session",
    ),
)  # fmt: skip

FACE_TYPES = ("h", "mf", "f", "wf", "head")

ARCHI_PATTERN = re.compile(r"(df|liae)(-[udtc]+)?")


def check_archi(text: str) -> str:
    """`df` or `liae`, optionally a dash and letters of u, d, t, c; raises ValueError saying so."""
    archi = text.strip().lower()
    if not ARCHI_PATTERN.fullmatch(archi):
        raise ValueError("df or liae, optionally followed by - and letters of u d t c, such as df-ud or liae-udt")
    return archi


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


def asks_masked_training(answers: Answers) -> bool:
    """Only face types that show more than the face's own mask area are asked."""
    return answers["face_type"] in ("wf", "head")


NETWORK = (
    Option(
        "resolution", "int", "Resolution",
        "Side of the square face the network learns, in pixels, rounded down to a multiple of 16 (32 with d or t). "
        "Twice the resolution needs about four times the memory and time: 128 to 256 suits most cards.",
        default=128, low=64, high=640, ask="create", tidy=tidy_resolution, group="network",
    ),
    Option(
        "face_type", "choice", "Face type",
        "How much of the head is learned: h half face, mf mid-full, f full face from brow to chin, wf whole face "
        "with forehead, head with hair. Your facesets must show at least as much. f and wf are the usual choices.",
        default="f", choices=FACE_TYPES, ask="create", group="network",
    ),
    Option(
        "archi", "text", "AE architecture",
        "df keeps src's likeness best and wants similar head shapes; liae adapts better to dst's light and shape. "
        "Letters after a dash: u more likeness, d doubles the resolution at the same cost, t sharper and slower, "
        "c cosine activation (experimental). df-ud and liae-ud are good starts.",
        default="liae-ud", ask="create", check=check_archi, group="network",
    ),
    Option(
        "ae_dims", "int", "AutoEncoder dimensions",
        "Width of the bottleneck that holds identity and expression. Too small and expressions are lost; more costs "
        "memory. 256 is balanced.",
        default=256, low=32, high=1024, ask="create", group="network",
    ),
    Option(
        "e_dims", "int", "Encoder dimensions",
        "Base width of the encoder, which reads the faces. More helps it tell features apart and costs memory. "
        "Made even.",
        default=64, low=16, high=256, ask="create", tidy=even, group="network",
    ),
    Option(
        "d_dims", "int", "Decoder dimensions",
        "Base width of the decoder, which draws the faces. More gives finer detail; this is where most of the memory "
        "goes. Made even.",
        default=64, low=16, high=256, ask="create", tidy=even, group="network",
    ),
    Option(
        "d_mask_dims", "int", "Decoder mask dimensions",
        "Base width of the part that draws the mask. A third of the decoder dimensions is enough for ordinary masks; "
        "use more for XSeg masks with fine outlines. Made even.",
        default=default_mask_dims, low=16, high=256, ask="create", tidy=even, group="network",
    ),
)  # fmt: skip

LOSS = (
    Option(
        "masked_training", "bool", "Masked training",
        "Learns the masked face only and leaves the background alone, so that all capacity goes into the face. "
        "Recommended with XSeg masks; off, the network also learns what surrounds the face.",
        default=True, when=asks_masked_training, group="loss",
    ),
    Option(
        "eyes_mouth_prio", "bool", "Eyes and mouth priority",
        "Weighs errors at eyes and mouth far more: sharper eyes, correct gaze, better teeth. Switch it on once the "
        "faces are clear, or from the start if the gaze goes wrong.",
        default=False, group="loss", spellings=((None, False),),
    ),
    Option(
        "uniform_yaw", "bool", "Uniform yaw distribution of samples",
        "Draws every head direction equally often, so that rare side faces are learned too. Useful when a faceset "
        "has few profiles; do without it otherwise.",
        default=False, group="loss",
    ),
    Option(
        "blur_out_mask", "bool", "Blur out mask",
        "Blurs what lies just outside the mask in the training pictures, so that hair or background edges there do "
        "not leak into the face. Wants good masks on both sides.",
        default=False, group="loss",
    ),
)  # fmt: skip

TRAIN = (
    Option(
        "adabelief", "bool", "Use AdaBelief optimizer?",
        "AdaBelief learns faster and more accurately and needs one more number of memory per weight than RMSprop. "
        "Leave it on unless memory is short. Switching starts the optimizer's memory anew.",
        default=True, group="training",
    ),
    Option(
        "lr_dropout", "choice", "Use learning rate dropout",
        "Late in training it brings out fine detail and steadies the faces: switch it on when the loss hardly moves "
        "any more, before GAN. y: on; cpu: on, with the draw kept off the graphics card; n: off.",
        default="n", choices=("n", "y", "cpu"), group="training", spellings=((False, "n"), (True, "y")),
    ),
    Option(
        "random_warp", "bool", "Enable random warp of samples",
        "Bends the input pictures at random, which is what makes the two faces share expressions. Needed for most of "
        "the training; switch it off near the end for extra sharpness.",
        default=True, group="training",
    ),
    Option(
        "clipgrad", "bool", "Enable gradient clipping",
        "Limits how far one iteration can move the weights. Makes a collapse less likely, costs a little speed and "
        "learning. Use it with small batches or if a training collapsed before.",
        default=False, group="training",
    ),
)  # fmt: skip
