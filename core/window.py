"""Preview window: a sink that draws what events say and shows it in a process of its own (core/window_child.py).

The trainer never waits for it: events are taken in one thread, the child's keys are read in another. Pages, graph
and commands live on this side; the child shows the picture in shared memory, zoomed as the user likes. Whatever
ends the window (closed by the user, crashed, killed, could not start) is reported once to `on_lost`, and training goes
on.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from core import child as children
from core.events import Command, Event, Previewed, Started, Stepped, Waits
from core.history import Board
from core.preview import MAX_HEAD, MAX_PIXELS, RANGES, waiting_shot
from core.sharedbuf import SharedBuffer
from core.sinks import Background, Every, ask
from core.window_child import HEADER, Frames
from core.window_keys import COMMAND_KEYS, DIGITS, key_name

TITLE = "Training preview"
DEBIAN_PACKAGES = ("libgl1", "libglib2.0-0", "libsm6", "libxext6")
"""What OpenCV's wheels need and bare systems lack: the first two to be loaded at all, the others for a window."""

CLOSED = "the preview window was closed"
"""Told where the user has closed it, unlike every other end."""
MAX_WIDTH = 8192
"""Text and graph are drawn no wider."""

_SLOT = (MAX_PIXELS + MAX_WIDTH * MAX_HEAD) * 3 + (1 << 20)


def display_problem(environ: Mapping[str, str], platform: str) -> str:
    """Why no window can be opened here, or "" where one may be. platform: as `sys.platform`."""
    if platform in ("win32", "darwin", "cygwin"):
        return ""
    if environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        return ""
    return "no display: neither DISPLAY nor WAYLAND_DISPLAY is set"


