"""Looks after saved models, without the network itself:

    python main.py model list --model-dir workspace/model
    python main.py model verify --model-dir workspace/model --force-model-name mine
    python main.py model backup --model-dir workspace/model
    python main.py model restore --model-dir workspace/model --from 2026-11-21_14-30-05

list and verify change nothing and may run beside a training; restore and backup refuse while one runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from core.backups import Backup, BackupRules
from core.modelcheck import restore, verify
from core.modeldir import NAMELESS, ModelDir, ModelError
from core.options import OptionError
from core.prompts import Terminal, ask
from mainscripts.flags import folder
from mainscripts.verb import EXIT_FAILED, EXIT_OK, find_terminal, guarded

Say = Callable[[str], None]
NAMELESS_FILE = re.compile(
    rf"(?P<name>(?P<kind>{'|'.join(NAMELESS)}))_(data\.dat|facesmith_journal\.json|autobackups)"
)
MODEL_FILE = re.compile(r"(?P<name>.+)_(?P<kind>[A-Za-z0-9]+)_(data\.dat|facesmith_journal\.json|autobackups)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A command, then which model."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|verify|backup|restore")
    texts = {
        "list": "the models of a folder and their backups",
        "verify": "read every file of a model: whole, finite, as it was saved",
        "backup": "copy a model as last saved to a folder of its backups",
        "restore": "put a backup in the place of a model, which is backed up first",
    }
    for command, text in texts.items():
        each = commands.add_parser(command, help=text, description=f"{text.capitalize()}.")
        each.add_argument("--model-dir", type=folder, required=True, metavar="DIR", help="where models are kept")
        each.add_argument("--model", metavar="CLASS", help="the kind of model, such as SAEHD (default: any)")
        each.add_argument("--force-model-name", metavar="NAME", help="the model of that name (default: any)")
        if command in ("list", "verify"):
            each.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
        if command == "backup":
            each.add_argument(
                "--naming", choices=("time", "numbers"), default="time",
                help="name the folder by the time, or as DeepFaceLab does: 01 is the newest, of 24 the oldest goes",
            )  # fmt: skip
        if command == "restore":
            each.add_argument("--from", dest="source", metavar="BACKUP", help="which, by the name that list shows")
            each.add_argument("--ask", action="store_true", help="read the answer from standard input, if no terminal")


def run(args: argparse.Namespace) -> int:
    """Does one command; see main.main for the exit codes. verify ends with 1 where something is wrong."""

    def say(text: str) -> None:
        print(text, flush=True)

    work = {"list": _list, "verify": _verify, "backup": _backup, "restore": _restore}[args.command]
    return guarded(lambda: work(args, say))


def find_models(folder: Path, kind: str | None, name: str | None) -> list[ModelDir]:
    """The models of a folder, by class and name. Raises ModelError where there are none."""
    if not folder.is_dir():
        raise ModelError(f"--model-dir: {folder} is no folder.")
    found = set()
    for path in folder.iterdir():
        match = NAMELESS_FILE.fullmatch(path.name) or MODEL_FILE.fullmatch(path.name)
        if match is None or "_facesmith" in match["name"]:
            continue
        if name in (None, match["name"]) and (kind or match["kind"]).lower() == match["kind"].lower():
            found.add((match["name"], match["kind"]))
    if not found:
        wanted = " ".join(filter(None, [f"named {name!r}" if name else "", f"of class {kind}" if kind else ""]))
        raise ModelError(f"No model {wanted} in {folder}.".replace("  ", " "))
    return [ModelDir(folder, *each) for each in sorted(found)]


def _one(args: argparse.Namespace) -> ModelDir:
    """The model a command is about. Raises OptionError where there are several."""
    models = find_models(args.model_dir, args.model, args.force_model_name)
    if len(models) > 1:
        names = ", ".join(f"{model.name} ({model.class_name})" for model in models)
        raise OptionError(f"{args.model_dir} holds several models: {names}. Say which by --force-model-name, --model.")
    return models[0]


# ---- list ---------------------------------------------------------------------------------------------------------


def _list(args: argparse.Namespace, say: Say) -> int:
    for model in find_models(args.model_dir, args.model, args.force_model_name):
        row = describe(model)
        if args.json:
            say(json.dumps(row))
            continue
        say(f"{model.name} ({model.class_name}): {_line(row)}")
        if row["error"]:
            say(f"  {row['error']}")
        if row["trained_by"]:
            say(f"  is being trained by {row['trained_by']}")
        for backup in row["backups"]:
            say(f"  {backup['name']:21} {_line(backup)}")
    return EXIT_OK


def describe(model: ModelDir) -> dict[str, Any]:
    """A model as `list --json` shows it: sizes in bytes, times as ISO 8601, losses as means of the last iterations."""
    row: dict[str, Any] = {"name": model.name, "class": model.class_name, "iteration": None, "losses": [], "error": ""}
    try:
        row["iteration"], row["losses"] = _progress(model)
    except ModelError as error:
        row["error"] = str(error).splitlines()[0]
    row["bytes"] = sum(path.stat().st_size for path in model.files())
    row["saved"] = _time(model.data_path.stat().st_mtime) if model.data_path.exists() else None
    row["trained_by"] = model.lock().holder()
    row["backups"] = [_backup_row(model, backup) for backup in model.backups()]
    return row


def _progress(model: ModelDir) -> tuple[int, list[float | None]]:
    """Iteration and losses; data.dat, which may be large, is read only where no manifest tells. Raises ModelError."""
    if (about := model.about()) is not None:
        return about.iteration, list(about.losses)
    data = model.read_data()
    return data.iter, list(data.loss_history.recent())


def _backup_row(model: ModelDir, backup: Backup) -> dict[str, Any]:
    iteration: int | None = backup.iteration
    losses: list[float | None] = [loss if math.isfinite(loss) else None for loss in backup.losses]
    if iteration is None:  # DFL's, without a note
        with contextlib.suppress(ModelError):
            iteration, losses = _progress(ModelDir(backup.folder, backup.prefix, model.class_name))
    saved = backup.saved.isoformat(" ", "seconds")
    return {
        "name": backup.folder.name, "iteration": iteration, "losses": losses, "bytes": backup.size, "saved": saved,
    }  # fmt: skip


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def _line(row: dict[str, Any]) -> str:
    iteration = "iteration unknown" if row["iteration"] is None else f"iteration {row['iteration']:,}"
    losses = " ".join("nan" if loss is None else f"{loss:.4f}" for loss in row["losses"])
    return ", ".join(
        filter(
            None, [iteration, losses and f"losses {losses}", f"{row['bytes'] / 1e6:,.1f} MB", f"saved {row['saved']}"]
        )
    )


# ---- verify, backup, restore --------------------------------------------------------------------------------------


def _verify(args: argparse.Namespace, say: Say) -> int:
    failed = False
    for model in find_models(args.model_dir, args.model, args.force_model_name):
        report = verify(model)
        failed |= bool(report.problems)
        if args.json:
            say(json.dumps({"name": model.name, "class": model.class_name, **asdict(report)}))
            continue
        count = len(report.problems)
        verdict = f"{count} problem{'s' if count > 1 else ''}" if count else "sound"
        say(f"{model.name} ({model.class_name}), iteration {report.iteration or 0:,}: {verdict}")
        for check in report.files:
            say(f"  {check.state:10} {check.name}{f' ({check.told})' if check.told else ''}")
        for text in (*report.notes, *report.problems):
            if not any(check.told and check.name in text and check.told in text for check in report.files):
                say(f"  {text}")
    return EXIT_FAILED if failed else EXIT_OK


def _backup(args: argparse.Namespace, say: Say) -> int:
    model = _one(args)
    with model.lock():
        for note in model.recover():
            say(note)
        if problems := verify(model).problems:
            advice = " An earlier one is put in its place by: python main.py model restore" if model.backups() else ""
            raise ModelError(f"{model.full_name} is not sound, no backup is made: {'; '.join(problems)}.{advice}")
        rules = BackupRules(args.naming, 24 if args.naming == "numbers" else 0)
        say(f"Backup made: {model.backup(rules)}")
    return EXIT_OK


def _restore(args: argparse.Namespace, say: Say) -> int:
    model = _one(args)
    with model.lock():
        found = model.backups()
        if not found:
            raise ModelError(f"{model.full_name} has no backups in {model.backups_folder}.")
        backup = _choose(args, model, found, find_terminal(sys.stdin, sys.stdout, args.ask))
        iteration, kept = restore(model, backup.folder, backup.prefix)
        say(f"Restored from {backup.folder.name}: {model.full_name} is at iteration {iteration:,}.")
        if kept is not None:
            say(f"What was there before is in {kept}.")
    return EXIT_OK


def _choose(args: argparse.Namespace, model: ModelDir, found: list[Backup], terminal: Terminal | None) -> Backup:
    """By --from, or by a question. Raises OptionError."""
    names = {backup.folder.name: backup for backup in found}

    def parse(answer: str) -> Backup:
        if answer in names:
            return names[answer]
        if re.fullmatch(r"\d{1,3}", answer) and int(answer) < len(found):
            return found[int(answer)]
        raise OptionError(f"got {answer!r}, allowed is one of {', '.join(names)}.")

    if args.source is not None:
        if args.source not in names:
            raise OptionError(f"--from: got {args.source!r}, allowed is one of {', '.join(names)}.")
        return names[args.source]
    if terminal is None:
        raise OptionError(f"Say which backup by --from; there are {', '.join(names)}.")
    for number, backup in enumerate(found):
        terminal.say(f"[{number}] : {backup.folder.name}, {_line(_backup_row(model, backup))}")
    return ask(terminal, "Restore which backup? (Ctrl-C leaves) : ", parse)
