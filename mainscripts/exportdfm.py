"""Exports a saved model as a .dfm, the file that DeepFaceLive and others load:

    python main.py exportdfm --model-dir workspace/model --model SAEHD

Runs on the processor and needs no faces. The model is only read, also while it is being trained; what is written is
`<name>_<Class>_model.dfm` beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, TextIO

from core.modeldir import NAMELESS, ModelDir, ModelError, saved_models
from core.options import Option, resolve, settle
from core.prompts import Terminal, ask_rows
from core.values import parse_sets
from mainscripts.flags import folder
from mainscripts.verb import find_terminal, guarded, refuse

if TYPE_CHECKING:  # torch is imported when everything else is right
    from models.spec import ModelSpec
    from models.swap import SwapTask
    from models.xseg import XSegTask

Say = Callable[[str], None]

QUANTIZE = Option(
    "quantize", "bool", "Export quantized?",
    "Computes the convolutions in half precision: the file is half as large, and faster on a graphics card.",
    default=False, stored=False,
    advice="Leave it out where colours flicker or the face has spots.",
)  # fmt: skip
PACKAGES = ("onnx", "onnxruntime")
READINGS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DFL's flags, then ours."""
    dfl = parser.add_argument_group("as in DeepFaceLab")
    dfl.add_argument("--model-dir", type=folder, required=True, metavar="DIR", help="where models are kept")
    dfl.add_argument("--model", required=True, metavar="CLASS", help="the kind of model, such as SAEHD")
    ours = parser.add_argument_group("facesmith's own")
    ours.add_argument("--force-model-name", metavar="NAME", help="export this model, do not ask which")
    ours.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="sets",
        help="answer the question in advance: --set quantize=y",
    )  # fmt: skip
    ours.add_argument(
        "--ask", action="store_true", help="read answers from standard input, one a line, when it is no terminal"
    )
    parser.set_defaults(silent_start=False)


def run(args: argparse.Namespace) -> int:
    """Writes the file; see main.main for the exit codes."""
    absent = [package for package in PACKAGES if find_spec(package) is None]
    if absent:
        return refuse(
            f"exportdfm needs {' and '.join(absent)}. To install: bash bat/linux/6_export_SAEHD_as_dfm.sh (Windows: "
            rf'"bat\windows\6) export SAEHD as dfm.bat"), or: pip install {" ".join(absent)}'
        )
    return guarded(lambda: _export(args, sys.stdin, sys.stdout))


def _export(args: argparse.Namespace, stdin: TextIO, stdout: TextIO) -> int:
    from mainscripts import train_setup
    from models import dfm, maskonnx
    from models.swap import SwapTask

    def say(text: str) -> None:
        print(text, file=stdout, flush=True)

    terminal = find_terminal(stdin, stdout, args.ask)
    spec = train_setup.find_spec(args.model)
    values = resolve((QUANTIZE,), parse_sets(args.sets), {}, {})
    fixed = {key: values[key] for key in parse_sets(args.sets)}
    directory = ModelDir(args.model_dir, _choose(args, spec, terminal, say), spec.name)
    if terminal is not None and spec.name not in NAMELESS:
        values = settle((QUANTIZE,), ask_rows(terminal, (QUANTIZE,), values, fixed, first_run=True))
    task = _read(spec, directory, say)
    path = directory.path("model.dfm" if isinstance(task, SwapTask) else "model.onnx")
    say(f"Exporting {directory.full_name} at iteration {task.iteration:,}...")
    if isinstance(task, SwapTask):
        differences = dfm.export(task, path, name=directory.name, quantize=values["quantize"])
    else:
        differences = maskonnx.export(task, path)
    say("Largest difference between the file, run by onnxruntime, and the network:")
    for output, difference in differences.items():
        say(f"  {output:22} {difference:.1e}")
    say(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if isinstance(task, SwapTask):
        say(dfm.NOTICE)
    return 0


def _choose(args: argparse.Namespace, spec: ModelSpec, terminal: Terminal | None, say: Say) -> str:
    """The name of a saved model; a wrong one is asked for again where somebody can answer. Raises ModelError."""
    from mainscripts.train_setup import choose_name

    saved = saved_models(args.model_dir, spec.name)
    if not saved:
        raise ModelError(
            f"No saved model of class {spec.name} in {args.model_dir}: train one first, or give another --model-dir."
        )
    while (name := choose_name(args, spec, terminal, say)[0]) not in (saved := saved_models(args.model_dir, spec.name)):
        problem = f"No model {name!r} of class {spec.name} in {args.model_dir}. Saved there: {', '.join(saved)}."
        if terminal is None or terminal.strict or args.force_model_name is not None:
            raise ModelError(problem)
        terminal.say(problem)
    return name


def _read(spec: ModelSpec, directory: ModelDir, say: Say) -> SwapTask | XSegTask:
    """The model as last saved. A trainer may save meanwhile: then it is read again, so that all parts are of one save.

    Raises ModelError for a model that is incomplete, damaged or not trained yet.
    """
    for _ in range(READINGS):
        before = _stamps(directory)
        task = _read_once(spec, directory, say)
        if _stamps(directory) == before:
            return task
        say("The model was saved while it was read: reading it again.")
    raise ModelError(f"{directory.full_name} changes again and again while it is read: export it when training pauses.")


def _stamps(directory: ModelDir) -> dict[str, tuple[int, int]]:
    """Time and size of every file of the model."""
    return {path.name: ((stat := path.stat()).st_mtime_ns, stat.st_size) for path in directory.files()}


def _read_once(spec: ModelSpec, directory: ModelDir, say: Say) -> SwapTask | XSegTask:
    from models.sizes import check_sizes
    from models.swap import SwapTask
    from models.xseg import XSegTask

    data = directory.read_data()
    if not data.iter:
        say(f"{directory.data_path.name} counts 0 iterations: the weights beside it are taken as they are.")
    try:
        values = spec.resolve({}, data.options)
        check_sizes(spec, values, directory)
        task = spec.build(values, training=False)
    except (ValueError, RuntimeError, MemoryError) as error:
        reason = (str(error) or "not enough memory").splitlines()[0]
        raise ModelError(f"{directory.data_path.name}: no network can be built of it: {reason}") from error
    if not isinstance(task, SwapTask | XSegTask):
        raise ModelError(f"A .dfm swaps faces, a model of class {spec.name} does not.")
    missing = [directory.part_path(stem).name for stem in directory.missing(task.network_parts)]
    if missing:
        raise ModelError(f"{', '.join(missing)} missing in {directory.folder}. Restore from a backup.")
    for note in task.load(directory.folder, directory.name):
        say(note)
    return task
