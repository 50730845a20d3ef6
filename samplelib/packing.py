"""Folders of faces to a faceset.pak and back, without ever being without the faces.

A pack is written beside its name, flushed to the disk, read back and compared byte for byte with the files, and only
then given its name; files are only deleted afterwards, by a step of its own. Unpacking writes every picture in the same
way and takes the pack away last. Stopped anywhere, either can be started again and goes on.

Packs come from strangers: names that lead out of the folder, or to anything but a picture, are refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.disk import Disk
from core.shown import printable
from facelib.dfljpg import DflJpgError, parse_metadata, read_header
from samplelib import faceindex, pack
from samplelib.facedata import FaceReadError, check_face
from samplelib.faceset import MAX_FILE, PICTURES, FacesetError

Progress = Callable[[int, int], None]
Warn = Callable[[str], None]

_SPARE = 32 << 20  # bytes left free on the disk
_NAME = re.compile(r'[^\\/:*?"<>|\x00-\x1f]{1,200}')
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # of Windows: no file can have these names


@dataclass(frozen=True, slots=True)
class Picture:
    """A face's file as it was packed: person is its sub-folder, None for the folder itself."""

    path: Path
    person: str | None
    size: int
    modified: int

    def unchanged(self) -> bool:
        try:
            now = self.path.stat()
        except OSError:
            return False
        return (now.st_size, now.st_mtime_ns) == (self.size, self.modified)


def folders_inside(folder: Path) -> list[Path]:
    """Sub-folders that hold pictures: persons, perhaps."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    return [path for path in inside if any(_is_picture(file) for file in path.iterdir())]


def pack_folder(
    folder: Path, persons: bool, warn: Warn, disk: Disk, progress: Progress = lambda done, total: None
) -> list[Picture]:
    """Packs the usable faces of a folder (persons: of its sub-folders, each a person); returns the files that are now
    in the pack, byte for byte. `warn` gets a line for each picture that is left out.

    A pack that is there already is taken for a run that was stopped, and not changed. Raises FacesetError, OSError;
    the folder is as before then.
    """
    target = folder / pack.NAME
    pictures, entries = _readable(folder, persons, warn, progress)
    if not pictures:
        raise FacesetError(f"{folder}: there are no faces to pack. Give the folder that holds aligned JPGs.")
    staged = target.with_name(f"{pack.NAME}.new")
    disk.unlink(staged)
    if target.exists():
        return _packed_before(target, pictures)
    head = pack.head(entries, [picture.size for picture in pictures])
    _check_space(folder, len(head) + sum(picture.size for picture in pictures), disk)

    def pieces() -> Iterator[bytes]:
        yield head
        for number, picture in enumerate(pictures):
            progress(number, len(pictures))
            data = picture.path.read_bytes()
            if len(data) != picture.size or not picture.unchanged():
                raise FacesetError(
                    f"{picture.path}: changed while it was packed. Pack again when nothing writes there."
                )
            yield data

    try:
        disk.write_file(staged, pieces())
        if _differing(staged, pictures):
            raise FacesetError(f"{staged}: what was written is not what was packed. Look after the disk, pack again.")
        disk.replace(staged, target)
    finally:
        disk.unlink(staged)
    disk.sync_folder(folder)
    progress(len(pictures), len(pictures))
    return pictures


def delete_originals(folder: Path, pictures: Sequence[Picture], disk: Disk) -> list[Path]:
    """Deletes files that `pack_folder` returned, and folders of persons that are empty then. Returns those that are
    kept, because they were changed since."""
    kept = []
    for picture in pictures:
        if picture.unchanged():
            disk.unlink(picture.path)
        else:
            kept.append(picture.path)
    for person in {picture.person for picture in pictures if picture.person is not None}:
        if all(path.name == faceindex.NAME for path in (folder / person).iterdir()):
            disk.unlink(folder / person / faceindex.NAME)
            (folder / person).rmdir()
    return kept


def unpack_folder(
    folder: Path, warn: Warn, disk: Disk, progress: Progress = lambda done, total: None
) -> tuple[int, int]:
    """Writes every picture of a folder's pack as it was, then deletes the pack. Returns how many lie in the folder now,
    and how many problems there were: `warn` got a line for each, and with any of them the pack stays.

    A file that is there already is never changed. Raises FacesetError, OSError.
    """
    path = folder / pack.NAME
    if not path.is_file():
        raise FacesetError(f"{path}: no such file. Give the folder that holds a {pack.NAME}.")
    try:
        entries, whole = pack.read_entries(path)
    except pack.PackError as error:
        raise FacesetError(f"{path}: {error}. Nothing was unpacked.") from None
    size = path.stat().st_size
    places = _places(folder, entries, size, warn)
    _check_space(folder, sum(entry.size for entry, place in places if not place.exists()), disk)
    done, problems = 0, len(entries) - len(places)
    with path.open("rb") as file:
        for number, (entry, place) in enumerate(places):
            progress(number, len(places))
            file.seek(entry.offset)
            if _restore(place, file.read(entry.size), disk):
                done += 1
            else:
                problems += 1
                warn(f"{place.relative_to(folder)}: another file of that name is there already; left as it is")
    for inside in {place.parent for _, place in places} | {folder}:
        disk.sync_folder(inside)
    progress(len(places), len(places))
    if not whole:
        problems += 1
        warn(f"{pack.NAME}: it is not as long as it says, so its last picture may be cut off; the pack stays")
    if not problems:
        disk.unlink(path)
        disk.sync_folder(folder)
    return done, problems


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and path.is_file()


def _readable(folder: Path, persons: bool, warn: Warn, progress: Progress) -> tuple[list[Picture], list[bytes]]:
    """The usable faces in order of their names, and what the pack's list says of each."""
    places: list[tuple[Path, str | None]] = [(path, None) for path in sorted(folder.iterdir())]
    if persons:
        places = [(path, person.name) for person in folders_inside(folder) for path in sorted(person.iterdir())]
    places = [(path, person) for path, person in places if _is_picture(path)]
    pictures, entries = [], []
    for number, (path, person) in enumerate(places):
        progress(number, len(places))
        try:
            stat = path.stat()
            if stat.st_size > MAX_FILE:
                raise FaceReadError(f"a file of {stat.st_size:,} bytes; up to {MAX_FILE:,} are read")
            header = read_header(path.read_bytes())
            metadata = parse_metadata(header.metadata)
            face = check_face(metadata, (header.height, header.width))
            entries.append(pack.entry(path.name, header, metadata, face, person))
        except (DflJpgError, FaceReadError) as error:
            warn(f"{printable(str(path.relative_to(folder)))}: {error}; not packed")
        else:
            pictures.append(Picture(path, person, stat.st_size, stat.st_mtime_ns))
    if persons and (loose := sum(_is_picture(path) for path in folder.iterdir())):
        warn(f"{loose:,} pictures beside the sub-folders belong to no person; not packed")
    return pictures, entries


