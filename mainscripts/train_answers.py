"""Answers of a training as a file and as a command line that gives the same run; what a run would be."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.dflfile import write_bytes
from core.memory import size
from core.modeldir import ModelError
from core.options import Values, defaults, settle
from core.shown import without_secrets
from core.summary import summary
from core.values import file_text

if TYPE_CHECKING:
    from mainscripts.train_setup import Setup

SETTLED = {
    "--set": 1, "--options": 1, "--config-training-file": 1, "--auto-gen-config": 0,
    "--save-options": 1, "--force-model-name": 1, "--force-gpu-idxs": 1, "--seed": 1,
    "--override-seconds": 1, "--target-iter": 1, "--cpu-only": 0, "--override": 0, "--no-override": 0,
    "--silent-start": 0, "--ask": 0, "--all-questions": 0, "--dry-run": 0,
}  # fmt: skip
"""Flags that only settle what the reproducing command line states itself, with the words that follow them."""


def write_options(path: Path, setup: Setup) -> None:
    """All options as chosen, as `core.values.read_options` reads them. Raises ModelError."""
    rows = [row for row in setup.spec.rows if row.ask != "fixed" and not row.once]
    chosen = {row.key: setup.values.chosen.get(row.key, setup.values[row.key]) for row in rows}
    try:
        write_bytes(path, file_text(path, chosen).encode())
    except OSError as error:
        raise ModelError(f"--save-options {path}: cannot be written ({error.strerror or error}).") from error


def command_line(setup: Setup, words: Sequence[str]) -> str:
    """The command that trains an equal model the same way from its beginning on, whatever is asked and stored. words:
    this run's own command line."""
    kept, wait = [], 0
    for word in without_secrets(words):
        flag, equals, _ = word.partition("=")
        if wait:
            wait -= 1
        elif flag in SETTLED:
            wait = 0 if equals else SETTLED[flag]
        else:
            kept.append(word)
    kept += ["--force-model-name", setup.directory.name, "--no-override", "--seed", str(setup.seed)]
    indexes = ",".join(device.key for device in setup.devices or [setup.device])
    kept += ["--cpu-only"] if setup.device.key == "CPU" else ["--force-gpu-idxs", indexes]
    usual = settle(setup.spec.rows, defaults(setup.spec.rows, {}, {}))
    for row in setup.spec.rows:
        value = setup.values.chosen.get(row.key, setup.values[row.key])
        # What is kept as a default for the next model must not creep in: those that are kept are all named. What is
        # done once is not: who runs a line again, perhaps much later, does not want to throw away what came since.
        told = row.stored or value != usual.chosen.get(row.key, usual[row.key])
        if told and not row.once and row.ask != "fixed":
            kept += ["--set", f"{row.key}={row.show(value)}"]
    whole = ["python", "main.py", "train", *kept]
    return subprocess.list2cmdline(whole) if sys.platform == "win32" else shlex.join(whole)


def dry_run(setup: Setup) -> list[str]:
    """What would be trained: the summary, all options, weights and memory. Nothing is made but shapes."""
    from core.device import describe
    from mainscripts.train_setup import check_precision
    from models.memory import need

    values, spec = setup.values, setup.spec
    iteration = setup.data.iter if setup.data is not None else 0
    chosen = {row.key: values.chosen.get(row.key, values[row.key]) for row in spec.rows}
    told = {**(setup.data.options if setup.data is not None else {}), **chosen}
    lines = [summary(setup.directory.full_name, iteration, told, values.forced(), describe(setup.device),
                     values["session_name"])]  # fmt: skip
    task = spec.build(values, device="meta")
    modules = task.modules
    weights = {stem: sum(w.numel() for w in module.parameters()) for stem, module in modules.items()}
    lines.append(f"Weights: {sum(weights.values()):,} ({', '.join(f'{k} {v:,}' for k, v in weights.items())})")
    count = max(1, len(setup.devices))
    where = f" in each of {count} processes" if count > 1 else ""
    share = -(-values["batch_size"] // count)
    holds = need(spec, Values({**values, "batch_size": share}, values.chosen), setup.device.key != "CPU")
    lines.append(
        f"Memory for training: about {size(holds.total)}{where}, beside PyTorch itself (weights {size(holds.weights)}, "
        f"gradients {size(holds.gradients)}, optimizer {size(holds.moments + holds.scratch)}, a batch of {share} faces "
        f"{size(holds.batch)})"
    )
    lines += check_precision(setup.device, values)
    for side, faces in setup.facesets.items():
        lines.append(f"{side}: {len(faces):,} faces")
    return lines
