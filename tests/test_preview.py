"""Preview pictures: grid, graph under every kind of history, layout; and the JPG files made from them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from core import history as files
from core import preview
from core.batch import Page
from core.events import BackedUp, Previewed, Started, Stepped

NAMES = ("src_loss", "dst_loss")
Losses = npt.NDArray[np.float32]


def losses(count: int, number: int = 2) -> Losses:
    rng = np.random.default_rng(count)
    falling = 0.3 + np.exp(-np.arange(count) / max(1, count / 6))
    return (falling[:, None] * (1 + 0.2 * rng.standard_normal((count, number)))).astype(np.float32)


def page(title: str, rows: int = 2, columns: int = 5, size: tuple[int, int] = (64, 64), value: int = 0) -> Page:
    cells = [[np.full((*size, 3), value + 10 * y + x, np.uint8) for x in range(columns)] for y in range(rows)]
    return title, cells


def reds(graph: preview.Picture) -> npt.NDArray[np.bool_]:
    """Pixels of the first loss: bars and line."""
    return (graph[..., 2] > 100) & (graph[..., 1] < 60) & (graph[..., 0] < 60)


def test_grid() -> None:
    picture = preview.grid(page("a", 2, 3, (4, 6))[1])
    assert picture.shape == (8, 18, 3) and picture.dtype == np.uint8
    assert [int(picture[y, x, 0]) for y, x in ((0, 0), (3, 17), (4, 0), (7, 17))] == [0, 2, 10, 12]


def test_grid_of_rows_unlike_in_length() -> None:
    rows = page("a", 2, 3, (4, 4))[1]
    assert preview.grid([rows[0], rows[1][:1]]).shape == (8, 12, 3)


@pytest.mark.parametrize(
    "rows",
    [[], [[]], [[np.zeros((4, 4, 3), np.float32)]], [[np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)]]],
)
def test_grid_refuses(rows: list[list[npt.NDArray[np.uint8]]]) -> None:
    with pytest.raises(ValueError, match="cell"):
        preview.grid(rows)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 479, 481, 5000, 120_000])
@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_graph_of_any_length(count: int, number: int) -> None:
    names = [f"loss{i}" for i in range(number)]
    graph = preview.loss_graph(losses(count, number), names, 480, 100, count)
    assert graph.shape == (100, 480, 3) and graph.dtype == np.uint8
    assert reds(graph).any() == (count > 0)


def test_graph_bars_run_from_minimum_to_maximum() -> None:
    values = np.zeros((1000, 1), np.float32)
    values[0::2], values[1::2] = 0.5, 1.5  # mean 1, upper edge 2: bars from a quarter to three quarters
    graph = preview.loss_graph(values, ["a"], 300, 101, 1000)
    column = reds(graph)[:, 250]
    assert set(np.flatnonzero(column)) | {49, 50, 51} == set(range(25, 76))  # the line lies in the middle


def test_graph_lines_and_ground() -> None:
    graph = preview.loss_graph(np.zeros((10, 2), np.float32) + 0.5, NAMES, 480)
    for y in (0, 20, 40, 59, 79):
        assert (graph[y, 60:120] == 204).all()
    assert (graph[30, 60:200] == 26).all()


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [slice(0, 1), slice(300, 700), slice(999, 1000), slice(None)])
def test_graph_survives_what_is_not_finite(odd: float, place: slice) -> None:
    """It is left out, and marked at the upper edge; the rest is drawn as without it (but for the axis' last digit)."""
    values = losses(1000)
    plain = preview.loss_graph(values, NAMES, 480)
    values[place, 0] = odd
    graph = preview.loss_graph(values, NAMES, 480)
    marks = (graph[1] == (255, 0, 255)).all(1)
    assert marks.any() and not (plain[1] == (255, 0, 255)).all(1).any()
    if place.stop == 1000:
        assert (graph != plain)[25:75, 60:400].any(2).mean() < 0.01


def test_outliers_do_not_flatten_the_graph() -> None:
    values = losses(3000)
    plain = preview.loss_graph(values, NAMES, 480)
    values[[1500, 2000, 2500]] = 1e9
    graph = preview.loss_graph(values, NAMES, 480)
    assert (graph != plain).any(2).mean() < 0.06


def test_huge_and_negative_values_give_no_warning() -> None:
    for value in (3e38, -3e38, 1e-38, 0.0):
        preview.loss_graph(np.full((5000, 2), value, np.float32), NAMES, 480)


def test_graph_range() -> None:
    values = np.concatenate([np.full((90_000, 2), 5.0), np.full((5_000, 2), 1.0)]).astype(np.float32)
    last = preview.loss_graph(values, NAMES, 480, iteration=95_000, last=5_000)
    alone = preview.loss_graph(values[-5000:], NAMES, 480, iteration=95_000, last=5_000)
    everything = preview.loss_graph(values, NAMES, 480, iteration=95_000)
    assert np.array_equal(last, alone) and not np.array_equal(last, everything)
    assert preview.RANGES == (0, 5_000, 10_000, 50_000, 100_000)


def test_narrow_graph() -> None:
    for width in (1, 40, 160, 200):
        assert preview.loss_graph(losses(50), NAMES, width).shape == (100, width, 3)


def test_page_layout() -> None:
    pages = [page("SAEHD", value=40), page("SAEHD masked", value=100)]
    picture = preview.draw_page(pages, 1, losses(10), NAMES, 10, note="drawn at iteration 9")
    tiles = 2 * 64 * 2  # 320 pixels wide: enlarged to twice the size
    assert picture.shape == (3 * 15 + 100 + tiles, 640, 3)
    assert (picture[145:270, 2:125] == 100).all()
    assert picture[:45].max() > 150 and (picture[:3, 300:] == 26).all()
    assert preview.draw_page(pages, 1, losses(10), NAMES, 10, keys=False).shape[0] == picture.shape[0] - 30


@pytest.mark.parametrize(
    ("size", "columns", "expected"),
    [((256, 256), 5, (512, 1280)), ((640, 640), 2, (800, 800)), ((32, 32), 2, (512, 512)), ((1, 1), 1, (480, 480))],
)
def test_tiles_fit(size: tuple[int, int], columns: int, expected: tuple[int, int]) -> None:
    picture = preview.draw_page([page("a", 2 if size[0] > 1 else 1, columns, size)], 0, losses(5), NAMES, 5)
    assert (picture.shape[0] - 145, picture.shape[1]) == expected


def test_many_rows_make_a_page_higher() -> None:
    sixteen = [page("a", 16, 5, (256, 256))]
    picture = preview.draw_page(sixteen, 0, losses(5), NAMES, 5)
    assert picture.shape == (145 + 16 * 128, 640, 3)
    assert preview.draw_page([page("a", 16, 5, (64, 64))], 0, losses(5), NAMES, 5).shape == (145 + 16 * 64, 480, 3)


def test_pages_come_out_alike() -> None:
    pages = [page("morph", 2, 3, (128, 128)), page("list", 1, 5, (128, 128)), page("tall", 7, 1, (160, 160))]
    shapes = {preview.draw_page(pages, i, losses(5), NAMES, 5).shape for i in range(3)}
    assert len(shapes) == 1


def test_compose_refuses_wide_tiles() -> None:
    with pytest.raises(ValueError, match="600 pixels wide"):
        preview.compose(np.zeros((10, 600, 3), np.uint8), np.zeros((10, 500, 3), np.uint8), [])


def previewed(iteration: int, value: int = 0, *, history: bool = False) -> Previewed:
    return Previewed(iteration, [page("SAEHD", value=value), page("a/b: *?", value=value)], history)


def started() -> Started:
    return Started("new", 3, 0, NAMES, losses(3))


def decode(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def test_board_gathers_losses() -> None:
    board = files.Board()
    board.take(Started("new", 0, 0, NAMES, []))
    for i in range(1, 3001):
        board.take(Stepped(i, {"src_loss": i, "dst_loss": -i}, 1.0))
    board.take(Stepped(3001, {"src_loss": 1.0}, 1.0))
    assert board.history.shape == (3001, 2) and board.iteration == 3001
    assert board.history[2999].tolist() == [3000, -3000] and np.isnan(board.history[3000, 1])


def test_board_refuses_a_history_of_other_losses() -> None:
    with pytest.raises(ValueError, match=r"\(5, 3\); allowed: \(n, 2\)"):
        files.Board().take(Started("new", 5, 0, NAMES, np.zeros((5, 3), np.float32)))


def test_preview_files(tmp_path: Path) -> None:
    folder = tmp_path / "Modell ü"
    sink = files.PreviewFiles(folder / "new_SAEHD", pytest.fail)
    sink(started())
    sink(previewed(3, 50))
    sink(previewed(3, 90, history=True))
    assert sorted(path.name for path in folder.iterdir()) == [
        "new_SAEHD_preview_SAEHD.jpg",
        "new_SAEHD_preview_a_b_ __.jpg",
    ]
    data = (folder / "new_SAEHD_preview_SAEHD.jpg").read_bytes()
    assert b"\xff\xfe" + (len(files.COMMENT) + 2).to_bytes(2, "big") + files.COMMENT.encode() in data[:400]
    assert abs(int(decode(folder / "new_SAEHD_preview_SAEHD.jpg")[150, 20, 0]) - 50) < 4
    sink(BackedUp(3, tmp_path / "new_SAEHD_autobackups" / "01"))
    assert (tmp_path / "new_SAEHD_autobackups" / "01" / "preview_SAEHD.jpg").is_file()


def test_preview_files_stand_in_when_activated(tmp_path: Path) -> None:
    sink = files.PreviewFiles(tmp_path / "new_SAEHD", pytest.fail, active=False)
    sink(started())
    sink.activate()
    sink(previewed(3))
    assert len(list(tmp_path.iterdir())) == 2
    quiet = files.PreviewFiles(tmp_path / "other_SAEHD", pytest.fail, active=False)
    quiet(previewed(3))
    assert not list(tmp_path.glob("other*"))
    quiet.activate()
    assert len(list(tmp_path.glob("other*"))) == 2


def test_preview_history(tmp_path: Path) -> None:
    sink = files.PreviewHistory(tmp_path / "new_SAEHD", pytest.fail)
    sink(started())
    for iteration in (10, 20):
        sink(previewed(iteration, iteration, history=True))
    sink(previewed(30))
    folder = tmp_path / "new_SAEHD_history" / "SAEHD"
    assert sorted(path.name for path in folder.iterdir()) == ["0000010.jpg", "0000020.jpg", "_last.jpg"]
    assert (folder / "_last.jpg").read_bytes() == (folder / "0000020.jpg").read_bytes()


def test_a_write_error_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file where a folder should be")
    warnings: list[str] = []
    sink = files.PreviewFiles(tmp_path / "model" / "new_SAEHD", warnings.append)
    sink(previewed(1))
    sink(previewed(2))
    assert len(warnings) == 1 and "new_SAEHD_preview_SAEHD.jpg" in warnings[0] and "Training goes on" in warnings[0]


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    target = tmp_path / "a.jpg"
    target.mkdir()
    with pytest.raises(OSError, match=r"a\.jpg"):
        files.write_file(target, b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("SAEHD src-src", "SAEHD src-src"),
        ("AMP morph 1.0", "AMP morph 1.0"),
        ("../up", "_up"),
        ("CON", "_CON"),
        ("...", "_"),
        ("x" * 99, "x" * 80),
    ],
)
def test_file_safe(title: str, name: str) -> None:
    assert files.file_safe(title) == name
