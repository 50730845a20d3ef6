"""facesmith's command line:  python main.py train --help

A verb is a module of mainscripts with `add_arguments(parser)` and `run(args) -> exit code`. Only the verb that is
called is imported, so that `--help` answers at once. Verbs and flags that DFL has are spelled as in DFL.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial

OLDEST = (3, 10)
EXIT_UNREAD = 141  # as in mainscripts/verb.py
VERBS = {
    ("train",): ("mainscripts.train", "train a model on two facesets"),
    ("exportdfm",): ("mainscripts.exportdfm", "export a saved model as a .dfm for DeepFaceLive"),
    ("model",): ("mainscripts.model", "list, verify, back up or restore saved models"),
    ("util",): ("mainscripts.util", "pack, unpack, save or restore the face data of a folder of faces"),
    ("xseg",): ("mainscripts.xseg", "apply a trained XSeg to faces, remove or fetch masks and labels"),
    ("demo-faces",): ("mainscripts.demo_faces", "draw a faceset of a made-up person"),
    ("videoed", "timelapse"): ("mainscripts.timelapse", "make a video of a preview history"),
    ("doctor",): ("mainscripts.doctor", "say what is wrong with this machine, and what to do about it"),
    ("options",): ("mainscripts.options", "print every option of the models as a table"),
    ("bench", "step"): ("mainscripts.bench_step", "time a training iteration against its floor"),
    ("bench", "samples"): ("mainscripts.bench_samples", "time the sample generator"),
    ("bench", "save"): ("mainscripts.bench_save", "time saves, and how long they keep a training waiting"),
    ("bench", "start"): ("mainscripts.bench_start", "time a start, from the command to the first iteration"),
    ("bench", "all"): ("mainscripts.bench_all", "run step, samples, save and start with modest sizes"),
    ("bench", "memory"): ("mainscripts.bench_memory", "what trainings hold at most, beside what is predicted for them"),
    ("bench", "sizes"): ("mainscripts.bench_sizes", "which sizes fit into how much card memory, predicted"),
    ("bench", "color"): ("mainscripts.bench_color", "time the colour transfers"),
    ("bench", "xseg"): ("mainscripts.bench_xseg", "train on labelled made-up people, measure masks of others"),
    ("bench", "swap"): ("mainscripts.bench_swap", "train on made-up people, measure against the true swap"),
    ("bench", "precision"): ("mainscripts.bench_precision", "the same in several precisions, beside other seeds"),
}


def usage() -> str:
    width = max(len(" ".join(verb)) for verb in VERBS)
    lines = ["usage: main.py VERB [options]    (main.py VERB --help explains the options)", "", "verbs:"]
    lines += [f"  {' '.join(verb):{width}}  {phrase}" for verb, (_, phrase) in VERBS.items()]
    return "\n".join(lines)


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> None:
    """Ends the program where Python is too old for what is imported next."""
    if version < OLDEST:
        told, wanted = (".".join(map(str, each)) for each in (version, OLDEST))
        sys.exit(
            f"facesmith needs Python {wanted} or newer; this is {told}, {sys.executable}. Start a launcher in bat/, or "
            "install a newer one."
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0 done, 1 failed, 2 wrong usage or answers, 3 a training that
    collapsed, 130 left before there was anything to save, or aborted."""
    check_python()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    for verb, (module_name, phrase) in VERBS.items():
        if tuple(words[: len(verb)]) == verb:
            from mainscripts.verb import guarded  # here, so that the list of verbs and an old Python need none of it

            return guarded(partial(_run, verb, module_name, phrase, words[len(verb) :]), left="Left.")
    if words[0] in {verb[0] for verb in VERBS}:
        asked = words[1:] and words[1] in ("-h", "--help")
        told = usage() if asked else f"main.py: {words[0]} what? One of those below.\n\n{usage()}"
        print(told, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    print(f"main.py: {words[0]!r} is not a verb.\n\n{usage()}", file=sys.stderr)
    return 2


def _run(verb: tuple[str, ...], module_name: str, phrase: str, words: list[str]) -> int:
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(prog=f"main.py {' '.join(verb)}", description=f"{phrase[:1].upper()}{phrase[1:]}.")
    module.add_arguments(parser)
    args = parser.parse_args(words)
    args.words = words
    return int(module.run(args))


def program() -> int:
    """`main` as a process of its own: once it has ended, no signal changes its exit code any more, as the interpreter
    takes a moment to end."""
    _open_streams()
    try:
        code = main()
    except SystemExit as left:  # argparse's: 0 after --help, 2 after its message
        if not isinstance(left.code, int):
            raise
        code = left.code
    except OSError as error:  # of the list of verbs; what a verb meets it tells itself
        code = _untaken(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _untaken(error)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)  # a handler of ours would not survive that
    return code


def _open_streams() -> None:
    """Where a desktop or a service starts programs without input or output, both are empty rather than absent."""
    for name, flag, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flag), mode, encoding="utf-8"))


def _untaken(error: OSError) -> int:
    """The exit code where the output is not taken: its reader is gone (`| head`), or the disk full. The rest of it goes
    nowhere, as Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return EXIT_UNREAD
    with contextlib.suppress(OSError):  # the same disk
        print(f"Error: the output cannot be written: {error.strerror or error}.", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(program())
