"""What is wrong with a model, and a backup put back in its place. Nothing here needs the network itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from core import dflfile
from core.backups import BackupRules
from core.manifest import ENDING, Manifest
from core.modeldir import DATA_LIMIT, ModelData, ModelDir, ModelError
from core.savejournal import WEIGHTY, describe


@dataclass
class Check:
    """One file. state: ok, changed (by another program since the last save here), missing, damaged (other bytes than
    were written), unreadable or not finite; told: what that means."""

    name: str
    state: str = "ok"
    told: str = ""


@dataclass
class Report:
    """A model, checked. problems: what makes it unfit; notes: what is worth knowing."""

    iteration: int | None = None
    files: list[Check] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(directory: ModelDir, tries: int = 3) -> Report:
    """Reads every file of a model and changes none. One that a trainer replaces meanwhile is read anew."""
    for _ in range(tries):
        before = _stamps(directory)
        report = _verify(directory)
        if _stamps(directory) == before:
            return report
    report.notes.append("The model was saved while it was read: verify it again when training pauses.")
    return report


def _stamps(directory: ModelDir) -> list[tuple[str, int, int]]:
    found = []
    for path in directory.files():
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found.append((path.name, status.st_size, status.st_mtime_ns))
    return found


def _verify(directory: ModelDir) -> Report:
    report = Report()
    journal = directory.journal
    plan = journal.plan()
    if plan.action == "stuck":
        report.problems.append(describe(plan, journal.journal_path.name))
    elif plan.action != "nothing":
        report.notes.append(f"{describe(plan, journal.journal_path.name)} That happens at the next start of training.")
    unread = ""
    try:
        report.iteration = directory.read_data().iter
        if not report.iteration and any(path.suffix == ".npy" for path in directory.files()):
            report.notes.append(
                "It counts 0 iterations: training goes on with these weights, DeepFaceLab would start it anew and "
                "overwrite them."
            )
    except ModelError as error:
        unread = str(error).splitlines()[0]
        if not directory.files():
            report.problems.append(unread)
            return report
    manifest = None if plan.action != "nothing" else journal.manifest()
    known = manifest.files if manifest else {}
    changed = journal.changed()
    for ending in sorted({*endings(directory), *known}):
        check = _check(directory, ending, manifest, changed)
        report.files.append(check)
        if check.state not in ("ok", "changed"):
            report.problems.append(f"{check.name}: {check.told}")
            unread = "" if ending == "data.dat" else unread  # told already
    if unread:
        report.problems.insert(0, unread)
    if changed:
        names = ", ".join(directory.path(ending).name for ending in changed)
        report.notes.append(f"{names}: written by another program since the last save here.")
    return report


def refuse_damaged(directory: ModelDir, endings: Iterable[str]) -> None:
    """Reads those files whose size and time are the ones the last save here left. One with another checksum was
    damaged by the disk, and the next save would pass the damage on as sound. What another program wrote since has
    another time and is not looked at; nor is anything while a save is open. Raises ModelError; changes nothing."""
    journal = directory.journal
    known = None if journal.journal_path.exists() else journal.manifest()
    bad = [ending for ending in endings if known and ending in known.files and _rotten(directory, ending, known)]
    if bad:
        paths = [directory.path(ending) for ending in bad]
        parts = [path.stem for path in paths if path.suffix == ".npy"]
        stems = " ".join(f"--reinit {stem.removeprefix(directory.full_name + '_')}" for stem in parts)
        anew = f"start anew with {stems}; or " if len(parts) == len(bad) else ""
        touched = " ".join(f'"{path}"' for path in paths)
        raise ModelError(
            f"{', '.join(path.name for path in paths)}: damaged by the disk: its bytes are not those that were saved, "
            f"though size and time are.\n{directory.way_back(paths[0])}\nOr {anew}give it a new time to use it as it "
            f"is: touch {touched}"
        )


def _rotten(directory: ModelDir, ending: str, known: Manifest) -> bool:
    path, entry = directory.path(ending), known.files[ending]
    try:
        status = path.stat()
        if entry.crc32 is None or (status.st_size, status.st_mtime_ns) != (entry.size, entry.mtime_ns):
            return False
        if directory.disk.checksum(path) == entry.crc32:
            return False
        return path.stat().st_mtime_ns == entry.mtime_ns  # else a trainer replaced it meanwhile
    except OSError:
        return False  # whoever loads it says so


def _check(directory: ModelDir, ending: str, manifest: Manifest | None, changed: list[str]) -> Check:
    path = directory.journal.source(ending)
    check = Check(directory.path(ending).name)
    entry = manifest.files.get(ending) if manifest else None
    try:
        if entry is not None and ending not in changed:
            same = path.stat().st_size == entry.size and directory.disk.checksum(path) == entry.crc32
            if not same and ending.endswith(WEIGHTY):
                check.state, check.told = "damaged", "its bytes are not those that were saved"
        if ending.endswith(WEIGHTY):
            bad = not_finite(dflfile.load(path, max_bytes=DATA_LIMIT if ending == "data.dat" else dflfile.MAX_BYTES))
            if bad:
                check.state, check.told = "not finite", f"NaN or infinite numbers in {', '.join(bad)}"
    except FileNotFoundError:
        check.state, check.told = "missing", "was saved with the model and is gone"
    except dflfile.DflFileError as error:
        check.state, check.told = "unreadable", error.reason
    except OSError as error:
        check.state, check.told = "unreadable", error.strerror or str(error)
    if check.state == "ok" and ending in changed:
        check.state, check.told = "changed", "written by another program since the last save here"
    elif check.state == "ok" and entry is not None and manifest and entry.iteration != manifest.iteration:
        check.told = f"of iteration {entry.iteration:,}: later saves did not need it"
    return check


def not_finite(content: Any) -> list[str]:
    """Names of the arrays in a part that hold NaN or infinite numbers; three at most. A record (data.dat) is not looked
    into: a loss that was not finite is history."""
    if not isinstance(content, dict) or "loss_history" in content:
        return []
    arrays = ((str(name), np.asarray(array)) for name, array in content.items())
    bad = [name for name, array in arrays if array.dtype.kind == "f" and not np.isfinite(array).all()]
    return bad[:3] + ([f"{len(bad) - 3} more"] if len(bad) > 3 else [])


def restore(
    directory: ModelDir, folder: Path, prefix: str, now: Callable[[], datetime] = datetime.now
) -> tuple[int, Path | None]:
    """Puts the files of a backup in the place of the present ones, all or none. These are backed up first, whatever
    their state. The model is to be locked. prefix: the model's name in the backup. Returns the iteration restored and
    the folder of what was there. Raises ModelError for a backup that is not sound, OSError."""
    backup = ModelDir(folder, prefix, directory.class_name, directory.disk)
    data = _sound(backup)
    kept = _set_aside(directory, now())
    contents = {ending: directory.disk.blocks(backup.path(ending)) for ending in endings(backup)}
    gone = sorted(set(endings(directory)) - set(contents))
    directory.journal.save(contents, data.iter, data.loss_history.recent(), removed=gone)
    return data.iter, kept


def endings(directory: ModelDir) -> list[str]:
    """The model's files by what follows its name; not copies and notes that somebody put beside them."""
    start = len(directory.full_name) + 1
    return [path.name[start:] for path in directory.files() if ENDING.fullmatch(path.name[start:])]


def _sound(backup: ModelDir) -> ModelData:
    """The backup's record, once every file of it was read."""
    report = verify(backup, tries=1)
    changed = [f"{check.name}: {check.told}" for check in report.files if check.state == "changed"]
    if problems := report.problems + changed:
        raise ModelError(f"{backup.folder} is not sound, nothing is restored: {problems[0]}.")
    return backup.read_data()


def _set_aside(directory: ModelDir, now: datetime) -> Path | None:
    files, data = [], None
    try:
        directory.recover()
        data = directory.read_data()
    except ModelError:  # broken: its remains are kept as they are, with what an interrupted save left
        remains = tuple(directory.path(f"facesmith_{kind}").name for kind in ("new_", "old_", "journal"))
        files = [path for path in sorted(directory.folder.iterdir()) if path.name.startswith(remains)]
    files = [*directory.files(), *files]
    if not files:
        return None
    return directory.keep(files, BackupRules(max_count=0), now, data)
