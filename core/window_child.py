"""The process that owns the preview window: `python -m core.window_child MEMORY TITLE`, started by core/window.py.

It shows whatever lies in the shared memory, scales and moves it as the user likes (core/window_view.py), and reports
the other keys; it knows nothing of pages or training. OpenCV's window can abort the whole process (no display, missing
libraries) and wants the main thread on macOS: reasons not to have it in the trainer. stdout carries lines: `ready`,
`key CODE`, `width N` (of the window, for text and graph to be drawn in), `closed`. The process ends when stdin does,
so it never outlives the trainer, however that ends.

The memory: a header of 16 uint64, then two slots, each half of what is left. Header: 0 number of pictures published so
far; from 1 for slot 0 and from 6 for slot 1 width and height of the head, of the tiles, and bytes of text. A slot holds
the three one after another. Picture n (from 1) lies in slot n % 2.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from core.sharedbuf import attach
from core.window_keys import DIGITS, key_name

if TYPE_CHECKING:
    from core.preview import Shot
    from core.window_view import View

HEADER = 16 * 8
FIELDS = 5
POLL_MS = 30
MOVING_MS = 10
CLOSED_POLLS = 8
TURN_S = 0.05
"""Between two steps of the zoom: a touch pad reports a wheel that turns a hundred times a second."""
SETTLED_S = 0.2
"""So long a new width has to last before text and graph are drawn in it."""


class Frames:
    """Both ends of the memory, all zero at first. The writer never waits; a reader that was overtaken tries again."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._slot = (len(memory) - HEADER) // 2
        # header entries are stored and loaded as one aligned machine word each
        self._header = np.frombuffer(memory, np.uint64, HEADER // 8)
        self._bytes = np.frombuffer(memory, np.uint8, offset=HEADER)

    def publish(self, shot: Shot) -> None:
        """Put a picture into the slot not being shown. Raises ValueError if it is larger than a slot."""
        text = np.frombuffer(json.dumps([shot.size, shot.labels]).encode(), np.uint8)
        parts = [shot.head.reshape(-1), shot.tiles.reshape(-1), text]
        total = sum(part.nbytes for part in parts)
        if total > self._slot:
            raise ValueError(f"the picture has {total} bytes; the window's buffer holds {self._slot}")
        number = int(self._header[0]) + 1
        at = number % 2 * self._slot
        for part in parts:
            self._bytes[at : at + part.nbytes] = part
            at += part.nbytes
        first = 1 + number % 2 * FIELDS
        self._header[first : first + FIELDS] = (*shot.head.shape[1::-1], *shot.tiles.shape[1::-1], text.nbytes)
        self._header[0] = number

    @property
    def number(self) -> int:
        """Pictures published so far."""
        return int(self._header[0])

    def latest(self) -> tuple[int, Shot | None]:
        """Number and copy of the latest picture (number 0: none yet)."""
        from core.preview import Label, Shot

        while number := self.number:
            first, start = 1 + number % 2 * FIELDS, number % 2 * self._slot
            sizes = [int(value) for value in self._header[first : first + FIELDS]]
            head, tiles = sizes[0] * sizes[1] * 3, sizes[2] * sizes[3] * 3
            data = self._bytes[start : start + head + tiles + sizes[4]].copy()
            if self.number == number and len(data) == head + tiles + sizes[4]:
                size, labels = json.loads(data[head + tiles :].tobytes())
                return number, Shot(
                    data[:head].reshape(sizes[1], sizes[0], 3),
                    data[head : head + tiles].reshape(sizes[3], sizes[2], 3),
                    (size[0], size[1]),
                    tuple(Label(*label) for label in labels),
                )
        return 0, None

    def close(self) -> None:
        """Lets go of the memory, which its owner closes."""
        del self._header, self._bytes


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def watch_parent(gone: threading.Event) -> None:
    """Wait for the end of stdin: the parent closed it or is no more."""
    # os.read and not sys.stdin: a daemon thread inside a buffered reader upsets the interpreter's exit
    while os.read(0, 4096):
        continue
    gone.set()


class Shown:
    """The window and what is in it. cv2: OpenCV; view: what is drawn."""

    def __init__(self, cv2: Any, title: str, view: View) -> None:
        self._cv2, self._title, self._view = cv2, title, view
        self._asked: tuple[int, int] | None = None  # the size the window was last given by us
        self._told = 0  # the width the parent knows of
        self._width, self._since = 0, 0.0  # the present one, and since when
        self._wheel: Any = None
        self._turned = 0.0
        self._own_wheel = str(getattr(cv2, "currentUIFramework", str)()).startswith("QT")

    def open(self) -> None:
        """What needs a window that has been shown."""
        self._cv2.setMouseCallback(self._title, self._mouse)
        if self._own_wheel and sys.platform.startswith("linux"):
            from core.window_x11 import Wheel

            with contextlib.suppress(OSError):  # then + and - are left
                self._wheel = Wheel(self._title)

    def put(self, shot: Shot) -> None:
        """Takes a picture; the window gets the size it asks for unless the user has given it another."""
        self._view.put(shot)
        if self._asked is None or (shot.size != self._asked and self._view.size == self._asked):
            self._cv2.resizeWindow(self._title, *shot.size)
            self._view.resize(shot.size)
            self._asked, self._told = shot.size, shot.size[0]

    def poll(self) -> None:
        """Follows the window's size and the wheel, and draws where there is something new."""
        x, y, width, height = self._cv2.getWindowImageRect(self._title)
        if width > 0 and height > 0:
            self._view.resize((width, height))
            if width != self._width:
                self._width, self._since = width, time.monotonic()
            elif width != self._told and time.monotonic() - self._since >= SETTLED_S:
                self._told = width
                say(f"width {width}")
        if self._wheel is not None:
            for turns, x, y in self._wheel.turned():
                self._view.wheel(turns, x, y)
        if self._view.changed():
            self._cv2.imshow(self._title, self._view.draw())

    def _mouse(self, event: int, x: int, y: int, flags: int, _: object) -> None:
        cv2, view = self._cv2, self._view
        if event == cv2.EVENT_MOUSEMOVE:
            if not flags & cv2.EVENT_FLAG_LBUTTON:  # it was let go outside of the window
                view.release()
            view.move(x, y)
        elif event == cv2.EVENT_LBUTTONDOWN:
            view.press(x, y)
        elif event == cv2.EVENT_LBUTTONUP:
            view.release()
        elif event == cv2.EVENT_LBUTTONDBLCLK:
            view.twice()
        elif event == cv2.EVENT_MOUSEWHEEL and not self._own_wheel:
            now = time.monotonic()
            if now - self._turned >= TURN_S:
                self._turned = now
                view.wheel(1 if flags > 0 else -1, x, y)


def show(cv2: Any, frames: Frames, title: str, gone: threading.Event) -> None:
    """Open the window and serve it until it is closed or the parent is gone. Raises cv2.error."""
    flags = (getattr(cv2, name, 0) for name in ("WINDOW_NORMAL", "WINDOW_FREERATIO", "WINDOW_GUI_NORMAL"))
    cv2.namedWindow(title, sum(flags))
    from core.window_view import View  # only now, so that the window's own error is the one that is told

    view = View((1, 1))
    window = Shown(cv2, title, view)
    parent = os.getppid()
    shown = 0
    seen = False
    unseen = 0  # polls in a row: a window that is being resized may be reported invisible for a moment
    while not gone.is_set() and os.getppid() == parent:
        if frames.number != shown and not unseen:
            first = not shown
            shown, shot = frames.latest()
            assert shot is not None
            window.put(shot)
            if first:
                cv2.imshow(title, view.draw())
                cv2.waitKey(1)
                window.open()
                seen = is_visible(cv2, title)
                say("ready")
        if shown and not unseen:
            window.poll()
        code = cv2.waitKeyEx(MOVING_MS if view.holding else POLL_MS)
        name = key_name(code) if code >= 0 else ""
        if code >= 0 and not view.key(DIGITS.get(name, name)):
            say(f"key {code}")
        visible = is_visible(cv2, title)
        # some window systems never report visibility: only a change from visible means closed
        seen = seen or visible
        unseen = unseen + 1 if seen and not visible else 0  # while it is, touching it would be an error or open another
        if unseen >= CLOSED_POLLS:
            say("closed")
            return


def is_visible(cv2: Any, title: str) -> bool:
    try:
        return bool(cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1)
    except cv2.error:  # what Qt builds say once the last window is gone
        return False


def main(arguments: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):  # when to end is the trainer's business
        signal.signal(number, signal.SIG_IGN)
    handle, title = arguments
    gone = threading.Event()
    threading.Thread(target=watch_parent, args=(gone,), daemon=True).start()
    frames = Frames(attach(handle))
    try:
        import cv2  # here, so that missing system libraries are reported in one line
    except ImportError as error:
        print(f"OpenCV cannot be loaded: {error}", file=sys.stderr)
        return 1
    try:
        show(cv2, frames, title, gone)
    except BrokenPipeError:
        return 0
    except cv2.error as error:
        text = " ".join(str(error).split())
        if "not implemented" in text:
            text = "it is built without windows (opencv-python-headless?); install opencv-python in its place"
        print(f"OpenCV {cv2.__version__} cannot open a window: {text}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
