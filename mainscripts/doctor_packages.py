"""What the doctor says of packages and of what needs them: each is asked in a process of its own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.child import ROOT
from core.memory import size
from mainscripts.doctor_finding import Finding, State, ask

Answer = dict[str, Any]
AGAIN = "Remove the folder .venv and start a launcher in bat/, which sets everything up anew."
DISPLAY = "previews go to JPG files in the model folder"


@dataclass(frozen=True)
class Package:
    """What is imported as `module`; pip's name of it; what for, where it is one of the extras of setup.cfg."""

    name: str
    module: str
    distribution: str
    extra: str = ""
    purpose: str = ""


PACKAGES = (
    Package("PyTorch", "torch", "torch"),
    Package("OpenCV", "cv2", "opencv-python"),
    Package("NumPy", "numpy", "numpy"),
    Package("prompt_toolkit", "prompt_toolkit", "prompt_toolkit"),
    Package("rich", "rich", "rich"),
    Package("h5py", "h5py", "h5py"),
    Package("onnx", "onnx", "onnx", "dfm", "exporting a .dfm"),
    Package("onnxruntime", "onnxruntime", "onnxruntime", "dfm", "exporting a .dfm"),
    Package("PyAV", "av", "av", "video", "videos"),
    Package("tensorboard", "tensorboard", "tensorboard", "tensorboard", "train --tensorboard"),
    Package("PyYAML", "yaml", "pyyaml", "yaml", "options in YAML files"),
)


class Answers:
    """Everything that children are asked, side by side; `get` waits for one answer."""

    def __init__(self, lock_folder: Path, look: Callable[..., Answer] = ask) -> None:
        self._pool = ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1))
        jobs: dict[str, tuple[str, ...]] = {each.module: (each.module, each.distribution) for each in PACKAGES}
        jobs |= {name: (name,) for name in ("torch", "cv2", "av", "card", "window", "shared")}
        jobs["lock"] = ("lock", str(lock_folder))
        self._answers: dict[str, Future[Answer]] = {
            name: self._pool.submit(look, *words) for name, words in jobs.items()
        }

    def get(self, name: str) -> Answer:
        return self._answers[name].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def allowed(root: Path = ROOT) -> dict[str, str]:
    """The versions that facesmith allows, by pip's name of the package: `>=2.8`. Empty where it was installed without
    its setup.cfg."""
    config = ConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    lists = [config.get("options", "install_requires", fallback="")]
    if config.has_section("options.extras_require"):
        lists += [text for _, text in config.items("options.extras_require")]
    found = [re.match(r"([\w.-]+)\s*([<>=!~][^;]*)", line.strip()) for text in lists for line in text.splitlines()]
    return {match[1]: match[2].strip() for match in found if match}


def new_enough(version: str, wanted: str) -> bool:
    """Whether a version is the least one of `>=2.8` or later; True where that is not what is asked."""
    least = re.search(r">=\s*([\d.]+)", wanted)
    return not least or not re.match(r"\d", version) or _numbers(version) >= _numbers(least[1])


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"[\d.]+", version)
    return tuple(int(part) for part in release[0].split(".") if part) if release else ()


def package(which: Package, answer: Answer, wanted: str) -> Finding:
    """Whether a package is there, can be loaded and is new enough."""
    if answer.get("missing") and which.extra:
        advice = f'Where it is wanted: pip install -e ".[{which.extra}]"'
        return Finding(which.name, "note", f"not installed; needed for {which.purpose} only", advice, {"version": None})
    if "error" in answer:
        state: State = "note" if which.extra else "problem"
        purpose = f"; needed for {which.purpose} only" if which.extra else ""
        return Finding(which.name, state, f"{answer['error']}{purpose}", answer["advice"] or AGAIN, {"version": None})
    place = "" if answer["file"].startswith(sys.prefix) else f", from {answer['file']}"
    text = f"{answer['version'] or 'version unknown'}{place}"
    if not new_enough(answer["version"], wanted):
        return Finding(which.name, "problem", f"{text}: too old, allowed is {wanted}", AGAIN, answer)
    return Finding(which.name, "ok", text, data=answer)


def pytorch(answer: Answer, wanted: str) -> Finding:
    """PyTorch, and for which cards it is built."""
    found = package(PACKAGES[0], answer, wanted)
    if "error" in answer:
        return found
    build = f"CUDA {answer['cuda']}" if answer["cuda"] else f"ROCm {answer['hip']}" if answer["hip"] else "CPU"
    build = "Metal" if sys.platform == "darwin" else build
    text = f"{build} build, {found.text}" + (f" (allowed is {wanted})" if found.state == "ok" and wanted else "")
    return Finding(found.name, found.state, text, found.advice, answer)


def devices(answer: Answer, card: Answer, environ: Mapping[str, str]) -> list[Finding]:
    """What can be trained on; a card that PyTorch does not see is a problem."""
    if "error" in answer:
        return [Finding("Devices", "note", "not looked at, as PyTorch cannot be loaded", data=card)]
    found = [_device(row) for row in answer["devices"]]
    if len(found) == 1:
        found.insert(0, _no_card(answer, card, environ))
    elif card.get("seen"):
        found.insert(0, Finding("Graphics card", "ok", card["seen"], data=card))
    return found


