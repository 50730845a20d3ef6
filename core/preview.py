"""Preview pictures: a grid of tiles under a loss graph under a few lines of text. Pure: arrays in, uint8 BGR out.

The look is DFL's; the graph says more (legend, axis values, smoothed lines) and cannot be broken by what the losses
are: NaN and infinity are left out and marked at the upper edge, outliers do not flatten the rest. It reduces the
iterations to one minimum, maximum and mean per pixel column, so its cost hardly depends on their number.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from core.batch import Page

Picture = npt.NDArray[np.uint8]

LINE_HEIGHT = 15
GRAPH_HEIGHT = 100
MAX_TILES = (1600, 800)
"""Width and height the tiles may take; larger grids are shrunk."""
LEAST_TILE = 128
"""But many rows make a page higher rather than a tile lower than this."""
MAX_ROWS = 16
MIN_WIDTH = 480
MAX_PIXELS = 8 << 20
"""A window is given no more of the tiles; larger grids are shrunk."""
MAX_HEAD = 8 * LINE_HEIGHT + GRAPH_HEIGHT
MAX_SIZE = (MAX_TILES[0], MAX_HEAD + MAX_ROWS * LEAST_TILE)
"""No composed picture of a page of up to `MAX_ROWS` rows is wider or higher (up to 8 lines of text)."""

RANGES = (0, 5_000, 10_000, 50_000, 100_000)
"""Iterations the graph covers, in the order the key `l` goes through them; 0 is all."""

KEY_LINES = ("[s]:save [b]:backup [enter]:exit [h]:help", "[p]:update [space]:next preview [l]:change history range")

BACKGROUND = 26  # 0.1
_GREY = 204  # 0.8
_DIM = 140
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LATEST = 100  # iterations the legend's values are the mean of
_SAMPLE = 8192  # iterations looked at for the height of the graph


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


def loss_graph(
    history: npt.NDArray[np.float32],
    names: Sequence[str],
    width: int,
    height: int = GRAPH_HEIGHT,
    iteration: int = 0,
    last: int = 0,
) -> Picture:
    """Losses over iterations, stretched to the full width.

    history: (n, k) float32, any value. names: the k losses. iteration: shown as `Iter: N`. last: iterations to
    cover, 0 = all. The upper edge is twice the mean of the last 80 % of all losses (DFL), outliers left out.
    """
    values = np.asarray(history, np.float32).reshape(-1, max(1, len(names)))
    values = values[-last:] if last else values
    picture = blank(height, width)
    lines = np.linspace(0, height - 1, 6).round().astype(int)
    picture[lines] = _GREY
    left = 0
    if len(values) and width >= 160:
        top = _upper_value(values)
        left = _axis(picture, lines, top)
        _curves(picture[:, left:], values, top, lines)
    caption = f"Iter: {iteration}" + (f"  (last {last})" if last else "  (all)") if len(values) else "no iteration yet"
    _band(picture, caption, int(lines[-2]) + 1, left)
    if left:
        _legend(picture, values, names, left)
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
    drawn_at: int | None = None,
) -> Picture:
    """The whole picture of page `index`; all pages of one list come out in one size.

    keys: with the two lines naming the window's keys. drawn_at: iteration of the weights that drew the pages.
    """
    tiles = _place(grid(pages[index][1]), common_size(pages))
    width = max(MIN_WIDTH, tiles.shape[1])
    lines = _lines(pages, index, keys, drawn_at)
    return compose(tiles, loss_graph(history, names, width, GRAPH_HEIGHT, iteration, last), lines)


def draw_shot(
    pages: Sequence[Page],
    index: int,
    history: npt.NDArray[np.float32],
    names: Sequence[str],
    iteration: int,
    *,
    last: int = 0,
    drawn_at: int | None = None,
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
    lines = _lines(pages, index, True, drawn_at)
    graph = loss_graph(history, names, max(MIN_WIDTH, width or wanted[0]), GRAPH_HEIGHT, iteration, last)
    head = _above(graph, lines)
    return Shot(head, tiles, (max(MIN_WIDTH, wanted[0]), head.shape[0] + wanted[1]), labels)


def _lines(pages: Sequence[Page], index: int, keys: bool, drawn_at: int | None) -> list[str | tuple[str, str]]:
    lines: list[str | tuple[str, str]] = list(KEY_LINES) if keys else []
    note = "" if drawn_at is None else f"drawn at iteration {drawn_at}"
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


def _upper_value(values: npt.NDArray[np.float32]) -> float:
    """Twice the mean of the last 80 % (DFL), of what is finite and not above ten times the median."""
    tail = values[len(values) // 5 :]
    tail = tail[:: -(-len(tail) // _SAMPLE)].astype(np.float64)
    tail = tail[np.isfinite(tail)]
    if not tail.size:
        return 1.0
    tail = tail[tail <= 10 * max(float(np.median(tail)), 0.0)]
    mean = float(tail.mean()) if tail.size else 0.0
    return 2 * mean if mean > 0 else 1.0


def _columns(values: npt.NDArray[np.float32], width: int, limit: float) -> tuple[npt.NDArray[Any], ...]:
    """Minimum, maximum and mean of one loss in every pixel column, NaN where nothing in it is finite, and whether
    something in it is not. The mean takes no value for more than `limit`: one outlier must not bend the line."""
    starts = np.arange(width) * len(values) // width
    # reduceat gives equal neighbouring starts the one value there: what a history shorter than the width needs
    counts = np.maximum(np.diff(starts, append=len(values)), 1).astype(np.float32)
    with np.errstate(all="ignore"):
        low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        odd = ~(np.isfinite(low) & np.isfinite(high))
        if not odd.any():
            if high.max() > limit:
                values = np.minimum(values, np.float32(limit))
            return low, high, np.add.reduceat(values, starts) / counts, odd
        finite = np.isfinite(values)
        counts = np.add.reduceat(finite, starts, dtype=np.float32)
        low = np.minimum.reduceat(np.where(finite, values, np.float32(np.inf)), starts)
        high = np.maximum.reduceat(np.where(finite, values, np.float32(-np.inf)), starts)
        mean = np.add.reduceat(np.where(finite, np.minimum(values, np.float32(limit)), np.float32(0)), starts) / counts
    empty = counts == 0
    low[empty] = high[empty] = np.nan
    return low, high, mean, odd


def _curves(plot: Picture, values: npt.NDArray[np.float32], top: float, lines: npt.NDArray[Any]) -> None:
    """Bars from minimum to maximum, dim so that all losses show, and a bright smoothed line for each."""
    height, width = plot.shape[:2]
    number = values.shape[1]
    columns = [_columns(np.ascontiguousarray(values[:, i]), width, min(4 * top, 3e38)) for i in range(number)]
    colours = [_colour(i, number) for i in range(number)]

    def row(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return np.clip((1 - value.astype(np.float64) / top) * (height - 1), -1, height - 1)

    rows = np.arange(height, dtype=np.int16)[:, None]
    covered = np.zeros((height, width), np.uint8)  # bit i: a bar of loss i
    for i, (low, high, _, _) in enumerate(columns[:8]):
        low, high = _joined(low, high)
        known = np.isfinite(low)
        first = np.where(known, np.floor(row(high)), height).astype(np.int16)
        final = np.where(known, np.ceil(row(low)), -1).astype(np.int16)
        covered |= ((rows >= first) & (rows <= final)).view(np.uint8) << np.uint8(i)
    plot[:] = cv2.applyColorMap(covered, _palette(colours[:8]))
    for y in lines:
        plot[y, covered[y] == 0] = _GREY
    for colour, (_, _, mean, _) in zip(colours, columns, strict=True):
        line = row(_smooth(mean))
        shown = np.isfinite(line)
        points = np.stack([np.arange(width), np.where(shown, line, 0)], 1).round().astype(np.int32)
        for part in np.split(np.arange(width), np.flatnonzero(np.diff(shown)) + 1):
            if shown[part[0]]:
                cv2.polylines(plot, [points[part]], False, colour, 1, cv2.LINE_AA)
    odd = np.any([column[3] for column in columns], axis=0)
    plot[:3, odd] = (255, 0, 255)


def _palette(colours: Sequence[tuple[int, int, int]]) -> Picture:
    """(256, 1, 3): the ground for 0, else half the mean colour of the bits set."""
    bits = np.arange(256)[:, None] >> np.arange(len(colours)) & 1
    mixed = bits @ np.array(colours) / np.maximum(bits.sum(1, keepdims=True), 1) / 2
    mixed[0] = BACKGROUND
    return mixed.astype(np.uint8)[:, None]


def _joined(low: npt.NDArray[np.float32], high: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], ...]:
    """Stretch every bar to touch the one before it, so that a short history is a trace and not a cloud of dots."""
    low, high = low.copy(), high.copy()
    before_low, before_high = low[:-1].copy(), high[:-1].copy()
    known = np.isfinite(low[1:])
    low[1:] = np.where(known, np.fmin(low[1:], before_high), np.nan)
    high[1:] = np.where(known, np.fmax(high[1:], before_low), np.nan)
    return low, high


def _smooth(mean: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Moving average over a fortieth of the width; NaN columns are left out, and stay NaN."""
    size = max(3, len(mean) // 40) | 1
    known = np.isfinite(mean)
    kernel = np.ones(min(size, len(mean)))
    total = np.convolve(np.where(known, mean, 0), kernel, "same")
    weight = np.convolve(known.astype(np.float64), kernel, "same")
    return np.where(known, total / np.maximum(weight, 1), np.nan).astype(np.float32)


def _axis(picture: Picture, lines: npt.NDArray[Any], top: float) -> int:
    """Write the values of the grid lines on the left; give the width they take."""
    labels = [_number(top * (5 - i) / 5) for i in range(6)]
    left = max(text_width(label, 0.36) for label in labels) + 8
    picture[:, :left] = BACKGROUND
    for i, label in enumerate(labels):
        y = int(np.clip(int(lines[i]) + 4, 9, picture.shape[0] - 2))
        write(picture, label, (left - 4 - text_width(label, 0.36), y), 0.36)
    return left


def _legend(picture: Picture, values: npt.NDArray[np.float32], names: Sequence[str], left: int) -> None:
    """Names and present values (mean of the latest iterations) in the losses' colours, in the upper right corner,
    where falling losses leave room. What does not fit is left out, the last first."""
    latest = values[-_LATEST:].astype(np.float64)
    entries: list[tuple[str, int]] = []
    for i, name in enumerate(names):
        known = latest[np.isfinite(latest[:, i]), i]
        text = f"{name} {_number(float(known.mean())) if known.size else 'not finite'}"
        entries.append((text, text_width(text, 0.38) + 24))
    while sum(width for _, width in entries) > picture.shape[1] - left:
        entries.pop()
    x = picture.shape[1] - sum(width for _, width in entries)
    for i, (text, width) in enumerate(entries):
        area = picture[3:18, x - 2 : x + width - 8]
        area[:] = area // 4 + BACKGROUND * 3 // 4
        picture[7:14, x : x + 8] = _colour(i, len(names))
        write(picture, text, (x + 12, 14), 0.38, 235)
        x += width


def _band(picture: Picture, text: str, y: int, left: int) -> None:
    """A line of text in the lowest band, on darkened ground."""
    width = text_width(text, 0.38)
    x = max(left, left + (picture.shape[1] - left - width) // 2)
    area = picture[y : y + 18, max(0, x - 4) : x + width + 4]
    area[:] = area // 4 + BACKGROUND * 3 // 4
    write(picture, text, (x, y + 13), 0.38, 235)


def _colour(index: int, number: int) -> tuple[int, int, int]:
    """BGR; the hue is index / number: of two losses the first is red, the second cyan (DFL)."""
    red, green, blue = colorsys.hsv_to_rgb(index / number, 0.85, 1.0)
    return int(blue * 255), int(green * 255), int(red * 255)


def _number(value: float) -> str:
    """Four significant places, at most 8 characters."""
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 10_000 else f"{value:.1e}"


def blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def write(picture: Picture, text: str, at: tuple[int, int], scale: float = 0.4, level: int = _GREY) -> None:
    cv2.putText(picture, _plain(text), at, _FONT, scale, (level, level, level), 1, cv2.LINE_AA)


def text_width(text: str, scale: float = 0.4) -> int:
    return int(cv2.getTextSize(_plain(text), _FONT, scale, 1)[0][0])


def _plain(text: str) -> str:
    """OpenCV's stroke fonts know ASCII only."""
    return text.encode("ascii", "replace").decode()
