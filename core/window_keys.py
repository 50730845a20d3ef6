"""The keys of the preview window: what they are called, what they ask for, and how that is told."""

from __future__ import annotations

from core.events import CommandName

COMMAND_KEYS: dict[str, CommandName] = {
    "s": "save",
    "b": "backup",
    "p": "preview",
    "o": "options",
    "\r": "stop",
}
DIGITS = {"2": "s", "0": "b", "3": "p", "1": "l", "4": "n", "5": "f", "6": "h", "7": "o"}
"""The same on keyboards without Latin letters (the first four are SAEHDBW's)."""

HELP = (
    ("s  2", "save"),
    ("b  0", "save, then make a backup"),
    ("p  3", "draw the preview anew"),
    ("o  7", "other options, asked for in the terminal"),
    ("Enter", "save and end"),
    ("space", "next page"),
    ("l  1", "range of the loss graph"),
    ("n  4", "names of the files on the tiles"),
    ("wheel  +  -", "zoom, 25 to 500 %"),
    ("mouse button", "moves what is enlarged; twice: all of it"),
    ("f  5", "all of it, as large as the window"),
    ("h  6  ?", "this help"),
    ("close it", "training goes on; w in the terminal opens it again"),
)
"""Keys and what they do, in the order they are told in."""

_KEYPAD = {0xFFAB: "+", 0xFFAD: "-", 0xFF8D: "\r"}  # X11 key symbols, which GTK builds of OpenCV report


def key_name(code: int) -> str:
    """What the code of `cv2.waitKeyEx` stands for: a lower-case character, "\\r" for either Enter, or ""."""
    code &= 0xFFFF  # modifiers are above; so are Windows' cursor keys
    if code in (10, 13):
        return "\r"
    return _KEYPAD.get(code) or (chr(code).lower() if 32 <= code < 127 else "")