class Window:
    """Sink: shows the preview pages, and puts the user's keys into `commands`.

    on_lost: called, from another thread, with the reason whenever the window is gone without `close()`.
    refresh: seconds between redraws of the graph while iterations go by. start_timeout: seconds the window may take
    to appear. child: the command that serves the window, given the handle of the shared memory and the title.
    """

    def __init__(
        self,
        commands: queue.Queue[Command],
        on_lost: Callable[[str], object],
        *,
        title: str = TITLE,
        refresh: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        start_timeout: float = 60.0,
        child: tuple[str, ...] = (sys.executable, "-m", "core.window_child"),
    ) -> None:
        self._commands, self._on_lost, self._title = commands, on_lost, title
        self._start_timeout, self._child = start_timeout, child
        self._board = Board()
        self._page = ""
        self._range = 0
        self._width = 0  # of the window, once the user has changed it
        self._due = Every(refresh, clock)
        self._lock = threading.Lock()  # guards what is above and the two below
        self._frames: Frames | None = None
        self._process: subprocess.Popen[str] | None = None
        self._closing = False
        self.ready = threading.Event()
        """Set once the window is on the screen."""
        self._events = Background(self._take, name="preview window")
        self._server = self._started()

    def __call__(self, event: Event) -> None:
        self._events(event)

    def reopen(self) -> bool:
        """A window that is gone comes again, with the pages known by now; whether one was to be opened."""
        if self._server.is_alive() or self._closing:
            return False
        self.ready.clear()
        self._server = self._started()
        return True

    def _started(self) -> threading.Thread:
        server = threading.Thread(target=self._serve, name="preview window keys", daemon=True)
        server.start()
        return server

    def close(self, timeout: float = 5.0) -> None:
        """Take the window down. Returns within about `timeout` seconds."""
        with self._lock:
            self._closing = True
            process = self._process
        self._events.close(timeout)
        if process is not None and process.stdin is not None:
            process.stdin.close()
        if self._server is not threading.current_thread():
            self._server.join(timeout)
            if self._server.is_alive() and process is not None:
                process.kill()
                self._server.join(timeout)

    def _take(self, event: Event) -> None:
        with self._lock:
            self._board.take(event)
            if isinstance(event, Previewed) and not event.history:
                titles = [title for title, _ in self._board.pages]
                if titles and self._page not in titles:
                    self._page = titles[0]
                self._draw()
                return
            stepped = isinstance(event, Stepped) and self._board.pages and self._due()
            if stepped or isinstance(event, Started | Waits):
                self._draw()

    def _draw(self) -> None:
        if self._frames is None:
            return
        if not self._board.pages:
            self._frames.publish(waiting_shot("Waiting for the first preview", self._width))
            return
        titles = [title for title, _ in self._board.pages]
        self._frames.publish(self._board.shot(titles.index(self._page), last=RANGES[self._range], width=self._width))

    def _resized(self, width: int) -> None:
        with self._lock:
            self._width = max(0, min(width, MAX_WIDTH))
            self._draw()

    def _key(self, code: int) -> None:
        key = DIGITS.get(key_name(code), key_name(code))
        if key in COMMAND_KEYS:
            ask(self._commands, COMMAND_KEYS[key])
            return
        with self._lock:
            titles = [title for title, _ in self._board.pages]
            if key == " " and titles:
                self._page = titles[(titles.index(self._page) + 1) % len(titles)]
            elif key == "l":
                self._range = (self._range + 1) % len(RANGES)
            else:
                return
            self._draw()

    def _serve(self) -> None:
        """Start the child, follow what it says until it ends, report why it ended."""
        try:
            memory = SharedBuffer(HEADER + 2 * _SLOT, lazy=True)  # most of it is never written to
        except OSError as error:
            self._on_lost(f"the preview window's picture: {error.strerror or error}")
            return
        try:
            reason = self._follow(memory)
        except OSError as error:
            reason = f"the preview window's process cannot be started: {error}"
        finally:
            with self._lock:
                frames, self._frames, self._process = self._frames, None, None
                if frames is not None:
                    frames.close()
            memory.close()
        if not self._closing:
            self._on_lost(reason)

    def _follow(self, memory: SharedBuffer) -> str:
        with self._lock:
            if self._closing:
                return ""
            self._frames, self._width = Frames(memory.map), 0
            self._draw()
            self._process = process = _start([*self._child, memory.handle, self._title], memory.pass_fds)
        errors: deque[str] = deque(maxlen=50)
        listener = threading.Thread(target=errors.extend, args=(process.stderr,), daemon=True)
        listener.start()
        too_late = threading.Event()

        def give_up() -> None:
            too_late.set()
            process.kill()

        late = threading.Timer(self._start_timeout, give_up)
        late.daemon = True
        late.start()
        closed = False
        assert process.stdout is not None  # a pipe was asked for
        with process.stdout:
            for line in process.stdout:
                word, _, rest = line.strip().partition(" ")
                if word == "ready":
                    late.cancel()
                    self.ready.set()
                elif word == "key":
                    self._key(int(rest))
                elif word == "width":
                    self._resized(int(rest))
                elif word == "closed":
                    closed = True
        late.cancel()
        code = process.wait()
        listener.join(1)
        for pipe in (process.stdin, process.stderr):
            if pipe is not None:
                pipe.close()
        if closed:
            return CLOSED
        if too_late.is_set():
            return f"the preview window did not appear within {self._start_timeout:.0f} s"
        return _reason(self.ready.is_set(), code, list(errors))


def _start(command: list[str], fds: tuple[int, ...]) -> subprocess.Popen[str]:
    # QT_XCB_NO_XI2: else Qt hears of the wheel by another way, see core/window_x11.py
    environ = children.environment(QT_XCB_NO_XI2="1")
    if environ.get("DISPLAY") and environ.get("QT_QPA_PLATFORM", "").startswith("wayland"):
        environ["QT_QPA_PLATFORM"] = "xcb"  # the only one OpenCV's wheels bring
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        cwd=children.ROOT,
        env=environ,
        **children.detached(fds),
    )


def _reason(was_ready: bool, code: int, errors: list[str]) -> str:
    """One line from how the child ended and its last words."""
    what = "the preview window's process ended" if was_ready else "the preview window cannot be opened"
    if code < 0 or was_ready:
        what += f" ({children.ending(code)})"
    why = _last_words([line.strip() for line in errors if line.strip()])
    return f"{what}: {why}" if why else what


def _last_words(lines: list[str]) -> str:
    """What tells most of the child's stderr: Python's last line, or what lies behind Qt's chatter."""
    for line in lines:
        if "could not connect to display" in line.lower():
            return line.rpartition("qt.qpa.xcb: ")[2]
    text = "\n".join(lines)
    if "Could not load the Qt platform plugin" in text or "cannot open shared object file" in text:
        detail = "" if "Qt platform plugin" in text else f" ({lines[-1]})"
        return f"a system library is missing{detail}; on Debian and Ubuntu: apt-get install {' '.join(DEBIAN_PACKAGES)}"
    return lines[-1] if lines else ""
