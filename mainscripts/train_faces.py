"""Whose faces are trained on: those of src and dst, or for pretraining one faceset of many people on both sides.

src and dst are opened before the first question, so that a mistake is found early. Pretraining does without them:
where it is possible their errors wait until the answers say that they are needed.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.batch import SampleRequest
from core.options import OptionError, Values
from samplelib import labelled, segments
from samplelib.diskcache import DiskSettings
from samplelib.facecoding import Coding
from samplelib.faceset import Faceset, FacesetError
from samplelib.process import suitable

Say = Callable[[str], None]
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Folders:
    """The facesets of the command line. problem: why src and dst cannot be trained on, or None. pretraining: the
    folder of --pretraining-data-dir, not opened yet."""

    sides: dict[str, Faceset]
    problem: FacesetError | None
    pretraining: Path | None


def open_folders(args: argparse.Namespace, say: Say, tick: Tick) -> Folders:
    """src and dst, without decoding a picture; tick is told of each face how many were looked at, and of how many.

    Raises FacesetError for a folder of no use, unless pretraining may do without it.
    """
    pretraining: Path | None = args.pretraining_data_dir
    sides: dict[str, Faceset] = {}
    for side, folder in (("src", args.training_data_src_dir), ("dst", args.training_data_dst_dir)):
        try:
            sides[side] = _open(folder, side, say, tick)
        except FacesetError as error:
            if pretraining is None:
                raise
            if not pretraining.is_dir():
                raise FacesetError(
                    f"{error}\nOnly pretraining does without, and --pretraining-data-dir {pretraining} is no folder."
                ) from None
            say(f"{side}: {error} Only pretraining does without.")
            return Folders({}, error, pretraining)
    return Folders(sides, None, pretraining)


def choose_faces(
    folders: Folders, values: Values, requests: Mapping[str, SampleRequest], say: Say, tick: Tick
) -> dict[str, Faceset]:
    """The faces of each side, those that cannot show the model's area left out.

    Raises FacesetError for faces of no use, OptionError where pretraining is asked for without --pretraining-data-dir.
    """
    if values.get("pretrain"):
        request = next(iter(requests.values()))
        return dict.fromkeys(requests, _pretraining_faces(folders.pretraining, request, say, tick))
    if folders.problem is not None:
        raise folders.problem
    return {
        side: suitable(
            labelled.choose(list(folders.sides.values()), say) if request.labelled else folders.sides[side],
            request, _named(say, side),
        )
        for side, request in requests.items()
    }  # fmt: skip


def face_cache(folder: Path, values: Values, emptied: set[Path]) -> DiskSettings | None:
    """Where faces are kept on the disk; None where none are. folder: of the models. emptied: what a run has emptied
    already, as it does once if that is wanted."""
    if not values["use_cache"]:
        return None
    place = folder / f".face_cache_{values['folder_suffix']}"
    if values["force_recache"] and place not in emptied:
        segments.empty(place)
        emptied.add(place)
    coding = Coding(values["image_type"], values["image_quality"])
    return DiskSettings(place, coding, int(values["max_cache_gb"] * 1e9))


def _pretraining_faces(folder: Path | None, request: SampleRequest, say: Say, tick: Tick) -> Faceset:
    if folder is None:
        raise OptionError(
            "pretrain: pretraining needs faces of many people, and --pretraining-data-dir is not given. Give a faceset "
            "with --pretraining-data-dir DIR, or switch pretraining off (--set pretrain=n)."
        )
    try:
        faces = suitable(_open(folder, "pretraining", say, tick), request, _named(say, "pretraining"))
    except FacesetError as error:
        raise FacesetError(
            f"--pretraining-data-dir: {error}\nGive a faceset of many people, or switch pretraining off "
            "(--set pretrain=n)."
        ) from None
    say(f"Pretraining on {len(faces):,} faces of {folder}.")
    return faces


def _open(folder: Path, name: str, say: Say, tick: Tick) -> Faceset:
    tell = _named(say, name)
    faces = Faceset.open(folder, tell, tick)
    for line in faces.summary():
        tell(line)
    if faces.news:
        tell(faces.news)
    return faces


def _named(say: Say, name: str) -> Say:
    return functools.partial(_say_of, say, name)


def _say_of(say: Say, name: str, text: str) -> None:
    say(f"{name}: {text}")
