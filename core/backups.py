"""Backups of a model: folders in `<full name>_autobackups`, one for each time.

They are called by the time (`2026-11-21_14-30-05`) or, as DFL does it, 01 (the newest) to 24. Weights are hard links
where the file system has them: a backup then costs nothing until the next save replaces the model's own file. That
holds as long as files are replaced and never changed in place, so small files, which other programs write over, are
copied.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from core.disk import Disk

NOTE = "facesmith_backup.txt"
STAMP = "%Y-%m-%d_%H-%M-%S"
STAMPED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(-\d+)?")
SESSION = "session: "
NUMBERED = re.compile(r"\d\d")
LINKED = (".npy", ".dat")
PARTIAL, LEAVING = "unfinished", "deleting"  # names of folders on their way in and out


class NoSpaceError(Exception):
    """A backup that would not fit. Says how much is needed, how much is free, what to do."""


@dataclass(frozen=True)
class BackupRules:
    """How backups are called and how many stay. max_count, max_bytes: 0 is without limit; the newest always stays, and
    folders of the other naming, or with names of their own, are left alone. session: ends a name by time."""

    naming: Literal["time", "numbers"] = "time"
    max_count: int = 24
    max_bytes: int = 0
    links: bool = True
    session: str = ""


RULES = BackupRules()


@dataclass(frozen=True)
class Backup:
    """A backup that was found. prefix: the model's name then. iteration: None where no note tells it. saved: when the
    files were. size: in bytes, with what is shared with other backups."""

    folder: Path
    prefix: str
    iteration: int | None
    losses: tuple[float, ...]
    saved: datetime
    size: int


def describe(iteration: int, losses: Sequence[float | None], now: datetime) -> bytes:
    """The note that lies in a backup."""
    means = " ".join("nan" if loss is None else f"{loss:.5f}" for loss in losses)
    return (
        f"iteration: {iteration}\nlosses, mean of the last iterations: {means}\nmade: {now:%Y-%m-%d %H:%M:%S}\n"
    ).encode()


def of_session(name: str) -> bytes:
    """The line of the note that tells a folder which ends with a session's name from one that a person renamed."""
    return f"{SESSION}{name}\n".encode() if name else b""


def make(
    root: Path, files: Sequence[Path], notes: Mapping[str, bytes], rules: BackupRules, now: datetime, disk: Disk
) -> Path:
    """A new folder in `root` with those files and notes (name -> content); returns it. Raises NoSpaceError before
    anything is written, OSError."""
    partial = root / PARTIAL
    size = sum(path.stat().st_size for path in files)
    linked = rules.links
    _need(root, size, disk, "room for the next save")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for path in files:
            target = partial / path.name
            if linked and path.suffix in LINKED:
                try:
                    disk.link(path, target)
                    continue
                except OSError:
                    linked = False
            if not linked:
                _need(root, 2 * size, disk, "a copy, and room for the next save")
            status = path.stat()
            disk.write_file(target, disk.blocks(path))
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        for name, content in notes.items():
            disk.write_file(partial / name, [content])
        disk.sync_folder(partial)
        folder = _make_room(root, rules, disk) if rules.naming == "numbers" else _stamped(root, now, rules.session)
        disk.replace(partial, folder)
        disk.sync_folder(root)
    except BaseException:  # Ctrl-C too: half a backup may be gigabytes
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def _need(root: Path, size: int, disk: Disk, what: str) -> None:
    folder = next(folder for folder in (root, *root.parents) if folder.exists())
    free = disk.free(folder)
    if free < size:
        raise NoSpaceError(
            f"No backup made: {size / 1e6:,.0f} MB are needed ({what}), {free / 1e6:,.0f} MB are free in {folder}. "
            "Free some space, or keep fewer backups."
        )


def _stamped(root: Path, now: datetime, session: str) -> Path:
    stamp, ending, number = now.strftime(STAMP), f"_{session}" if session else "", 1
    folder = root / f"{stamp}{ending}"
    while folder.exists():
        number += 1
        folder = root / f"{stamp}-{number}{ending}"
    return folder


