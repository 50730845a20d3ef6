"""What previews are drawn from, kept up to date by events, and the sinks that write them as JPG files.

Every file says in a JPEG comment that it is synthetic media. Files are replaced in one step, so a viewer never meets
half a picture; a disk that cannot be written is reported once and never stops training.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from core.batch import Captions, Page
from core.events import BackedUp, Event, Previewed, Started, Stepped, Waits
from core.preview import Picture, Shot, draw_page, draw_shot
from core.thinning import Thinned

COMMENT = (
    "Synthetic media: contains faces drawn by a neural network. Made by facesmith, a face-swap trainer. "
    "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
)
QUALITY = 90
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}


class Board:
    """The loss history and the latest pages, gathered from events."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.iteration = 0
        self.pages: list[Page] = []
        self.drawn_at = 0
        self.captions: Captions = {}
        self.waits = ""  # for whose answer training stands still
        self._losses = np.empty((0, 0), np.float32)  # (losses, room): a loss is contiguous, the graph wants it so
        self._count = 0

    @property
    def history(self) -> npt.NDArray[np.float32]:
        """(n, losses) float32, a view."""
        return self._losses[:, : self._count].T

    def take(self, event: Event) -> None:
        """Note what a Started, Stepped, Previewed or Waits event says."""
        if isinstance(event, Started):
            self.names, self.iteration = tuple(event.loss_names), event.iteration
            history = np.asarray(event.history, np.float32)
            if not history.size:
                history = history.reshape(0, len(self.names))
            if history.shape != (len(history), len(self.names)):
                raise ValueError(
                    f"the loss history is {history.shape}; allowed: (n, {len(self.names)}) for {self.names}"
                )
            self._count = len(history)
            self._losses = np.empty((history.shape[1], self._count + 1024), np.float32)
            self._losses[:, : self._count] = history.T
        elif isinstance(event, Stepped):
            if not self.names:
                self.names = tuple(event.losses)
                self._losses = np.empty((len(self.names), 1024), np.float32)
            if self._count == self._losses.shape[1]:
                self._losses = np.concatenate([self._losses, np.empty_like(self._losses)], axis=1)
            self._losses[:, self._count] = [event.losses.get(name, np.nan) for name in self.names]
            self._count += 1
            self.iteration = event.iteration
        elif isinstance(event, Previewed) and not event.history and event.pages:
            self.pages, self.drawn_at, self.captions = event.pages, event.iteration, event.captions
        elif isinstance(event, Waits):
            self.waits = event.text

    def draw(self, index: int, *, pages: Sequence[Page] | None = None, last: int = 0, keys: bool = True) -> Picture:
        """Page `index` with the graph. pages: others than the latest (those of the preview history)."""
        return draw_page(
            self.pages if pages is None else pages,
            index,
            self.history,
            self.names,
            self.iteration,
            last=last,
            keys=keys,
            note=f"drawn at iteration {self.drawn_at}" if keys else "",
        )

    def shot(self, index: int, *, last: int = 0, width: int = 0) -> Shot:
        """Page `index` of the latest for a window of that width (0: as suits)."""
        return draw_shot(
            self.pages,
            index,
            self.history,
            self.names,
            self.iteration,
            last=last,
            note=self.waits or f"drawn at iteration {self.drawn_at}",
            captions=self.captions.get(self.pages[index][0], ()),
            width=width,
        )


class PreviewFiles:
    """Sink: the latest pages as `<prefix>_preview_<page>.jpg`, and as `preview_<page>.jpg` in every new backup. Pages
    that there are no more lose their pictures.

    prefix: path and first part of the name, as in `model/new_SAEHD`. active: False keeps quiet, but up to date, until
    `activate()`: what stands in when a window goes away. warn: gets one text at the first write error.
    """

    def __init__(self, prefix: Path, warn: Callable[[str], object], *, active: bool = True) -> None:
        self._prefix, self._active = prefix, active
        self._board = Board()
        self._writer = _Writer(warn)
        self._names: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._board.take(event)
            if isinstance(event, Previewed) and not event.history and self._active:
                self._write(self._prefix.parent, f"{self._prefix.name}_preview_")
            elif isinstance(event, BackedUp):
                self._write(event.folder, "preview_")

    def activate(self) -> None:
        """Start writing, with the pages known so far. Safe from any thread."""
        with self._lock:
            self._active = True
            self._write(self._prefix.parent, f"{self._prefix.name}_preview_")

    def rest(self) -> None:
        """Stop writing: there is a window again."""
        with self._lock:
            self._active = False

    def _write(self, folder: Path, start: str) -> None:
        names = [f"{start}{file_safe(title)}.jpg" for title, _ in self._board.pages]
        for i, name in enumerate(names):
            self._writer(folder / name, self._board.draw(i, keys=False))
        if names and names != self._names:
            self._names = names
            _drop(folder, start, names)


