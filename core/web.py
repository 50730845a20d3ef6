"""Preview page: a sink that lets a browser see the training and press its keys, from a process of its own.

The trainer never waits for it: events are taken in one thread and handed through a pipe to the page's process
(core/web_child.py), which draws, compresses and serves; what browsers ask for is read in another thread. So a slow,
stuck or hostile browser costs the training nothing, and whatever ends the page is reported once to `on_lost`.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import numpy as np

from core import child as children
from core import web_wire
from core.events import (
    Advanced,
    BackedUp,
    Command,
    CommandName,
    Event,
    Failed,
    Noted,
    Previewed,
    Saved,
    Saving,
    Staged,
    Started,
    Stepped,
    Stopped,
    TargetReached,
    Waits,
    Warned,
)
from core.liveline import LiveLine
from core.preview import grid
from core.sinks import Background, Every, ask
from core.web_address import Address

PUSH_S = 0.5
"""Seconds between what the page is told of iterations."""
_ENDED = {
    "command": "Training ended. The model is saved.",
    "target": "Training ended at its target. The model is saved.",
    "collapse": "Training ended: it collapsed. The good files stay.",
    "memory": "Training ended: an iteration does not fit into memory.",
    "error": "Training ended with an error.",
}


class WebPage:
    """Sink: serves the preview page at `address`, and puts what its visitors ask for into `commands`.

    tell: gets the event that names the link, once the page is up. on_lost: called, from another thread, with the
    reason whenever the page is gone without `close()`. token: what visitors have to know; "": nothing. names: under
    which they may come, besides the machine's own. options: the rows that may be changed, as plain values, asked at
    every start of a run. memory: see `core.liveline.LiveLine`. child: the command that serves the page.
    """

    def __init__(
        self,
        commands: queue.Queue[Command],
        tell: Callable[[Event], object],
        on_lost: Callable[[str], object],
        *,
        address: Address,
        token: str = "",
        names: tuple[str, ...] = (),
        options: Callable[[], list[dict[str, Any]]] = list,
        memory: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.time,
        child: tuple[str, ...] = (sys.executable, "-m", "core.web_child"),
    ) -> None:
        self._commands, self._tell, self._on_lost = commands, tell, on_lost
        self._address, self._token, self._options = address, token, options
        self._clock = clock
        self._line = LiveLine(clock, memory)
        self._due = Every(PUSH_S, clock)
        self._steps: list[Stepped] = []
        self._closing = False
        self.link = ""
        self.ready = threading.Event()
        """Set once the page can be visited at `link`."""
        self._process = _start(list(child))
        where = {"host": address.host, "ports": address.ports(), "token": token, "names": names}
        with contextlib.suppress(OSError):  # it died at once, as the reader notices
            web_wire.write(self._stream, where)
        self._events = Background(self._take, name="preview page", steps=100_000)
        self._reader = threading.Thread(target=self._follow, name="preview page commands", daemon=True)
        self._reader.start()

    def __call__(self, event: Event) -> None:
        if not (isinstance(event, Advanced | Staged) or (isinstance(event, Previewed) and event.history)):
            self._events(event)

    @property
    def alive(self) -> bool:
        """Whether the page's process runs."""
        return self._process.poll() is None

    def close(self, timeout: float = 5.0) -> None:
        """Take the page down. Returns within about `timeout` seconds."""
        self._closing = True
        if not self._events.close(timeout / 2):
            self._process.kill()  # it reads nothing any more; a write to it would wait for ever
            self._events.close(timeout / 2)
        with contextlib.suppress(OSError):
            self._stream.close()
        if self._reader is not threading.current_thread():
            self._reader.join(timeout / 2)
            if self._reader.is_alive():
                self._process.kill()
                self._reader.join(timeout / 2)

    @property
    def _stream(self) -> BinaryIO:
        return cast(BinaryIO, self._process.stdin)  # a pipe was asked for

    def _take(self, event: Event) -> None:
        """In the sink's thread: what the page is told of an event."""
        with contextlib.suppress(OSError, ValueError):  # the page is gone or being closed, as the reader notices
            if isinstance(event, Stepped):
                self._steps.append(event)
                self._line.stepped(event)
                if self._due():
                    self._push_steps()
                return
            self._push_steps()
            if isinstance(event, Started):
                self._push_start(event)
            elif isinstance(event, Previewed):
                self._push_pages(event)
            else:
                self._push_told(event)

    def _push(self, head: dict[str, Any], *arrays: Any) -> None:
        web_wire.write(self._stream, {"time": round(self._clock(), 1), **head}, *arrays)

    def _push_start(self, event: Started) -> None:
        self._line.started(event)
        history = np.asarray(event.history, np.float32).reshape(-1, max(1, len(event.loss_names)))
        self._push({"kind": "options", "options": self._options()})
        about = {"name": event.name, "iteration": event.iteration, "target": event.target}
        self._push({"kind": "start", **about, "losses": list(event.loss_names)}, history)

    def _push_pages(self, event: Previewed) -> None:
        pictures = [grid(rows) for _, rows in event.pages]
        pages = [
            {
                "title": title,
                "shape": picture.shape,
                "tiles": [len(rows), max(map(len, rows))],
                "names": event.captions.get(title, []),
            }
            for (title, rows), picture in zip(event.pages, pictures, strict=True)
        ]
        self._push({"kind": "pages", "iteration": event.iteration, "pages": pages}, *pictures)

    def _push_steps(self) -> None:
        steps, self._steps = self._steps, []
        if not steps:
            return
        values = np.array([list(step.losses.values()) for step in steps], np.float32)
        last = steps[-1]
        facts = [field.strip("[]") for field in self._line.parts() if field]
        self._push(
            {"kind": "steps", "iteration": last.iteration, "losses": list(last.losses), "facts": facts}, values
        )

    def _push_told(self, event: Event) -> None:
        """What a user is told, and what the training is busy with."""
        if isinstance(event, Saving):
            self._push({"kind": "saving", "saving": True})
        elif isinstance(event, Saved):
            self._push({"kind": "saving", "saving": False})
            self._push({"kind": "told", "level": "note", "text": f"Saved at iteration {event.iteration}."})
        elif isinstance(event, BackedUp):
            self._push({"kind": "told", "level": "note", "text": f"Backup made: {event.folder.name}"})
        elif isinstance(event, TargetReached):
            self._push({"kind": "status", "status": "target"})
        elif isinstance(event, Stopped) and event.reason == "options":
            self._push({"kind": "status", "status": "changing"})
        elif isinstance(event, Stopped):
            self._push({"kind": "end", "text": _ENDED.get(event.reason, "Training ended.")})
        elif isinstance(event, Waits) and event.text:
            self._push({"kind": "told", "level": "warning", "text": f"{event.text}."})
        elif isinstance(event, Noted | Warned | Failed) and not (isinstance(event, Noted) and event.aside):
            level = "note" if isinstance(event, Noted) else "warning" if isinstance(event, Warned) else "error"
            self._push({"kind": "told", "level": level, "text": event.text[:2000]})

    def _follow(self) -> None:
        """Follows what the page's process says until that ends, and reports why it did."""
        words: deque[str] = deque(maxlen=20)
        assert self._process.stdout is not None  # a pipe was asked for
        with contextlib.suppress(OSError, ValueError), self._process.stdout as lines:
            for line in lines:
                try:
                    self._hear(json.loads(line))
                except (ValueError, KeyError, TypeError):  # no message: an error's traceback
                    words.append(line.decode("utf-8", "replace").strip())
        code = self._process.wait()
        if not self._closing:
            self._on_lost(_reason(self.ready.is_set(), code, [word for word in words if word]))

    def _hear(self, said: dict[str, Any]) -> None:
        if "port" in said:
            self.link = self._address.link(int(said["port"]))
            self.ready.set()
            asks = " It asks for the token." if self._token else ""
            self._tell(Noted(f"Preview page: {self.link}{asks}"))
        elif "given" in said:
            self._change(dict(said["given"]))
        else:
            ask(self._commands, cast(CommandName, str(said["name"])))

    def _change(self, given: dict[str, str]) -> None:
        """Asks for other options; together with those that still wait, so that there is one such command at most."""
        with self._commands.mutex:
            waiting = self._commands.queue
            for place, command in enumerate(waiting):
                if command.name == "options" and "given" in command.arguments:
                    waiting[place] = Command("options", {"given": {**command.arguments["given"], **given}})
                    return
        self._commands.put(Command("options", {"given": given}))


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=children.ROOT,
        env=children.environment(),
        **children.detached(),
    )


def _reason(was_ready: bool, code: int, words: list[str]) -> str:
    """One line from how the page's process ended and its last words."""
    what = "the preview page has ended" if was_ready else "the preview page could not be opened"
    if code < 0:
        what += f" ({children.ending(code)})"
    return f"{what}: {words[-1]}" if words else what
