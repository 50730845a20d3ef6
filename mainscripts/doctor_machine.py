"""What the doctor looks at without any package: Python, processor, memory, disks, open files, the terminal."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import struct
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from core.child import ROOT
from core.disk import remedy
from core.mainmemory import MainMemory
from core.memory import size
from core.version import VERSION
from mainscripts.doctor_finding import Finding, State

OLDEST, NEWEST = (3, 10), (3, 14)  # as in bat/env/setup.py
SHORT_MEMORY, LITTLE_MEMORY = 1e9, 4e9
SHORT_DISK, LITTLE_DISK = 1e9, 10e9
FEW_FILES, SOME_FILES = 64, 256
NARROW = 60
LOUD = (
    "PYTHONPATH", "PYTHONHOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES", "PYTORCH_ENABLE_MPS_FALLBACK", "OMP_NUM_THREADS", "OPENCV_IO_MAX_IMAGE_PIXELS",
    "QT_QPA_PLATFORM",
)  # fmt: skip
"""Variables that change what packages do: worth knowing where something is odd."""


def program() -> list[Finding]:
    """facesmith itself, and the system it runs on."""
    system = platform.platform()
    return [Finding("facesmith", "ok", f"{VERSION} in {ROOT}", data={"version": VERSION, "system": system}),
            Finding("System", "ok", system)]  # fmt: skip


BITS = struct.calcsize("P") * 8


def python(version: tuple[int, ...] = tuple(sys.version_info[:3]), bits: int = BITS) -> list[Finding]:
    """Whether this Python will do."""
    told = ".".join(map(str, version))
    text = f"{told}, {bits} bit, {sys.executable}"
    data = {"version": told, "bits": bits, "executable": sys.executable, "environment": sys.prefix != sys.base_prefix}
    state: State = "ok"
    advice = ""
    if version < OLDEST or bits != 64:
        state, advice = "problem", "Install a 64 bit Python 3.10 to 3.14, remove the folder .venv, start a launcher."
    elif version[:2] > NEWEST:
        state, advice = "note", "Newer than what was tested: where packages are missing, take Python 3.10 to 3.14."
    return [Finding("Python", state, text, advice, data)]


def settings(environ: Mapping[str, str]) -> list[Finding]:
    """Environment variables that change what packages do."""
    found = {name: environ[name] for name in LOUD if environ.get(name) is not None}
    found |= {name: value for name, value in sorted(environ.items()) if name.startswith("FACESMITH_")}
    if not found:
        return [Finding("Settings", "ok", "no environment variable that matters is set")]
    text = ", ".join(f"{name}={value}" for name, value in found.items())
    strange = {"PYTHONPATH", "PYTHONHOME", "LD_PRELOAD"} & set(found)
    advice = f"{', '.join(sorted(strange))} may bring in another program's packages: unset it." if strange else ""
    return [Finding("Settings", "note" if strange else "ok", text, advice, found)]


def processor(root: Path = Path("/")) -> list[Finding]:
    """Cores of the machine, and how many of them may be used here."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    quota = _quota(root)
    share = f", of which this container may take the time of {quota:.1f}" if quota and quota < usable else ""
    state: State = "ok" if min(usable, quota or usable) >= 2 else "note"
    advice = "" if state == "ok" else "Faces are prepared beside the training: give it two cores or more."
    text = f"{usable} of {cores} cores may be used{share} ({platform.machine()})"
    return [Finding("Processor", state, text, advice, {"cores": cores, "usable": usable, "quota": quota})]