def _make_room(root: Path, rules: BackupRules, disk: Disk) -> Path:
    """Shifts 01, 02, ... up to the first gap; where there is none the last one goes."""
    folders = [root / f"{number:02d}" for number in range(1, (rules.max_count or 99) + 1)]
    gap = next((i for i, folder in enumerate(folders) if not folder.exists()), len(folders) - 1)
    if folders[gap].exists():
        _delete(folders[gap])
    for i in range(gap, 0, -1):
        disk.replace(folders[i - 1], folders[i])
    return folders[0]


def prune(root: Path, rules: BackupRules, newest: Path) -> None:
    """Deletes the oldest backups of the rules' naming until count and size are kept. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(root / LEAVING)
    named = _by_number if rules.naming == "numbers" else _by_time
    folders = [path for path in root.iterdir() if path.is_dir() and path != newest and named(path)]
    folders.sort(key=lambda path: path.name, reverse=rules.naming == "time")  # the newest first
    while folders and (0 < rules.max_count < len(folders) + 1 or 0 < rules.max_bytes < disk_size([newest, *folders])):
        _delete(folders.pop())


def _by_number(folder: Path) -> bool:
    return NUMBERED.fullmatch(folder.name) is not None


def _by_time(folder: Path) -> bool:
    """Whether a folder has the name that was given to it: a time, and the session that its note tells."""
    stamp = STAMPED.match(folder.name)
    ending = folder.name[stamp.end() :] if stamp else ""
    if not ending.startswith("_"):
        return stamp is not None and not ending
    for note in folder.glob(f"*_{NOTE}"):
        with contextlib.suppress(OSError), note.open("rb") as file:
            return f"{SESSION}{ending[1:]}" in file.read(4096).decode("utf-8", "replace").splitlines()
    return False


def _delete(folder: Path) -> None:
    """Under another name first: what is left of a deletion that was interrupted must not look like a backup."""
    leaving = folder.with_name(LEAVING)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(leaving)
    folder.replace(leaving)
    shutil.rmtree(leaving)


def disk_size(folders: Iterable[Path]) -> int:
    """Bytes of all files in the folders; what is linked several times counts once."""
    sizes = {}
    for folder in folders:
        for path in folder.iterdir():
            status = path.stat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def found(root: Path, class_name: str) -> list[Backup]:
    """Every backup of a model of that class in `root`, the one saved last first. After DFL's rename of a model they
    hold files of its old name."""
    backups = []
    ending = "data.dat"
    for folder in root.iterdir() if root.is_dir() else ():
        # Without a name before it where the models of a class have none.
        named, alone = (folder.glob(f"{start}{class_name}_{ending}") for start in ("*_", ""))
        records = sorted([*named, *alone]) if folder.is_dir() else []
        if records and folder.name not in (PARTIAL, LEAVING):
            start = records[0].name[: -len(ending)]
            prefix = start[: -len(class_name) - 2] or class_name
            iteration, losses = _read_note(folder / f"{start}{NOTE}")
            saved = datetime.fromtimestamp(records[0].stat().st_mtime)
            backups.append(Backup(folder, prefix, iteration, losses, saved, disk_size([folder])))
    return sorted(backups, key=lambda backup: (backup.saved, backup.folder.name), reverse=True)


def _read_note(path: Path) -> tuple[int | None, tuple[float, ...]]:
    """Iteration and losses of a note; None and none where it is absent or says something else."""
    try:
        with path.open("rb") as file:
            text = file.read(4096).decode("utf-8", "replace")
    except OSError:
        return None, ()
    iteration = re.search(r"^iteration: (\d{1,15})$", text, re.MULTILINE)
    losses = re.search(r"^losses[^:\n]*:((?: (?:\d+\.\d+|nan)){1,9})$", text, re.MULTILINE)
    return int(iteration[1]) if iteration else None, tuple(map(float, losses[1].split())) if losses else ()
