"""Option rows of how a training runs, not of what it learns: none of them changes a weight of a model that is well
(but for rounding with `compile` and, in the samples, `augment_on`, and what a JPG loses with `image_type`).

They are asked with `--all-questions` and in the midst of a training; `--set` answers them in advance. Where DFL or a
fork has one, its key and label are kept.
"""

from __future__ import annotations

import re

from core.compiling import MODES
from core.options import Answers, Option
from core.precision import PRECISIONS


def check_suffix(text: str) -> str:
    """The end of a folder's name; raises ValueError saying what it may be."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}", text) or text.endswith("."):
        raise ValueError("1 to 40 letters, digits, dots and dashes, the first and last no dot")
    return text


def check_session(text: str) -> str:
    """A session's name, which ends the name of a folder; raises ValueError saying what it may be."""
    if text and not re.fullmatch(r"[^\W_]([\w .-]{0,38}[\w-])?", text):
        raise ValueError("- for none, or 1 to 40 letters, digits, blanks, dots and dashes, the first a letter or digit")
    return text


def writes_history(values: Answers) -> bool:
    return bool(values["write_preview_history"])


def keeps_faces(values: Answers) -> bool:
    return bool(values["use_cache"])


def keeps_jpg(values: Answers) -> bool:
    return keeps_faces(values) and values["image_type"] == "jpg"


IF_KEPT = "if faces are kept on the disk"


