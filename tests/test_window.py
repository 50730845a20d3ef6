"""The preview window for real, under Xvfb: what is on the screen, keys, every way it can end, and no display at all."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from screen import Screen
from tests_support import soon

from core.events import Command, Event, Previewed, Started, Stepped
from core.preview import Label, Shot
from core.sharedbuf import SharedBuffer, SharedBufferError
from core.window import Window, display_problem
from core.window_child import HEADER, Frames
from core.window_keys import key_name

ROOT = Path(__file__).resolve().parent.parent
BLUE, GREEN = (200, 40, 20), (30, 190, 60)  # BGR


class Trainer:
    """The trainer's side of one window."""

    def __init__(self, **options: object) -> None:
        self.commands: queue.Queue[Command] = queue.Queue()
        self.lost: list[str] = []
        self.window = Window(self.commands, self.lost.append, **options)  # type: ignore[arg-type]

    def asked(self) -> str:
        return self.commands.get(timeout=10).name

    @property
    def process(self) -> subprocess.Popen[str]:
        process = self.window._process
        assert process is not None
        return process


@contextlib.contextmanager
def shown(screen: Screen, **options: object) -> Iterator[Trainer]:
    """A trainer whose window is to be seen."""
    for _ in range(3):  # without a window manager Xvfb now and then leaves a new window unpainted
        trainer = Trainer(**options)
        assert trainer.window.ready.wait(60), trainer.lost
        if soon(lambda: screen.picture().any(), 5):
            break
        trainer.window.close()
    try:
        yield trainer
    finally:
        trainer.window.close()


