"""Preview pictures: a grid of tiles under a loss graph under a few lines of text. Pure: arrays in, uint8 BGR out.

The look is DFL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from core.batch import Page
from core.canvas import Picture, blank, text_width, write
from core.lossgraph import GRAPH_HEIGHT, loss_graph

LINE_HEIGHT = 15
MAX_TILES = (1600, 800)
"""Width and height the tiles may take; larger grids are shrunk."""
LEAST_TILE = 128
"""But many rows make a page higher rather than a tile lower than this."""
MAX_ROWS = 16
"""So many faces a preview history may have."""
MIN_WIDTH = 480
MAX_PIXELS = 8 << 20
"""A window is given no more of the tiles; larger grids are shrunk."""
MAX_HEAD = 8 * LINE_HEIGHT + GRAPH_HEIGHT

RANGES = (0, 5_000, 10_000, 50_000, 100_000)
"""Iterations the graph covers, in the order the key `l` goes through them; 0 is all."""

KEY_LINES = ("[s]:save [b]:backup [enter]:exit [h]:help", "[p]:update [space]:next preview [l]:change history range")

_DIM = 140


class Label(NamedTuple):
    """A tile's name, and where the tile lies in the grid, in pixels."""

    x: int
    y: int
    width: int
    height: int
    text: str


class Shot(NamedTuple):
    """A page for a window that scales by itself: text and graph (h, w, 3), tiles (H, W, 3) in their own size, the width
    and height of the window that would suit, and the names of tiles."""

    head: Picture
    tiles: Picture
    size: tuple[int, int]
    labels: tuple[Label, ...]


def grid(rows: Sequence[Sequence[npt.NDArray[Any]]]) -> Picture:
    """Tiles side by side: rows of (h, w, 3) uint8 cells, all alike -> (H, W, 3). A short row is filled with grey.

    Raises ValueError when there is no cell or one differs in shape or type.
    """
    cells = [cell for row in rows for cell in row]
    if not cells:
        raise ValueError("a preview page needs at least one cell; it has none")
    height, width = cells[0].shape[:2]
    for cell in cells:
        if cell.shape != (height, width, 3) or cell.dtype != np.uint8:
            raise ValueError(
                f"a preview cell is {cell.shape} {cell.dtype}; allowed: ({height}, {width}, 3) uint8, as the first cell"
            )
    picture = blank(height * len(rows), width * max(len(row) for row in rows))
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            picture[y * height : (y + 1) * height, x * width : (x + 1) * width] = cell
    return picture


def compose(tiles: Picture, graph: Picture, lines: Sequence[str | tuple[str, str]]) -> Picture:
    """Lines of text (a pair: left and right end of the line), graph, tiles, from top to bottom.

    The result is as wide as the graph; narrower tiles are centred. Raises ValueError for tiles wider than the graph.
    """
    width = graph.shape[1]
    if tiles.shape[1] > width:
        raise ValueError(f"tiles are {tiles.shape[1]} pixels wide, the graph {width}; make the graph as wide")
    body = blank(tiles.shape[0], width)
    x = (width - tiles.shape[1]) // 2
    body[:, x : x + tiles.shape[1]] = tiles
    return np.concatenate([_above(graph, lines), body])


def _above(graph: Picture, lines: Sequence[str | tuple[str, str]]) -> Picture:
    """Lines of text over the graph, as wide as it is."""
    width = graph.shape[1]
    text = blank(LINE_HEIGHT * len(lines), width)
    for i, line in enumerate(lines):
        left, right = (line, "") if isinstance(line, str) else line
        y = LINE_HEIGHT * (i + 1) - 4
        write(text, left, (5, y))
        write(text, right, (width - 5 - text_width(right), y), level=_DIM)
    return np.concatenate([text, graph])


