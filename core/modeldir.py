"""A model's folder: DFL's file names, reading, saving, backups, summary, lock. Does not know what a tensor means.

Everything DFL does not know is named `<name>_<Class>_facesmith_*`, so that DFL's own rename and delete (which split
at the first `_`) take it along. Files are only ever replaced, never changed in place, and a save replaces all of them
or none (`core.savejournal`).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from core import backups, dflfile
from core.backups import RULES, Backup, BackupRules
from core.dflfile import DflFileError
from core.disk import DISK, Disk
from core.manifest import Manifest
from core.options import Values
from core.runstate import LIMITS, RunState
from core.runstate import MAX_BYTES as STATE_LIMIT
from core.savejournal import JournalError, SaveJournal
from core.shown import shown
from core.summary import summary

Part = dict[str, Any]
"""The content of one part file: DFL's weight name -> array."""

STATE = "facesmith_state.json"
RECENT = 100  # iterations: their mean loss is told in lists of models and backups
ITERATIONS = LIMITS["iteration"]
DATA_LIMIT = 1 << 30  # sample_for_preview holds float arrays: tens of MB at 640 px
READINGS = 3  # of a file that a trainer may be replacing


class ModelError(Exception):
    """A model that cannot be opened, locked or saved. The message says which file, why, and what to do."""


class LossHistory:
    """Every iteration's losses. Appended values may be 0-d device tensors: they are read when somebody looks."""

    def __init__(self, rows: Iterable[Iterable[Any]] = ()) -> None:
        self._pending: list[list[Any]] = [list(row) for row in rows]
        self._buffer = np.empty((0, 0), np.float64)
        self._count = 0

    def append(self, losses: Iterable[Any]) -> None:
        self._pending.append(list(losses))

    def copy(self) -> LossHistory:
        """A snapshot that later appends do not change."""
        twin = LossHistory()
        twin._buffer, twin._count = self.array().copy(), len(self)
        return twin

    def __len__(self) -> int:
        return self._count + len(self._pending)

    def array(self) -> np.ndarray:
        """(iterations, losses) float64; NaN where an old row has fewer losses. A view: do not write."""
        if self._pending:
            width = max(self._buffer.shape[1], *(len(row) for row in self._pending))
            need = self._count + len(self._pending)
            if need > len(self._buffer) or width > self._buffer.shape[1]:
                grown = np.full((max(need, 2 * len(self._buffer)), width), np.nan)
                grown[: self._count, : self._buffer.shape[1]] = self._buffer[: self._count]
                self._buffer = grown
            for row in self._pending:
                self._buffer[self._count, : len(row)] = [float(loss) for loss in row]
                self._count += 1
            self._pending = []
        return self._buffer[: self._count]

    def columns(self, count: int) -> np.ndarray:
        """(iterations, count) float64, a copy: cut, or filled with NaN, where a record has more or fewer losses."""
        held = self.array()
        result = np.full((len(held), count), np.nan)
        width = min(count, held.shape[1])
        result[:, :width] = held[:, :width]
        return result

    def recent(self) -> tuple[float | None, ...]:
        """Mean of each loss over the last RECENT iterations; None where none of them is finite."""
        held = self.array()[-RECENT:]
        finite = np.isfinite(held)
        sums, counts = np.where(finite, held, 0).sum(0), finite.sum(0)
        return tuple(float(total / count) if count else None for total, count in zip(sums, counts, strict=True))

    def rows(self) -> list[list[float]]:
        """As data.dat holds it: a list per iteration."""
        rows: list[list[float]] = self.array().tolist()
        return rows


