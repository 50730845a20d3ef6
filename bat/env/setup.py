#!/usr/bin/env python3
"""Makes the Python environment that every launcher uses: `python3 bat/env/setup.py [--extras test] [--fresh]`.

One place for Windows, Linux and macOS; standard library only. Makes `.venv` (or `.venv-fresh` anew with --fresh) in the
project's folder, installs the PyTorch build that suits the machine and the project itself, and leaves a stamp, so that
the next run is over at once. Works without ensurepip (Debian without python3-venv): pip then comes from the system's
pip, a bundled wheel, or the package index.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torchbuild

ROOT = Path(__file__).resolve().parent.parent.parent
CONSTRAINTS = Path(__file__).resolve().parent / "constraints.txt"
OLDEST, NEWEST = (3, 10), (3, 14)
STAMP = "facesmith-setup.json"
FRESH, KEPT = ".venv-fresh", ".venv"
PIP = "25.3"  # for a Python without ensurepip: a version that runs on every Python supported here
PROBE_SECONDS = 20
PEEK = """
import json, sys, torch
metal = getattr(torch.backends, "mps", None)
print(json.dumps([torch.__version__, torch.cuda.is_available() or bool(metal and metal.is_available())]))
"""


class SetUpError(Exception):
    """Set-up cannot go on; the text says why and what to do."""


def set_up(root: Path, folder: Path, extras: set[str], fresh: bool, say: Callable[[str], None] = print) -> Path:
    """Makes or completes the environment in `folder` and returns its Python.

    Raises SetUpError. What an earlier run installed (`extras`) stays.
    """
    check_python(sys.version_info[:2], os.environ)
    with one_at_a_time(root, say):
        made, installed = stamp_keys(root, os.environ)
        before = {} if fresh else read_stamp(folder)
        if before.get("made") == made and before.get("installed") == installed and extras <= set(before["extras"]):
            return python_of(folder)
        extras = extras | set(before.get("extras", ()))
        begin = time.monotonic()
        say(f"Setting up facesmith in {folder} (once; some minutes where PyTorch has to be downloaded).")
        if fresh or not folder.exists() or (before and before["made"] != made):
            make_environment(folder, say)
        python = python_of(folder)
        problem = quietly([str(python), "-m", "pip", "--version"])
        if problem:
            raise SetUpError(f"{folder} is no Python environment with pip ({problem}): remove it and start again")
        write_stamp(folder, made, "unfinished", extras)
        card = torchbuild.find_card(platform.system(), os.environ, output_of, text_of)
        choice = torchbuild.choose(platform.system(), card, os.environ)
        say(f"PyTorch: {choice.why}. FACESMITH_TORCH and FACESMITH_TORCH_INDEX choose another.")
        taken = install_torch(python, choice, say)
        install_project(python, root, extras, taken.index if taken.dependencies else None)
        versions = verify(python, choice, say)
        write_stamp(folder, made, installed, extras)
        say(f"Ready after {time.monotonic() - begin:.0f} s: {versions}.")
        return python


def check_python(version: tuple[int, ...], environ: Mapping[str, str]) -> None:
    """Refuses a Python that PyTorch has no build for, unless another PyTorch is asked for."""
    if version < OLDEST or (version > NEWEST and not environ.get("FACESMITH_TORCH")):
        raise SetUpError(
            f"this is Python {version[0]}.{version[1]} ({sys.executable}); facesmith with {torchbuild.TORCH} needs 3.10"
            " to 3.14. Install one of those, or set FACESMITH_PYTHON to a Python that has all packages already"
        )


@contextmanager
def one_at_a_time(root: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Lets a second set-up of the same folder wait for the first. The system drops the lock when a process dies."""
    digest = hashlib.sha256(f"{root}\0{Path.home()}".encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"facesmith-setup-{digest}.lock").open("a+") as lock:
        waiting = False
        while not try_lock(lock.fileno()):
            if not waiting:
                say("Waiting for another set-up of this folder.")
            waiting = True
            time.sleep(0.5)
        yield


