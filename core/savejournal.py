"""A set of files replaced all together or not at all, whatever stops the program or the machine in between.

Files are called by their endings (`encoder.npy`); `new` and `old` stand for `<full name>_facesmith_new_<ending>` and
`..._old_<ending>`. A save goes in this order:

1. every new file is written, synced and read back; the present files get a second name, `old` (a hard link);
2. the journal, which tells size and checksum of every file before and after, is written and synced, then the folder;
3. every new file is renamed onto its target (where there are no links the target becomes `old` first); the folder is
   synced;
4. the journal is renamed to be the manifest of what was written; `old` files go.

Without a journal the files under plain names are whole, and `new` and `old` are litter. With one, all new files are
on the disk under one of their names, so that the switch can be completed; should one be lost nevertheless, all old ones
are, so that it can be undone. Doing either again does no harm, so being stopped in it does none.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from core.disk import DISK, Disk
from core.manifest import ENDING, Entry, Manifest

WEIGHTY = (".npy", ".dat")  # other programs write more than these, but only these say that they trained


class JournalError(Exception):
    """An interrupted save that can be neither completed nor undone. Says what is lost and what to do."""


@dataclass(frozen=True)
class Plan:
    """What an interrupted save needs. `take`: another program wrote since, its files stay. kinds: what lies under each
    plain name: to, from, absent, damaged or foreign."""

    action: Literal["nothing", "finish", "undo", "take", "stuck"]
    manifest: Manifest = field(default_factory=lambda: Manifest(0, 0, {}))
    kinds: Mapping[str, str] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


class SaveJournal:
    """The files of one model. path: from an ending to its place. data: the ending of the file that every program which
    trains writes. dependent: files of ours that tell nothing once another program wrote."""

    def __init__(
        self, path: Callable[[str], Path], data: str = "data.dat", dependent: Collection[str] = (), disk: Disk = DISK
    ) -> None:
        self.path, self.data, self.dependent, self.disk = path, data, tuple(dependent), disk
        self.journal_path, self.manifest_path = path("facesmith_journal.json"), path("facesmith_manifest.json")
        self.folder = self.manifest_path.parent

    def new(self, ending: str) -> Path:
        return self.path(f"facesmith_new_{ending}")

    def old(self, ending: str) -> Path:
        return self.path(f"facesmith_old_{ending}")

    # ---- saving ---------------------------------------------------------------------------------------------------

    def save(
        self,
        contents: Mapping[str, Iterable[bytes | memoryview]],
        iteration: int,
        losses: Iterable[float | None] = (),
        removed: Iterable[str] = (),
        report: Callable[[int, int], object] = lambda done, total: None,
    ) -> Manifest:
        """Replaces the files of `contents` and deletes those `removed`, all or none; others stay. Raises OSError, or
        what making the contents raises: then the files are what they were, as far as the disk allows, and else at the
        next `recover`. report: told how many files are written, of how many."""
        if strange := [ending for ending in (*contents, *removed) if not ENDING.fullmatch(ending)]:
            raise ValueError(
                f"{strange[0]!r} is no name for a file of a model: letters, digits, - and _, then .npy or .dat"
            )
        self._make_way()
        try:
            last = self.manifest()
            files: dict[str, Entry] = {}
            for ending, pieces in contents.items():
                files[ending] = self._stage(ending, pieces, iteration)
                report(len(files), len(contents))
            before = {ending: self._present(ending, last) for ending in files}
            gone = {ending: self._present(ending, last) for ending in removed}
            before |= {ending: entry for ending, entry in gone.items() if entry is not None}
            foreign = self.changed()
            kept = {
                ending: entry
                for ending, entry in (last.files if last else {}).items()
                if ending not in before and ending not in foreign and self.path(ending).exists()
            }
            generation = last.generation + 1 if last else 1
            manifest = Manifest(generation, iteration, {**kept, **files}, before, tuple(losses))
            self._keep_old(before)
            draft = self.new("journal.json")
            self.disk.write_file(draft, [manifest.to_json()])
            self.disk.replace(draft, self.journal_path)
            self.disk.sync_folder(self.folder)
            self._switch(manifest)
        except Exception:  # whatever it is: the model on the disk has to stay the one before
            self._give_up()
            raise
        self._clear(sync=True)
        return manifest

    def _make_way(self) -> None:
        """Ends what an earlier save left. What cannot be mended is given up: a whole set is about to be written."""
        try:
            self._settle()
        except JournalError:
            self.disk.unlink(self.journal_path)
            self._clear()

    def _stage(self, ending: str, pieces: Iterable[bytes | memoryview], iteration: int) -> Entry:
        path = self.new(ending)
        size, value = self.disk.write_file(path, pieces)
        status = path.stat()
        if status.st_size != size or self.disk.checksum(path, fresh=True) != value:
            raise OSError(errno.EIO, "the disk gave back other bytes than were written", str(path))
        return Entry(size, status.st_mtime_ns, value, iteration)

    def _present(self, ending: str, last: Manifest | None) -> Entry | None:
        """The file as it is; read only where the manifest does not know it."""
        path, known = self.path(ending), last.files.get(ending) if last else None
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        if known is not None and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
            return known
        try:
            value = self.disk.checksum(path)
        except OSError:
            return Entry(status.st_size, status.st_mtime_ns, None, 0)  # it is about to be replaced by a good one
        return Entry(status.st_size, status.st_mtime_ns, value, 0)

    def _keep_old(self, before: Mapping[str, Entry | None]) -> None:
        for ending, entry in before.items():
            if entry is not None:
                try:
                    self.disk.link(self.path(ending), self.old(ending))
                except OSError:
                    continue  # no links here: the switch renames it

    def _switch(self, manifest: Manifest, skip: Collection[str] = ()) -> None:
        for ending, before in manifest.before.items():
            path, new, old = self.path(ending), self.new(ending), self.old(ending)
            staged, leaving = new.exists(), ending not in manifest.files
            if ending in skip or not (staged or leaving):
                continue  # not ours any more, or switched already
            if path.exists():
                if before is not None and not old.exists():
                    self.disk.replace(path, old)
                elif leaving:
                    self.disk.unlink(path)
            if staged:
                self.disk.replace(new, path)
        self.disk.sync_folder(self.folder)
        for ending in manifest.before:
            if ending in manifest.files and ending not in skip and not _has(self.path(ending), manifest.files[ending]):
                raise OSError(errno.EIO, "a file that was just written is not there", str(self.path(ending)))
        self.disk.replace(self.journal_path, self.manifest_path)

    def _give_up(self) -> None:
        """After a failed save: back to the old files. Where the disk refuses that too the journal stays."""
        try:
            plan = self.plan(prefer="undo")
            if plan.action == "undo":
                self._undo(plan)
            elif plan.action == "nothing":
                self._clear()
        except OSError:
            pass  # the error that is being raised says why; the next save or start tries again

    def _clear(self, sync: bool = False) -> None:
        """Deletes litter, as far as it can be; what stays is tried again at the next save and start."""
        try:
            starts = self.new("").name, self.old("").name
            litter = [path for path in self.folder.iterdir() if path.name.startswith(starts)]
            for path in litter:
                self.disk.unlink(path)
            if litter or sync:
                self.disk.sync_folder(self.folder)
        except OSError:
            pass

    # ---- after an interruption ------------------------------------------------------------------------------------

    def manifest(self) -> Manifest | None:
        """What the last save wrote; None where it is absent or cannot be believed, as with models never saved here."""
        try:
            return Manifest.read(self.manifest_path)
        except (OSError, ValueError):
            return None

    def plan(self, prefer: Literal["finish", "undo"] = "finish") -> Plan:
        """What `recover` would do about an open journal; reads all files and changes nothing."""
        try:
            manifest = Manifest.read(self.journal_path)
        except FileNotFoundError:
            return Plan("nothing")
        except ValueError:  # written by a disk that lies about syncing: the manifest before it knows the old files
            last = self.manifest()
            if last is None:
                return Plan("stuck", lost=(self.journal_path.name,))
            manifest = Manifest(last.generation, last.iteration, {}, dict(last.files))
        kinds = {ending: self._kind(ending, manifest) for ending in manifest.before}
        if not manifest.files:  # new files are older than the journal, another program's younger
            written = self.journal_path.stat().st_mtime_ns
            kinds |= {
                ending: "to"
                for ending, kind in kinds.items()
                if kind == "foreign" and self.path(ending).stat().st_mtime_ns <= written
            }
        if kinds.get(self.data) == "foreign":
            return Plan("take", manifest, kinds)
        unfinished = tuple(ending for ending, kind in kinds.items() if not self._finishable(ending, kind, manifest))
        undoable = all(self._undoable(ending, kind, manifest) for ending, kind in kinds.items())
        if manifest.files and not unfinished and not (undoable and prefer == "undo"):
            return Plan("finish", manifest, kinds)
        return Plan("undo" if undoable else "stuck", manifest, kinds, unfinished)

    def _finishable(self, ending: str, kind: str, manifest: Manifest) -> bool:
        target = manifest.files.get(ending)
        return kind in ("to", "foreign") or target is None or self._is(self.new(ending), target)

    def _undoable(self, ending: str, kind: str, manifest: Manifest) -> bool:
        before = manifest.before[ending]
        return kind in ("from", "foreign") or before is None or self._is(self.old(ending), before)

    def _kind(self, ending: str, manifest: Manifest) -> str:
        path = self.path(ending)
        if not path.exists():
            return "absent"
        for kind, entry in (("to", manifest.files.get(ending)), ("from", manifest.before[ending])):
            if entry is not None and self._is(path, entry):
                return kind
        return "foreign" if _is_whole(path) else "damaged"

    def _is(self, path: Path, entry: Entry) -> bool:
        try:
            status = path.stat()
            if status.st_size != entry.size:
                return False
            if entry.crc32 is None:
                return status.st_mtime_ns == entry.mtime_ns
            return self.disk.checksum(path) == entry.crc32
        except OSError:
            return False

    def recover(self) -> list[str]:
        """Completes or undoes an interrupted save, and gives way to another program's files. Returns lines for the
        user, none where nothing was amiss. Raises JournalError, or OSError where the folder cannot be written."""
        notes = self._settle()
        if changed := self.changed():
            names = ", ".join(self.path(ending).name for ending in changed)
            notes.append(
                f"{names}: written by another program since the last save here. Training goes on from there, with "
                "other samples than if it had not been stopped."
            )
        return notes

    def _settle(self) -> list[str]:
        plan = self.plan()
        told = describe(plan, self.journal_path.name)
        if plan.action == "stuck":
            raise JournalError(told)
        if plan.action == "finish":
            self.disk.sync_folder(self.folder)  # the journal must outlast the power while files are renamed
            self._switch(plan.manifest, [ending for ending, kind in plan.kinds.items() if kind == "foreign"])
        elif plan.action == "undo":
            self._undo(plan)
        elif plan.action == "take":
            self._forget()
            self.disk.unlink(self.journal_path)
        self._clear()
        return [told] if told else []

    def _undo(self, plan: Plan) -> None:
        self.disk.sync_folder(self.folder)  # new files go for good now: the old ones must be on the disk first
        for ending, kind in plan.kinds.items():
            path, old = self.path(ending), self.old(ending)
            if plan.manifest.before[ending] is None:
                if kind in ("to", "damaged"):
                    self.disk.unlink(path)
            elif kind not in ("from", "foreign"):
                self.disk.replace(old, path)
        self.disk.sync_folder(self.folder)
        self.disk.unlink(self.journal_path)
        self.disk.sync_folder(self.folder)
        self._clear()

    def _forget(self) -> None:
        for path in (*map(self.path, self.dependent), self.manifest_path):
            self.disk.unlink(path)

    def changed(self) -> list[str]:
        """Files that another program wrote since the last save: what we know besides them tells nothing then. Deleted
        ones do not count: people do that by hand; nor do damaged ones, which say so when they are read. None are told
        while a journal is open."""
        last = None if self.journal_path.exists() else self.manifest()
        found = []
        for ending, entry in (last.files if last else {}).items():
            if ending.endswith(WEIGHTY):
                try:
                    status = self.path(ending).stat()
                except OSError:
                    continue
                same = (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)
                if not same and not self._is(self.path(ending), entry) and _is_whole(self.path(ending)):
                    found.append(ending)
        return found

    def source(self, ending: str) -> Path:
        """Where a reader that may not recover finds a file: under its plain name, or while a journal is open under the
        name that makes one set with the others."""
        try:
            manifest = Manifest.read(self.journal_path)
        except (OSError, ValueError):
            return self.path(ending)
        if ending not in manifest.before:
            return self.path(ending)
        files = manifest.files
        complete = all(
            end not in files or _has(self.new(end), files[end]) or _has(self.path(end), files[end], exactly=True)
            for end in manifest.before
        )
        other = self.new(ending) if complete else self.old(ending)
        return other if other.exists() or (complete and ending not in files) else self.path(ending)


def describe(plan: Plan, journal: str) -> str:
    """One line on what `recover` does about an open journal of that name; empty where there is none."""
    interrupted = f"The save of iteration {plan.manifest.iteration:,} was interrupted"
    return {
        "nothing": "",
        "finish": f"{interrupted}; all its files are there, so it is completed.",
        "undo": "A save was interrupted before all its files were there: it is undone, the save before it stays.",
        "take": f"{interrupted}, and another program has trained the model since: its files are used. Training goes on "
        "with other samples than if it had not been stopped.",
        "stuck": f"A save was interrupted and can be neither completed nor undone, for want of {', '.join(plan.lost)}. "
        f"Restore a backup (main.py model restore), or delete {journal} to take the files as they are.",
    }[plan.action]


def _has(path: Path, entry: Entry, exactly: bool = False) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == entry.size and (not exactly or status.st_mtime_ns == entry.mtime_ns)


def _is_whole(path: Path) -> bool:
    """Whether a file begins and ends as DFL's pickles do; other files always pass. Zeroed and cut ones fail."""
    if path.suffix not in WEIGHTY:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(1)
            file.seek(-1, 2)
            return head == b"\x80" and file.read(1) == b"."
    except OSError:
        return False
