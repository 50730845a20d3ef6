#!/usr/bin/env python3
"""Opens a folder of pictures as this system shows them: `python3 bat/env/view.py FOLDER`, run by the view launchers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PICTURES = (".jpg", ".jpeg", ".png")


def main(arguments: list[str]) -> int:
    """Exit code 0 once the system's program was started, else 1 after one line."""
    folder = Path(arguments[0])
    if not folder.is_dir():
        return refuse(f"{folder} is no folder")
    count = sum(path.suffix.lower() in PICTURES for path in folder.iterdir())
    packed = " and a faceset.pak (the unpack launcher opens it)" if (folder / "faceset.pak").exists() else ""
    print(f"{folder}: {count:,} picture{'' if count == 1 else 's'}{packed}", flush=True)
    if sys.platform == "win32":
        os.startfile(folder)
        return 0
    program = "open" if sys.platform == "darwin" else "xdg-open"
    shown = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not shown or not shutil.which(program):
        return refuse("there is no desktop here to show it" if not shown else f"{program} is not installed (xdg-utils)")
    return subprocess.run([program, str(folder)], stdin=subprocess.DEVNULL, check=False).returncode


def refuse(why: str) -> int:
    print(f"The folder cannot be opened: {why}.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