def try_lock(descriptor: int) -> bool:
    """Locks a file for as long as it is open; False where another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


# What has been done already


def stamp_keys(root: Path, environ: Mapping[str, str]) -> tuple[str, str]:
    """Two digests: what the environment is for (when that changes it is made anew), and what is installed in it (when
    that changes pip runs again)."""
    made = [str(root), *(environ.get(name, "unset") for name in ("FACESMITH_TORCH", "FACESMITH_TORCH_INDEX"))]
    inputs = (root / "setup.cfg", root / "pyproject.toml", CONSTRAINTS, Path(torchbuild.__file__))
    installed = [path.read_text(encoding="utf-8") for path in inputs]
    return digest_of(made), digest_of(installed)


def digest_of(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def read_stamp(folder: Path) -> dict[str, Any]:
    """The stamp of an earlier set-up, or {} where there is none or its Python is gone or another (a system upgrade)."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if set(stamp) != {"made", "installed", "extras", "python"}:
        return {}
    python = python_of(folder)
    return stamp if python.exists() and stamp["python"] == str(python.resolve()) else {}


def write_stamp(folder: Path, made: str, installed: str, extras: set[str]) -> None:
    python = str(python_of(folder).resolve())
    stamp = {"made": made, "installed": installed, "extras": sorted(extras), "python": python}
    (folder / STAMP).write_text(json.dumps(stamp), encoding="utf-8")


def python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


# The environment and its pip


def make_environment(folder: Path, say: Callable[[str], None]) -> None:
    """An environment with pip in `folder`; a former one there is removed, a folder of anything else is not."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise SetUpError(f"{folder} is there but is no Python environment: move it away")
    shutil.rmtree(folder, ignore_errors=True)
    make = [sys.executable, "-m", "venv"]
    if importlib.util.find_spec("ensurepip") and quietly([*make, str(folder)]) is None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    problem = quietly([*make, "--without-pip", str(folder)])
    if problem:
        raise SetUpError(f"{sys.executable} -m venv failed ({problem}): on Debian and Ubuntu install python3-venv")
    say("This Python has no ensurepip; getting pip another way.")
    python = python_of(folder)
    problems = []
    for way in (pip_of_system, pip_of_wheel, pip_of_index):
        problem = way(python)
        if has_pip(python):
            return
        problems.append(problem or "it did not work")
    raise SetUpError(
        f"no pip for the new environment ({'; '.join(problems)}): install python3-venv (Debian, Ubuntu) or pip, or"
        " connect to the internet, and start again"
    )


def has_pip(python: Path) -> bool:
    return quietly([str(python), "-m", "pip", "--version"]) is None


def pip_of_system(python: Path) -> str | None:
    """pip 22.3 and newer can install into another environment."""
    if not importlib.util.find_spec("pip"):
        return "this Python has no pip"
    return quietly([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "pip"])


def pip_of_wheel(python: Path) -> str | None:
    """Debian's python3-pip-whl brings pip's wheel; a wheel can be run as it is."""
    wheels = sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    if not wheels:
        return "no bundled wheel"
    return quietly([str(python), str(wheels[-1] / "pip"), "install", "--quiet", "--no-index", str(wheels[-1])])


def pip_of_index(python: Path) -> str | None:
    """pip's wheel from the package index, checked against the index's own SHA-256."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    name = f"pip-{PIP}-py3-none-any.whl"
    try:
        with urllib.request.urlopen(f"{index}/pip/", timeout=30) as page:
            link = re.search(rf'href="([^"]*{re.escape(name)})#sha256=([0-9a-f]{{64}})"', page.read().decode())
            base = page.geturl()
        if link is None:
            return f"no {name} in {index}"
        with urllib.request.urlopen(urllib.parse.urljoin(base, link[1]), timeout=60) as download:
            wheel = download.read()
    except (urllib.error.URLError, OSError) as error:
        return f"{index} cannot be reached: {error}"
    if hashlib.sha256(wheel).hexdigest() != link[2]:
        return f"{name} from {index} is damaged"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / name
        path.write_bytes(wheel)
        return quietly([str(python), str(path / "pip"), "install", "--quiet", "--no-index", str(path)])


# Packages


