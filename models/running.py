"""Option rows of how a training runs, not of what it learns: none of them changes a weight of a model that is well
(`augment_on`: but for rounding in the samples).

They are never asked; `--set` answers them in advance. Where DFL or a fork has one, its key and label are kept.
"""

from __future__ import annotations

from core.options import Option

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
