"""What the preview page shows, kept up to date by the trainer's messages: state, pictures, loss graph.

Whatever is drawn is drawn once, whoever asks for it how often, and by one thread at a time: many visitors cost no more
than one.
"""

from __future__ import annotations

import secrets
import struct
import threading
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from core.events import Previewed, Started, Stepped
from core.history import COMMENT, Board, jpeg
from core.preview import RANGES, Picture, loss_graph

FORMS = ("png", "jpg")
GRAPH_HEIGHT = 120
GRAPH_WIDTHS = (160, 1920)
GRAPH_STEP = 20
KEPT_GRAPHS = 16
KEPT_WORDS = 50
LOST = "Training ended without a word: it was killed, or the machine is short of memory."


class Site:
    """Everything a visitor can see. Safe from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._board = Board()
        self._changed = threading.Condition()  # guards all but the two caches
        self._serial = self._drawn = self._said = 0
        self._shown: dict[str, Any] = {"run": secrets.token_hex(8), "status": "starting", "saving": False}
        self._shown |= {"name": "", "target": 0, "facts": [], "tiles": [], "ended": ""}
        self._words: deque[dict[str, Any]] = deque(maxlen=KEPT_WORDS)
        self._options: list[dict[str, Any]] = []
        self._drawing = threading.Lock()  # guards the caches; held while something is drawn
        self._pictures: dict[tuple[int, int, str], bytes] = {}
        self._graphs: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()

    def take(self, head: dict[str, Any], parts: list[bytes]) -> None:
        """A message of the trainer, see `core.web`."""
        with self._changed:
            kind = head["kind"]
            if kind == "start":
                self._start(head, parts[0])
            elif kind == "steps":
                names = head["losses"]
                values = np.frombuffer(parts[0], np.float32).reshape(-1, len(names))
                first = head["iteration"] - len(values) + 1
                for place, row in enumerate(values.tolist()):
                    self._board.take(Stepped(first + place, dict(zip(names, row, strict=True)), 0.0))
                self._shown |= {"facts": head["facts"]}
                if self._shown["status"] in ("starting", "target"):
                    self._shown["status"] = "training"
            elif kind == "pages":
                pages = [
                    (page["title"], [[np.frombuffer(part, np.uint8).reshape(page["shape"])]])
                    for page, part in zip(head["pages"], parts, strict=True)
                ]
                self._board.take(Previewed(head["iteration"], pages))
                self._drawn += 1
                self._shown["tiles"] = [{"tiles": page["tiles"], "names": page["names"]} for page in head["pages"]]
            elif kind == "told":
                self._tell(head["level"], head["text"], head["time"])
            elif kind in ("status", "saving"):
                self._shown[kind] = head[kind]
            elif kind == "options":
                self._options = head["options"]
            elif kind == "end":
                self._shown |= {"status": "ended", "ended": head["text"]}
            self._serial += 1
            self._changed.notify_all()

    def end(self) -> None:
        """The trainer is gone; whoever waits is told so."""
        with self._changed:
            if not self._shown["ended"]:
                self._shown |= {"status": "ended", "ended": LOST}
            self._serial += 1
            self._changed.notify_all()

    def _start(self, head: dict[str, Any], history: bytes) -> None:
        names = tuple(head["losses"])
        values = np.frombuffer(history, np.float32).reshape(-1, max(1, len(names)))
        self._board.take(Started(head["name"], head["iteration"], head["target"], names, values))
        self._shown |= {"name": head["name"], "target": head["target"], "status": "training", "ended": ""}

    def _tell(self, level: str, text: str, when: float) -> None:
        self._said += 1
        self._words.append({"number": self._said, "level": level, "text": text, "time": when})

    def state(self, after: int = -1, seconds: float = 0.0) -> dict[str, Any]:
        """What is to be shown, once it is newer than `after`, at the latest in so many seconds."""
        end = self._clock() + seconds
        with self._changed:
            while self._serial == after and (left := end - self._clock()) > 0:
                self._changed.wait(left)
            board = self._board
            losses = board.history[-1].tolist() if len(board.history) else []
            return {
                **self._shown,
                "serial": self._serial,
                "iteration": board.iteration,
                "losses": [f"{name} {loss:.4f}" for name, loss in zip(board.names, losses, strict=False)],
                "pages": [title for title, _ in board.pages],
                "drawn": self._drawn,
                "drawn_at": board.drawn_at,
                "ranges": RANGES,
                "words": list(self._words),
            }

    def options(self) -> list[dict[str, Any]]:
        """The rows that may be changed, as the trainer gave them."""
        with self._changed:
            return self._options

    def picture(self, index: int, form: str) -> bytes | None:
        """Page `index` of the latest preview as PNG or JPG; None where there is no such page."""
        with self._drawing:
            with self._changed:
                pages, drawn = self._board.pages, self._drawn
            if not 0 <= index < len(pages):
                return None
            key = drawn, index, form
            if key not in self._pictures:
                tiles = pages[index][1][0][0]
                if any(old != drawn for old, _, _ in self._pictures):
                    self._pictures.clear()
                self._pictures[key] = jpeg(tiles, 92) if form == "jpg" else png(tiles)
            return self._pictures[key]

    def graph(self, last: int, width: int) -> bytes:
        """The losses of the `last` iterations (0: all) as a PNG about `width` pixels wide."""
        width = min(max(width, GRAPH_WIDTHS[0]), GRAPH_WIDTHS[1]) // GRAPH_STEP * GRAPH_STEP
        last = last if last in RANGES else 0
        with self._drawing:
            with self._changed:
                history, names, iteration = self._board.history, self._board.names, self._board.iteration
            key = iteration, last, width
            if key not in self._graphs:
                self._graphs[key] = png(loss_graph(history, names, width, GRAPH_HEIGHT, iteration, last))
                if len(self._graphs) > KEPT_GRAPHS:
                    self._graphs.popitem(last=False)
            return self._graphs[key]


def png(picture: Picture) -> bytes:
    """Encode (H, W, 3) uint8 BGR, saying in a text chunk that it is synthetic media."""
    # of faces the smallest that is fast: 1.6 MB of 20 faces of 256 px in 0.3 s of a busy core
    how = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    data = cv2.imencode(".png", picture, how)[1].tobytes()
    body = b"tEXtComment\0" + COMMENT.encode("latin-1")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    at = 8 + 4 + 4 + 13 + 4  # behind the signature and the header, which has to come first
    return data[:at] + chunk + data[at:]
