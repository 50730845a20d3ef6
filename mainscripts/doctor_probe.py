"""One look at a package, in a process of its own: `python -m mainscripts.doctor_probe WHAT [FOLDER]`.

A broken package may crash, abort or hang the process that imports it; here that costs one answer. The answer is one
line of JSON on standard output, whatever else a package prints; an error is the entries `error` and `advice`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import queue
import shutil
import sys
import threading
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from core.child import ROOT
from core.failures import import_problem
from core.memory import out_of_memory, usage
from mainscripts.verb import message_of

ANSWER = "facesmith-doctor "
"""What the line of the answer begins with."""
SHARED_BYTES = 64 << 20
WINDOW_SECONDS = 30.0
Answer = dict[str, Any]


def package(name: str, distribution: str = "") -> Answer:
    """Version and place of a package. distribution: its name for pip, asked where it does not tell its version."""
    module = import_module(name)
    version = getattr(module, "__version__", "")
    if not version and distribution:
        with contextlib.suppress(metadata.PackageNotFoundError):
            version = metadata.version(distribution)
    return {"version": str(version), "file": str(getattr(module, "__file__", ""))}


def pytorch() -> Answer:
    """PyTorch and its devices; bytes of memory, None where nobody tells."""
    import torch

    from core.device import CPU, abilities, built_for, describe, gpus

    answer = package("torch") | {
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "architectures": torch.cuda.get_arch_list() if torch.cuda.is_available() else [],
        "devices": [],
    }
    for device in [*gpus(), CPU]:
        row: Answer = {"key": device.key, "name": describe(device), "free": None, "total": device.memory or None}
        if device.torch_name.startswith("cuda") and torch.version.hip is None:
            capability = torch.cuda.get_device_capability(device.torch_name)
            row["capability"] = ".".join(map(str, capability))
            row["built_for"] = built_for(capability, answer["architectures"])
        with contextlib.suppress(RuntimeError):  # a driver that refuses; the next line tells
            used = usage(device.torch_name)
            row |= {"free": used.free, "total": used.total}
        answer["devices"].append(row | abilities(device))
    return answer


def opencv() -> Answer:
    """OpenCV, the windows it is built with, and whether JPG and PNG come back as they were written."""
    import cv2
    import numpy as np

    gui = [line.split(":")[1].strip() for line in cv2.getBuildInformation().splitlines() if line.strip()[:4] == "GUI:"]
    answer = package("cv2") | {"windows": gui[0] if gui else ""}
    slope = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    for kind, error in (("jpg", 4), ("png", 0)):
        fits, data = cv2.imencode(f".{kind}", slope)
        seen = cv2.imdecode(data, cv2.IMREAD_COLOR) if fits else None
        answer[kind] = seen is not None and int(np.abs(seen.astype(int) - slope).max()) <= error
    return answer


def window() -> Answer:
    """Opens the preview window for a moment, as training does."""
    from core.window import Window, display_problem

    if problem := display_problem(os.environ, sys.platform):
        return {"opened": False, "reason": problem, "display": False}
    lost: queue.Queue[str] = queue.Queue()
    opened = Window(queue.Queue(), lost.put, title="facesmith doctor", start_timeout=WINDOW_SECONDS)
    watch = threading.Thread(target=opened.ready.wait, args=(WINDOW_SECONDS + 5,), daemon=True)
    watch.start()
    reason = ""
    while watch.is_alive() and not reason:
        with contextlib.suppress(queue.Empty):
            reason = lost.get(timeout=0.1)
    ready = opened.ready.is_set()
    opened.close()
    return {"opened": ready, "reason": reason, "display": True}


def shared() -> Answer:
    """Where memory that sample workers share comes from; bytes of /dev/shm, None where there is none."""
    from core.sharedbuf import SharedBuffer

    buffer = SharedBuffer(SHARED_BYTES)
    buffer.close()
    shm = Path("/dev/shm")
    return {"place": buffer.place, "shm": shutil.disk_usage(shm).total if shm.is_dir() else None}


def lock(folder: str) -> Answer:
    """Whether a second trainer would be kept off a model in that folder."""
    from core.lock import ModelLock
    from core.modeldir import ModelError  # whose text is known to be written for users

    path = Path(folder) / "facesmith_doctor_lock"
    with ModelLock(path):
        try:
            with ModelLock(path):
                return {"held": False}
        except ModelError:
            return {"held": True}


def pyav() -> Answer:
    """PyAV: which codecs it has, and whether a video of a few frames can be written and read back."""
    import av
    import numpy as np

    answer = package("av") | {"codecs": [], "frames": 0}
    for name in ("libx264", "libx265", "libvpx-vp9", "libsvtav1"):
        with contextlib.suppress(ValueError):  # PyAV's unknown codec is one
            answer["codecs"].append(av.Codec(name, "w").name)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as video:
        stream = video.add_stream("h264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for level in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level * 80, np.uint8), format="bgr24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    file.seek(0)
    with av.open(file) as video:
        answer["frames"] = sum(1 for _ in video.decode(video=0))
    return answer


def card() -> Answer:
    """The graphics card that the machine has, whatever PyTorch sees, and what the set-up would install for it."""
    folder = ROOT / "bat" / "env"
    if not folder.is_dir():
        return {"kind": "unknown", "seen": "", "choice": ""}
    sys.path.insert(0, str(folder))
    setup, torchbuild = import_module("setup"), import_module("torchbuild")
    found = torchbuild.find_card(platform.system(), os.environ, setup.output_of, setup.text_of)
    choice = torchbuild.choose(platform.system(), found, os.environ)
    return {"kind": found.kind, "seen": found.seen, "choice": choice.why}


PROBES: dict[str, Callable[..., Answer]] = {
    "torch": pytorch, "cv2": opencv, "av": pyav, "card": card, "window": window, "shared": shared, "lock": lock,
}  # fmt: skip
MACHINE = ("card", "window", "shared", "lock")
"""Probes that are about no single package."""


def main(arguments: list[str]) -> int:
    what, rest = arguments[0], arguments[1:]
    try:
        answer = PROBES[what](*rest) if what in PROBES else package(what, *rest)
    except Exception as error:  # noqa: BLE001  # whatever a broken package raises is the answer
        known = what in MACHINE or out_of_memory(error)
        text, advice = (message_of(error), "") if known else import_problem(what, error)
        missing = isinstance(error, ModuleNotFoundError) and error.name == what
        answer = {"error": text, "advice": advice, "missing": missing}
    print(f"\n{ANSWER}{json.dumps(answer)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
