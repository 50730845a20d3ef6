"""The faces of the preview history: those stored with the model, the first ones, those that the user picks in the
window or names; and where its pictures go when iterations are counted from 0 again."""

from __future__ import annotations

import contextlib
import difflib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from core import previewsample
from core.batch import Batch, SampleRequest, Side
from core.events import Command, Commands, Previewed, Warned
from core.modeldir import LossHistory, ModelDir
from core.options import OptionError, Values
from core.preview import MAX_ROWS
from core.stages import FACES, Stages
from mainscripts.samples import as_arrays
from mainscripts.train_sinks import Sinks
from models import Task
from samplelib.faceset import Faceset
from samplelib.loader import Loader

if TYPE_CHECKING:
    from mainscripts.train_setup import Setup

HISTORY_SEED = 0x5EED


def find_faces(
    words: Sequence[str] | None, values: Values, facesets: Mapping[str, Faceset]
) -> dict[str, list[int]] | None:
    """--history-faces SRC DST, names separated by commas -> places in the facesets, equally many of each side, the
    shorter list repeated. Raises OptionError for what cannot be."""
    if words is None:
        return None
    if not values["write_preview_history"]:
        raise OptionError("--history-faces: no preview history is written. Add --set write_preview_history=y.")
    if list(facesets) != ["src", "dst"]:
        raise OptionError(f"--history-faces: this model has the faces {', '.join(facesets)}, and needs src and dst.")
    found = {side: _places(side, text, facesets[side]) for side, text in zip(facesets, words, strict=True)}
    rows = max(map(len, found.values()))
    if rows > MAX_ROWS:
        raise OptionError(f"--history-faces: got {rows} faces, allowed are {MAX_ROWS}: one for each row of a preview.")
    return {side: [places[row % len(places)] for row in range(rows)] for side, places in found.items()}


def _places(side: str, text: str, faces: Faceset) -> list[int]:
    known = {face.filename: index for index, face in reversed(list(enumerate(faces)))}
    known |= {name: known[face] for face in known if (name := PurePath(face).stem) not in known}
    places = []
    for word in filter(None, map(str.strip, text.split(","))):
        name = PurePath(word).name
        if name not in known:
            near = difflib.get_close_matches(name, known, 3) or sorted(known)[:3]
            raise OptionError(f"--history-faces: {side} has no face {name!r}. There is {', '.join(near)}.")
        places.append(known[name])
    if not places:
        raise OptionError(f"--history-faces: got no name for {side}. Give names of its faces, separated by commas.")
    return places


