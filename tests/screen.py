"""A virtual screen for window tests: Xvfb, read through libX11, with keys from xdotool."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

TITLE = "Training preview"


class Screen:
    """A virtual screen: what it shows, keys to press on it, and a window's X to click."""

    class _Image(ctypes.Structure):
        _fields_ = [
            *((name, ctypes.c_int) for name in ("width", "height", "xoffset", "format")),
            ("data", ctypes.POINTER(ctypes.c_ubyte)),
            *((name, ctypes.c_int) for name in ("byte_order", "unit", "bit_order", "pad", "depth", "bytes_per_line")),
        ]

    class _Message(ctypes.Structure):
        _fields_ = [
            ("type", ctypes.c_int),
            ("serial", ctypes.c_ulong),
            ("send_event", ctypes.c_int),
            ("display", ctypes.c_void_p),
            ("window", ctypes.c_ulong),
            ("message_type", ctypes.c_ulong),
            ("format", ctypes.c_int),
            ("data", ctypes.c_long * 24),
        ]

    def __init__(self, name: str) -> None:
        self.environ = {**os.environ, "DISPLAY": name}
        x11 = self._x11 = ctypes.CDLL("libX11.so.6")
        x11.XOpenDisplay.restype = ctypes.c_void_p
        x11.XDefaultRootWindow.argtypes = x11.XFlush.argtypes = x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
        x11.XDefaultRootWindow.restype = x11.XInternAtom.restype = ctypes.c_ulong
        x11.XInternAtom.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        x11.XSendEvent.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
        x11.XGetImage.restype = ctypes.POINTER(self._Image)
        x11.XGetImage.argtypes = [ctypes.c_void_p, ctypes.c_ulong, *[ctypes.c_int] * 2, *[ctypes.c_uint] * 2]
        x11.XGetImage.argtypes += [ctypes.c_ulong, ctypes.c_int]
        self._display = x11.XOpenDisplay(name.encode())
        assert self._display

    def picture(self) -> npt.NDArray[np.uint8]:
        """(900, 1300, 3) uint8, BGR."""
        root = self._x11.XDefaultRootWindow(self._display)
        image = self._x11.XGetImage(self._display, root, 0, 0, 1300, 900, 0xFFFFFFFF, 2)
        size = image.contents.bytes_per_line * 900
        return np.ctypeslib.as_array(image.contents.data, (size,)).reshape(900, -1, 4)[:, :1300, :3].copy()

    def shows(self, colour: tuple[int, int, int]) -> bool:
        return int((self.picture() == colour).all(2).sum()) > 20_000

    def press(self, *keys: str) -> None:
        search = ["xdotool", "search", "--sync", "--name", TITLE]
        subprocess.run(
            [*search, "windowfocus", "key", "--delay", "80", *keys], env=self.environ, check=True, timeout=20
        )

    def turn_wheel(self, turns: int, x: int, y: int) -> None:
        """At a point of the window; above 0: away from the user."""
        search = ["xdotool", "search", "--sync", "--name", TITLE]
        subprocess.run(
            [*search, "mousemove", "--window", "%1", str(x), str(y), "click", "--repeat", str(abs(turns)),
             "4" if turns > 0 else "5"],
            env=self.environ, check=True, timeout=20,
        )  # fmt: skip

    def resize(self, width: int, height: int) -> None:
        search = ["xdotool", "search", "--sync", "--name", TITLE]
        subprocess.run([*search, "windowsize", str(width), str(height)], env=self.environ, check=True, timeout=20)

    def click_x(self) -> None:
        """What a window manager sends when the user closes the window."""
        search = ["xdotool", "search", "--sync", "--name", TITLE]
        window = int(subprocess.check_output(search, env=self.environ, timeout=20).split()[-1])
        atom = self._x11.XInternAtom
        message = self._Message(33, 0, 0, self._display, window, atom(self._display, b"WM_PROTOCOLS", 0), 32)
        message.data[0] = atom(self._display, b"WM_DELETE_WINDOW", 0)
        self._x11.XSendEvent(self._display, window, 0, 0, ctypes.byref(message))
        self._x11.XFlush(self._display)

    def close(self) -> None:
        self._x11.XCloseDisplay(self._display)


def virtual_screen() -> Iterator[Screen]:
    """Starts Xvfb and yields its screen; skips the test where it or xdotool is absent."""
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install xvfb xdotool")
    ours, theirs = os.pipe()
    command = ["Xvfb", "-displayfd", str(theirs), "-screen", "0", "1300x900x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[theirs], stderr=subprocess.DEVNULL)
    os.close(theirs)
    number = b""
    while not number.endswith(b"\n") and select.select([ours], [], [], 20)[0]:
        piece = os.read(ours, 16)
        if not piece:
            break
        number += piece
    os.close(ours)
    assert number, "Xvfb did not start"
    display = Screen(f":{number.decode().strip()}")
    try:
        yield display
    finally:
        display.close()
        server.terminate()
        server.wait(10)
