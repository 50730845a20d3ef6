"""What the window shows of a picture: zoom, place, names, help. Pure: arrays in, uint8 BGR out.

The text and the graph above the tiles are never scaled: they are drawn as wide as the window, so they stay readable.
The tiles come in their own size and are scaled once, straight to the screen's pixels, and only what is seen of them.
100 % is a pixel of a face on a pixel of the screen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from core.canvas import BACKGROUND, Picture, blank, text_width, write
from core.preview import LINE_HEIGHT, Label, Shot
from core.window_keys import HELP

LEVELS = (0.25, 1 / 3, 0.5, 2 / 3, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0)
"""Where `+`, `-` and the wheel stop."""
CRISP = 3.0
"""From here on every pixel of a face is drawn as a square; below enlarging is smooth."""
TOLD_S = 1.5
"""Seconds that the zoom is told after it has changed, or that there are no names."""

_NAME_SCALE = 0.38
_NAME_HEIGHT = 14
_HELP_SCALE = 0.45


class View:
    """One window's view. size: width and height of the window. clock: seconds, monotonic."""

    def __init__(self, size: tuple[int, int], clock: Callable[[], float] = time.monotonic) -> None:
        self.size = size
        self._clock = clock
        self._shot = Shot(blank(1, 1), blank(1, 1), size, ())
        self._zoom: float | None = None  # None: as large as fits
        self._centre = (0.5, 0.5)  # of what is shown, as a part of the tiles
        self._held: tuple[int, int] | None = None  # where the mouse holds the picture
        self._names = self._help = False
        self._note, self._told = "", float("-inf")
        self._changed = True

    def put(self, shot: Shot) -> None:
        """Another picture; zoom and place stay."""
        self._shot, self._changed = shot, True

    def resize(self, size: tuple[int, int]) -> None:
        if size != self.size:
            self.size, self._changed = size, True

    def changed(self) -> bool:
        """Whether `draw` would give another picture than before."""
        return self._changed or (np.isfinite(self._told) and not self._telling())

    def key(self, name: str) -> bool:
        """Obeys a key, given as `core.window_keys.key_name` says it; whether it was for the view."""
        if self._help:
            self._help, self._changed = False, True
            return True
        if name in ("+", "="):  # unshifted, it is the same key on many keyboards
            self._step(1)
        elif name == "-":
            self._step(-1)
        elif name == "f":
            self._fit()
        elif name == "n":
            self._names = not self._names
            if self._names and not self._shot.labels:
                self._tell("no names on this page")
        elif name in ("h", "?"):
            self._help = True
        else:
            return False
        self._changed = True
        return True

    def wheel(self, turns: int, x: int, y: int) -> None:
        """Zooms in (1) or out (-1) at a point of the window, which stays where it is."""
        self._step(turns, (x, y - self._top))

    def press(self, x: int, y: int) -> None:
        if self._help:
            self.key("")
        elif y >= self._top:
            self._held = (x, y)

    def move(self, x: int, y: int) -> None:
        """The mouse has moved; it takes along what it holds."""
        if self._held is not None and (x, y) != self._held:
            width, height = self._tiles_size()
            left = self._centre[0] - (x - self._held[0]) / (width * self.scale)
            top = self._centre[1] - (y - self._held[1]) / (height * self.scale)
            self._held, self._changed = (x, y), True
            self._centre = self._within(left, top)

    def release(self) -> None:
        self._held = None

    def twice(self) -> None:
        """A double click."""
        self._held = None
        self._fit()

    @property
    def holding(self) -> bool:
        """Whether the mouse is moving the picture."""
        return self._held is not None

    @property
    def scale(self) -> float:
        """Pixels of the screen for one of a tile."""
        if self._zoom is not None:
            return self._zoom
        (width, height), (room_x, room_y) = self._tiles_size(), self._room()
        return min(room_x / width, room_y / height)

    def draw(self) -> Picture:
        """(H, W, 3), as large as the window."""
        self._changed = False
        picture = blank(self.size[1], self.size[0])
        head = self._shot.head[: self.size[1], : self.size[0]]
        picture[: head.shape[0], : head.shape[1]] = head
        area = picture[self._top :]
        if area.size:
            self._draw_tiles(area)
            self._draw_note(area)
        if self._help:
            _draw_help(picture)
        return picture

    @property
    def _top(self) -> int:
        return min(self._shot.head.shape[0], self.size[1])

    def _tiles_size(self) -> tuple[int, int]:
        return self._shot.tiles.shape[1], self._shot.tiles.shape[0]

    def _room(self) -> tuple[int, int]:
        return max(1, self.size[0]), max(1, self.size[1] - self._top)

    def _step(self, turns: int, at: tuple[int, int] | None = None) -> None:
        """The next level up or down; the point `at` of the tiles' area stays where it is, its centre by default."""
        scale, room = self.scale, self._room()
        if turns > 0:
            wanted = min((level for level in LEVELS if level > scale * 1.001), default=scale)
        else:
            wanted = max((level for level in LEVELS if level < scale * 0.999), default=scale)
        dx, dy = ((at or (room[0] / 2, room[1] / 2))[i] - room[i] / 2 for i in (0, 1))
        width, height = self._tiles_size()
        change = 1 / scale - 1 / wanted
        if wanted != scale:
            before = self._within(*self._centre)
            self._zoom = wanted
            self._centre = self._within(before[0] + dx * change / width, before[1] + dy * change / height)
        self._tell(self._zoom_words())

    def _fit(self) -> None:
        self._zoom, self._centre = None, (0.5, 0.5)
        self._tell(self._zoom_words())

    def _zoom_words(self) -> str:
        return f"{self.scale * 100:.0f} %" + (" (all)" if self._zoom is None else "")

    def _tell(self, note: str) -> None:
        self._note, self._told, self._changed = note, self._clock(), True

    def _within(self, x: float, y: float) -> tuple[float, float]:
        """The nearest centre that leaves no room unused; what is smaller than the room stays in its middle."""
        half = [room / size / self.scale / 2 for room, size in zip(self._room(), self._tiles_size(), strict=True)]
        x, y = (0.5 if part >= 0.5 else min(max(at, part), 1 - part) for at, part in zip((x, y), half, strict=True))
        return x, y

    def _draw_tiles(self, area: Picture) -> None:
        scale, room, size = self.scale, (area.shape[1], area.shape[0]), self._tiles_size()
        centre = self._within(*self._centre)
        starts, ends, places = [], [], []
        for i in (0, 1):
            first = round(centre[i] * size[i] * scale - room[i] / 2)  # of the scaled tiles, at the area's edge
            start = max(0, int(first / scale))
            end = min(size[i], int((first + room[i]) / scale) + 2)
            starts.append(start)
            ends.append(max(end, start + 1))
            places.append(round(start * scale) - first)
        part = self._shot.tiles[starts[1] : ends[1], starts[0] : ends[0]]
        part = _scaled(part, [round(ends[i] * scale) - round(starts[i] * scale) for i in (0, 1)], scale)
        _paste(area, part, places[0], places[1])
        if self._names:
            left, top = places[0] - round(starts[0] * scale), places[1] - round(starts[1] * scale)
            _draw_names(area, self._shot.labels, left, top, scale)

    def _telling(self) -> bool:
        return self._clock() - self._told < TOLD_S

    def _draw_note(self, area: Picture) -> None:
        if not self._telling():
            self._told = float("-inf")
            return
        width = text_width(self._note, 0.6) + 16
        _on_dark(area, self._note, area.shape[1] - width - 8, area.shape[0] - 36, (width, 28), 0.6)


