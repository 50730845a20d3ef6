"""What the window shows, without a window: scaling, place, names, help."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from core.canvas import Picture
from core.preview import Label, Shot, draw_shot
from core.window_keys import COMMAND_KEYS, DIGITS, HELP
from core.window_view import LEVELS, View

HEAD = np.full((50, 400, 3), 200, np.uint8)
SIZE = (400, 250)  # 400 x 200 for the tiles


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def noise(height: int, width: int) -> Picture:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def view(tiles: Picture, size: tuple[int, int] = SIZE, labels: tuple[Label, ...] = ()) -> View:
    made = View(size, Clock())
    made.put(Shot(HEAD, tiles, SIZE, labels))
    made.draw()
    return made


def tiles_of(made: View) -> Picture:
    """What is below the head, once the zoom is no longer told."""
    assert isinstance(made._clock, Clock)
    made._clock.now += 10
    return made.draw()[50:]


def zoom_to(made: View, level: float) -> None:
    made.key("f")
    while made.scale < level * 0.99:
        made.key("+")
    while made.scale > level * 1.01:
        made.key("-")


def test_all_of_it_at_first() -> None:
    made = view(noise(100, 200))
    assert made.scale == 2 and (made.draw()[:50] == 200).all()
    made.resize((800, 550))
    assert made.changed() and made.scale == 4
    picture = made.draw()
    assert picture.shape == (550, 800, 3) and not made.changed()
    assert (picture[:50, :400] == 200).all() and (picture[:50, 400:] == 26).all(), "text is never scaled"


def test_a_hundred_percent_is_pixel_for_pixel() -> None:
    tiles = noise(200, 400)
    assert np.array_equal(tiles_of(view(tiles)), tiles)
    made = view(tiles, (300, 150))
    zoom_to(made, 1)
    assert np.array_equal(tiles_of(made), tiles[50:150, 50:350]), "its middle"


def test_enlarged_every_pixel_is_a_square() -> None:
    tiles = noise(200, 400)
    made = view(tiles)
    zoom_to(made, 4)
    assert np.array_equal(tiles_of(made), tiles[75:125, 150:250].repeat(4, 0).repeat(4, 1))


def test_shrunk_nothing_is_lost() -> None:
    tiles = noise(800, 1600)
    made = view(tiles)
    assert made.scale == 0.25
    expected = tiles.reshape(200, 4, 400, 4, 3).mean((1, 3))
    assert np.abs(tiles_of(made).astype(float) - expected).max() <= 1, "the mean of all pixels, not one of them"


@pytest.mark.parametrize("at", [(10, 60), (200, 150), (399, 249), (77, 200)])
def test_the_wheel_keeps_the_point_under_the_cursor(at: tuple[int, int]) -> None:
    ramp = np.zeros((400, 800, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.linspace(0, 255, 800)[None], np.linspace(0, 255, 400)[:, None]
    made = view(ramp)
    x, y = at[0], at[1] - 50
    before = tiles_of(made)[y, x].astype(int)
    for turns in (1, 1, 1, 1, 1, -1, 1, 1):
        made.wheel(turns, *at)
        assert np.abs(tiles_of(made)[y, x] - before).max() <= 2
    for _ in LEVELS:
        made.wheel(-1, *at)
    assert made.scale == 0.25
    assert (tiles_of(made)[100, :100] == 26).all(), "what is smaller than the window lies in its middle"


def test_zoom_stops_at_its_limits() -> None:
    made = view(noise(100, 200))
    for key, limit in (("+", 5.0), ("-", 0.25), ("=", 5.0)):
        for _ in range(20):
            made.key(key)
        assert made.scale == limit
    made.key("f")
    assert made.scale == 2
    tall = view(noise(4096, 1280))
    assert tall.scale < 0.25
    tall.key("-")
    assert tall.scale == 200 / 4096, "all of it already"
    tall.key("+")
    assert tall.scale == 0.25


def test_dragging_moves_up_to_the_edges() -> None:
    tiles = noise(400, 800)
    made = view(tiles)
    zoom_to(made, 1)
    made.move(5, 5)
    assert not made.holding
    made.press(200, 20)
    assert not made.holding, "that is the head"
    made.press(200, 150)
    made.move(190, 145)
    assert np.array_equal(tiles_of(made), tiles[105:305, 210:610])
    made.move(2000, 2000)
    made.release()
    made.move(0, 0)
    assert np.array_equal(tiles_of(made), tiles[:200, :400])
    made.twice()
    assert made.scale == 0.5


def test_zoom_is_told_for_a_moment() -> None:
    made = view(np.zeros((200, 400, 3), np.uint8))
    clock = made._clock
    assert isinstance(clock, Clock)
    assert not made.draw()[50:].any()
    made.key("+")
    assert made.changed() and made.draw()[200:, 300:].max() > 200 and not made.changed()
    clock.now += 2
    assert made.changed() and made.draw()[50:].max() == 0 and not made.changed()


def test_names_on_demand() -> None:
    labels = (Label(0, 0, 100, 100, "00012.jpg"), Label(300, 100, 100, 100, "a very long name of a file 00013.jpg"))
    made = view(np.zeros((200, 400, 3), np.uint8), labels=labels)
    assert made.key("n")
    picture = tiles_of(made)
    for y, x in ((slice(84, 100), slice(0, 100)), (slice(184, 200), slice(300, 400))):
        assert picture[y, x].max() > 200
        picture[y, x] = 0
    assert not picture.any(), "nowhere else"
    made.key("n")
    assert not tiles_of(made).any()
    bare = view(np.zeros((200, 400, 3), np.uint8))
    bare.key("n")
    assert bare.draw()[50:].any(), "says that there are none"
    assert not tiles_of(bare).any()


def test_help_is_closed_by_any_key_which_does_nothing_else() -> None:
    made = view(np.full((200, 400, 3), 200, np.uint8), (600, 450))
    before = made.draw()
    for key in ("s", "h", "x", "\r", "+", ""):
        assert made.key("h") and (made.draw() != before).mean() > 0.9
        assert made.key(key) and np.array_equal(made.draw(), before)
    made.key("?")
    made.press(300, 300)
    assert np.array_equal(made.draw(), before) and not made.holding
    assert not made.key("s") and not made.key("") and not made.key(" ")


def test_help_tells_every_key() -> None:
    told = {word for keys, _ in HELP for word in keys.replace("Enter", "\r").replace("space", " ").split(" ")}
    assert set(COMMAND_KEYS) <= told and set(DIGITS) <= told and set(DIGITS.values()) <= told
    assert {"n", "h", "f", "+", "-", "wheel"} <= told


@pytest.mark.parametrize("size", [(1, 1), (30, 20), (400, 40), (3000, 60), (500, 2000)])
def test_a_window_of_any_size(size: tuple[int, int]) -> None:
    labels = (Label(0, 0, 64, 64, "name.jpg"), Label(64, 0, 64, 64, ""))
    for tiles in (noise(64, 128), noise(1, 1), noise(3000, 40)):
        made = view(tiles, size, labels)
        for key in "n+++h hff-----n++++++++++":
            made.key(key)
            made.wheel(1, size[0] - 1, size[1] - 1)
            made.press(0, size[1] - 1)
            made.move(50, 50)
            assert made.draw().shape == (size[1], size[0], 3)


def cells(rows: int, size: int, columns: int = 5) -> list[list[npt.NDArray[np.uint8]]]:
    return [[np.full((size, size, 3), 10 * y + x, np.uint8) for x in range(columns)] for y in range(rows)]


def shot(rows: int, size: int, captions: list[list[str]] | None = None, width: int = 0, columns: int = 5) -> Shot:
    history = np.ones((10, 2), np.float32)
    page = ("a", cells(rows, size, columns))
    return draw_shot([page], 0, history, ("a", "b"), 10, captions=captions or [], width=width)


def test_a_shot_keeps_the_tiles_own_size() -> None:
    small = shot(4, 128)
    assert small.tiles.shape == (512, 640, 3) and small.size == (640, 145 + 512) and small.head.shape == (145, 640, 3)
    many = shot(16, 256)
    assert many.tiles.shape == (4096, 1280, 3), "16 rows are there to be looked at in full"
    assert many.size == (480, 145 + 800), "in a window that fits a screen"
    huge = shot(16, 640, columns=2)
    assert 7 << 20 < huge.tiles.shape[0] * huge.tiles.shape[1] <= 8 << 20
    assert shot(4, 128, width=1000).head.shape == (145, 1000, 3)


def test_names_lie_on_their_tiles() -> None:
    made = shot(3, 64, [["s0", "", "d0"], ["s1"], [], ["no such row"]])
    assert made.labels == (Label(0, 0, 64, 64, "s0"), Label(128, 0, 64, 64, "d0"), Label(0, 64, 64, 64, "s1"))
