"""The process that serves the preview page: `python -m core.web_child`, started by core/web.py.

stdin brings messages (core/web_wire.py): first where to serve, then what there is to see. stdout carries lines of JSON:
`{"port": N}` once it is served, then what visitors ask for. The process ends when stdin does, so it never outlives the
trainer, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

import cv2

from core import web_wire
from core.web_address import is_loopback, open_socket, why
from core.web_server import PageServer
from core.web_site import Site

LAST_S = 2.0
"""Seconds that visitors have at most to hear that the training has ended."""
PAUSE_S = 0.8
"""Longer than a browser waits between two questions for news."""


def say(what: dict[str, Any]) -> None:
    """A line to the trainer, in one piece."""
    with contextlib.suppress(OSError):  # it is gone, as the end of stdin says too
        os.write(1, json.dumps(what).encode() + b"\n")


def listen(host: str, ports: list[int]) -> socket.socket:
    """A socket at the first port that is free. Raises OSError, of the last one tried."""
    for port in ports[:-1]:
        with contextlib.suppress(OSError):
            return open_socket(host, port)
    return open_socket(host, ports[-1])


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):  # when to end is the trainer's business
        signal.signal(number, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(10)  # a picture may wait, a training should not
    cv2.setNumThreads(1)
    stdin = sys.stdin.buffer
    first = web_wire.read(stdin)
    if first is None:
        return 0
    place = first[0]
    try:
        listening = listen(place["host"], place["ports"])
    except (OSError, OverflowError, UnicodeError) as error:
        print(why(error, place["host"], place["ports"][-1]), file=sys.stderr)
        return 1
    site = Site()
    own = socket.gethostname()
    names = [] if is_loopback(place["host"]) else [place["host"], own, f"{own}.local"]
    server = PageServer(listening, site, place["token"], (*place["names"], *names), say)
    threading.Thread(target=server.serve_forever, name="page", daemon=True).start()
    say({"port": listening.getsockname()[1]})
    while (message := web_wire.read(stdin)) is not None:
        site.take(*message)
    site.end()
    end = time.monotonic()
    while server.visited(end) and time.monotonic() < end + LAST_S:
        if not server.busy() and time.monotonic() > end + PAUSE_S:
            break
        time.sleep(0.02)
    return 0


if __name__ == "__main__":
    sys.exit(main())
