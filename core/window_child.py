"""The process that owns the preview window: `python -m core.window_child MEMORY TITLE`, started by core/window.py.

It shows whatever picture lies in the shared memory and reports keys; it knows nothing of pages or training. OpenCV's
window can abort the whole process (no display, missing libraries) and wants the main thread on macOS: reasons not to
have it in the trainer. stdout carries lines: `ready`, `key CODE`, `closed`. The process ends when stdin does, so it
never outlives the trainer, however that ends.

The memory: a header of 8 uint64, then two slots for pictures, each half of what is left. Header: 0 number of pictures
published so far, 2..3 width and height in slot 0, 4..5 in slot 1. Picture n (from 1) lies in slot n % 2.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from core.sharedbuf import attach

HEADER = 8 * 8
POLL_MS = 30


class Frames:
    """Both ends of the memory, all zero at first. The writer never waits; a reader that was overtaken tries again."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._slot = (len(memory) - HEADER) // 2
        # header entries are stored and loaded as one aligned machine word each
        self._header = np.frombuffer(memory, np.uint64, 8)
        self._bytes = np.frombuffer(memory, np.uint8, offset=HEADER)

    def publish(self, picture: npt.NDArray[np.uint8]) -> None:
        """Put a (H, W, 3) picture into the slot not being shown. Raises ValueError if it is larger than a slot."""
        if picture.nbytes > self._slot:
            raise ValueError(f"the picture has {picture.nbytes} bytes; the window's buffer holds {self._slot}")
        number = int(self._header[0]) + 1
        start = number % 2 * self._slot
        self._bytes[start : start + picture.nbytes] = picture.reshape(-1)
        self._header[2 + number % 2 * 2] = picture.shape[1]
        self._header[3 + number % 2 * 2] = picture.shape[0]
        self._header[0] = number

    @property
    def number(self) -> int:
        """Pictures published so far."""
        return int(self._header[0])

    def latest(self) -> tuple[int, npt.NDArray[np.uint8]]:
        """Number and copy of the latest picture (number 0: none yet, one black pixel)."""
        while True:
            number = self.number
            if number == 0:
                return 0, np.zeros((1, 1, 3), np.uint8)
            width, height = (int(self._header[i + number % 2 * 2]) for i in (2, 3))
            start = number % 2 * self._slot
            picture = self._bytes[start : start + width * height * 3].copy()
            if self.number == number and len(picture) == width * height * 3:
                return number, picture.reshape(height, width, 3)

    def close(self) -> None:
        """Lets go of the memory, which its owner closes."""
        del self._header, self._bytes


CLOSED_POLLS = 8


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def watch_parent(gone: threading.Event) -> None:
    """Wait for the end of stdin: the parent closed it or is no more."""
    # os.read and not sys.stdin: a daemon thread inside a buffered reader upsets the interpreter's exit
    while os.read(0, 4096):
        continue
    gone.set()


def show(cv2: Any, frames: Frames, title: str, gone: threading.Event) -> None:
    """Open the window and serve it until it is closed or the parent is gone. Raises cv2.error."""
    cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE | getattr(cv2, "WINDOW_GUI_NORMAL", 0))
    parent = os.getppid()
    shown = -1
    seen = False
    unseen = 0  # polls in a row: a window that is being resized may be reported invisible for a moment
    while not gone.is_set() and os.getppid() == parent:
        if frames.number != shown:
            first = shown < 0
            shown, picture = frames.latest()
            cv2.imshow(title, picture)
            if first:
                cv2.waitKey(1)
                seen = is_visible(cv2, title)
                say("ready")
        code = cv2.waitKeyEx(POLL_MS)
        if code >= 0:
            say(f"key {code}")
        visible = is_visible(cv2, title)
        # some window systems never report visibility: only a change from visible means closed
        unseen = 0 if visible else unseen + 1
        if seen and unseen >= CLOSED_POLLS:
            say("closed")
            return
        seen = seen or visible


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
