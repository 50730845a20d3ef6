"""Main memory: what this process holds and what is free, from Linux's /proc, macOS's and Windows's own calls.

Everything that a system does not tell is None: an unknown number is said to be unknown.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
NO_LIMIT = 1 << 60  # old control groups write a huge number for "no limit"


class MainMemory:
    """Bytes of main memory. root: where /proc and /sys are found."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._status, self._machine = root / "proc/self/status", root / "proc/meminfo"
        self._processes = root / "proc"
        self._clear = root / "proc/self/clear_refs"
        self._membership, self._groups = root / "proc/self/cgroup", root / "sys/fs/cgroup"

    def peak(self) -> int | None:
        """The most that this process held, as far as the system still knows."""
        if (told := _table(self._status).get("VmHWM")) is not None:
            return told
        if sys.platform == "win32":
            return _windows_process()[0]
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024

    def held(self) -> int | None:
        """What this process holds now."""
        if sys.platform == "win32":
            return _windows_process()[1]
        return _table(self._status).get("VmRSS")

    def held_by(self, pids: Iterable[int]) -> int | None:
        """What these processes hold together, memory that they share counted once (Linux: PSS)."""
        found = [_table(self._processes / str(pid) / "smaps_rollup").get("Pss") for pid in pids]
        return None if None in found else sum(held for held in found if held is not None)

    def free(self) -> int | None:
        """What this process may still take: of the machine, of its control group (containers) and of its own limit."""
        if sys.platform == "win32":
            return _windows_machine()[0]
        rooms = [_table(self._machine).get("MemAvailable"), self._group()[0], self._below_own_limit()]
        known = [room for room in rooms if room is not None]
        return max(0, min(known)) if known else None

    def total(self) -> int | None:
        """What the machine, or the control group, or this process's own limit has."""
        if sys.platform == "win32":
            return _windows_machine()[1]
        totals = [_table(self._machine).get("MemTotal"), self._group()[1], _own_limit()]
        known = [total for total in totals if total is not None]
        if not known and sys.platform == "darwin":
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return min(known) if known else None

    def forget_peak(self) -> None:
        """Linux counts the peak anew; elsewhere it stays that of the whole run."""
        with contextlib.suppress(OSError):
            if self._clear.exists():
                self._clear.write_text("5")

    def _group(self) -> tuple[int | None, int | None]:
        """Room and limit of the control group, new kind or old; None where there is none."""
        inside = next((line[4:] for line in _lines(self._membership) if line.startswith("0::/")), "")
        new, old = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
        for folder, names in ((self._groups / inside, new), (self._groups, new), (self._groups / "memory", old)):
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None and limit < NO_LIMIT:
                # Pages of files count as used, but give way.
                cached = [line.split() for line in _lines(folder / "memory.stat")]
                return limit - used + sum(int(row[1]) for row in cached if row[0] == "inactive_file"), limit
        return None, None

    def _below_own_limit(self) -> int | None:
        limit, held = _own_limit(), _table(self._status).get("VmSize")
        return None if limit is None or held is None else limit - held


def trim() -> None:
    """Has glibc give freed memory back to the system: it keeps blocks of up to 32 MB otherwise."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _own_limit() -> int | None:
    """`ulimit -v`; None where there is none."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def keep_freed() -> None:
    """Has glibc keep what this process frees, up to 256 MB, for its next pictures: by the hundred a second that is a
    third quicker than fresh pages each time. Without effect elsewhere, and where MALLOC_ variables say otherwise."""
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, 256 << 20)


def _table(path: Path) -> dict[str, int]:
    """The entries `Name:   123 kB` of a file of /proc, in bytes."""
    words = [line.replace(":", " ").split() for line in _lines(path)]
    return {row[0]: int(row[1]) * 1024 for row in words if len(row) == 3 and row[2] == "kB" and row[1].isdigit()}


def _number(path: Path) -> int | None:
    """The number in a file; None for another word (`max`) and for no file."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _windows_process() -> tuple[int | None, int | None]:
    """Peak and present working set."""
    if sys.platform != "win32":
        return None, None
    import ctypes
    from ctypes import wintypes

    class Counters(ctypes.Structure):
        _fields_ = (
            ("cb", wintypes.DWORD), ("faults", wintypes.DWORD), ("peak", ctypes.c_size_t), ("held", ctypes.c_size_t),
            ("rest", ctypes.c_size_t * 6),
        )  # fmt: skip

    counters = Counters(cb=ctypes.sizeof(Counters))
    kernel = ctypes.WinDLL("kernel32")
    kernel.GetCurrentProcess.restype = wintypes.HANDLE
    kernel.K32GetProcessMemoryInfo.argtypes = (wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD)
    ok = kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
    return (counters.peak, counters.held) if ok else (None, None)


def _windows_machine() -> tuple[int | None, int | None]:
    """Free and total: of what Windows lets programs commit, the paging file included, because that runs out first."""
    if sys.platform != "win32":
        return None, None
    import ctypes
    from ctypes import wintypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", wintypes.DWORD), ("load", wintypes.DWORD), ("total", ctypes.c_uint64), ("free", ctypes.c_uint64),
            ("total_commit", ctypes.c_uint64), ("free_commit", ctypes.c_uint64), ("rest", ctypes.c_uint64 * 3),
        )  # fmt: skip

    status = Status(length=ctypes.sizeof(Status))
    ok = ctypes.WinDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(status))
    return (status.free_commit, status.total_commit) if ok else (None, None)