def install_torch(python: Path, choice: torchbuild.Choice, say: Callable[[str], None]) -> torchbuild.Attempt:
    """Installs the first build to be had, without dependencies (those come with the project); returns which it was."""
    for number, attempt in enumerate(choice.attempts):
        last = number == len(choice.attempts) - 1
        options = ["--index-url", attempt.index, "--timeout", "15"] if attempt.index else []
        problem = pip(python, "--no-deps", *options, *([] if last else ["--retries", "1"]), attempt.requirement)
        where = attempt.index or "pip's own index"
        if problem is None:
            return attempt
        say(f"{attempt.requirement} is not to be had from {where}: {problem}")
    raise SetUpError(
        "PyTorch could not be installed. Check the connection, or name another build: FACESMITH_TORCH_INDEX (a wheel"
        " index, or empty for the standard package) and FACESMITH_TORCH (such as torch==2.12.0)"
    )


def install_project(python: Path, root: Path, extras: set[str], index: str | None) -> None:
    """The project in editable form, with its dependencies in the versions of constraints.txt."""
    more = ["--extra-index-url", index] if index else []
    what = str(root) + (f"[{','.join(sorted(extras))}]" if extras else "")
    problem = pip(python, *more, "--constraint", str(CONSTRAINTS), "--editable", what)
    if problem:
        raise SetUpError(f"the packages could not be installed: {problem}")


def verify(python: Path, choice: torchbuild.Choice, say: Callable[[str], None]) -> str:
    """Imports what was installed; returns the versions. Warns where a card stays unused; where the system lacks what
    OpenCV's windows need, takes the build without windows."""
    seen = asked(python, PEEK)
    if not seen:
        problem = quietly([str(python), "-c", "import torch"])
        raise SetUpError(f"PyTorch was installed but does not work: {problem}")
    torch, sees = json.loads(seen.splitlines()[-1])
    if choice.gpu and not sees:
        say(
            f"Warning: a card is there, but torch {torch} sees none: training will run on the CPU. Update the card's"
            " driver, or name another build with FACESMITH_TORCH_INDEX, and start again."
        )
    import_cv2 = [str(python), "-c", "import cv2"]
    problem = quietly(import_cv2)
    if problem:
        say(
            f"OpenCV cannot open windows here ({problem}): taking its build without windows. For the preview window"
            f" install libgl1 and libglib2.0-0 (Debian, Ubuntu), remove {python.parent.parent} and start again."
        )
        quietly([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "opencv-python"])
        problem = pip(python, "--constraint", str(CONSTRAINTS), "opencv-python-headless") or quietly(import_cv2)
    if problem:
        raise SetUpError(f"OpenCV does not work: {problem}")
    cv2 = asked(python, "import cv2; print(cv2.__version__)").strip()
    return f"torch {torch}{' with a card' if sees else ''}, OpenCV {cv2}, Python {platform.python_version()}"


def pip(python: Path, *arguments: str) -> str | None:
    """`pip install`, with its progress in a terminal; returns None or its error in one line."""
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *quiet, "install", *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace", check=False)
    return None if done.returncode == 0 else last_line(done.stderr)


def quietly(command: list[str]) -> str | None:
    """Runs a command; returns None or its last line of complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else last_line(done.stderr or done.stdout)


def asked(python: Path, code: str) -> str:
    return output_of([str(python), "-c", code], seconds=300) or ""


def output_of(command: list[str], seconds: float = PROBE_SECONDS) -> str | None:
    """What a command prints, or None where it is missing, fails or hangs (as nvidia-smi does with a broken driver)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def text_of(path: str) -> str | None:
    """A small file's text, empty for a folder or a device, None where there is nothing."""
    place = Path(path)
    if place.is_file():
        return place.read_text(encoding="utf-8", errors="replace")
    return "" if place.exists() else None


def last_line(text: str) -> str:
    """pip's own ERROR line where there is one, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it failed without a word"])[-1]


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 1 after one line that says what is wrong."""
    parser = argparse.ArgumentParser(description="Makes the Python environment that the launchers use.")
    parser.add_argument("--extras", default="", help="extras of setup.cfg, separated by commas (test, dfm)")
    parser.add_argument("--fresh", action="store_true", help=f"a new environment in {FRESH}; a former one is removed")
    given = parser.parse_args(arguments)
    extras = {name for name in given.extras.split(",") if name}
    try:
        set_up(ROOT, ROOT / (FRESH if given.fresh else KEPT), extras, given.fresh)
    except (SetUpError, OSError) as error:
        print(f"facesmith cannot be set up: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