def _device(row: Answer) -> Finding:
    name = f"Device {row['key']}"
    can = [each for each in ("float32", "tf32", "bfloat16", "float16") if row[each]]
    free = f", {size(row['free'])} free" if row["free"] is not None else ""
    text = f"{row['name']}{free}; {', '.join(can)}"
    if row.get("built_for") is False:
        text = f"{row['name']}: this PyTorch has no code for its generation ({row['capability']})"
        advice = "Remove the folder .venv and start a launcher; FACESMITH_TORCH_INDEX names another build."
        return Finding(name, "problem", text, advice, row)
    if not row["float32"]:
        advice = "Update its driver and restart. To train without it: --cpu-only"
        return Finding(name, "problem", f"{row['name']}: cannot compute the simplest product", advice, row)
    return Finding(name, "ok", text, data=row)


def _no_card(answer: Answer, card: Answer, environ: Mapping[str, str]) -> Finding:
    kind, name = card.get("kind", "unknown"), "Graphics card"
    if kind not in ("nvidia", "rocm", "mps"):
        text = f"{card.get('seen') or 'PyTorch sees none'}: training runs on the processor"
        return Finding(name, "note", text, "That works, and takes many times as long as on a card.", card)
    hidden = [each for each in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES") if environ.get(each) is not None]
    if hidden:
        advice = f"{hidden[0]} hides it: unset it."
    elif not (answer["cuda"] or answer["hip"] or kind == "mps"):
        advice = f"This PyTorch is the CPU build. {AGAIN[:-1]}, with this PyTorch: {card['choice']}."
    else:
        advice = f"Update the card's driver and restart. {AGAIN}"
    return Finding(name, "problem", f"{card['seen']}, but PyTorch cannot use it", advice, card)


def opencv(answer: Answer, wanted: str) -> list[Finding]:
    """OpenCV, and whether it reads and writes pictures."""
    found = package(PACKAGES[1], answer, wanted)
    if "error" in answer:
        return [found]
    broken = [kind.upper() for kind in ("jpg", "png") if not answer[kind]]
    if broken:
        text = f"OpenCV does not write and read {' and '.join(broken)} as it should"
        return [found, Finding("Pictures", "problem", text, AGAIN)]
    return [found, Finding("Pictures", "ok", "JPG and PNG are written and read")]


def window(answer: Answer, opencv: Answer) -> Finding:
    """Whether the preview window opens."""
    if "error" in opencv or "error" in answer:
        why = "OpenCV cannot be loaded" if "error" in opencv else answer["error"]
        return Finding("Window", "note", f"not tried: {why}")
    if answer["opened"]:
        return Finding("Window", "ok", f"the preview window opens ({opencv['windows']})", data=answer)
    if not answer["display"]:
        advice = "For a window: start from the desktop, or log in with ssh -X."
        return Finding("Window", "note", f"{answer['reason']}; {DISPLAY}", advice, answer)
    advice = "Does the display answer (xdpyinfo)? Without a window: --no-preview"
    if "apt-get" in answer["reason"] or "install" in answer["reason"]:
        advice = "Install what is named there. Without a window: --no-preview"
    return Finding("Window", "problem", f"{answer['reason']}; {DISPLAY}", advice, answer)


def pyav(answer: Answer, wanted: str) -> Finding:
    """PyAV, and whether it makes a video."""
    found = package(next(each for each in PACKAGES if each.module == "av"), answer, wanted)
    if found.state != "ok":
        return found
    text = f"{found.text}; encoders: {', '.join(answer['codecs']) or 'none'}"
    if answer["frames"] != 3:
        return Finding(found.name, "note", f"{text}; a small video did not come back", found.advice or AGAIN, answer)
    return Finding(found.name, "ok", text, data=answer)


def shared(answer: Answer, numpy: Answer) -> Finding:
    """Whether sample workers can be given their memory."""
    name = "Shared memory"
    if failed := _untried(name, answer, numpy):
        return failed
    place = answer["place"]
    shm = f"; /dev/shm holds {size(answer['shm'])}" if answer["shm"] is not None else ""
    if place in ("memory", "the paging file"):
        text = "samples are shared in main memory, without a file"
        return Finding(name, "ok", f"{text}{shm}", data=answer)
    advice = "It works, slower where that is a disk." if not place.startswith("/dev/shm") else ""
    return Finding(name, "note" if advice else "ok", f"samples are shared in {place}{shm}", advice, answer)


def lock(answer: Answer, numpy: Answer, folder: Path) -> Finding:
    """Whether two trainers are kept off one model."""
    if failed := _untried("Locks", answer, numpy):
        return failed
    if answer["held"]:
        return Finding("Locks", "ok", "two trainers on one model are kept apart", data=answer)
    advice = "Do not train one model from two machines; a folder on a disk of this machine has locks."
    return Finding("Locks", "note", f"the file system of {folder} has no locks", advice, answer)


def _untried(name: str, answer: Answer, numpy: Answer) -> Finding | None:
    """What is to be said where there is no answer: that NumPy is in the way, or the error itself."""
    if "error" in answer and "error" in numpy:
        return Finding(name, "note", "not tried: NumPy cannot be loaded")
    if "error" in answer:
        advice = answer["advice"] or "What the lines above say of folders and memory comes first."
        return Finding(name, "problem", answer["error"], advice)
    return None
