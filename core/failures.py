"""One readable message for whatever went wrong. Standard library only: a package may be what is broken."""

from __future__ import annotations

import errno
import linecache
import os
import re
import sys
from pathlib import Path

from core.disk import FORBIDDEN, GONE, remedy
from core.memory import out_of_memory

ROOT = Path(__file__).absolute().parent.parent  # not resolved: as tracebacks name files
NAMES = {"torch": "PyTorch", "cv2": "OpenCV", "numpy": "NumPy", "prompt_toolkit": "prompt_toolkit", "rich": "rich"}
IMPORT = re.compile(r"\s*(?:import|from)\s+([A-Za-z_]\w*)")
PACKAGE = re.compile(r"[/\\](?:site|dist)-packages[/\\](\w+)")
OURS = {"core", "models", "samplelib", "facelib", "mainscripts"}


def explain(error: BaseException) -> str:
    """What happened and what to do, for an error that nobody expected or that the system raised."""
    if out_of_memory(error):
        return _memory_text(error)
    if package := broken_package(error):
        return _import_text(package, error)
    if isinstance(error, OSError) and error.strerror:
        return _system_text(error)
    said = _said(error) or "no text"
    return f"An error that should not happen: {type(error).__name__}: {said}{_place(error)}. Please report it."


def broken_package(error: BaseException) -> str:
    """The package that is missing or cannot be loaded; empty where the error is another one. It is whatever error comes
    out of one of our import lines: a missing DLL is an OSError, a mixture of versions an AttributeError."""
    if isinstance(error, ImportError) and error.name:
        package = error.name.partition(".")[0]
        if package.startswith("_") and (found := PACKAGE.search(error.path or "")):
            package = found[1]  # of torch._C Python tells the last word alone
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


def _said(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:300].rstrip(".")


def _memory_text(error: BaseException) -> str:
    said = _said(error)
    if "start new thread" in said:
        return (
            "No new thread could be started: memory is short, or this user is allowed too few processes. Close other "
            "programs, or raise the limit (ulimit -v, ulimit -u and ulimit -s show them)."
        )
    if isinstance(error, ImportError | OSError) and (package := broken_package(error)):
        return (
            f"There is not enough memory to load {NAMES.get(package, package)}: {said}. Close other programs, or raise "
            "the limit on memory (ulimit -v shows it). If there is enough: programs must be allowed to run from the "
            "disk it lies on (mount shows noexec where they are not)."
        )
    told = f": {said}" if said else ""
    return f"There is not enough memory{told}. Close other programs, or take smaller settings."


def _system_text(error: OSError) -> str:
    """The system's words, and what to do where we know it."""
    text = f"{error.filename or 'The system'}: {error.strerror}."
    path = Path(error.filename) if isinstance(error.filename, str) and error.filename else None
    advice = remedy(error.errno, path.parent if path else Path())
    if error.errno in (*FORBIDDEN, *GONE) and path is None:
        advice = ""
    elif path is not None and error.errno == errno.ENOTDIR:
        files = [str(place) for place in (path, *path.parents) if place.is_file()]
        advice = f"{files[0]} is a file, and a folder is needed there." if files else ""
    elif path is not None and error.errno in GONE and path.parent.is_dir():
        advice = ""
    elif path is not None and error.errno in FORBIDDEN and path.exists() and not os.access(path, os.R_OK):
        advice = "Make it readable for this user."
    return f"{text} {advice}".rstrip()


def _import_text(package: str, error: BaseException) -> str:
    return "{}. {}".format(*import_problem(package, error))


def import_problem(package: str, error: BaseException) -> tuple[str, str]:
    """What is wrong with a package that raised `error` when it was imported, and what to do about it."""
    name = NAMES.get(package, package)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package:
        return (
            f"{name} is not installed for {sys.executable}",
            "Start a launcher in bat/, which sets everything up, or: pip install -e .",
        )
    said = _said(error) or type(error).__name__
    text = str(error)
    if "libGL" in text or "libgthread" in text or "libglib" in text:
        advice = "Debian, Ubuntu: apt install libgl1 libglib2.0-0. Or: pip install opencv-python-headless."
    elif sys.platform == "win32" and isinstance(error, ImportError | OSError):
        advice = (
            "Install Microsoft's Visual C++ runtime (https://aka.ms/vs/17/release/vc_redist.x64.exe), or remove the "
            "folder .venv and start a launcher, which sets everything up anew."
        )
    else:
        advice = "Remove the folder .venv and start a launcher in bat/, which sets everything up anew."
    return f"{name} is installed but cannot be loaded: {said}", advice
