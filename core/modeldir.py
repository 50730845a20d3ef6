"""A model's folder: DFL's file names, reading, saving, backups, summary, lock. Does not know what a tensor means.

Everything DFL does not know is named `<name>_<Class>_facesmith_*`, so that DFL's own rename and delete (which split
at the first `_`) take it along. A save writes every file beside its target first and renames them at the end.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from core import dflfile
from core.dflfile import DflFileError
from core.options import Values
from core.runstate import LIMITS, RunState
from core.runstate import MAX_BYTES as STATE_LIMIT
from core.shown import shown
from core.summary import summary

Part = dict[str, Any]
"""The content of one part file: DFL's weight name -> array."""

BACKUPS = 24
ITERATIONS = LIMITS["iteration"]
DATA_LIMIT = 1 << 30  # sample_for_preview holds float arrays: tens of MB at 640 px


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
        return {
            "iter": int(self.iter),
            "options": dict(self.options),
            "loss_history": self.loss_history.rows(),
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
        history = LossHistory(rows)
        try:
            history.array()
        except (TypeError, ValueError, OverflowError):
            raise ValueError("its losses are no numbers") from None
        return cls(
            iter=int(iteration),
            options=dict(options) if iteration and options else {},
            loss_history=history,
            sample_for_preview=stored.get("sample_for_preview"),
            unknown={key: value for key, value in stored.items() if key not in known},
        )


class ModelDir:
    """The files of model `name` of class `class_name` in `folder`."""

    def __init__(self, folder: str | Path, name: str, class_name: str) -> None:
        self.folder, self.name, self.class_name = Path(folder), name, class_name
        self.full_name = f"{name}_{class_name}"
        self.data_path = self.path("data.dat")
        self.summary_path = self.path("summary.txt")
        self.state_path = self.path("facesmith_state.json")
        self.history_folder = self.path("history")
        self.backups_folder = self.path("autobackups")
        self.default_options_path = self.folder / f"{class_name}_default_options.dat"

    def path(self, ending: str) -> Path:
        return self.folder / f"{self.full_name}_{ending}"

    def part_path(self, stem: str) -> Path:
        return self.path(f"{stem}.npy")

    def missing(self, stems: Iterable[str]) -> list[str]:
        return [stem for stem in stems if not self.part_path(stem).is_file()]

    def read_part(self, stem: str) -> Part | None:
        """The arrays of a part, or None where there is no such file. Raises ModelError when it cannot be read."""
        path = self.part_path(stem)
        if not path.is_file():
            return None
        try:
            part = dflfile.load(path)
        except (DflFileError, OSError) as error:
            raise ModelError(
                f"{error}\nRestore {path.name} from {self.backups_folder.name} or another copy."
            ) from error
        numeric = (np.ndarray, np.generic)
        if not isinstance(part, dict) or not all(isinstance(array, numeric) for array in part.values()):
            raise ModelError(
                f"{path}: is not a table of arrays, so it is not a part of a model. Restore it from a copy."
            )
        return part

    def read_data(self) -> ModelData:
        """data.dat. Raises ModelError when it is absent or cannot be read."""
        try:
            stored = dflfile.load(self.data_path, max_bytes=DATA_LIMIT)
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
        """What the last save kept of the run's random state; None where there is no such file. Whether it belongs to
        data.dat is told by its iteration. Raises ModelError when it cannot be read or believed."""
        try:
            with self.state_path.open("rb") as file:
                return RunState.from_json(file.read(STATE_LIMIT + 1))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ModelError(f"{self.state_path.name} cannot be read: {reason}.") from error

    def write(
        self,
        parts: Mapping[str, Part],
        data: ModelData,
        values: Values,
        device: str = "CPU",
        state: RunState | None = None,
    ) -> None:
        """Writes the whole set: all files beside their targets first, then renamed one after the other. Without a
        state the one of an earlier save is removed, as it tells nothing of these files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        staged: list[tuple[Path, Path]] = []
        try:
            for stem, part in parts.items():
                path = self.part_path(stem)
                staged.append((_stage(path, dflfile.chunks(part)), path))
            staged.append((_stage(self.data_path, dflfile.chunks(data.to_dict())), self.data_path))
            text = summary(self.full_name, data.iter, data.options, values.forced(), device)
            staged.append((_stage(self.summary_path, [text.encode()]), self.summary_path))
            if state is not None:
                staged.append((_stage(self.state_path, [state.to_json()]), self.state_path))
            while staged:
                temporary, path = staged[0]
                temporary.replace(path)
                staged.pop(0)
            if state is None:
                self.state_path.unlink(missing_ok=True)
        finally:
            for temporary, _ in staged:
                temporary.unlink(missing_ok=True)

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
        pattern = re.compile(re.escape(self.full_name) + r"_((?!facesmith_).*\.(npy|dat|txt)|facesmith_state\.json)$")
        return sorted(path for path in self.folder.iterdir() if pattern.match(path.name) and path.is_file())

    def backup(self) -> Path:
        """Copies the last saved files to `autobackups/01`, shifting 01..23 to 02..24."""
        newest = self.backups_folder / "01"
        fresh = self.backups_folder / "00"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for path in self.files():
            shutil.copy2(path, fresh / path.name)
        folders = [self.backups_folder / f"{number:02d}" for number in range(1, BACKUPS + 1)]
        first_gap = next((i for i, folder in enumerate(folders) if not folder.exists()), BACKUPS - 1)
        shutil.rmtree(folders[first_gap], ignore_errors=True)
        for i in range(first_gap, 0, -1):
            folders[i - 1].rename(folders[i])
        fresh.rename(newest)
        return newest

    def lock(self) -> ModelLock:
        return ModelLock(self.path("facesmith_lock"))


def _stage(path: Path, content: Iterable[bytes | memoryview]) -> Path:
    """Writes beside `path`, flushed to the disk; raises OSError and leaves nothing then."""
    staged = path.with_name(path.name + ".new")
    dflfile.write_bytes(staged, content)
    return staged


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
    """Names of the models of a class in a folder, the one saved last first."""
    ending = f"_{class_name}_data.dat"
    found = [path for path in Path(folder).glob(f"*{ending}") if path.is_file()] if Path(folder).is_dir() else []
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.name[: -len(ending)] for path in found]