@dataclass
class HistoryFaces:
    """Who makes samples (`start(**settings)` a Loader that computes here), whom to show them, who may end it."""

    setup: Setup
    task: Task
    sinks: Sinks
    stages: Stages
    commands: Commands
    asked: threading.Event
    start: Callable[..., Any]

    def batch(self) -> Batch | None:
        """The fixed faces; new ones are stored with the model. They are drawn apart from the training's samples, whose
        order stays."""
        setup, task = self.setup, self.task
        stored = previewsample.from_stored(task.data.sample_for_preview, setup.requests)
        if not setup.values["write_preview_history"]:
            return stored
        choose = bool(setup.values["choose_preview_history"])
        setup.values["choose_preview_history"] = False  # once: not again when other options change
        if setup.history_faces is not None:
            batch = self._named(setup.history_faces)
            setup.history_faces = None
        elif choose and self.sinks.has_window():
            batch = self._picked()
        elif choose or stored is None:
            if stored is not None:
                self.stages.say("There is no window to choose faces in: the preview history gets others at random.")
            batch = self._next_ones(task.iteration)
        else:
            return stored
        task.data.sample_for_preview = previewsample.to_stored(batch)
        return previewsample.from_stored(task.data.sample_for_preview, setup.requests)

    def _rows(self) -> int:
        return max(int(self.setup.values["batch_size"]), int(self.setup.values["preview_samples"]))

    def _next_ones(self, position: int) -> Batch:
        self.stages.iterate("faces of the preview history", FACES)
        # Always made by OpenCV: the faces stored with a model do not depend on who makes its samples.
        with self.start(seed=self.setup.seed ^ HISTORY_SEED, size=self._rows(), position=position) as loader:
            batch = as_arrays(next(loader)).map(np.copy)
        self.stages.rest()
        return batch

    def _picked(self) -> Batch:
        """Those that are shown when the user takes them."""
        task = self.task
        self.stages.say(
            "Choose the faces of the preview history in the window: p shows the next ones, space the next page, "
            "Enter takes them."
        )
        self.sinks.listen()
        with self.start(seed=self.setup.seed ^ HISTORY_SEED, size=self._rows(), position=0) as loader:
            while True:
                self.stages.iterate("faces of the preview history", FACES)
                batch = as_arrays(next(loader)).map(np.copy)
                self.stages.rest()
                self.sinks.emit(Previewed(task.iteration, task.preview(batch), captions=task.captions(batch)))
                command = next_command(self.commands, self.sinks.has_window)
                if self.asked.is_set():
                    raise KeyboardInterrupt
                if command is None or command.name == "stop":
                    return batch

    def _named(self, places: Mapping[str, list[int]]) -> Batch:
        """The named faces in their order, as they are: neither mirrored nor turned."""
        straight = {
            side: replace(request, flip=False, uniform_yaw=False, rotation=0.0, scale=0.0, shift=0.0)
            for side, request in self.setup.requests.items()
        }
        pairs = [dict(zip(places, pair, strict=True)) for pair in zip(*places.values(), strict=True)]
        rows = [self._one(pair, straight) for pair in pairs]
        return Batch(
            **{
                side: Side(**{name: np.concatenate([row[side][name] for row in rows]) for name in request.names})
                for side, request in straight.items()
            }
        )

    def _one(self, places: Mapping[str, int], requests: Mapping[str, SampleRequest]) -> Batch:
        def warn(text: str) -> None:
            self.sinks.emit(Warned(text.partition("\n")[0]))

        faces = {side: self.setup.facesets[side].subset([place]) for side, place in places.items()}
        with Loader(faces, dict(requests), 1, seed=self.setup.seed ^ HISTORY_SEED, workers=0, warn=warn) as loader:
            return next(loader).map(np.copy)


def next_command(commands: Commands, anybody: Callable[[], bool]) -> Command | None:
    """The next `preview` or `stop`, or None once nobody is there to give one."""
    while anybody():
        with contextlib.suppress(queue.Empty):
            command = commands.get(timeout=0.5)
            if command.name in ("preview", "stop"):
                return command
    return None


def count_anew(
    setup: Setup, task: Task, say: Callable[[str], None], now: Callable[[], datetime] = datetime.now
) -> None:
    """reset_iterations: iterations and losses from 0, once; weights, optimizer and the order of the samples go on.
    Where a count begins, after pretraining too, pictures of an earlier one, whose names would come again, are moved."""
    reset, setup.values["reset_iterations"] = setup.values["reset_iterations"], False
    if reset and task.iteration == 0:
        say("reset_iterations: this count has just begun, so there is nothing to reset.")
    elif reset:
        say(f"Iterations and losses count from 0 again, at {task.iteration:,} iterations. Weights and optimizer stay.")
        setup.data = task.data = replace(task.data, iter=0, loss_history=LossHistory())
    if task.iteration == 0 and setup.directory.history_folder.is_dir():
        say(_put_away(setup.directory, now()))


def _put_away(directory: ModelDir, now: datetime) -> str:
    """The history folder under a name that tells when its count ended; returns what to say."""
    history = directory.history_folder
    place = directory.path(f"facesmith_history_{now:%Y-%m-%d_%H-%M-%S}")
    try:
        history.rename(place)
    except OSError as error:
        reason = error.strerror or error
        return f"Warning: {history} cannot be moved ({reason}): new pictures will replace those of the same iteration."
    return f"The pictures of the preview history so far are in {place.name} now."
