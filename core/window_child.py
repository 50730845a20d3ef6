"""The process that owns the preview window: `python -m core.window_child PICTURE TITLE`, started by core/window.py.

It shows whatever picture lies in the mapped file and reports keys; it knows nothing of pages or training. OpenCV's
window can abort the whole process (no display, missing libraries) and wants the main thread on macOS: reasons not to
have it in the trainer. stdout carries lines: `ready`, `key CODE`, `closed`. The process ends when stdin does, so it
never outlives the trainer, however that ends.

The mapped file: a header of 8 uint64, then two slots for pictures. Header: 0 number of pictures published so far,
1 bytes per slot, 2..3 width and height in slot 0, 4..5 in slot 1. Picture n (from 1) lies in slot n % 2.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HEADER = 8 * 8
POLL_MS = 30


class Frames:
    """Both ends of the mapped file. The writer never waits; a reader that was overtaken tries again."""

    def __init__(self, path: Path) -> None:
        """Map an existing file made by `create`. Raises OSError, ValueError (empty file)."""
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        # header entries are stored and loaded as one aligned machine word each
        self._header = np.frombuffer(self._map, np.uint64, 8)
        self._bytes = np.frombuffer(self._map, np.uint8, offset=HEADER)

    @staticmethod
    def create(path: Path, slot: int) -> None:
        """Write a file for pictures of at most `slot` bytes. Raises OSError where there is no room for it.

        The bytes are really written: touching a mapped page the disk has no room for would kill the process.
        """
        with path.open("wb") as file:
            file.write(np.array([0, slot, 0, 0, 0, 0, 0, 0], np.uint64).tobytes())
            for _ in range(2):
                file.write(bytes(slot))

    def publish(self, picture: npt.NDArray[np.uint8]) -> None:
        """Put a (H, W, 3) picture into the slot not being shown. Raises ValueError if it is larger than a slot."""
        slot = int(self._header[1])
        if picture.nbytes > slot:
            raise ValueError(f"the picture has {picture.nbytes} bytes; the window's buffer holds {slot}")
        number = int(self._header[0]) + 1
        start = number % 2 * slot
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
            start = number % 2 * int(self._header[1])
            picture = self._bytes[start : start + width * height * 3].copy()
            if self.number == number and len(picture) == width * height * 3:
                return number, picture.reshape(height, width, 3)

    def close(self) -> None:
        del self._header, self._bytes
        self._map.close()


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is the trainer's business
    path, title = Path(arguments[0]), arguments[1]
    gone = threading.Event()
    threading.Thread(target=watch_parent, args=(gone,), daemon=True).start()
    frames = Frames(path)
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
    finally:
        frames.close()
        # the parent removes it as soon as the window is up; this is for a parent killed before that
        with contextlib.suppress(OSError):
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