@dataclass
class ModelData:
    """What DFL keeps in data.dat. `unknown` holds top-level keys that are not ours, written back as they were."""

    iter: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    loss_history: LossHistory = field(default_factory=LossHistory)
    sample_for_preview: Any = None
    unknown: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The dictionary DFL pickles, in DFL's order of keys."""
        return self._record(self.loss_history.rows())

    def chunks(self) -> Iterable[bytes | memoryview]:
        """The pickle of `to_dict()`, made without holding up other threads."""
        return dflfile.chunks(self._record(dflfile.Rows(self.loss_history.array())))

    def _record(self, history: Any) -> dict[str, Any]:
        return {
            "iter": int(self.iter),
            "options": dict(self.options),
            "loss_history": history,
            "sample_for_preview": self.sample_for_preview,
            "choosed_gpu_indexes": None,
            **self.unknown,
        }

    def copy(self) -> ModelData:
        """A snapshot: later iterations do not change it. The preview sample is shared, as nobody writes to it."""
        return replace(
            self, options=dict(self.options), loss_history=self.loss_history.copy(), unknown=dict(self.unknown)
        )

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ModelData:
        """Raises ValueError, TypeError or OverflowError for a record that cannot be believed."""
        known = ("iter", "options", "loss_history", "sample_for_preview")
        iteration, options = stored.get("iter"), stored.get("options")
        if not isinstance(iteration, (int, np.integer)) or not 0 <= iteration <= ITERATIONS:
            raise ValueError(f"iter is {shown(iteration)}, where a whole number from 0 counts the iterations")
        if iteration and not (isinstance(options, dict) and all(isinstance(key, str) for key in options)):
            raise ValueError("it holds no options, so nobody can tell what network the weights belong to")
        rows = stored.get("loss_history") or ()
        widths = [len(row) for row in rows]
        if len(widths) * max(widths, default=0) > 4 * sum(widths) + 4096:
            raise ValueError("its losses are no table")  # one long row among short ones would fill the memory
        kinds = set(map(type, chain.from_iterable(rows)))
        if not all(issubclass(kind, (int, float, np.integer, np.floating)) for kind in kinds):
            raise ValueError("its losses are no numbers")
        history = LossHistory(rows)
        history.array()  # raises for a number that no float can be
        return cls(
            iter=int(iteration),
            options=dict(options) if iteration and options else {},
            loss_history=history,
            sample_for_preview=stored.get("sample_for_preview"),
            unknown={key: value for key, value in stored.items() if key not in known},
        )


