"""One readable message for whatever went wrong. Standard library only: a package may be what is broken."""

from __future__ import annotations

import linecache
import re
import sys
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent  # not resolved: as tracebacks name files
NAMES = {"torch": "PyTorch", "cv2": "OpenCV", "numpy": "NumPy", "prompt_toolkit": "prompt_toolkit", "rich": "rich"}
IMPORT = re.compile(r"\s*(?:import|from)\s+([A-Za-z_]\w*)")
OURS = {"core", "models", "samplelib", "facelib", "mainscripts"}


def explain(error: BaseException) -> str:
    """What happened and what to do, for an error that nobody expected or that the system raised."""
    if package := broken_package(error):
        return _import_text(package, error)
    if isinstance(error, MemoryError):
        return "There is not enough memory. Close other programs, or take smaller settings."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'The system'}: {error.strerror}."
    said = (str(error) or "no text").splitlines()[0][:300].rstrip(".")
    return f"An error that should not happen: {type(error).__name__}: {said}{_place(error)}. Please report it."


def broken_package(error: BaseException) -> str:
    """The package that is missing or cannot be loaded; empty where the error is another one. It is whatever error comes
    out of one of our import lines: a missing DLL is an OSError, a mixture of versions an AttributeError."""
    if isinstance(error, ImportError) and error.name:
        package = error.name.partition(".")[0]
        return "" if package in OURS else package
    frame, line = _our_last(error)
    match = IMPORT.match(line) if frame else None
    return match[1] if match and match[1] not in OURS else ""


def _our_last(error: BaseException) -> tuple[str, str]:
    """File and line of code where an error left our program for another's, or was raised."""
    found = "", ""
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith(str(ROOT)) and "site-packages" not in name:
            path = Path(name).relative_to(ROOT).as_posix()
            found = f"{path}:{trace.tb_lineno}", linecache.getline(name, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _place(error: BaseException) -> str:
    place, _ = _our_last(error)
    return f" (at {place})" if place else ""


def _import_text(package: str, error: BaseException) -> str:
    name = NAMES.get(package, package)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package:
        return (
            f"{name} is not installed for {sys.executable}. Start a launcher in bat/, which sets everything up, or: "
            "pip install -e ."
        )
    said = (str(error) or type(error).__name__).splitlines()[0][:300].rstrip(".")
    text = str(error)
    if "libGL" in text or "libgthread" in text or "libglib" in text:
        remedy = "Debian, Ubuntu: apt install libgl1 libglib2.0-0. Or: pip install opencv-python-headless"
    elif sys.platform == "win32" and isinstance(error, ImportError | OSError):
        remedy = (
            "Install Microsoft's Visual C++ runtime (https://aka.ms/vs/17/release/vc_redist.x64.exe), or remove the "
            "folder .venv and start a launcher, which sets everything up anew"
        )
    else:
        remedy = "Remove the folder .venv and start a launcher in bat/, which sets everything up anew"
    return f"{name} is installed but cannot be loaded: {said}. {remedy}."