def _quota(root: Path) -> float | None:
    """Cores' worth of time that the control group grants; None where it sets no limit."""
    try:
        limit, period = (root / "sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return int(limit) / int(period)
    except (OSError, ValueError):  # no control group of the new kind, or the word `max`
        return None


def memory(main: MainMemory) -> list[Finding]:
    """Main memory: what is free, also under a container's or the shell's limit."""
    free, total = main.free(), main.total()
    data = {"free": free, "total": total}
    if free is None:
        return [Finding("Memory", "note", "this system does not tell how much is free", data=data)]
    text = f"{size(free)} free" + (f" of {size(total)}" if total else "")
    if free < SHORT_MEMORY:
        return [Finding("Memory", "problem", text, "Close other programs, or raise the limit (ulimit -v).", data)]
    if free < LITTLE_MEMORY:
        return [Finding("Memory", "note", text, "Enough for small models. Close other programs for larger ones.", data)]
    return [Finding("Memory", "ok", text, data=data)]


def folder(name: str, path: Path, *, must_exist: bool) -> list[Finding]:
    """Whether a folder can be written, how much room it has. One that is not there is judged by the folder it would be
    made in, and is a problem where `must_exist`."""
    data = {"path": str(path)}
    if not path.is_dir() and (must_exist or path.exists()):
        return [Finding(name, "problem", f"{path} is no folder", "Make it, or name another.", data)]
    place = next(each for each in (path, *path.parents) if each.is_dir())
    missing = "" if place == path else " (not there yet: the launchers make it)"
    try:
        links = _try_disk(place)
        free = shutil.disk_usage(place).free
    except OSError as error:
        advice = remedy(error.errno, place) or "Name another folder. "
        return [Finding(name, "problem", f"{path}: {error.strerror}", advice.rstrip(), data)]
    figures = {**data, "free": free, "hard_links": links}
    text = f"{path}{missing}: can be written, {size(free)} free"
    if free < SHORT_DISK:
        advice = "Free some space there: delete other files, or old backups."
        return [Finding(name, "problem", text, advice, figures)]
    if free < LITTLE_DISK:
        advice = "A model with its backups takes several GB: keep an eye on it."
        return [Finding(name, "note", text, advice, figures)]
    return [Finding(name, "ok", text, data=figures)]


def _try_disk(place: Path) -> bool:
    """Writes, syncs, reads and renames a file, which is deleted again; returns whether there are hard links. Raises
    OSError."""
    with tempfile.TemporaryDirectory(prefix="facesmith_doctor_", dir=place) as scratch:
        first, second = Path(scratch) / "a", Path(scratch) / "b"
        content = os.urandom(1 << 16)
        with first.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        first.replace(second)
        if second.read_bytes() != content:
            raise OSError(errno.EIO, "what was written is not what is read")
        try:
            os.link(second, first)
        except OSError:
            return False
        return True


def open_files() -> list[Finding]:
    """How many files a process may have open."""
    if sys.platform == "win32":
        return []
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    data = {"soft": None if unlimited else soft, "hard": None if hard == resource.RLIM_INFINITY else hard}
    text = "no limit" if unlimited else f"{soft:,} at a time"
    if unlimited or soft >= SOME_FILES:
        return [Finding("Open files", "ok", text, data=data)]
    return [Finding("Open files", "problem" if soft < FEW_FILES else "note", text, "Raise it: ulimit -n 1024", data)]


def terminal(stdin: TextIO, stdout: TextIO, environ: Mapping[str, str]) -> list[Finding]:
    """Whether somebody can be asked, and what the terminal can show."""
    asks, shows = stdin.isatty(), stdout.isatty()
    columns, lines = shutil.get_terminal_size()
    encoding = (stdout.encoding or "unknown").lower()
    coloured = colours(stdout, environ)
    data = {"input": asks, "output": shows, "columns": columns, "lines": lines, "encoding": encoding,
            "colours": coloured}  # fmt: skip
    if not shows or not asks:
        ends = "input and output are" if not (shows or asks) else ("output is" if asks else "input is")
        advice = "Nothing is asked here: stored values, defaults and --set count (--ask reads answers from a file)."
        return [Finding("Terminal", "note", f"{ends} no terminal, {encoding}", advice, data)]
    shown = "colours" if coloured else "no colours"
    text = f"{columns} x {lines}, {encoding}, {shown}, {environ.get('TERM', 'no TERM')}"
    if encoding.replace("-", "") != "utf8":
        return [Finding("Terminal", "note", text, "Names with other letters may look wrong: set PYTHONUTF8=1", data)]
    if columns < NARROW:
        return [Finding("Terminal", "note", text, f"Make it {NARROW} columns wide or wider.", data)]
    return [Finding("Terminal", "ok", text, data=data)]


def colours(stdout: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to colour what is printed."""
    plain = environ.get("NO_COLOR") or environ.get("TERM") == "dumb"
    windows = sys.platform == "win32" and not environ.get("WT_SESSION")  # the old console shows the codes
    return stdout.isatty() and not plain and not windows
