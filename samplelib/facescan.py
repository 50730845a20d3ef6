"""The faces of a folder or a pack, read head by head; what an index knows of unchanged files is not read again.

No pixel is decoded. Faces come in order of their names (of a pack: in its order); those that cannot be used are told,
each with its reason, at every start.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from core.shown import printable, shorten
from facelib.dfljpg import CutOffError, DflJpgError, Header, LostMetadataError, parse_metadata, read_header
from samplelib import pack
from samplelib.facedata import LONGEST_NAME, FaceReadError, check_face
from samplelib.facetable import Arrays, Found, Stamp, Table, arrays_of, joined, taken

JPEG = {".jpg", ".jpeg"}
PICTURES = {*JPEG, ".png", ".webp", ".tif", ".tiff", ".bmp"}
MAX_FILE = 256 << 20
META = "meta.dat"
"""Face data of the folder's pictures, kept while they are edited (`samplelib.metafile`)."""

_HEAD = 24 << 10  # what one read of a file's head asks for: holds most face data
_MAX_HEAD = 16 << 20
_AHEAD = 64  # files
_PART = 1024  # faces that are held as objects before they become arrays
_WINDOW = 1 << 20  # how far on in a pack the next mask is looked for

TICK_NS = 2_000_000_000
"""Times of files may be so coarse (FAT): a file changed less than that before it was looked at could be changed once
more without its times telling, so it is looked at again at the next start."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is no usable face. lost: its face data are gone, which meta.dat may mend."""

    name: str
    stamp: Stamp
    reason: str
    lost: bool = False


@dataclass
class Known:
    """What is known of a folder. packed: of its faceset.pak, whose stamp it is; scanned: when it was looked at, in ns
    of the clock that times files."""

    packed: bool
    scanned: int
    stamp: Stamp
    arrays: Arrays
    refused: list[Refused]

    def settled(self, stamp: Stamp) -> bool:
        """Whether a file with that stamp cannot have been changed since without its stamp changing."""
        return max(stamp[1:]) + TICK_NS < self.scanned


@dataclass
class Tally:
    """Files since the last start; read: that had to be read."""

    read: int = 0
    new: int = 0
    changed: int = 0
    gone: int = 0

    def words(self) -> str:
        """`3 new and 1 gone since the last start`; empty where all is as it was."""
        counts = {"new": self.new, "changed": self.changed, "gone": self.gone}
        parts = [f"{count:,} {word}" for word, count in counts.items() if count]
        return f"{', '.join(parts[:-1])}{' and ' if parts[1:] else ''}{parts[-1]} since the last start" if parts else ""


def stamp_of(stat: os.stat_result) -> Stamp:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


class _Collected:
    """Faces that were read, kept as objects for a moment only."""

    def __init__(self) -> None:
        self.parts: list[Arrays] = []
        self.count = 0
        self._open: list[Found] = []

    def add(self, face: Found) -> None:
        self._open.append(face)
        self.count += 1
        if len(self._open) == _PART:
            self.close()

    def close(self) -> list[Arrays]:
        if self._open or not self.parts:
            self.parts.append(arrays_of(self._open))
            self._open = []
        return self.parts


Refuse = Callable[[str, str], None]
Tick = Callable[[int, int], object]
"""How many faces have been looked at, and of how many."""


def scan_folder(
    folder: Path, known: Known | None, refuse: Refuse, tick: Tick, now: Callable[[], int] = time.time_ns
) -> tuple[Known, Tally]:
    """The loose faces of a folder. refuse: told name and reason of each picture that is not used."""
    scanned, tally = now(), Tally()
    usable = known if known is not None and not known.packed else None
    rows, reasons = _rows(usable)
    stamps = usable.arrays["stamps"].tolist() if usable is not None else []
    base = len(stamps)
    collected, order, refused, seen = _Collected(), [], [], 0
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: os.path.normcase(entry.name))
    unknown = (entry for entry in entries if entry.name not in rows and entry.name not in reasons)
    ahead = _Ahead([entry.path for entry in unknown if _suffix(entry.name) in JPEG])
    for number, entry in enumerate(entries):
        suffix = _suffix(entry.name)
        if suffix not in PICTURES:
            continue
        name = entry.name
        if not entry.is_file():
            refuse(name, "a folder, not a picture" if entry.is_dir() else "not a file")
            continue
        if suffix not in JPEG:
            refuse(name, "aligned faces are JPG files, this is none")
            continue
        tick(number, len(entries))
        row, reason = rows.get(name), reasons.get(name)
        try:
            stamp = stamp_of(entry.stat())
            before = None if row is None else tuple(stamps[row])
            before = reason.stamp if reason is not None else before
            seen += before is not None
            if usable is not None and before == stamp and usable.settled(stamp):
                if reason is None and row is not None:
                    order.append(row)
                    continue
            else:
                tally.read += 1
                tally.new += usable is not None and before is None
                tally.changed += before is not None and before != stamp
                reason = None
                ahead.step()
                try:
                    face = read_loose(Path(entry.path), name, stamp)
                except (DflJpgError, FaceReadError) as error:
                    reason = Refused(name, stamp, str(error), isinstance(error, LostMetadataError))
                else:
                    order.append(base + collected.count)
                    collected.add(face)
        except OSError as error:  # not kept: the next start tries again
            refuse(name, f"cannot be read ({error.strerror or error})")
            continue
        if reason is not None:
            refused.append(reason)
            refuse(name, _mend(folder) if reason.lost and (folder / META).is_file() else reason.reason)
    tally.gone = len(rows) + len(reasons) - seen
    if usable is not None and not collected.count and order == list(range(base)):
        arrays = usable.arrays
    else:
        arrays = taken(joined([*([usable.arrays] if usable is not None else []), *collected.close()]), order)
    return Known(False, scanned, (0, 0, 0), arrays, refused), tally


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # a Path for each of 100,000 takes a second


