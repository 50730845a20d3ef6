"""A model's folder: DFL's file names, reading, saving, backups, summary, lock. Does not know what a tensor means.

Everything DFL does not know is named `<name>_<Class>_facesmith_*`, so that DFL's own rename and delete (which split
at the first `_`) take it along. Files are only ever replaced, never changed in place, and a save replaces all of them
or none (`core.savejournal`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from core import backups, dflfile
from core.backups import RULES, Backup, BackupRules
from core.dflfile import DflFileError
from core.disk import DISK, Disk
from core.lock import ModelLock
from core.manifest import Manifest
from core.modeldata import LossHistory as LossHistory
from core.modeldata import ModelData as ModelData
from core.modeldata import ModelError as ModelError
from core.options import Values
from core.runlog import ENDING as LOG
from core.runstate import MAX_BYTES as STATE_LIMIT
from core.runstate import RunState
from core.savejournal import JournalError, SaveJournal
from core.summary import summary

Part = dict[str, Any]
"""The content of one part file: DFL's weight name -> array."""

NAMELESS = ("XSeg",)
"""Classes of which DFL keeps one model in a folder, called as the class: `XSeg_data.dat`, `XSeg_256.npy`."""

STATE = "facesmith_state.json"
DATA_LIMIT = 1 << 30  # sample_for_preview holds float arrays: tens of MB at 640 px
READINGS = 3  # of a file that a trainer may be replacing


