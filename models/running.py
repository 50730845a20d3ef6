"""Option rows of how a training runs, not of what it learns: none of them changes a weight of a model that is well
(but for rounding in the samples with `augment_on`, and what a JPG loses with `image_type`).

They are never asked; `--set` answers them in advance. Where DFL or a fork has one, its key and label are kept.
"""

from __future__ import annotations

import re

from core.options import Option


def check_suffix(text: str) -> str:
    """The end of a folder's name; raises ValueError saying what it may be."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}", text) or text.endswith("."):
        raise ValueError("1 to 40 letters, digits, dots and dashes, the first and last no dot")
    return text


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
        default=24, low=0, high=10000, ask="advance", stored=False, group="safety",
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
        "Copies batches to an NVIDIA or AMD card through locked memory, while the card computes. Without effect on "
        "other devices.",
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
        default="default", check=check_suffix, shown="letters, digits, dots and dashes", ask="advance", stored=False,
        group="cache",
    ),
    Option(
        "image_type", "choice", "Face cache image type",
        "How the pictures are kept: raw as they are, png smaller without any loss, jpg an eighth to a twentieth of raw "
        "with a little noise that grows as the resolution falls. Masks never lose anything.",
        advice="raw is the fastest; jpg where the disk is small or slow. png is slower than preparing a face anew from "
        "512 px on.",
        default="raw", choices=("raw", "png", "jpg"), ask="advance", stored=False, group="cache",
    ),
    Option(
        "image_quality", "int", "Face cache image quality",
        "Quality of jpg. The other types have none.",
        advice="95 changes a pixel by about 1 of 255 on average.",
        default=95, low=1, high=100, ask="advance", stored=False, group="cache",
    ),
    Option(
        "force_recache", "bool", "Force recache",
        "Empties the folder once at this start, whatever other models keep there.",
        advice="Never needed for changed faces: they are noticed.",
        default=False, ask="advance", stored=False, group="cache",
    ),
    Option(
        "max_cache_gb", "float", "Maximum size of the face cache in GB",
        "No more is kept on the disk than this; what no training has used for longest goes first. 0 takes up to a "
        "quarter of what is free there.",
        advice="On a small or shared disk.",
        default=0.0, low=0.0, high=1e6, ask="advance", stored=False, group="cache",
    ),
)  # fmt: skip