def _scaled(part: Picture, size: Sequence[int], scale: float) -> Picture:
    width, height = max(1, size[0]), max(1, size[1])
    if (height, width) == part.shape[:2]:
        return part
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST if scale >= CRISP else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, (width, height), interpolation=method), np.uint8)


def _paste(area: Picture, part: Picture, x: int, y: int) -> None:
    """`part` at (x, y), which may lie outside; what does not fit is cut off."""
    cut_x, cut_y = max(0, -x), max(0, -y)
    seen = part[cut_y : area.shape[0] - y, cut_x : area.shape[1] - x]
    area[y + cut_y : y + cut_y + seen.shape[0], x + cut_x : x + cut_x + seen.shape[1]] = seen


def _draw_names(area: Picture, labels: Sequence[Label], left: int, top: int, scale: float) -> None:
    """Each at the lower edge of its tile; a long one loses its ending, then its beginning: names of faces differ at the
    end."""
    for label in labels:
        x, y = left + round(label.x * scale), top + round((label.y + label.height) * scale)
        x, room = max(0, x), min(area.shape[1], x + round(label.width * scale)) - max(0, x)  # what is seen of the tile
        if room <= 0 or y <= 0 or y - _NAME_HEIGHT >= area.shape[0]:
            continue
        text = label.text
        if text_width(text, _NAME_SCALE) > room - 4:
            text = text.rpartition(".")[0] or text
        while text and text_width(text, _NAME_SCALE) > room - 4:
            text = ".." + text.removeprefix("..")[1:] if len(text) > 3 else ""
        if text:
            size = (text_width(text, _NAME_SCALE) + 4, _NAME_HEIGHT)
            _on_dark(area, text, x, min(y, area.shape[0]) - _NAME_HEIGHT, size, _NAME_SCALE)


def _on_dark(area: Picture, text: str, x: int, y: int, size: tuple[int, int], scale: float) -> None:
    """A line of text on darkened ground of that size, whose upper left corner is (x, y)."""
    ground = area[max(0, y) : y + size[1], max(0, x) : x + size[0]]
    ground[:] = ground // 4 + BACKGROUND * 3 // 4
    margin = (size[0] - text_width(text, scale)) // 2
    write(area, text, (x + margin, y + size[1] - round(13 * scale)), scale, 240)


def _draw_help(picture: Picture) -> None:
    """The keys, over a darkened picture; smaller where it is small."""
    picture //= 4
    lines = [*HELP, ("", ""), ("", "Any key goes back.")]
    column = max(text_width(keys, _HELP_SCALE) for keys, _ in HELP) + 24
    width = column + max(text_width(what, _HELP_SCALE) for _, what in lines)
    step = LINE_HEIGHT + 6
    smaller = min(1.0, picture.shape[1] / (width + 32), picture.shape[0] / (step * (len(lines) + 1)))
    scale, column, width, step = _HELP_SCALE * smaller, *(round(n * smaller) for n in (column, width, step))
    x, y = (picture.shape[1] - width) // 2, (picture.shape[0] - step * (len(lines) - 1)) // 2
    box = picture[max(0, y - step - 4) : y + step * len(lines), max(0, x - 16) : x + width + 16]
    box[:] = BACKGROUND
    for keys, what in lines:
        write(picture, keys, (x, y), scale, 255)
        write(picture, what, (x + column, y), scale)
        y += step
