"""The mouse wheel of a window under X11, taken before the window's own toolkit sees it.

OpenCV's Qt windows enlarge what they show by themselves at every turn of the wheel, which cannot be switched off and
blurs. Here a second connection to the X server asks for the wheel's buttons of that window (a passive grab), so that
the window never hears of them. libX11 is called directly: wherever Qt shows a window on X11, it is there.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

WHEEL = {4: 1, 5: -1}
"""X's button numbers of the wheel: away from the user, towards the user."""

_ANY_MODIFIER = 1 << 15
_BUTTON_PRESS = 4
_BUTTON_PRESS_MASK = 1 << 2
_ASYNC = 1
_Window = ctypes.c_ulong


class _Event(ctypes.Structure):
    """XButtonEvent, as long as the largest event."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        *((name, ctypes.c_ulong) for name in ("window", "root", "subwindow", "time")),
        *((name, ctypes.c_int) for name in ("x", "y", "x_root", "y_root")),
        ("state", ctypes.c_uint),
        ("button", ctypes.c_uint),
        ("rest", ctypes.c_long * 24),
    ]


class Wheel:
    """The wheel of this process' window called `title`. Raises OSError where there is no X11 or no such window."""

    def __init__(self, title: str) -> None:
        x11 = self._x11 = ctypes.CDLL("libX11.so.6")
        for name, result, arguments in (
            ("XOpenDisplay", ctypes.c_void_p, [ctypes.c_char_p]),
            ("XDefaultRootWindow", _Window, [ctypes.c_void_p]),
            ("XInternAtom", ctypes.c_ulong, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
            ("XQueryTree", ctypes.c_int, [ctypes.c_void_p, _Window, *[ctypes.c_void_p] * 4]),
            ("XFetchName", ctypes.c_int, [ctypes.c_void_p, _Window, ctypes.c_void_p]),
            ("XFree", ctypes.c_int, [ctypes.c_void_p]),
            ("XPending", ctypes.c_int, [ctypes.c_void_p]),
            ("XNextEvent", ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p]),
            ("XSync", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
            ("XGrabButton", ctypes.c_int, [
                ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, _Window, ctypes.c_int, ctypes.c_uint, ctypes.c_int,
                ctypes.c_int, _Window, _Window,
            ]),
            ("XGetWindowProperty", ctypes.c_int, [
                ctypes.c_void_p, _Window, ctypes.c_ulong, ctypes.c_long, ctypes.c_long, ctypes.c_int, ctypes.c_ulong,
                *[ctypes.c_void_p] * 5,
            ]),
        ):  # fmt: skip
            function: Any = getattr(x11, name)
            function.restype, function.argtypes = result, arguments
        # without a handler of ours Xlib ends the process at the first error, such as a window that has just gone
        self._ignore = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda display, error: 0)
        x11.XSetErrorHandler(self._ignore)
        self._display = x11.XOpenDisplay(None)
        if not self._display:
            raise OSError("there is no X11 display")
        window = self._find(title.encode())
        for button in WHEEL:
            x11.XGrabButton(
                self._display, button, _ANY_MODIFIER, window, 0, _BUTTON_PRESS_MASK, _ASYNC, _ASYNC, 0, 0
            )
        x11.XSync(self._display, 0)

    def turned(self) -> list[tuple[int, int, int]]:
        """What was done with the wheel since the last call: (1 away or -1 towards the user, x, y in the window)."""
        event, found = _Event(), []
        while self._x11.XPending(self._display):
            self._x11.XNextEvent(self._display, ctypes.byref(event))
            if event.type == _BUTTON_PRESS and event.button in WHEEL:
                found.append((WHEEL[event.button], event.x, event.y))
        return found

    def _find(self, title: bytes) -> int:
        """The window's number: another program's window may have the same title."""
        waiting = [self._x11.XDefaultRootWindow(self._display)]
        while waiting:
            window = waiting.pop()
            if self._title(window) == title and self._process(window) == os.getpid():
                return int(window)
            waiting += self._children(window)
        raise OSError(f"no window {title!r} of this process on the X11 display")

    def _children(self, window: int) -> list[int]:
        root, parent, count = _Window(), _Window(), ctypes.c_uint()
        children = ctypes.POINTER(_Window)()
        pointers = [ctypes.byref(one) for one in (root, parent, children, count)]
        if not self._x11.XQueryTree(self._display, window, *pointers) or not children:
            return []
        found = children[: count.value]
        self._x11.XFree(children)
        return found

    def _title(self, window: int) -> bytes:
        name = ctypes.c_char_p()
        if not self._x11.XFetchName(self._display, window, ctypes.byref(name)) or name.value is None:
            return b""
        found = name.value
        self._x11.XFree(name)
        return found

    def _process(self, window: int) -> int:
        """_NET_WM_PID, -1 where it is not told."""
        atom = self._x11.XInternAtom(self._display, b"_NET_WM_PID", 0)
        kind, size, count, rest = ctypes.c_ulong(), ctypes.c_int(), ctypes.c_ulong(), ctypes.c_ulong()
        data = ctypes.POINTER(ctypes.c_ulong)()
        pointers = [ctypes.byref(one) for one in (kind, size, count, rest, data)]
        self._x11.XGetWindowProperty(self._display, window, atom, 0, 1, 0, 0, *pointers)
        if not data:
            return -1
        found = int(data[0]) if count.value else -1
        self._x11.XFree(data)
        return found
