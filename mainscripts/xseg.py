"""`main.py xseg`: masks and labels of a folder of aligned faces.

    python main.py xseg apply --input-dir workspace/data_dst/aligned --model-dir workspace/model
    python main.py xseg fetch --input-dir workspace/data_dst/aligned

Only the face data of the JPGs are changed: no pixel, and nothing else that stands there.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from core.options import Option
from facelib.facetype import SHORT
from mainscripts.flags import folder
from mainscripts.job import Job, run_job
from mainscripts.verb import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    import numpy as np

    from core.modeldir import ModelDir
    from models.xseg import XSegTask
    from samplelib.masking import Outcome

FACE_TYPE = Option(
    "face_type", "choice", "Face type",
    "What the masks of this model are for: there is no XSeg_data.dat beside it that says so. same takes every face as "
    "it is.",
    default="same", choices=(*SHORT, "same"), stored=False,
)  # fmt: skip
REMOVE = Option(
    "remove", "bool", "Remove the applied masks?",
    "The masks that an XSeg model gave to the faces are deleted; labelled polygons and pixels stay. Applying the model "
    "again brings them back.",
    default=True, stored=False,
)  # fmt: skip
REMOVE_LABELS = Option(
    "remove_labels", "bool", "Remove the labelled polygons?",
    "The polygons that were drawn by hand are deleted, and nothing brings them back: fetch copies of the labelled "
    "faces first (main.py xseg fetch).",
    default=True, stored=False,
)  # fmt: skip
DELETE = Option(
    "delete_original", "bool", "Delete original files?",
    "The labelled faces lie in the new folder now. y deletes them where they were; n keeps both.",
    default=True, stored=False,
)  # fmt: skip
COMMANDS = {
    "apply": ("give every face the mask that a trained XSeg model sees", (FACE_TYPE,)),
    "remove": ("delete the masks that were applied", (REMOVE,)),
    "remove_labels": ("delete the polygons that were drawn by hand", (REMOVE_LABELS,)),
    "fetch": ("copy the faces with polygons into a folder beside, <folder>_xseg", (DELETE,)),
}
BATCHES = {"cpu": 4, "card": 16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DFL's commands and flags, then ours."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (phrase, rows) in COMMANDS.items():
        each = commands.add_parser(name, help=phrase, description=f"{phrase[:1].upper()}{phrase[1:]}.")
        dfl = each.add_argument_group("as in DeepFaceLab")
        dfl.add_argument("--input-dir", type=folder, required=True, metavar="DIR", help="the folder of aligned faces")
        if name == "apply":
            dfl.add_argument("--model-dir", type=folder, required=True, metavar="DIR", help="where the model is")
        ours = each.add_argument_group("facesmith's own")
        if name == "apply":
            ours.add_argument("--cpu-only", action="store_true", help="work on the processor")
        ours.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", dest="sets",
            help=f"answer the question in advance: --set {rows[0].key}={rows[0].show(rows[0].default)}",
        )  # fmt: skip
        ours.add_argument("--ask", action="store_true", help="read the answer from standard input, if no terminal")


def run(args: argparse.Namespace) -> int:
    """Does one command; see main.main for the exit codes. 1 also where a face could not be changed."""
    work = {"apply": apply, "remove": remove, "remove_labels": remove, "fetch": fetch}[args.command]
    return run_job(work, args, COMMANDS[args.command][1])


def _end(job: Job, outcome: Outcome) -> int:
    for line in outcome.problems:
        job.say(line)
    return EXIT_FAILED if outcome.problems else EXIT_OK


def apply(job: Job) -> int:
    import hashlib

    import numpy as np

    from core.modeldir import ModelDir
    from samplelib import masking
    from samplelib.faceset import Faceset

    masking.refuse_pack(job.folder)
    directory = ModelDir(job.args.model_dir, "XSeg", "XSeg")
    faces = Faceset.open(job.folder, job.say)
    task, face_type, device = _load(directory, job)
    kind = "cpu" if device == "cpu" else "card"
    told = "as they are" if face_type is None else f"as {face_type}"
    job.say(f"{directory.full_name} at iteration {task.iteration:,} looks at {len(faces):,} faces {told}.")

    def mask_of(images: np.ndarray) -> np.ndarray:
        return np.asarray(task.mask(images)[:, 0].cpu().numpy())

    digest = hashlib.sha256(directory.part_path(task.stem).read_bytes()).hexdigest()
    done = masking.Done(job.folder, f"{digest} {face_type}")
    with job.progress("Applying") as report:
        outcome = masking.apply(faces, mask_of, task.resolution, face_type, BATCHES[kind], done, report)
    done.over()
    same = f", {outcome.same:,} had theirs already" if outcome.same else ""
    job.say(f"{outcome.changed:,} faces got their mask{same}.")
    return _end(job, outcome)


def _load(directory: ModelDir, job: Job) -> tuple[XSegTask, str | None, str]:
    """The model as last saved, DFL's long name of its face type (None: any), and PyTorch's name of the device."""
    from core import device as devices
    from core.modeldir import ModelError
    from models import MODELS
    from models.xseg import XSegTask

    spec = MODELS["XSeg"]
    options = {}
    if directory.data_path.exists():
        data = directory.read_data()
        if not data.iter:
            job.say(f"{directory.data_path.name} counts 0 iterations: the weights beside it are taken as they are.")
        options = data.options
    device = devices.CPU if job.args.cpu_only else devices.best(devices.gpus())
    values = spec.resolve({}, options)
    task = spec.build(values, device=device.torch_name, training=False)
    assert isinstance(task, XSegTask)
    if directory.missing(task.network_parts):
        raise ModelError(
            f"{directory.part_path(task.stem)}: no such file. Train XSeg first (main.py train --model XSeg), or copy a "
            "trained one there."
        )
    for note in task.load(directory.folder, directory.name):
        job.say(note)
    if options:
        return task, SHORT[values["face_type"]], device.torch_name
    chosen = str(job.answer(FACE_TYPE, "same"))
    return task, None if chosen == "same" else SHORT[chosen], device.torch_name


def remove(job: Job) -> int:
    from samplelib import masking

    labels = job.args.command == "remove_labels"
    key, what = (masking.LABELS, "labelled polygons") if labels else (masking.MASK, "an applied mask")
    with job.progress("Reading") as report:
        found = masking.holding(masking.jpegs(job.folder), key, job.say, report)
    job.say(f"{len(found):,} faces with {what}.")
    row = REMOVE_LABELS if labels else REMOVE
    if not found or not job.answer(row, unasked=not labels):  # what nothing brings back is not removed unasked
        if found and job.terminal is None and not job.given:
            job.say(f"They stay, as nobody could be asked: --set {row.key}=y removes them.")
        return EXIT_OK
    with job.progress("Removing") as report:
        outcome = masking.remove(found, key, report)
    job.say(f"Removed from {outcome.changed:,} faces.")
    return _end(job, outcome)


def fetch(job: Job) -> int:
    from samplelib import masking

    target = job.folder.with_name(f"{job.folder.name}_xseg")
    with job.progress("Reading") as report:
        found = masking.holding(masking.jpegs(job.folder), masking.LABELS, job.say, report)
    if not found:
        job.say(f"{job.folder}: no face with labelled polygons.")
        return EXIT_OK
    with job.progress("Copying") as report:
        outcome = masking.fetch(found, target, report)
    job.say(f"{target}: {outcome.changed + outcome.same:,} labelled faces.")
    if not outcome.problems and job.answer(DELETE, False):
        for path in found:
            job.disk.unlink(path)
        job.say(f"{len(found):,} files deleted from {job.folder}.")
    elif job.terminal is None and not job.given:
        job.say(f"The files stay where they were: --set {DELETE.key}=y deletes them.")
    return _end(job, outcome)