def common_size(pages: Sequence[Page], most: int = 0) -> tuple[int, int]:
    """Width and height of the tiles of all pages: at most `MAX_TILES`, but high enough for all rows to be `LEAST_TILE`
    (most: the height, instead of both). Small ones are enlarged towards `MIN_WIDTH`."""
    height = max(len(rows) * rows[0][0].shape[0] for _, rows in pages)
    width = max(max(len(row) for row in rows) * rows[0][0].shape[1] for _, rows in pages)
    most = most or max(MAX_TILES[1], LEAST_TILE * max(len(rows) for _, rows in pages))
    scale = min(1.0, MAX_TILES[0] / width, most / height)
    if width < MIN_WIDTH:
        scale = max(scale, min(-(-MIN_WIDTH // width), MAX_TILES[1] // height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def draw_page(
    pages: Sequence[Page],
    index: int,
    history: npt.NDArray[np.float32],
    names: Sequence[str],
    iteration: int,
    *,
    last: int = 0,
    keys: bool = True,
    note: str = "",
) -> Picture:
    """The whole picture of page `index`; all pages of one list come out in one size.

    keys: with the two lines naming the window's keys. note: at the end of the line that names the page.
    """
    tiles = _place(grid(pages[index][1]), common_size(pages))
    width = max(MIN_WIDTH, tiles.shape[1])
    lines = _lines(pages, index, keys, note)
    return compose(tiles, loss_graph(history, names, width, GRAPH_HEIGHT, iteration, last), lines)


def draw_shot(
    pages: Sequence[Page],
    index: int,
    history: npt.NDArray[np.float32],
    names: Sequence[str],
    iteration: int,
    *,
    last: int = 0,
    note: str = "",
    captions: Sequence[Sequence[str]] = (),
    width: int = 0,
) -> Shot:
    """Page `index` for a window. captions: names of tiles, rows of texts as the page has rows of cells; "" or missing
    for none. width: of text and graph, 0 as wide as a window would suit."""
    rows = pages[index][1]
    tiles = grid(rows)
    if (pixels := tiles.shape[0] * tiles.shape[1]) > MAX_PIXELS:
        scale = (MAX_PIXELS / pixels) ** 0.5
        size = int(tiles.shape[1] * scale), int(tiles.shape[0] * scale)
        tiles = np.asarray(cv2.resize(tiles, size, interpolation=cv2.INTER_AREA), np.uint8)
    across, down = tiles.shape[1] / max(len(row) for row in rows), tiles.shape[0] / len(rows)
    labels = tuple(
        Label(round(x * across), round(y * down), round(across), round(down), text)
        for y, (texts, _) in enumerate(zip(captions, rows, strict=False))
        for x, text in enumerate(texts)
        if text
    )
    wanted = common_size(pages, MAX_TILES[1])
    lines = _lines(pages, index, True, note)
    graph = loss_graph(history, names, max(MIN_WIDTH, width or wanted[0]), GRAPH_HEIGHT, iteration, last)
    head = _above(graph, lines)
    return Shot(head, tiles, (max(MIN_WIDTH, wanted[0]), head.shape[0] + wanted[1]), labels)


def _lines(pages: Sequence[Page], index: int, keys: bool, note: str) -> list[str | tuple[str, str]]:
    lines: list[str | tuple[str, str]] = list(KEY_LINES) if keys else []
    return [*lines, (f'Preview: "{pages[index][0]}" [{index + 1}/{len(pages)}]', note)]


def waiting_shot(text: str, width: int = 0) -> Shot:
    """What the window shows before the first preview."""
    width = max(MIN_WIDTH, width)
    tiles = blank(2 * GRAPH_HEIGHT, MIN_WIDTH)
    write(tiles, text, ((MIN_WIDTH - text_width(text)) // 2, GRAPH_HEIGHT))
    head = _above(blank(GRAPH_HEIGHT, width), KEY_LINES)
    return Shot(head, tiles, (MIN_WIDTH, head.shape[0] + tiles.shape[0]), ())


def _place(picture: Picture, size: tuple[int, int]) -> Picture:
    """`picture` as large as fits into size (width, height), centred on grey."""
    scale = min(size[0] / picture.shape[1], size[1] / picture.shape[0])
    width, height = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    if (height, width) != picture.shape[:2]:
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=method), np.uint8)
    if (width, height) == size:
        return picture
    out = blank(size[1], size[0])
    x, y = (size[0] - width) // 2, (size[1] - height) // 2
    out[y : y + height, x : x + width] = picture
    return out