class ModelDir:
    """The files of model `name` of class `class_name` in `folder`; of a class without names, whatever `name` is."""

    def __init__(self, folder: str | Path, name: str, class_name: str, disk: Disk = DISK) -> None:
        alone = class_name in NAMELESS
        self.folder, self.class_name, self.disk = Path(folder), class_name, disk
        self.name = class_name if alone else name
        self.full_name = class_name if alone else f"{name}_{class_name}"
        self.data_path = self.path("data.dat")
        self.summary_path = self.path("summary.txt")
        self.state_path = self.path(STATE)
        self.log_path = self.path(LOG)
        self.history_folder = self.path("history")
        self.backups_folder = self.path("autobackups")
        self.default_options_path = self.folder / f"{class_name}_default_options.dat"
        self.journal = SaveJournal(self.path, dependent=[STATE], disk=disk)

    def path(self, ending: str) -> Path:
        return self.folder / f"{self.full_name}_{ending}"

    def part_path(self, stem: str) -> Path:
        return self.path(f"{stem}.npy")

    def missing(self, stems: Iterable[str]) -> list[str]:
        return [stem for stem in stems if not self.journal.source(f"{stem}.npy").is_file()]

    def read_part(self, stem: str) -> Part | None:
        """The arrays of a part, or None where there is no such file. Raises ModelError when it cannot be read."""
        path = self.part_path(stem)
        try:
            part = self._load(f"{stem}.npy")
        except FileNotFoundError:
            return None
        except (DflFileError, OSError) as error:
            raise ModelError(f"{error}\n{self.way_back(path)}") from error
        numeric = (np.ndarray, np.generic)
        named = isinstance(part, dict) and all(isinstance(name, str) and name.isprintable() for name in part)
        if not named or not all(isinstance(array, numeric) for array in part.values()):
            raise ModelError(f"{path}: is not a table of arrays, so it is not a part of a model. {self.way_back(path)}")
        return part

    def read_data(self) -> ModelData:
        """data.dat. Raises ModelError when it is absent or cannot be read."""
        try:
            stored = self._load("data.dat", DATA_LIMIT)
            if not isinstance(stored, dict):
                raise DflFileError(f"{self.data_path}: holds {type(stored).__name__}, not a table.")
            return ModelData.from_dict(stored)
        except FileNotFoundError:
            raise ModelError(f"No model {self.name!r} of class {self.class_name} in {self.folder}.") from None
        except (DflFileError, OSError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(
                f"{self.data_path.name} cannot be read: {error}\n{self.way_back(self.data_path)}"
            ) from error

    def way_back(self, path: Path) -> str:
        """What to do where a file cannot be used: only what there is."""
        with contextlib.suppress(OSError):
            if self.backups():
                return (
                    f'Restore a backup: python main.py model restore --model-dir "{self.folder}" '
                    f'--model {self.class_name} --force-model-name "{self.name}"'
                )
        return f"There is no backup in {self.backups_folder.name}: put another copy of {path.name} in its place."

    def read_state(self) -> RunState | None:
        """What the last save kept of the run's random state; None where there is no such file, or where another program
        has written since. Whether it belongs to data.dat is told by its iteration. Raises ModelError when it cannot be
        read or believed."""
        return None if self.journal.changed() else self._state()

    def read_kept(self) -> dict[str, Any]:
        """The options that the last save kept beside DFL's record, whatever program wrote since; none where there is no
        such file or it cannot be believed, which `read_state` tells."""
        try:
            state = self._state()
        except ModelError:
            return {}
        return dict(state.options) if state is not None else {}

    def _state(self) -> RunState | None:
        try:
            with self.journal.source(STATE).open("rb") as file:
                return RunState.from_json(file.read(STATE_LIMIT + 1))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ModelError(f"{self.state_path.name} cannot be read: {reason}.") from error

    def _load(self, ending: str, max_bytes: int = dflfile.MAX_BYTES) -> Any:
        """Raises as dflfile.load does. A trainer may be replacing the files: one that vanishes is looked for anew."""
        for _ in range(READINGS):
            try:
                return dflfile.load(self.journal.source(ending), max_bytes=max_bytes)
            except FileNotFoundError as error:
                vanished = error
        raise vanished

    def write(
        self,
        parts: Mapping[str, Part],
        data: ModelData,
        values: Values,
        device: str = "CPU",
        state: RunState | None = None,
        report: Callable[[int, int], object] = lambda done, total: None,
    ) -> None:
        """Replaces the whole set or, raising OSError, leaves the old one. Parts that are not given stay. Without a
        state the one of an earlier save is removed, as it tells nothing of these files. report: see
        `SaveJournal.save`."""
        contents: dict[str, Iterable[bytes | memoryview]] = {
            f"{stem}.npy": dflfile.chunks(part) for stem, part in parts.items()
        }
        contents["data.dat"] = data.chunks()
        session = values.get("session_name", "")
        text = summary(self.full_name, data.iter, data.options, values.forced(), device, session, values.kept)
        contents["summary.txt"] = [text.encode()]
        if state is not None:
            contents[STATE] = [state.to_json()]
        self.folder.mkdir(parents=True, exist_ok=True)
        removed = [STATE] if state is None else []
        self.journal.save(contents, data.iter, data.loss_history.recent(), removed, report)

    def recover(self) -> list[str]:
        """Ends a save that was interrupted, and gives way to files that another program wrote: to be called, with the
        model locked, before it is opened for training. Returns lines for the user; none where nothing was amiss.
        Raises ModelError where only a backup helps."""
        try:
            return self.journal.recover()
        except JournalError as error:
            raise ModelError(f"{self.folder}: {error}") from error

    def read_default_options(self) -> dict[str, Any]:
        """Options of the first model of this class, DFL's defaults for the next; empty where there are none."""
        try:
            options = dflfile.load(self.default_options_path, max_bytes=1 << 24)
        except FileNotFoundError:
            return {}
        except (DflFileError, OSError) as error:
            raise ModelError(f"{error}\nDelete {self.default_options_path.name} to go on without it.") from error
        return dict(options) if isinstance(options, dict) else {}

    def write_default_options(self, options: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        dflfile.write_bytes(self.default_options_path, dflfile.dumps(dict(options)))

    def files(self) -> list[Path]:
        """The model's files as last saved (parts, data.dat, summary, run state), without folders, pictures and lock."""
        # A user's model may be called as a class without names, so of these only what is known is theirs.
        alone = r"\d+(_opt)?\.npy|data\.dat|summary\.txt"
        dfl = alone if self.class_name in NAMELESS else r"(?!facesmith_).*\.(npy|dat|txt)"
        own = rf"facesmith_(?!new_|old_)\w+\.npy|{re.escape(STATE)}"
        pattern = re.compile(re.escape(self.full_name) + rf"_({dfl}|{own})$")
        return sorted(path for path in self.folder.iterdir() if pattern.match(path.name) and path.is_file())

    def backup(self, rules: BackupRules = RULES, now: Callable[[], datetime] = datetime.now) -> Path:
        """Keeps the last saved files in a folder of their own, and drops the oldest ones where the rules say so. The
        model is to be locked. Raises ModelError for too little space or an unreadable data.dat, OSError, and what
        `recover` raises."""
        self.recover()
        data = None if self.about() else self.read_data()
        folder = self.keep(self.files(), rules, now(), data)
        try:
            backups.prune(self.backups_folder, rules, folder)
        except OSError as error:
            raise ModelError(f"{folder} is made, but an older backup cannot be deleted: {error}") from error
        return folder

    def keep(self, files: list[Path], rules: BackupRules, now: datetime, data: ModelData | None = None) -> Path:
        """Those files as a backup; data: their record, where no manifest tells of them. Raises ModelError for too
        little space, OSError."""
        about = self.about()
        if about is not None:
            files = [*files, self.journal.manifest_path]
        else:
            files = [path for path in files if path != self.state_path]
        if about is None and data is not None:
            about = Manifest(0, data.iter, {}, losses=data.loss_history.recent())
        note = backups.describe(about.iteration, about.losses, now) if about else b"data.dat could not be read.\n"
        note += backups.of_session(rules.session)
        try:
            return backups.make(self.backups_folder, files, {self.path(backups.NOTE).name: note}, rules, now, self.disk)
        except backups.NoSpaceError as error:
            raise ModelError(str(error)) from error

    def backups(self) -> list[Backup]:
        """What can be restored, the newest first: ours, DFL's 01 to 24, and folders that somebody put there."""
        return backups.found(self.backups_folder, self.class_name)

    def about(self) -> Manifest | None:
        """What is known of the files that are there; None where another program wrote them, or a save is open."""
        if self.journal.changed() or self.journal.journal_path.exists():
            return None
        return self.journal.manifest()

    def lock(self) -> ModelLock:
        return ModelLock(self.path("facesmith_lock"))


def saved_models(folder: str | Path, class_name: str) -> list[str]:
    """Names of the models of a class in a folder, the one saved last first; also one whose save was interrupted. None
    where there is no such folder yet. Raises ModelError for a file in its place."""
    if files := [place for place in (Path(folder), *Path(folder).parents) if place.is_file()]:
        raise ModelError(f"--model-dir: {files[0]} is a file, and a folder is needed, such as workspace/model.")
    times: dict[str, float] = {}
    for ending in ("data.dat", "facesmith_journal.json"):
        if class_name in NAMELESS:
            if (path := Path(folder) / f"{class_name}_{ending}").is_file():
                times.setdefault(class_name, path.stat().st_mtime)
            continue
        rest = f"_{class_name}_{ending}"
        found = [path for path in Path(folder).glob(f"*{rest}") if path.is_file()] if Path(folder).is_dir() else []
        for path in found:
            times.setdefault(path.name[: -len(rest)], path.stat().st_mtime)
    return sorted(times, key=lambda name: times[name], reverse=True)
