"""`main.py util`: what a folder of aligned faces needs besides training.

    python main.py util --input-dir workspace/data_src/aligned --pack-faceset
    python main.py util --input-dir workspace/data_src/aligned --save-faceset-metadata

Nothing is deleted before what replaces it was written, flushed to the disk and read back.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from core.options import Option
from mainscripts.flags import folder
from mainscripts.job import Job, run_job
from mainscripts.verb import EXIT_FAILED, EXIT_OK

PERSONS = Option(
    "person_faceset", "bool", "subdirectories found, process as person faceset?",
    "Every sub-folder becomes a person of the pack: good for pretraining, which then draws all persons. n packs the "
    "pictures beside the sub-folders only.",
    default=True, stored=False,
)  # fmt: skip
DELETE = Option(
    "delete_original", "bool", "Delete original files?",
    "The pictures are in the pack now, byte for byte: this was checked. --unpack-faceset brings them back. n keeps "
    "both; the pack is what training reads then.",
    default=True, stored=False,
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DFL's flags, then ours."""
    dfl = parser.add_argument_group("as in DeepFaceLab")
    dfl.add_argument("--input-dir", type=folder, required=True, metavar="DIR", help="the folder of aligned faces")
    what = dfl.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--save-faceset-metadata", action="store_const", const=save, dest="work",
        help="keep the face data of all pictures in meta.dat, before editing them in other programs",
    )  # fmt: skip
    what.add_argument(
        "--restore-faceset-metadata", action="store_const", const=restore, dest="work",
        help="put face data that an editing program dropped back into the pictures",
    )  # fmt: skip
    what.add_argument(
        "--pack-faceset", action="store_const", const=pack, dest="work", help="all faces into one faceset.pak"
    )
    what.add_argument(
        "--unpack-faceset", action="store_const", const=unpack, dest="work", help="faceset.pak back into pictures"
    )
    ours = parser.add_argument_group("facesmith's own")
    ours.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="sets",
        help=f"answer a question in advance: --set {DELETE.key}=y, --set {PERSONS.key}=n",
    )  # fmt: skip
    ours.add_argument(
        "--ask", action="store_true", help="read answers from standard input, one a line, when it is no terminal"
    )


def run(args: argparse.Namespace) -> int:
    """Does one of the works; see main.main for the exit codes. 1 also where a picture could not be
    restored or unpacked."""
    return run_job(args.work, args, (PERSONS, DELETE))


def save(job: Job) -> int:
    from samplelib import metafile
    from samplelib.faceset import META

    with job.progress("Reading") as report:
        count, kept = metafile.save_metadata(job.folder, job.say, report)
    earlier = f", {kept:,} of them from the {META} that was there" if kept else ""
    job.say(f"{job.folder / META}: face data of {count:,} pictures{earlier}.")
    job.say(
        "Edit the pictures now: keep their names, save as JPG, do not crop or turn them; another size is fine. Then "
        "restore the metadata."
    )
    return EXIT_OK


def restore(job: Job) -> int:
    from samplelib import metafile
    from samplelib.faceset import META

    with job.progress("Restoring") as report:
        result = metafile.restore_metadata(job.folder, job.say, job.disk, report)
    job.say(f"{result.mended:,} pictures got their face data back, {result.whole:,} had them.")
    if result.scaled:
        job.say(f"{result.scaled:,} of the mended have another size now: their data were scaled, no pixel was changed.")
    if result.own:
        job.say(f"{result.own:,} have face data of their own, unlike those in {META}: theirs were kept.")
    if result.kept:
        job.say(f"{META} stays, as it holds what is not in the pictures. Delete it when you need it no more.")
    return EXIT_FAILED if result.problems else EXIT_OK


def pack(job: Job) -> int:
    from samplelib import packing
    from samplelib.pack import NAME

    count = len(packing.folders_inside(job.folder)) if job.folder.is_dir() else 0
    persons = count > 0 and job.answer(_counted(PERSONS, count), unasked=True)
    left: list[str] = []

    def warn(line: str) -> None:
        left.append(line)
        job.say(line)

    with job.progress("Packing") as report:
        pictures = packing.pack_folder(job.folder, persons, warn, job.disk, report)
    size = (job.folder / NAME).stat().st_size
    job.say(f"{job.folder / NAME}: {len(pictures):,} faces, {size / 1e6:,.1f} MB, checked against the files.")
    if left:
        job.say("What was not packed stays beside it, and is not looked at in training.")
    if job.answer(DELETE, unasked=False):
        kept = packing.delete_originals(job.folder, pictures, job.disk)
        job.say(f"{len(pictures) - len(kept):,} files deleted.")
        if kept:
            job.say(f"{len(kept):,} were changed meanwhile and stay, such as {kept[0].name}.")
    elif job.terminal is None and DELETE.key not in job.given:
        job.say(f"The files stay, as nobody could be asked: --set {DELETE.key}=y deletes them.")
    return EXIT_OK


def unpack(job: Job) -> int:
    from samplelib import packing
    from samplelib.pack import NAME

    with job.progress("Unpacking") as report:
        done, problems = packing.unpack_folder(job.folder, job.say, job.disk, report)
    job.say(f"{job.folder}: {done:,} pictures, as they were packed.")
    if problems:
        job.say(f"{NAME} stays, as it holds what is not in the folder.")
        return EXIT_FAILED
    job.say(f"{NAME} deleted.")
    return EXIT_OK


def _counted(row: Option, count: int) -> Option:
    """The question as DFL asks it, with the number of folders in it."""
    return replace(row, label=f"{count} {row.label}")