def _differing(path: Path, pictures: Sequence[Picture]) -> list[Picture]:
    """Pictures that are not in the pack byte for byte, each under its name and person."""
    try:
        entries, whole = pack.read_entries(path)
    except pack.PackError:
        return list(pictures)
    held = {(entry.filename, entry.metadata.get("person_name")): entry for entry in entries} if whole else {}
    found = []
    with path.open("rb") as file:
        for picture in pictures:
            entry = held.get((picture.path.name, picture.person))
            if entry is None or entry.size != picture.size:
                found.append(picture)
                continue
            file.seek(entry.offset)
            if file.read(entry.size) != picture.path.read_bytes():
                found.append(picture)
    return found


def _packed_before(target: Path, pictures: list[Picture]) -> list[Picture]:
    if missing := _differing(target, pictures):
        raise FacesetError(
            f"{target}: there is a pack already, and {len(missing):,} of the {len(pictures):,} faces beside it are not "
            f"in it (such as {printable(missing[0].path.name)}). Unpack it first, or move it away."
        )
    return pictures


def _check_space(folder: Path, wanted: int, disk: Disk) -> None:
    if (free := disk.free(folder)) < wanted + _SPARE:
        raise FacesetError(
            f"{folder}: {wanted / 1e6:,.0f} MB are needed and {_SPARE / 1e6:,.0f} MB must stay free, but there are "
            f"{free / 1e6:,.0f} MB on that disk. Make room first."
        )


def _places(folder: Path, entries: Sequence[pack.Entry], size: int, warn: Warn) -> list[tuple[pack.Entry, Path]]:
    """Where each picture goes; those that cannot go anywhere get a line."""
    found = []
    for entry in entries:
        person = entry.metadata.get("person_name")
        name = entry.filename if person is None else f"{person}/{entry.filename}"
        if not _safe(entry.filename) or Path(entry.filename).suffix.lower() not in PICTURES:
            problem = "that is no name of a picture"
        elif person is not None and not _safe(person):
            problem = "that is no name of a folder"
        elif person is not None and (folder / person).is_symlink():
            problem = "that folder is a link to another place"
        elif not (0 < entry.size <= MAX_FILE and entry.offset + entry.size <= size):
            problem = "its picture lies outside the pack"
        else:
            found.append((entry, folder / entry.filename if person is None else folder / person / entry.filename))
            continue
        warn(f"{printable(name)[:200]}: {problem}; left in the pack")
    counts = Counter(str(place).casefold() for _, place in found)
    unique = [(entry, place) for entry, place in found if counts[str(place).casefold()] == 1]
    for _, place in found:
        if counts[str(place).casefold()] > 1:
            warn(f"{place.relative_to(folder)}: the pack holds several of that name; left in the pack")
    return unique


def _safe(name: object) -> bool:
    """Whether a name can stand in a folder of any system, and only there."""
    return (
        isinstance(name, str)
        and _NAME.fullmatch(name) is not None
        and name.isprintable()
        and name.strip(" .") != ""
        and name == name.rstrip(" .")
        and not _DEVICES.fullmatch(name)
    )


def _restore(place: Path, data: bytes, disk: Disk) -> bool:
    """Writes a picture, verified; False where another file of that name is there."""
    if place.exists() or place.is_symlink():
        return place.is_file() and place.stat().st_size == len(data) and place.read_bytes() == data
    place.parent.mkdir(exist_ok=True)
    staged = place.with_name(f"{place.name}.new")
    try:
        written = disk.write_file(staged, [data])
        if staged.stat().st_size != written[0] or disk.checksum(staged) != written[1]:
            raise FacesetError(f"{staged}: what was written is not what was read. Look after the disk, unpack again.")
        disk.replace(staged, place)
    finally:
        disk.unlink(staged)
    return True
