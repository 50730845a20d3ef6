"""Looks at the machine and says what is well, what is worth knowing and what is wrong, with what to do about it:

    python main.py doctor --workspace workspace

It needs no package: what is missing or broken is what it tells. Nothing is changed; the preview window opens for a
moment where there is a display. Ends with 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from core.child import ROOT
from core.mainmemory import MainMemory
from core.version import VERSION
from mainscripts import doctor_machine as machine
from mainscripts import doctor_packages as packages
from mainscripts.doctor_finding import Finding, safely
from mainscripts.flags import folder
from mainscripts.verb import EXIT_FAILED, EXIT_OK

COLOURS = {"ok": "32", "note": "33", "problem": "31"}
FORMAT = 1
WIDEST = 120
USUAL = ROOT / "workspace"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workspace", type=folder, metavar="DIR", help="the folder to look at (the project's folder workspace)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs and reports")


def run(args: argparse.Namespace, stdin: TextIO | None = None, stdout: TextIO | None = None) -> int:
    """Prints the findings; 1 where one of them is a problem."""
    stdin, stdout = stdin or sys.stdin, stdout or sys.stdout
    workspace = (args.workspace or USUAL).absolute()
    given = workspace != USUAL  # which the launchers name too, before it is there
    found = []
    for finding in findings(workspace, given, stdin, stdout):
        found.append(finding)
        if not args.json:
            print(line(finding, stdout), file=stdout, flush=True)
    problems = sum(finding.state == "problem" for finding in found)
    notes = sum(finding.state == "note" for finding in found)
    if args.json:
        rows = [finding.plain() for finding in found]
        whole = {"format": FORMAT, "version": VERSION, "problems": problems, "notes": notes, "checks": rows}
        print(json.dumps(whole, indent=1), file=stdout, flush=True)
    else:
        print(f"\nThat is {_count(problems, 'problem')} and {_count(notes, 'note')}.", file=stdout, flush=True)
    return EXIT_FAILED if problems else EXIT_OK


def findings(workspace: Path, given: bool, stdin: TextIO, stdout: TextIO) -> Iterator[Finding]:
    """All of them, in the order in which they are told. given: the workspace was named, so it has to be there."""
    models = next(each for each in (workspace / "model", workspace, *workspace.parents) if each.is_dir())
    answers = packages.Answers(models)
    environ = os.environ
    try:
        yield from safely("facesmith", machine.program)
        yield from safely("Python", machine.python)
        yield from safely("Settings", lambda: machine.settings(environ))
        yield from safely("Processor", machine.processor)
        yield from safely("Memory", lambda: machine.memory(MainMemory()))
        yield from safely("Workspace", lambda: machine.folder("Workspace", workspace, must_exist=given))
        yield from safely("Temporary", _temporary)
        yield from safely("Open files", machine.open_files)
        yield from safely("Terminal", lambda: machine.terminal(stdin, stdout, environ))
        for name, check in _of_packages(answers, models):
            yield from safely(name, check)
    finally:
        answers.close()


def _temporary() -> list[Finding]:
    try:
        place = Path(tempfile.gettempdir())
    except OSError as error:  # Python found none that can be written
        advice = "Make a folder that can be written and name it: TMPDIR (Windows: TEMP)."
        return [Finding("Temporary", "problem", error.strerror or str(error), advice)]
    named = [name for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)]
    if named and Path(os.environ[named[0]]).absolute() != place.absolute():
        text = f"{named[0]} is {os.environ[named[0]]}, which cannot be written: {place} is taken"
        return [Finding("Temporary", "note", text, f"Name a folder that can be written, or unset {named[0]}.")]
    return machine.folder("Temporary", place, must_exist=True)


def _of_packages(answers: packages.Answers, models: Path) -> list[tuple[str, Callable[[], list[Finding]]]]:
    """Checks by name, in the order of the report."""
    get, wanted = answers.get, packages.allowed()

    def plain(each: packages.Package) -> Callable[[], list[Finding]]:
        return lambda: [packages.package(each, get(each.module), wanted.get(each.distribution, ""))]

    special = {"torch", "cv2", "av"}
    return [
        ("NumPy", plain(packages.PACKAGES[2])),
        ("OpenCV", lambda: packages.opencv(get("cv2"), wanted.get("opencv-python", ""))),
        ("Window", lambda: [packages.window(get("window"), get("cv2"))]),
        ("Shared memory", lambda: [packages.shared(get("shared"), get("numpy"))]),
        ("Locks", lambda: [packages.lock(get("lock"), get("numpy"), models)]),
        ("PyTorch", lambda: [packages.pytorch(get("torch"), wanted.get("torch", ""))]),
        ("Devices", lambda: packages.devices(get("torch"), get("card"), os.environ)),
        *((each.name, plain(each)) for each in packages.PACKAGES[3:] if each.module not in special),
        ("PyAV", lambda: [packages.pyav(get("av"), wanted.get("av", ""))]),
    ]


def line(finding: Finding, stdout: TextIO) -> str:
    """A finding for people: state, name, text, and below it what to do."""
    width = min(shutil.get_terminal_size().columns, WIDEST) if stdout.isatty() else sys.maxsize
    indent = " " * 25
    wrapped = [
        textwrap.fill(text, max(width, 50), initial_indent=indent + start, subsequent_indent=indent + len(start) * " ",
                      break_long_words=False, break_on_hyphens=False)
        for start, text in (("", finding.text), ("-> ", finding.advice)) if text
    ]  # fmt: skip
    state = f"{finding.state:8}"
    if machine.colours(stdout, os.environ):
        state = f"\x1b[{COLOURS[finding.state]}m{state}\x1b[0m"
    return "\n".join([f"{state} {finding.name:15} {wrapped[0].lstrip()}", *wrapped[1:]])


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