@pytest.fixture
def trainer(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    monkeypatch.setenv("DISPLAY", screen.environ["DISPLAY"])
    with shown(screen) as trainer:
        yield trainer


def started() -> Started:
    return Started("new", 6000, 0, ("src_loss", "dst_loss"), np.ones((6000, 2), np.float32))


def pages(first: str = "SAEHD") -> Previewed:
    def cells(colour: tuple[int, int, int]) -> list[list[npt.NDArray[np.uint8]]]:
        return [[np.full((96, 96, 3), colour, np.uint8)] * 5] * 4

    return Previewed(6000, [(first, cells(BLUE)), ("SAEHD masked", cells(GREEN))])


def gone(pid: int) -> bool:
    """Whether the process is no more (one that nobody reaps in a container counts as such)."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_keys_and_pages(screen: Screen, trainer: Trainer) -> None:
    window = trainer.window
    assert soon(lambda: screen.picture().any())  # says that it waits for the first preview
    assert not screen.shows(BLUE)
    screen.press("space", "l")  # nothing to turn over yet
    window(started())
    window(pages())
    assert soon(lambda: screen.shows(BLUE))
    screen.press("space")
    assert soon(lambda: screen.shows(GREEN)) and not screen.shows(BLUE)
    window(pages())  # new pictures: the page stays
    screen.press("x", "F1", "Left", "s")
    assert trainer.asked() == "save" and screen.shows(GREEN)
    screen.press("space")
    assert soon(lambda: screen.shows(BLUE))
    keys = {"b": "backup", "p": "preview", "S": "save", "o": "options", "Return": "stop", "KP_Enter": "stop"}
    for key, command in {**keys, "2": "save", "0": "backup", "3": "preview"}.items():
        screen.press(key)
        assert trainer.asked() == command
    assert trainer.commands.empty() and not trainer.lost


def test_history_range(screen: Screen, trainer: Trainer) -> None:
    trainer.window(Started("new", 6000, 0, ("a", "b"), np.geomspace(1, 0.01, 12_000).reshape(6000, 2)))
    trainer.window(pages())
    assert soon(lambda: screen.shows(BLUE))
    time.sleep(0.3)
    whole = screen.picture()
    screen.press("1")
    assert soon(lambda: not np.array_equal(screen.picture(), whole))
    screen.press("l", "l", "l", "L")
    assert soon(lambda: np.array_equal(screen.picture(), whole))


def test_graph_moves_while_training(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", screen.environ["DISPLAY"])
    with shown(screen, refresh=0.0) as trainer:
        trainer.window(started())
        trainer.window(pages())
        assert soon(lambda: screen.shows(BLUE))
        before = screen.picture()
        trainer.window(Stepped(6001, {"src_loss": 0.1, "dst_loss": 0.1}, 1.0))
        assert soon(lambda: not np.array_equal(screen.picture(), before))


def test_zoom_names_help_and_size(screen: Screen, trainer: Trainer) -> None:
    window = trainer.window
    window(started())
    event = pages()
    window(replace(event, captions={"SAEHD": [["face 00012.jpg"]]}))
    assert soon(lambda: screen.shows(BLUE))
    at_first = screen.picture()
    screen.turn_wheel(-1, 100, 300)  # from the whole of 480 x 384 to 75 %
    assert soon(lambda: not (screen.picture()[150:190] == BLUE).all(2).any())
    screen.press("h")
    assert soon(lambda: not screen.shows(BLUE))
    screen.press("s", "f")  # the first only takes the help away
    assert soon(lambda: np.array_equal(screen.picture(), at_first)), "the zoom is told for a moment only"
    screen.press("n")
    assert soon(lambda: (screen.picture()[145:241, :96] > 200).all(2).any())
    screen.press("4")
    assert soon(lambda: np.array_equal(screen.picture(), at_first))
    screen.resize(1000, 700)
    assert soon(lambda: (screen.picture()[300:690, 300:700] == BLUE).all())
    assert soon(lambda: (screen.picture()[45, 900:1000] == 204).all()), "the graph is drawn anew, as wide"
    screen.turn_wheel(1, 500, 400)
    screen.turn_wheel(1, 500, 400)
    assert soon(lambda: (screen.picture()[150:690, :980] == BLUE).all(2).mean() > 0.97)
    assert trainer.commands.empty()


def test_close_takes_the_window_down(screen: Screen, trainer: Trainer) -> None:
    pid = trainer.process.pid
    trainer.window.close()
    assert gone(pid) and not trainer.lost
    assert soon(lambda: not screen.picture().any())
    trainer.window.close()
    trainer.window(pages())


def test_closed_by_the_user(screen: Screen, trainer: Trainer) -> None:
    screen.click_x()
    assert soon(lambda: trainer.lost)
    trainer.window(pages())
    trainer.window.close()
    assert trainer.lost == ["the preview window was closed"]


def test_opened_again(screen: Screen, trainer: Trainer) -> None:
    trainer.window(pages())
    assert not trainer.window.reopen(), "it is open"
    kills = 0
    for _ in range(2):
        for _ in range(3):  # Xvfb, see `trainer`
            os.kill(trainer.process.pid, signal.SIGKILL)
            kills += 1
            assert soon(lambda times=kills: len(trainer.lost) == times)
            trainer.window(pages())
            assert soon(trainer.window.reopen) and trainer.window.ready.wait(30)
            if soon(lambda: screen.shows(BLUE), 10):
                break
        assert screen.shows(BLUE)
        screen.press("s")
        assert trainer.asked() == "save"
    trainer.window.close()
    assert not trainer.window.reopen() and len(trainer.lost) == kills


def test_child_killed(trainer: Trainer) -> None:
    os.kill(trainer.process.pid, signal.SIGKILL)
    assert soon(lambda: trainer.lost)
    trainer.window(pages())
    trainer.window.close()
    assert trainer.lost == ["the preview window's process ended (SIGKILL)"]


def test_ctrl_c_is_not_for_the_child(screen: Screen, trainer: Trainer) -> None:
    assert os.getpgid(trainer.process.pid) != os.getpgid(0)
    os.kill(trainer.process.pid, signal.SIGINT)
    screen.press("s")
    assert trainer.asked() == "save" and not trainer.lost


def test_trainer_killed(screen: Screen) -> None:
    """The child follows, and nothing is left in shared memory."""
    script = (
        "import queue, sys, time\n"
        "from core.window import Window\n"
        "window = Window(queue.Queue(), print)\n"
        "assert window.ready.wait(60)\n"
        "print(window._process.pid, window._process.args[-2], flush=True)\n"
        "time.sleep(100)\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, env=screen.environ, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, path = parent.stdout.readline().split(maxsplit=1)
        parent.kill()
    assert soon(lambda: gone(int(pid)))
    assert not Path(path.strip()).exists()


def test_terminal_stays_clean(screen: Screen, tmp_path: Path) -> None:
    """Qt's remarks on fonts and plugins are for nobody's eyes."""
    script = (
        "import queue, threading\n"
        "from core.window import Window\n"
        "window = Window(queue.Queue(), print)\n"
        "assert window.ready.wait(60)\n"
        "window.close()\n"
    )
    environ = {**screen.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


def lost_reason(**options: object) -> str:
    trainer = Trainer(**options)
    trainer.window(started())
    trainer.window(pages())
    assert soon(lambda: trainer.lost, 60)
    trainer.window.close()
    assert len(trainer.lost) == 1 and not trainer.window.ready.is_set()
    return trainer.lost[0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11")
def test_display_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4321")
    assert "cannot be opened" in (reason := lost_reason()) and "could not connect to display :4321" in reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('libGL.so.1: cannot open shared object file')", "apt-get install libgl1"),
        ("print('x'); raise SystemError('why')", "cannot be opened: SystemError: why"),
        ("import sys; sys.exit(3)", "cannot be opened"),
        ("import time; time.sleep(60)", "did not appear within 1 s"),
    ],
)
def test_child_that_cannot_start(code: str, reason: str) -> None:
    assert reason in lost_reason(child=(sys.executable, "-c", code), start_timeout=1.0)


def test_child_that_does_not_exist() -> None:
    assert "cannot be started" in lost_reason(child=("no-such-program-here",))


def test_opencv_without_windows(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(
        "__version__ = '5'\nWINDOW_AUTOSIZE = 1\nclass error(Exception): pass\n"
        "def namedWindow(*_): raise error('The function is not implemented. Rebuild the library')\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from core.window_child import main\nsys.exit(main(sys.argv[1:]))"
    )
    assert "install opencv-python in its place" in lost_reason(child=(sys.executable, "-c", code))


def test_sink_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a child that does nothing at all, events are still taken and close() comes back."""
    trainer = Trainer(child=(sys.executable, "-c", "import time; time.sleep(60)"))
    events: list[Event] = [started(), *[pages()] * 50]
    for event in events:
        trainer.window(event)
    trainer.window.close(2.0)
    assert not trainer.lost


def test_display_problem() -> None:
    assert display_problem({"DISPLAY": ":0"}, "linux") == display_problem({"WAYLAND_DISPLAY": "w"}, "linux") == ""
    assert "DISPLAY" in display_problem({}, "linux") and display_problem({"DISPLAY": ""}, "freebsd14")
    assert display_problem({}, "win32") == display_problem({}, "darwin") == ""


@pytest.mark.parametrize(
    ("code", "name"),
    [(115, "s"), (83, "s"), (13, "\r"), (10, "\r"), (0xFF8D, "\r"), (32, " "), (0x250000, ""), (0xFFBE, ""), (27, "")],
)
def test_key_name(code: int, name: str) -> None:
    assert key_name(code) == name
    assert key_name(code | 0x100000) == name  # NumLock


def test_frames() -> None:
    memory = SharedBuffer(HEADER + 2 * 900)
    writer, reader = Frames(memory.map), Frames(memory.map)
    assert reader.latest() == (0, None)
    for i in range(1, 6):
        head, tiles = np.full((10, 2 * i, 3), i, np.uint8), np.full((i, 7, 3), 10 * i, np.uint8)
        writer.publish(Shot(head, tiles, (100, i), (Label(1, 2, 3, 4, "ü"),) * (i - 1)))
        number, seen = reader.latest()
        assert number == reader.number == i and seen is not None
        assert np.array_equal(seen.head, head) and np.array_equal(seen.tiles, tiles)
        assert seen.size == (100, i) and seen.labels == (Label(1, 2, 3, 4, "ü"),) * (i - 1)
    with pytest.raises(ValueError, match="915 bytes"):
        writer.publish(Shot(np.zeros((1, 201, 3), np.uint8), np.zeros((1, 100, 3), np.uint8), (1, 1), ()))
    writer.close()
    reader.close()
    memory.close()


def test_no_room_for_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(size: int, **how: object) -> SharedBuffer:
        raise SharedBufferError(28, "no room for 9 MB of shared memory")

    monkeypatch.setattr("core.window.SharedBuffer", full)
    assert "picture: no room for 9 MB" in lost_reason()