def _drop(folder: Path, start: str, names: Sequence[str]) -> None:
    """Deletes our pictures of pages that there are no more, as after pretraining: nobody would know them for old."""
    with contextlib.suppress(OSError):  # an old picture does no harm
        for path in list(folder.iterdir()):
            if path.name.startswith(start) and path.name not in names and path.suffix == ".jpg" and ours(path):
                path.unlink()


class PreviewHistory:
    """Sink: pages of the fixed preview sample as `<prefix>_history/<page>/0001234.jpg` and `_last.jpg` beside it. most:
    how many numbered pictures of a page stay, 0 all."""

    def __init__(self, prefix: Path, warn: Callable[[str], object], most: int = 0) -> None:
        self._folder = prefix.with_name(f"{prefix.name}_history")
        self._board = Board()
        self._most = most
        self._thinned: dict[Path, Thinned] = {}
        self._writer = _Writer(warn)

    def __call__(self, event: Event) -> None:
        self._board.take(event)
        if isinstance(event, Started):  # pictures may have been moved meanwhile
            self._thinned = {}
        if isinstance(event, Previewed) and event.history:
            for i, (title, _) in enumerate(event.pages):
                folder = self._folder / file_safe(title)
                picture = self._board.draw(i, pages=event.pages, keys=False)
                path = folder / f"{event.iteration:07d}.jpg"
                if self._writer(path, picture, folder / "_last.jpg"):
                    self._thin(path)

    def limit(self, most: int) -> None:
        """Another number of pictures from the next one on. Safe from any thread."""
        if most != self._most:
            self._most, self._thinned = most, {}

    def _thin(self, path: Path) -> None:
        thinned = self._thinned  # another limit may come from another thread
        try:
            if path.parent not in thinned:
                thinned[path.parent] = Thinned(path.parent, self._most, ours)
            thinned[path.parent].add(path)
        except OSError as error:
            self._writer.warn(f"cannot delete a picture in {path.parent}: {error.strerror or error}. More will stay.")


class _Writer:
    """Writes pictures and reports the first error only."""

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn, self._warned = warn, False

    def __call__(self, path: Path, picture: Picture, *copies: Path) -> bool:
        """Whether it was written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            data = jpeg(picture)
            for target in (path, *copies):
                write_file(target, data)
        except OSError as error:
            self.warn(
                f"cannot write the preview {path}: {error.strerror or error}. Training goes on; free some space or "
                "make the folder writable. Further errors of this kind are not shown."
            )
            return False
        return True

    def warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(text)


def ours(path: Path) -> bool:
    """Whether facesmith wrote the picture: its comment stands near the beginning."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return COMMENT.encode("ascii") in file.read(1024)
    return False


def jpeg(picture: npt.NDArray[Any], quality: int = QUALITY) -> bytes:
    """Encode (H, W, 3) uint8 BGR, with COMMENT in a COM segment."""
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    text = COMMENT.encode("ascii")
    # after the JFIF header (APP0), which has to come first
    at = 4 + int.from_bytes(data[4:6], "big") if data[2:4] == b"\xff\xe0" else 2
    return data[:at] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + data[at:]


def write_file(path: Path, data: bytes) -> None:
    """Write beside and replace: no reader sees half a file. Raises OSError; leaves no temporary file then."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def file_safe(title: str) -> str:
    """A page's title as a file name on every system: letters, digits, blank, `-`, `_` and `.` stay."""
    name = "".join(letter if letter.isalnum() or letter in " -_." else "_" for letter in title)[:80].strip(" .")
    return f"_{name}" if not name or name.lower().split(".")[0] in _RESERVED else name
