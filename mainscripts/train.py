"""Trains a model:

    python main.py train --training-data-src-dir S --training-data-dst-dir D --model-dir M --model SAEHD

Wires questions -> options -> facesets -> task -> sinks. What can go wrong is found before a network is built, is
told in one message, and leaves the model as it was.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from core.runlog import RunLog
from mainscripts import train_profile, train_web
from mainscripts.flags import folder, save_cadence, seconds, whole
from mainscripts.train_place import Place

if TYPE_CHECKING:
    from core.prompts import Terminal
    from core.stages import Stages
    from mainscripts.train_faces import Folders
    from mainscripts.train_setup import Setup
    from models import ModelSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DFL's flags under DFL's names, then ours."""
    _add_dfl(parser.add_argument_group("as in DeepFaceLab"))
    for title, add in (
        ("answers in advance", _add_answers),
        ("course of the training", _add_course),
        ("preview history", _add_history),
        ("samples", _add_samples),
        ("what is told, and commands", _add_told),
    ):
        add(parser.add_argument_group(f"facesmith's own: {title}"))


def _add_dfl(dfl: argparse._ArgumentGroup) -> None:
    dfl.add_argument(
        "--training-data-src-dir",
        type=folder,
        required=True,
        metavar="DIR",
        help="aligned faces of the person to put on",
    )
    dfl.add_argument(
        "--training-data-dst-dir",
        type=folder,
        required=True,
        metavar="DIR",
        help="aligned faces of the person to replace",
    )
    dfl.add_argument(
        "--pretraining-data-dir", type=folder, metavar="DIR", help="a faceset of many people for pretraining"
    )
    dfl.add_argument(
        "--pretrained-model-dir", type=folder, metavar="DIR",
        help="weights that a new model starts from: encoder.npy and so on, without a model's name",
    )  # fmt: skip
    dfl.add_argument("--model-dir", type=folder, required=True, metavar="DIR", help="where models are kept")
    dfl.add_argument("--model", required=True, metavar="CLASS", help="the kind of model, such as SAEHD")
    dfl.add_argument("--debug", action="store_true", help="show the training samples instead of training")
    dfl.add_argument(
        "--no-preview", action="store_true", help="no window; the preview goes to JPG files in the model folder"
    )
    dfl.add_argument("--force-model-name", metavar="NAME", help="train this model, do not ask which")
    dfl.add_argument("--cpu-only", action="store_true", help="train on the processor")
    dfl.add_argument(
        "--force-gpu-idxs", metavar="N[,N]",
        help="train on this graphics card, do not ask which; on several (0,1) with a process each that share the batch",
    )  # fmt: skip
    dfl.add_argument(
        "--silent-start", action="store_true", help="take the newest model and the best device without asking"
    )
    dfl.add_argument(
        "--execute-program",
        nargs="*",
        metavar="X",
        help="refused: running program text from a command line is a security hole",
    )


def _add_answers(ours: argparse._ArgumentGroup) -> None:
    ours.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="sets",
        help="answer a question in advance (repeatable), such as --set batch_size=8",
    )
    ours.add_argument(
        "--options", type=Path, metavar="FILE",
        help="answers from a JSON or YAML file, as --save-options writes it; --set counts before it",
    )
    ours.add_argument(
        "--save-options", type=Path, metavar="FILE",
        help="write all options of this run to a file, YAML where its name ends with .yaml or .yml, else JSON",
    )
    ours.add_argument(
        "--config-training-file", type=Path, metavar="FILE",
        help="take all options from a configuration file as MVE has them, and ask for none; --set and --options count "
        "before it",
    )
    ours.add_argument(
        "--auto-gen-config", action="store_true",
        help="keep such a file beside the model (<name>_<Class>_configuration_file.yaml): written at the start, read "
        "at the next one unless --config-training-file names another",
    )
    ours.add_argument(
        "--dry-run", action="store_true",
        help="show options, number of weights and memory, then stop: nothing is trained or written",
    )
    asking = ours.add_mutually_exclusive_group()
    asking.add_argument(
        "--override", dest="override", action="store_const", const=True, default=2,
        help="ask for the options of an existing model anew, without waiting for Enter",
    )
    asking.add_argument(
        "--no-override", dest="override", action="store_const", const=False, help="do not ask for them, do not wait"
    )
    asking.add_argument(
        "--override-seconds", dest="override", type=whole(0, 3600), metavar="N",
        help="wait so long for Enter (default: 2; 0: do not ask)",
    )
    ours.add_argument(
        "--all-questions", action="store_true",
        help="where options are asked for, ask after DeepFaceLab's also those that it does not have",
    )
    ours.add_argument("--target-iter", type=int, metavar="N", help="the same as --set target_iter=N")
    ours.add_argument("--compile", metavar="off|default|max", help="the same as --set compile=MODE")
    ours.add_argument(
        "--ask", action="store_true", help="read answers from standard input, one a line, when it is no terminal"
    )


