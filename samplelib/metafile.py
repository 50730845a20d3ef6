"""meta.dat: the face data of a folder's pictures, kept while they are edited in programs that drop them.

DFL's own file: a pickled dictionary from file name to (shape of the picture, its face data). Restoring changes no
pixel: the data go back into the file as it is. Where a program made the picture larger or smaller, it is the data that
are brought to its new size (DFL shrinks the picture back and encodes it once more).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.dflfile import DflFileError, dumps, joined, load, write_bytes
from core.disk import Disk
from core.shown import printable
from facelib.dfljpg import DflJpgError, embed, parse_metadata, read_header
from samplelib.facedata import MAX_SIDE, MIN_SIDE, points_of
from samplelib.faceset import JPEG, MAX_FILE, META, PICTURES, FacesetError

Progress = Callable[[int, int], None]
Warn = Callable[[str], None]
Saved = dict[str, tuple[tuple[int, ...], dict[str, Any]]]

_MAX_BYTES = 4 << 30


@dataclass
class Restored:
    """What became of the pictures of a folder. mended: got their data back, `scaled` of them at another size; whole:
    had them; own: have face data of their own, unlike the saved ones; problems: lines that `warn` got."""

    mended: int = 0
    scaled: int = 0
    whole: int = 0
    own: int = 0
    problems: int = 0
    kept: bool = False


def save_metadata(folder: Path, warn: Warn, progress: Progress = lambda done, total: None) -> tuple[int, int]:
    """Writes the face data of all JPGs of a folder into its meta.dat; returns how many there are in it, and how many of
    them an earlier meta.dat had alone: data of pictures that have none now are never lost.

    `warn` gets a line for each picture without face data. Raises FacesetError, OSError; a meta.dat is as before then.
    """
    path = folder / META
    earlier = read_saved(path, lambda line: None) if path.is_file() else {}
    found: dict[str, bytes] = {}
    pictures = _jpegs(folder)
    for number, picture in enumerate(pictures):
        progress(number, len(pictures))
        try:
            header = read_header(_content(picture))
            found[picture.name] = _entry(
                picture.name, (header.height, header.width, 3), parse_metadata(header.metadata)
            )
        except (DflJpgError, DflFileError) as error:
            known = "; meta.dat has its face data from before" if picture.name in earlier else ""
            warn(f"{printable(picture.name)}: {error}{known}")
    if not found and not earlier:
        raise FacesetError(f"{folder}: no picture with face data, so there is nothing to save.")
    kept = {name: _entry(name, *saved) for name, saved in earlier.items() if name not in found}
    write_bytes(path, joined([*kept.values(), *found.values()]))
    progress(len(pictures), len(pictures))
    return len(found) + len(kept), len(kept)


def _entry(name: str, shape: tuple[int, ...], metadata: dict[str, Any]) -> bytes:
    return dumps({name: (shape, metadata)})


def read_saved(path: Path, warn: Warn) -> Saved:
    """The content of a meta.dat; `warn` gets a line for each entry that is none. Raises FacesetError, OSError."""
    size = path.stat().st_size
    try:
        saved = load(path, max_bytes=_MAX_BYTES, max_nodes=max(1_000_000, size // 4))
    except DflFileError as error:
        raise FacesetError(f"{path}: {error.reason}. Move it away, or put a copy in its place.") from None
    if not isinstance(saved, dict):
        raise FacesetError(f"{path}: it holds no table of pictures. Move it away, or put a copy in its place.")
    found: Saved = {}
    for name, entry in saved.items():
        if not isinstance(name, str) or not _is_entry(entry):
            warn(f"{META}: what it says of {printable(str(name)[:80])} is unreadable")
        else:
            found[name] = (tuple(entry[0]), entry[1])
    return found


def restore_metadata(folder: Path, warn: Warn, disk: Disk, progress: Progress = lambda done, total: None) -> Restored:
    """Puts the face data of meta.dat back into the JPGs of a folder. meta.dat is deleted once it holds nothing that is
    not in the pictures. A picture that cannot be mended stays as it is, and `warn` gets a line with the reason.

    Raises FacesetError, OSError.
    """
    path = folder / META
    if not path.is_file():
        raise FacesetError(
            f"{path}: no such file. It is written by --save-faceset-metadata, before pictures are edited."
        )
    result = Restored()

    def problem(line: str) -> None:
        result.problems += 1
        warn(line)

    saved = read_saved(path, problem)
    pictures = _jpegs(folder)
    left, stems = set(saved), _stems(saved)
    for number, picture in enumerate(pictures):
        progress(number, len(pictures))
        alike = stems.get(picture.stem.casefold(), [])
        name = picture.name if picture.name in saved else alike[0] if len(alike) == 1 else None
        try:
            if _restore(picture, saved[name] if name is not None else None, result) and name is not None:
                left.discard(name)
        except (DflJpgError, DflFileError) as error:
            problem(f"{printable(picture.name)}: {error}")
    missing = _stems(left)
    for other in sorted(folder.iterdir()):
        if other.suffix.lower() in PICTURES - JPEG and other.stem.casefold() in missing:
            problem(f"{printable(other.name)}: face data can only lie in a JPG; save it as {other.stem}.jpg")
    progress(len(pictures), len(pictures))
    result.kept = bool(left or result.problems)
    if not result.kept:
        disk.unlink(path)
        disk.sync_folder(folder)
    return result


def scaled(metadata: Mapping[str, Any], x: float, y: float) -> dict[str, Any]:
    """Face data of a picture that was made `x` times as wide and `y` times as high: landmarks, polygons and the matrix
    from the frame; a mask has a size of its own. Corners go to corners, as in DFL's matrices for different sizes.

    Raises DflJpgError if there is something in its place that cannot be scaled.
    """
    changed = dict(metadata)
    try:
        for key in ("landmarks", "seg_ie_polys", "image_to_face_mat"):
            if changed.get(key) is not None:
                with np.errstate(over="ignore"):
                    changed[key] = _scale[key](changed[key], np.array([x, y]))
    except (TypeError, ValueError, KeyError, OverflowError):
        raise DflJpgError(f"its size was changed, and its saved {key} are unreadable") from None
    return changed


def _like(new: np.ndarray[Any, Any], old: Any) -> Any:
    """The numbers in the type of what they replace."""
    if not (np.abs(new) < 1e9).all():
        raise ValueError
    if isinstance(old, np.ndarray):
        return new.astype(old.dtype) if old.dtype.kind == "f" else new
    return new.tolist()


def _points(points: Any, factors: np.ndarray[Any, Any]) -> Any:
    return _like(points_of(points, "points") * factors, points)


def _matrix(matrix: Any, factors: np.ndarray[Any, Any]) -> Any:
    rows = points_of(matrix, "rows", 3)
    if len(rows) != 2:
        raise ValueError
    return _like(rows * factors[:, None], matrix)


def _polygons(polygons: Any, factors: np.ndarray[Any, Any]) -> Any:
    if isinstance(polygons, dict):
        polys = [{**poly, "pts": _points(poly["pts"], factors)} for poly in polygons["polys"]]
        return {**polygons, "polys": polys}
    return [(kind, _points(points, factors)) for kind, points in polygons]


_scale = {"landmarks": _points, "seg_ie_polys": _polygons, "image_to_face_mat": _matrix}


def _jpegs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FacesetError(f"{folder}: no such folder. Give the folder that holds aligned JPGs.")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in JPEG and path.is_file())


def _content(path: Path) -> bytes:
    if (size := path.stat().st_size) > MAX_FILE:
        raise DflJpgError(f"a file of {size:,} bytes; up to {MAX_FILE:,} are read")
    return path.read_bytes()


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, (tuple, list)) or len(entry) != 2 or not isinstance(entry[1], dict):
        return False
    shape = entry[0]
    whole = isinstance(shape, (tuple, list)) and 2 <= len(shape) <= 3 and all(type(n) is int for n in shape)
    return whole and all(MIN_SIDE <= n <= MAX_SIDE for n in shape[:2])


def _stems(names: Iterable[str]) -> dict[str, list[str]]:
    """The names of JPGs by what programs leave of them: they like to change the case, or .jpg to .jpeg."""
    found: dict[str, list[str]] = {}
    for name in names:
        path = Path(name)
        if path.suffix.lower() in JPEG and path.name == name:
            found.setdefault(path.stem.casefold(), []).append(name)
    return found


def _restore(picture: Path, saved: tuple[tuple[int, ...], dict[str, Any]] | None, result: Restored) -> bool:
    """Mends one picture; whether it holds afterwards what was saved. Raises DflJpgError, DflFileError."""
    data = _content(picture)
    header = read_header(data)
    own = _own(header.metadata)
    if saved is None:
        if own is None:
            raise DflJpgError("it has no face data, and meta.dat has none of its name; if it was renamed, name it back")
        result.whole += 1
        return True
    (height, width, *_), metadata = saved
    x, y = header.width / width, header.height / height
    if abs(x - y) * max(width, height) > 1:
        raise DflJpgError(
            f"its picture is {header.width}x{header.height} and was {width}x{height}: cropped or stretched, so its "
            "face data do not fit; bring it back to that shape"
        )
    resized = (header.height, header.width) != (height, width)
    wanted = scaled(metadata, x, y) if resized else metadata
    if own is not None and same(own, wanted):
        result.whole += 1
        return True
    if own is not None and not same(own, metadata):
        result.own += 1
        return False
    write_bytes(picture, embed(data, wanted))
    result.mended += 1
    result.scaled += resized
    return True


def _own(raw: bytes | None) -> dict[str, Any] | None:
    """The face data a picture holds; None where it has none, or none that can be read."""
    try:
        return parse_metadata(raw)
    except DflJpgError:
        return None


def same(a: Any, b: Any) -> bool:
    """Whether two values mean the same, lists and arrays of equal numbers included."""
    a, b = (value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value for value in (a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(one, two) for one, two in zip(a, b, strict=True))
    return bool(a == b) or (a != a and b != b)