class ModelDir:
    """The files of model `name` of class `class_name` in `folder`."""

    def __init__(self, folder: str | Path, name: str, class_name: str, disk: Disk = DISK) -> None:
        self.folder, self.name, self.class_name, self.disk = Path(folder), name, class_name, disk
        self.full_name = f"{name}_{class_name}"
        self.data_path = self.path("data.dat")
        self.summary_path = self.path("summary.txt")
        self.state_path = self.path(STATE)
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
            raise ModelError(
                f"{error}\nRestore {path.name} from {self.backups_folder.name} or another copy."
            ) from error
        numeric = (np.ndarray, np.generic)
        named = isinstance(part, dict) and all(isinstance(name, str) and name.isprintable() for name in part)
        if not named or not all(isinstance(array, numeric) for array in part.values()):
            raise ModelError(
                f"{path}: is not a table of arrays, so it is not a part of a model. Restore it from a copy."
            )
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
                f"{self.data_path.name} cannot be read: {error}\nRestore it from {self.backups_folder.name}."
            ) from error

    def read_state(self) -> RunState | None:
        """What the last save kept of the run's random state; None where there is no such file, or where another program
        has written since. Whether it belongs to data.dat is told by its iteration. Raises ModelError when it cannot be
        read or believed."""
        if self.journal.changed():
            return None
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
    ) -> None:
        """Replaces the whole set or, raising OSError, leaves the old one. Parts that are not given stay. Without a
        state the one of an earlier save is removed, as it tells nothing of these files."""
        contents: dict[str, Iterable[bytes | memoryview]] = {
            f"{stem}.npy": dflfile.chunks(part) for stem, part in parts.items()
        }
        contents["data.dat"] = data.chunks()
        text = summary(self.full_name, data.iter, data.options, values.forced(), device)
        contents["summary.txt"] = [text.encode()]
        if state is not None:
            contents[STATE] = [state.to_json()]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.journal.save(contents, data.iter, data.loss_history.recent(), removed=[STATE] if state is None else [])

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
        pattern = re.compile(re.escape(self.full_name) + rf"_((?!facesmith_).*\.(npy|dat|txt)|{re.escape(STATE)})$")
        return sorted(path for path in self.folder.iterdir() if pattern.match(path.name) and path.is_file())

    def backup(self, rules: BackupRules = RULES, now: Callable[[], datetime] = datetime.now) -> Path:
        """Keeps the last saved files in a folder of their own, and drops the oldest ones where the rules say so. The
        model is to be locked. Raises ModelError for too little space or an unreadable data.dat, OSError, and what
        `recover` raises."""
        self.recover()
        data = None if self._about() else self.read_data()
        folder = self.keep(self.files(), rules, now(), data)
        try:
            backups.prune(self.backups_folder, rules, folder)
        except OSError as error:
            raise ModelError(f"{folder} is made, but an older backup cannot be deleted: {error}") from error
        return folder

    def _about(self) -> Manifest | None:
        """The manifest, where it is of the files that are there."""
        return None if self.journal.changed() else self.journal.manifest()

    def keep(self, files: list[Path], rules: BackupRules, now: datetime, data: ModelData | None = None) -> Path:
        """Those files as a backup; data: their record, where no manifest tells of them. Raises ModelError for too
        little space, OSError."""
        about = self._about()
        if about is not None:
            files = [*files, self.journal.manifest_path]
        else:
            files = [path for path in files if path != self.state_path]
        if about is None and data is not None:
            about = Manifest(0, data.iter, {}, losses=data.loss_history.recent())
        note = backups.describe(about.iteration, about.losses, now) if about else b"data.dat could not be read.\n"
        try:
            return backups.make(self.backups_folder, files, {self.path(backups.NOTE).name: note}, rules, now, self.disk)
        except backups.NoSpaceError as error:
            raise ModelError(str(error)) from error

    def backups(self) -> list[Backup]:
        """What can be restored, the newest first: ours, DFL's 01 to 24, and folders that somebody put there."""
        return backups.found(self.backups_folder, self.class_name)

    def lock(self) -> ModelLock:
        return ModelLock(self.path("facesmith_lock"))


class ModelLock:
    """Keeps two trainers off one model: an operating-system lock, which a dead process cannot leave behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> ModelLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+", encoding="utf-8")
        except OSError as error:
            raise ModelError(
                f"{self.path.parent}: cannot be written ({error.strerror}). Give a model folder you may write to."
            ) from error
        try:
            _lock(file)
        except OSError:
            file.seek(0)
            holder = file.read(500).strip() or "another program"
            file.close()
            raise ModelError(
                f"This model is being trained by {holder}. Stop that trainer first, or choose another model."
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._file = file
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self.path.unlink(missing_ok=True)


def _lock(file: IO[str]) -> None:
    """Raises OSError when another process holds the lock."""
    if os.name == "nt":
        import msvcrt

        # Windows locks bytes: one far behind the text keeps the text readable for the message above.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def saved_models(folder: str | Path, class_name: str) -> list[str]:
    """Names of the models of a class in a folder, the one saved last first; also one whose save was interrupted."""
    times: dict[str, float] = {}
    for ending in ("data.dat", "facesmith_journal.json"):
        rest = f"_{class_name}_{ending}"
        found = [path for path in Path(folder).glob(f"*{rest}") if path.is_file()] if Path(folder).is_dir() else []
        for path in found:
            times.setdefault(path.name[: -len(rest)], path.stat().st_mtime)
    return sorted(times, key=lambda name: times[name], reverse=True)
