"""The saved models of one class in a folder: renamed, and thrown away into a folder from which they can come back.

Both move every file and folder named `<name>_<Class>_*`, and nothing else: neither another model's nor that of another
class of the same name. Many moves are not one: a note tells where they were going, so that what was interrupted is
finished by the next look at the list. data.dat goes last, so a model is seen under its old name until all is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from core import ownjson
from core.disk import DISK, Disk, remedy
from core.modeldir import ModelDir, ModelError, saved_models
from core.options import OptionError
from core.prompts import check_name

NOTE, LOCK = "facesmith_moving.json", "facesmith_lock"
TRASH = ".facesmith_trash"
"""DFL's own rename splits every name in the folder at its first `_`: no model of DFL's is called `.facesmith`."""

_FORMAT = 1
_MAX_BYTES = 1 << 16


class ModelShelf:
    """What `core.prompts.Shelf` promises. now: for the name of a folder in the trash."""

    def __init__(
        self, folder: Path, class_name: str, disk: Disk = DISK, now: Callable[[], datetime] = datetime.now
    ) -> None:
        self.folder, self.class_name, self._disk, self._now = folder, class_name, disk, now

    def names(self) -> Sequence[str]:
        return saved_models(self.folder, self.class_name)

    def rename(self, old: str, new: str) -> str:
        """Raises OptionError where the new name is no name or is taken, or the model is being trained."""
        new = check_name(new)
        if new == old:
            raise OptionError(f"{old} is its name already.")
        start = self._prefix(new).casefold()  # many disks tell no case apart
        taken = sorted(
            path.name
            for path in self.folder.iterdir()
            if path.name.casefold().startswith(start)
            and not path.name.endswith(LOCK)
            and not path.name.startswith(self._prefix(old))
        )
        if taken:
            raise OptionError(f"There is {taken[0]} already: take another name, or rename that model first.")
        self._asked(old, self.folder, new)
        return f"{old} is called {new} now."

    def about(self, name: str) -> str:
        model = ModelDir(self.folder, name, self.class_name)
        size = sum(path.stat().st_size for path in model.files())
        known = model.about()
        iteration = f"iteration {known.iteration:,}, " if known is not None else ""
        backups = len(model.backups())
        return f"{model.full_name}: {iteration}{size / 1e6:,.1f} MB, {backups} backup{'' if backups == 1 else 's'}."

    def delete(self, name: str) -> str:
        """Raises OptionError where the model is being trained."""
        trash = self.folder / TRASH / f"{name}_{self.class_name}_{self._now():%Y-%m-%d_%H-%M-%S}"
        if trash.exists():
            raise OptionError(f"{trash} is there already: try again in a second.")
        self._asked(name, trash, name)
        return f"{name} lies in {trash} now. To have it back, move its files from there to {self.folder}."

    def finish(self) -> list[str]:
        """Completes what was interrupted; returns lines for the user. Raises ModelError, OSError."""
        ending = f"_{self.class_name}_{NOTE}"
        notes = sorted(self.folder.glob(f"*{ending}")) if self.folder.is_dir() else []
        lines = []
        for note in notes:
            name = note.name[: -len(ending)]
            try:
                with note.open("rb") as file:
                    into, called = self._read(ownjson.parse(file.read(_MAX_BYTES + 1), _FORMAT, _MAX_BYTES))
            except ValueError as error:
                raise ModelError(f"{note}: {error}. Delete it; the files of {name} may lie under two names.") from None
            self._move(name, into, called)
            what = f"renaming it to {called}" if into == self.folder else f"moving it to {into}"
            lines.append(f"{name}: {what} had been interrupted, and is done now.")
        return lines

    def _read(self, stored: dict[str, object]) -> tuple[Path, str]:
        """Where files were going. Raises ValueError for a place that is none of ours."""
        trash, name = stored.get("trash"), stored.get("name")
        try:
            if not isinstance(name, str) or check_name(name) != name:
                raise ValueError("it names no model")
        except OptionError:
            raise ValueError("it names no model") from None
        if trash is None:
            return self.folder, name
        if not isinstance(trash, str) or trash in ("", ".", "..") or Path(trash).name != trash or "\\" in trash:
            raise ValueError("it names no folder of the trash")
        return self.folder / TRASH / trash, name

    def _asked(self, name: str, into: Path, called: str) -> None:
        try:
            self._move(name, into, called)
        except ModelError as error:
            raise OptionError(str(error)) from error

    def _move(self, name: str, into: Path, called: str) -> None:
        """All of a model into a folder, under a name. Raises ModelError."""
        model = ModelDir(self.folder, name, self.class_name, self._disk)
        start, disk = len(model.full_name) + 1, self._disk
        try:
            with ExitStack() as locks:
                locks.enter_context(model.lock())
                note = model.path(NOTE)
                if not note.exists():
                    told = {"format": _FORMAT, "name": called} | ({} if into == self.folder else {"trash": into.name})
                    partial = model.path(f"{NOTE}.part")
                    disk.write_file(partial, [json.dumps(told).encode()])
                    disk.replace(partial, note)
                    disk.sync_folder(self.folder)
                target = ModelDir(into, called, self.class_name)
                into.mkdir(parents=True, exist_ok=True)
                locks.enter_context(target.lock())
                for path in sorted(self._paths(name), key=lambda path: path == model.data_path):
                    if path != note:
                        disk.replace(path, target.path(path.name[start:]))
                disk.sync_folder(into)
                disk.unlink(note)
                disk.sync_folder(self.folder)
        except OSError as error:
            raise ModelError(
                f"{model.full_name} could not be moved: {error}. {remedy(error.errno, self.folder)}"
                "What was begun is finished at the next start."
            ) from error

    def _prefix(self, name: str) -> str:
        return f"{name}_{self.class_name}_"

    def _paths(self, name: str) -> list[Path]:
        """What belongs to a model, but its lock."""
        start = self._prefix(name)
        found = [path for path in self.folder.iterdir() if path.name.startswith(start)]
        return [path for path in found if path.name != start + LOCK]