class _Ahead:
    """Has the system fetch the heads of the next files from the disk, while the present one is read."""

    def __init__(self, paths: list[str]) -> None:
        self._paths = iter(paths) if hasattr(os, "posix_fadvise") else iter(())
        self._wanted = _AHEAD

    def step(self) -> None:
        for path in islice(self._paths, self._wanted):
            with contextlib.suppress(OSError):  # whoever reads it will tell
                handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                try:
                    os.posix_fadvise(handle, 0, _HEAD, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(handle)
        self._wanted = 1


def _rows(known: Known | None) -> tuple[dict[str, int], dict[str, Refused]]:
    if known is None:
        return {}, {}
    names = Table(known.arrays, "names").texts()
    return {name: row for row, name in enumerate(names)}, {face.name: face for face in known.refused}


def _mend(folder: Path) -> str:
    return (
        f"its face data are lost, {META} may have them: "
        f'python main.py util --input-dir "{printable(str(folder))}" --restore-faceset-metadata'
    )


def read_loose(path: Path, name: str, stamp: Stamp) -> Found:
    """One face of a folder. Raises DflJpgError, FaceReadError, OSError."""
    header, data = _header(path)
    face = check_face(parse_metadata(header.metadata), (header.height, header.width))
    mask_at = None
    if face.xseg_mask is not None and (at := data.find(face.xseg_mask)) >= 0:
        mask_at = (at, len(face.xseg_mask), zlib.crc32(face.xseg_mask))
    return Found(name, 0, 0, face, stamp, mask_at)


def _header(path: Path) -> tuple[Header, bytes]:
    """The JPEG header of a file, and so much of the file as that took."""
    with path.open("rb", buffering=0) as file:
        if (size := os.fstat(file.fileno()).st_size) > MAX_FILE:
            raise FaceReadError(f"a file of {size:,} bytes; up to {MAX_FILE:,} are read")
        head = file.read(_HEAD)
        try:
            return read_header(head), head
        except CutOffError:
            rest = file.read(_MAX_HEAD)
            if not rest:
                raise
            return read_header(head + rest), head + rest


def scan_pack(
    folder: Path, known: Known | None, refuse: Refuse, tick: Tick, now: Callable[[], int] = time.time_ns
) -> tuple[Known, Tally]:
    """The faces of a folder's faceset.pak. Raises PackError, OSError."""
    path, scanned = folder / pack.NAME, now()
    stamp = stamp_of(path.stat())
    if known is not None and known.packed and known.stamp == stamp and known.settled(stamp):
        for broken in known.refused:
            refuse(broken.name, broken.reason)
        return known, Tally()
    tally = Tally(read=1)
    entries, refused, collected = pack.read_pack(path), [], _Collected()
    masks = _Masks(path)
    for number, entry in enumerate(entries):
        name = shorten(printable(entry.filename), LONGEST_NAME)  # a stranger's: only ever shown
        tick(number, len(entries))
        try:
            if entry.size <= 0 or entry.size > MAX_FILE or entry.offset + entry.size > stamp[0]:
                raise FaceReadError("its picture lies outside the pack")
            shape = entry.metadata.get("shape")
            if not isinstance(shape, (list, tuple)) or not all(type(n) is int for n in (*shape, None, None)[:2]):
                raise FaceReadError("the pack does not say how large its picture is")
            face = check_face(entry.metadata, (shape[0], shape[1]))
        except FaceReadError as error:
            refused.append(Refused(f"{pack.NAME}/{name}", (0, 0, 0), str(error)))
            refuse(f"{pack.NAME}/{name}", str(error))
        else:
            place = masks.place(face.xseg_mask)
            collected.add(Found(name, entry.offset, entry.size, face, stamp, place))
        entries[number] = pack.NOTHING  # its masks and lists would stay until the last face is read
    masks.close()
    return Known(True, scanned, stamp, joined(collected.close()), refused), tally


class _Masks:
    """Finds masks in the list of a pack: they lie there as they are, in the order of the faces."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._at, self._window, self._start = 0, b"", 0
        self._patience = 100  # a pack of an old protocol has none of them as it is

    def place(self, mask: bytes | None) -> tuple[int, int, int] | None:
        if mask is None or self._patience <= 0:
            return None
        for _ in range(2):
            found = self._window.find(mask, max(0, self._at - self._start))
            if found >= 0:
                begin = self._start + found
                self._at = begin + len(mask)
                return begin, len(mask), zlib.crc32(mask)
            self._file.seek(self._at)
            self._start, self._window = self._at, self._file.read(_WINDOW + len(mask))
        self._patience -= 1
        return None

    def close(self) -> None:
        self._file.close()