def _add_course(ours: argparse._ArgumentGroup) -> None:
    """When it saves and ends, what it begins with, what it does where memory is short."""
    ours.add_argument(
        "--exit-at-target", action="store_true", help="end the program at the target iteration instead of pausing"
    )
    ours.add_argument(
        "--save-every",
        type=save_cadence,
        default=(25 * 60.0, 0),
        metavar="25m|500it",
        help="save every N minutes (m), hours (h), seconds (s) or iterations (it)",
    )
    ours.add_argument(
        "--preview-every", type=seconds, default=30.0, metavar="SECONDS",
        help="draw the preview anew so often, such as 10, 2m or 1h (default: 30; 0: only at saves and when asked for); "
        "where drawing takes long it comes less often, so that it never costs more than 1%% of the time",
    )  # fmt: skip
    ours.add_argument(
        "--stop-within",
        type=whole(0, 3600),
        default=10,
        metavar="SECONDS",
        help="when the system asks the program to end (log-off, closed terminal, kill), leave after so many seconds "
        "even if the save is not complete; the save before stands (default 10, 0: no limit)",
    )
    ours.add_argument(
        "--seed",
        type=whole(0, 2**31 - 1),
        metavar="N",
        help="make a run repeatable: same start weights and samples (default: the model's own seed)",
    )
    ours.add_argument(
        "--processes", type=whole(1, 1024), default=1, metavar="N",
        help="on a processor with many cores: so many processes share the batch (default: 1)",
    )  # fmt: skip
    ours.add_argument(
        "--reinit",
        action="append",
        default=[],
        metavar="PART",
        help="start a part anew, missing or not, such as inter_AB or GAN (repeatable)",
    )
    ours.add_argument(
        "--on-oom",
        choices=("ask", "halve", "stop"),
        default="ask",
        help="where an iteration does not fit into memory: ask (the default; stop where nobody can be asked), go on "
        "with half the batch for this run, or stop; the model is saved either way",
    )


def _add_history(ours: argparse._ArgumentGroup) -> None:
    ours.add_argument(
        "--history-faces", nargs=2, metavar=("SRC", "DST"),
        help="the faces of the preview history, by the names of their files, several separated by commas; a row each",
    )  # fmt: skip


def _add_samples(ours: argparse._ArgumentGroup) -> None:
    ours.add_argument(
        "--workers", type=whole(0, 64), metavar="N",
        help="sample processes (default: one for each processor core, at most --set cpu_cap=N)",
    )
    ours.add_argument(
        "--cache-mb",
        type=whole(0, 10_000_000),
        metavar="MB",
        help="main memory for faces that are kept as the model needs them (default: up to a quarter of what is free; "
        "0: every face is decoded each time)",
    )
    ours.add_argument(
        "--device-cache-mb", type=whole(0, 10_000_000), metavar="MB",
        help="with --set augment_on=device: memory of the device for faces (default: up to a quarter of what is free; "
        "0: faces are uploaded with every batch)",
    )  # fmt: skip


