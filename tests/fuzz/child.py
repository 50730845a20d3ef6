"""One process that feeds a reader: `python -m tests.fuzz.child READER SEED FIRST SECONDS FOLDER`, as `tests.fuzz` does.

It may not grow by more than 200 MB while it works (where the system can be asked for that). The number of the input in
work stands in FOLDER/board, a file of 8 bytes, so that the parent knows which one ended or held up the process. Prints
one JSON line for each fault, and one at the end. If its parent is killed it deletes FOLDER and ends.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
import warnings
from pathlib import Path

import cv2

from . import readers

GROWTH = 200 << 20
"""Bytes that reading one file may take."""


def bound(growth: int = GROWTH) -> bool:
    """Limits this process to its present size and so many bytes more; False where the system cannot do that."""
    if sys.platform != "linux":
        return False
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + growth, now + growth))
    return True


def resident_peak() -> int:
    """Bytes of memory that this process had at most."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(arguments: list[str]) -> int:
    name, seed, first, seconds, folder = arguments
    board, scratch, parent = Path(folder, "board"), Path(folder, "scratch"), os.getppid()
    scratch.mkdir()
    target, index, end = readers.TARGETS[name], int(first), time.monotonic() + float(seconds)
    warnings.simplefilter("error")
    cv2.setNumThreads(1)
    tried = taken = faults = 0
    slowest = (0.0, 0)
    with board.open("r+b", buffering=0) as file:
        for data in target.seeds():
            readers.check(target, data, scratch)
        bound()
        start = resident_peak()
        while time.monotonic() < end:
            if os.getppid() != parent:  # killed, and could not tidy up
                shutil.rmtree(folder)
                return 1
            file.seek(0)
            file.write(index.to_bytes(8, "little"))
            data = readers.input_number(name, int(seed), index)
            begun = time.monotonic()
            try:
                taken += readers.check(target, data, scratch)
            except Exception as error:  # noqa: BLE001  # whatever a reader raises is what is looked for
                faults += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                line = {"fault": index, "what": f"{type(error).__name__} at {place}: {str(error)[:200]!a}"}
                print(json.dumps(line), flush=True)
            slowest = max(slowest, (time.monotonic() - begun, index))
            tried, index = tried + 1, index + 1
    end_line = {"tried": tried, "taken": taken, "faults": faults, "slowest": slowest, "next": index}
    print(json.dumps({**end_line, "grown": resident_peak() - start}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