def history_every(values: Answers) -> int:
    """Iterations from one picture of the preview history to the next; 0 where none is written."""
    if not values["write_preview_history"]:
        return 0
    # DFL's interval: sparser for large faces
    return int(values["preview_history_every"]) or 10 * max(1, int(values["resolution"]) // 64)


def preview_rows(values: Answers, there: int, height: int = 800) -> int:
    """Rows of a preview page of which `there` faces are known; DFL's rule fits it into `height` pixels."""
    wanted = int(values["preview_samples"])
    return min(wanted or max(1, min(4, height // int(values["resolution"]))), there)


def faces_per_iteration(values: Answers) -> int:
    """Of each side."""
    return int(values["batch_size"]) * int(values["accumulate"])


HISTORY = (
    Option(
        "preview_samples", "int", "Number of samples to preview",
        "Rows of the preview, and of the faces that are chosen for the preview history. 0 is DFL's rule: 4, and fewer "
        "where they would be higher than 800 pixels together. The preview shows the batch that is trained on next, so "
        "it has no more rows than that.",
        advice="More rows show more directions and expressions; each costs a little time at every preview.",
        default=0, low=0, high=16, default_text="0: 4, fewer above 200 px", ask="advance", stored=False,
        group="history",
    ),
    Option(
        "preview_history_every", "int", "Write preview history every N iterations",
        "How often a picture of the preview history is drawn. 0 is DFL's rule: every 10 iterations below 128 px, 20 "
        "from there, 30 from 192, 40 from 256 and so on.",
        advice="100 or more for long trainings.",
        default=0, low=0, high=1_000_000, when=writes_history, condition="if preview history is written",
        ask="advance", stored=False, group="history",
    ),
    Option(
        "preview_history_keep", "int", "Pictures of the preview history that stay",
        "Where a page has more pictures than this, the one goes that leaves the smallest gap, so that a time-lapse "
        "of what stays is an even one; the first and the last always stay. Pictures that facesmith did not write are "
        "never touched. 0 keeps all.",
        advice="1500 are a minute of video; they take 100 to 300 MB a page.",
        default=0, low=0, high=1_000_000, when=writes_history, condition="if preview history is written",
        ask="advance", stored=False, group="history",
    ),
    Option(
        "session_name", "text", "Session name",
        "A name for this part of the training. It stands in the summary and ends the names of the backups that are "
        "made meanwhile, unless backup_naming is numbers. The answer - takes it away.",
        advice="Such as gan or no-warp, to find the backup before a change again.",
        default="", check=check_session, shown="-, or up to 40 letters, digits, blanks, dots and dashes",
        spellings=((None, ""), ("-", "")), ask="advance", stored=False, group="session",
    ),
    Option(
        "reset_iterations", "bool", "Do you want to reset iterations counter and loss graph?",
        "Counts iterations and draws the loss graph from 0 again, once at this start. Weights and optimizer stay as "
        "they are; the pictures of the preview history are moved to a folder of their own.",
        advice="After a large change, when the old losses say nothing about the new ones.",
        default=False, ask="advance", stored=False, once=True, group="session",
        condition="and with `--config-training-file` or `--auto-gen-config`",
    ),
)  # fmt: skip

SAFETY = (
    Option(
        "backup_naming", "choice", "Names of backups",
        "time names the folder of a backup by date and time and never renames it; numbers is DFL's 01 to 24, of which "
        "01 is always the newest.",
        advice="numbers only where another program relies on them: every backup renames all others.",
        default="time", choices=("time", "numbers"), ask="advance", stored=False, group="safety",
    ),
    Option(
        "max_backups", "int", "Maximum N backups",
        "How many backups stay; the oldest are dropped. 0 keeps all of them.",
        advice="Unchanged files are shared between backups where the disk allows it.",
        default=24, low=0, high=10000, aliases=("maximum_n_backups",), ask="advance", stored=False, group="safety",
    ),
    Option(
        "snapshot_interval", "int", "Backup every N iterations",
        "Saves and makes a backup whenever another N iterations are done, besides those of autobackup_hour. 0 switches "
        "it off.",
        advice="With a fixed number of iterations between them backups can be compared; 25000 is usual.",
        default=0, low=0, high=100_000_000, ask="advance", stored=False, group="safety",
    ),
    Option(
        "max_backups_gb", "float", "Maximum size of all backups in GB",
        "Drops the oldest backups until all of them take no more than this; the newest always stays. 0 sets no limit.",
        advice="On a small or shared disk.",
        default=0.0, low=0.0, high=1e6, ask="advance", stored=False, group="safety",
    ),
    Option(
        "collapse_guard", "bool", "Collapse guard",
        "Leaves out iterations that are not finite and watches for a collapse: then nothing is saved over the good "
        "files, the last good state comes back once with milder settings, and a second collapse ends the training.",
        advice="Leave it on; off only to see what DFL would do.",
        default=True, ask="advance", stored=False, group="safety",
    ),
)  # fmt: skip

PANEL = (
    Option(
        "force_full_preview", "bool", "Use old preview panel",
        "All five columns on one page, src, dst and what is drawn of them, also above 256 px, where there are three "
        "pages of two columns otherwise.",
        advice="With the wheel of the mouse the window shows such a page in full size.",
        default=False, ask="advance", stored=False, group="preview",
    ),
)  # fmt: skip

MEMORY = (
    Option(
        "accumulate", "int", "Batches per iteration",
        "So many batches make one iteration: the network sees one after the other and learns from all of them "
        "together, as from one large batch. An iteration takes so many times longer; memory is needed for one batch "
        "only.",
        advice="Where the batch that you want does not fit: 2 batches of 4 learn as one of 8.",
        default=1, low=1, high=64, ask="advance", stored=False, group="memory",
    ),
    Option(
        "keep_graph", "bool", "Keep the graphs of both sides",
        "Draws src and dst together, then learns from both. Off, one side comes after the other: the same is learned, "
        "up to half of the batch's memory is saved, and iterations are slower.",
        advice="Leave it on unless memory is short.",
        default=True, ask="advance", stored=False, group="memory",
    ),
    Option(
        "checkpointing", "bool", "Gradient checkpointing",
        "Keeps less of what the network computes and computes it once more when it learns from it: the same is "
        "learned, iterations take a quarter to a third longer, and less memory is needed for each face.",
        advice="Where keep_graph off is not enough.",
        default=False, ask="advance", stored=False, group="memory",
    ),
)  # fmt: skip
MEMORY_KEYS = tuple(row.key for row in MEMORY)

SAMPLES = (
    Option(
        "augment_on", "choice", "Make samples on",
        "Who warps, flips and recolours the faces. cpu: the sample workers, with OpenCV. device: the device that "
        "trains, with PyTorch, whole batches at a time; faces are uploaded once and kept there as far as there is room "
        "(--device-cache-mb), and the workers only prepare them. The samples are the same within small differences; "
        "every mode of colour transfer is done there. A device that lacks an operation goes back to cpu and says so.",
        advice="device where a graphics card waits for its samples. On a CPU it is slower than cpu.",
        default="cpu", choices=("cpu", "device"), ask="advance", stored=False, group="samples",
    ),
    Option(
        "cpu_cap", "int", "Max cpu cores to use.",
        "How many processor cores may make samples, one process each; never more than there are. --workers sets the "
        "number of processes itself.",
        advice="Lower it to keep the computer free for other work, raise it on a machine with many cores when the "
        "line shows that training waits for data.",
        default=8, low=1, high=256, ask="advance", stored=False, group="samples",
    ),
    Option(
        "pin_samples", "bool", "Pin samples",
        "Copies batches to an NVIDIA, AMD or Intel card through locked memory, while the card computes. Without effect "
        "on other devices.",
        advice="Leave it on; off only where locked memory is short.",
        default=True, ask="advance", stored=False, group="samples",
    ),
)  # fmt: skip

CACHE = (
    Option(
        "use_cache", "bool", "Use face cache",
        "Keeps the faces as the model needs them on the disk too, in a folder .face_cache_<suffix> beside the model, "
        "so that the next start does not prepare them again. Another resolution or face type has its own; a face that "
        "was changed is prepared anew.",
        advice="For sets of which main memory does not hold all faces, and for large sets that are started often.",
        default=False, ask="advance", stored=False, group="cache",
    ),
    Option(
        "folder_suffix", "text", "Face cache folder suffix",
        "The end of the name of that folder. Models in one folder that have the same suffix share what is there.",
        advice="Another one for each project makes it easy to delete what is done with.",
        default="default", check=check_suffix, shown="letters, digits, dots and dashes", when=keeps_faces,
        condition=IF_KEPT, ask="advance", stored=False, group="cache",
    ),
    Option(
        "image_type", "choice", "Face cache image type",
        "How the pictures are kept: raw as they are, png smaller without any loss, jpg an eighth to a twentieth of raw "
        "with a little noise that grows as the resolution falls. Masks never lose anything.",
        advice="raw is the fastest; jpg where the disk is small or slow. png is slower than preparing a face anew from "
        "512 px on.",
        default="raw", choices=("raw", "png", "jpg"), when=keeps_faces, condition=IF_KEPT, ask="advance", stored=False,
        group="cache",
    ),
    Option(
        "image_quality", "int", "Face cache image quality",
        "Quality of jpg. The other types have none.",
        advice="95 changes a pixel by about 1 of 255 on average.",
        default=95, low=1, high=100, when=keeps_jpg, condition="if the image type of the face cache is jpg",
        ask="advance", stored=False, group="cache",
    ),
    Option(
        "force_recache", "bool", "Force recache",
        "Empties the folder once at this start, whatever other models keep there.",
        advice="Never needed for changed faces: they are noticed.",
        default=False, when=keeps_faces, condition=IF_KEPT, ask="advance", stored=False, once=True, group="cache",
    ),
    Option(
        "max_cache_gb", "float", "Maximum size of the face cache in GB",
        "No more is kept on the disk than this; what no training has used for longest goes first. 0 takes up to a "
        "quarter of what is free there.",
        advice="On a small or shared disk.",
        default=0.0, low=0.0, high=1e6, when=keeps_faces, condition=IF_KEPT, ask="advance", stored=False, group="cache",
    ),
)  # fmt: skip

SPEED = (
    Option(
        "mp_mode", "choice", "Mixed precision mode",
        "What the network computes in while it trains. full: float32. full_t: float32 with TF32 in its products, on "
        "NVIDIA cards from the Ampere generation on. bfloat: bfloat16, faster where the card or processor has it, in "
        "half the memory for what a step keeps. float16: the same for older cards, with a scaled loss; gradients are "
        "then always clipped. Weights, optimizer, losses, files and previews stay float32 in every mode. What the "
        "device cannot do is refused.",
        advice="bfloat on NVIDIA cards from the Ampere generation on and on processors with bfloat16; float16 only "
        "where there is no bfloat16.",
        default="full", choices=PRECISIONS, ask="advance", stored=False, group="speed",
    ),
    Option(
        "compile", "choice", "Compile the network",
        "default: PyTorch's compiler makes one piece of what lies between convolutions. max: it also tries several "
        "ways of each product and, on NVIDIA and AMD cards, records the step as CUDA graphs, which takes more memory. "
        "The first iterations then take minutes, at every start and after a change of the batch. Results differ in the "
        "last digits. Where compiling fails (it needs Triton for a card, a C++ compiler for a processor) training goes "
        "on without it and says so.",
        advice="For long trainings on a graphics card, where it is not measured yet. On processors it gained nothing.",
        default="off", choices=MODES, ask="advance", stored=False, group="speed",
    ),
)  # fmt: skip

RUNNING = (*HISTORY, *SAFETY, *MEMORY, *SAMPLES, *CACHE, *SPEED)