def _add_told(ours: argparse._ArgumentGroup) -> None:
    """Who is told what, and who may tell it."""
    train_web.add_arguments(ours)
    ours.add_argument(
        "--plateau", type=whole(0, 100_000), default=20, metavar="N",
        help="tell when a loss has not moved for N thousand iterations (default: 20; 0: never)",
    )
    ours.add_argument(
        "--events", type=Path, metavar="FILE", help="append all that happens to FILE, one JSON object a line"
    )
    ours.add_argument(
        "--tensorboard", type=folder, metavar="DIR", help="losses and previews for TensorBoard (extra tensorboard)"
    )
    ours.add_argument("--loss-csv", type=Path, metavar="FILE", help="append the losses of every iteration to FILE")
    ours.add_argument(
        "--commands", type=Path, metavar="FILE",
        help="obey lines that are appended to this file: save, backup, preview, stop, set batch_size=8 ct_mode=rct",
    )
    train_profile.add_arguments(ours)
    ours.add_argument(
        "--watchdog", type=whole(0, 86400), default=60, metavar="SECONDS",
        help="tell where the program stands when nothing has happened for so long (default: 60; 0: never)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Trains until stopped; see main.main for the exit codes."""
    from mainscripts import verb

    if args.execute_program is not None:
        return verb.refuse(
            "--execute-program is not supported: it runs program text given on a command line, which a launcher from "
            "a stranger could misuse. Use your system's scheduler instead.",
            verb.EXIT_USAGE,
        )
    log = RunLog(sys.argv)
    place = Place.of(os.environ)
    if place is not None and place.rank:
        from mainscripts.train_follow import follow

        return verb.guarded(lambda: follow(args, place))
    # With torchrun the keys are not ours.
    with contextlib.nullcontext(sys.stdin) if place is None else Path(os.devnull).open() as stdin:
        return verb.guarded(lambda: _watched(args, log, stdin, sys.stdout), log)


def _watched(args: argparse.Namespace, log: RunLog, stdin: TextIO, stdout: TextIO) -> int:
    """The training with somebody who tells its stages and where it is stuck."""
    from mainscripts import train_stop, train_watch

    with train_stop.leaving(), train_watch.watched(log, args.watchdog, stdout) as stages:
        return _train(args, log, stages, stdin, stdout)


def _train(args: argparse.Namespace, log: RunLog, stages: Stages, stdin: TextIO, stdout: TextIO) -> int:
    from core.stages import FACES, TORCH, Asked
    from mainscripts import verb

    train_web.check(args)
    train_profile.check(args)
    terminal = verb.find_terminal(stdin, stdout, args.ask)
    if terminal is not None:
        terminal = Asked(terminal, stages)
    stages.say("Running trainer.")
    with stages.stage("Loading PyTorch", TORCH):
        from mainscripts import train_answers as answers
        from mainscripts import (
            train_config,
            train_faces,
            train_memory,
            train_run,
            train_setup,
            train_watch,
            train_world,
        )
    spec = train_setup.find_spec(args.model)
    with stages.stage("Loading samples", FACES):
        folders = train_faces.open_folders(args, stages.say, stages.advance)
    with contextlib.ExitStack() as stack:
        opened = None
        while opened is None:  # `<` at the first question leads back to the choice of the model
            opened = _open_model(args, spec, terminal, folders, stages, log, stack)
        setup, locked = opened
        if args.save_options is not None:
            answers.write_options(args.save_options, setup)
        if args.dry_run:
            for line in answers.dry_run(setup):
                stages.say(line)
            return verb.EXIT_OK
        stages.say(f"The same run again: {answers.command_line(setup, args.words)}")
        if args.debug:
            return train_run.show_samples(setup, args, stages, log, stdin, stdout)
        with train_memory.told(setup):
            task = train_setup.build(setup, args.reinit, terminal, stages, args.pretrained_model_dir)
            if not locked:  # a folder is made only once nothing is left to be wrong
                stack.enter_context(setup.directory.lock())
            log.place(setup.directory.log_path)
            stack.enter_context(train_watch.crashes_kept(log.open()))
            if args.auto_gen_config:
                train_config.keep(setup, stages.say)
            stack.enter_context(train_world.joined(setup, args, stages))
            return train_run.train(setup, task, args, stages, log, stdin, stdout)


def _open_model(
    args: argparse.Namespace, spec: ModelSpec, terminal: Terminal | None, folders: Folders, stages: Stages,
    log: RunLog, stack: contextlib.ExitStack,
) -> tuple[Setup, bool] | None:  # fmt: skip
    """Chooses the model and everything about it; whether `stack` holds its lock, which needs a folder to be there. None
    where the user goes back: then nothing is held."""
    from core.modeldir import ModelDir
    from core.prompts import Back
    from core.stages import MODEL
    from mainscripts.train_setup import choose_name, prepare

    name, asked = choose_name(args, spec, terminal, stages.say)
    directory = ModelDir(args.model_dir, name, spec.name)
    locked = not args.debug and not args.dry_run and directory.folder.is_dir()
    with contextlib.ExitStack() as own:
        if locked:
            with stages.stage("Opening the model", MODEL, shown=False):
                own.enter_context(directory.lock())
                log.place(directory.log_path if directory.data_path.exists() else None)
                for note in directory.recover():
                    stages.say(note)
        try:
            setup = prepare(args, directory, spec, terminal, folders, stages, asked)
        except Back:
            return None
        stack.enter_context(own.pop_all())
        return setup, locked
