"""`main.py xseg`: masks and labels of a folder of aligned faces.

    python main.py xseg apply --input-dir workspace/data_dst/aligned --model-dir workspace/model
    python main.py xseg fetch --input-dir workspace/data_dst/aligned

Only the face data of the JPGs are changed: no pixel, and nothing else that stands there.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.disk import DISK, remedy
from core.modeldir import ModelDir, ModelError
from core.options import Option, resolve
from core.prompts import Terminal, ask_row
from core.values import parse_sets
from facelib.facetype import SHORT
from mainscripts.flags import folder
from mainscripts.verb import EXIT_FAILED, EXIT_LEFT, EXIT_OK, find_terminal, guarded, refuse
from samplelib import masking
from samplelib.faceset import Faceset

if TYPE_CHECKING:
    from models.xseg import XSegTask

Report = Callable[[int, int], None]

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
        each = commands.add_parser(name, help=phrase, description=f"{phrase.capitalize()}.")
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

    def work() -> int:
        job = Job(args, sys.stdin, sys.stdout)
        try:
            return {"apply": apply, "remove": remove, "remove_labels": remove, "fetch": fetch}[args.command](job)
        except KeyboardInterrupt:
            print("\nStopped. Nothing is lost: start it again to go on.", file=sys.stderr, flush=True)
            return EXIT_LEFT
        except OSError as error:
            why = f"{error.filename or args.input_dir}: {error.strerror or error}. "
            return refuse(f"{why}{remedy(error.errno, args.input_dir)}Start it again to go on.")

    return guarded(work)


class Job:
    """One call of the verb: its folder, whom to ask, where to say what."""

    def __init__(self, args: argparse.Namespace, stdin: TextIO, stdout: TextIO) -> None:
        self.args, self.folder = args, args.input_dir
        (self.row,) = COMMANDS[args.command][1]
        self.given = parse_sets(args.sets)
        resolve((self.row,), self.given, {}, {})  # a wrong answer is told before any work
        self.terminal: Terminal | None = find_terminal(stdin, stdout, args.ask)
        self.console = Console(file=stdout)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def answer(self, unasked: object) -> object:
        """The answer given in advance, or asked for; `unasked` where there is nobody to ask."""
        if self.row.key in self.given:
            return self.row.parse(self.given[self.row.key])
        return unasked if self.terminal is None else ask_row(self.terminal, self.row, self.row.default)

    @contextmanager
    def progress(self, what: str) -> Iterator[Report]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def end(self, outcome: masking.Outcome) -> int:
        for line in outcome.problems:
            self.say(line)
        return EXIT_FAILED if outcome.problems else EXIT_OK


def apply(job: Job) -> int:
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
    return job.end(outcome)


def _load(directory: ModelDir, job: Job) -> tuple[XSegTask, str | None, str]:
    """The model as last saved, DFL's long name of its face type (None: any), and PyTorch's name of the device."""
    from core import device as devices
    from models import MODELS
    from models.xseg import XSegTask

    spec = MODELS["XSeg"]
    options = {}
    if directory.data_path.exists():
        data = directory.read_data()
        if not data.iter:
            raise ModelError(f"{directory.full_name} has no trained weights yet (iteration 0): train it first.")
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
    chosen = str(job.answer("same"))
    return task, None if chosen == "same" else SHORT[chosen], device.torch_name


def remove(job: Job) -> int:
    labels = job.args.command == "remove_labels"
    key, what = (masking.LABELS, "labelled polygons") if labels else (masking.MASK, "an applied mask")
    with job.progress("Reading") as report:
        found = masking.holding(masking.jpegs(job.folder), key, job.say, report)
    job.say(f"{len(found):,} faces with {what}.")
    if not found or not job.answer(True):
        return EXIT_OK
    with job.progress("Removing") as report:
        outcome = masking.remove(found, key, report)
    job.say(f"Removed from {outcome.changed:,} faces.")
    return job.end(outcome)


def fetch(job: Job) -> int:
    target = job.folder.with_name(f"{job.folder.name}_xseg")
    with job.progress("Reading") as report:
        found = masking.holding(masking.jpegs(job.folder), masking.LABELS, job.say, report)
    if not found:
        job.say(f"{job.folder}: no face with labelled polygons.")
        return EXIT_OK
    with job.progress("Copying") as report:
        outcome = masking.fetch(found, target, report)
    job.say(f"{target}: {outcome.changed + outcome.same:,} labelled faces.")
    if not outcome.problems and job.answer(False):
        for path in found:
            DISK.unlink(path)
        job.say(f"{len(found):,} files deleted from {job.folder}.")
    elif job.terminal is None and not job.given:
        job.say(f"The files stay where they were: --set {DELETE.key}=y deletes them.")
    return job.end(outcome)
