"""The graph of the losses, in DFL's look; it says more than DFL's (legend, axis values, smoothed lines) and cannot be
broken by what the losses are: NaN and infinity are left out and marked at the upper edge, outliers do not flatten the
rest. It reduces the iterations to one minimum, maximum and mean per pixel column, so its cost hardly depends on their
number.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from core.canvas import BACKGROUND, GREY, Picture, blank, text_width, write

GRAPH_HEIGHT = 100

_LATEST = 100  # iterations the legend's values are the mean of
_SAMPLE = 8192  # iterations looked at for the height of the graph


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
    picture[lines] = GREY
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
        plot[y, covered[y] == 0] = GREY
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
