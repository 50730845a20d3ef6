"""MVE's configuration file in a training: whether its options are taken, and the one that is kept beside a model."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import mvefile
from core.dflfile import write_bytes
from core.modeldir import ModelDir, ModelError
from core.options import Option, OptionError, find
from core.prompts import Terminal, ask_rows
from models import ModelSpec
from models.common import ROWS

if TYPE_CHECKING:
    from mainscripts.train_setup import Setup

ENDING = "configuration_file.yaml"
"""MVE's name for it, after `<name>_<Class>_`: so renaming and deleting a model take it along, DFL's too."""

READ = Option(
    "read_config", "bool", "Do you want to read training options from file?",
    "y takes all options from the configuration file and asks for none; what the file does not name is as stored with "
    "the model, or the usual default. n asks for them.",
    advice="y, unless you want to look at them.",
    default=True,
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The configuration file that is to be read, None for none; asked: whether there was a question. reset: the answer
    to MVE's question about the counter."""

    path: Path | None = None
    asked: bool = False
    flag: str = "--config-training-file"
    answers: dict[str, Any] = field(default_factory=dict)

    def given(self, spec: ModelSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """The answers; what is left out is told. Raises OptionError."""
        if self.path is None:
            return self.answers
        found, lines = mvefile.read(self.path, spec.rows, ROWS, self.flag)
        for line in lines:
            say(line)
        say(f"Options are taken from {self.path}.")
        return found | self.answers


def ask(
    args: argparse.Namespace, directory: ModelDir, exists: bool, given: Collection[str], terminal: Terminal | None,
    back: bool,
) -> Config:  # fmt: skip
    """With MVE's flags, MVE's questions: whether options are read from the file, where there is one, and of a model
    that exists whether it counts from 0, unless that is `given`. Read, where nobody is asked. back: there are questions
    before these. Raises Back, OptionError where the file that was named is missing."""
    path, flag = args.config_training_file, "--config-training-file"
    if path is not None and not path.is_file():
        raise OptionError(f"{flag} {path}: there is no such file. --auto-gen-config writes one beside the model.")
    if path is None and not args.auto_gen_config:
        return Config()
    if path is None:
        path, flag = directory.path(ENDING), "--auto-gen-config"
    there = path.is_file()
    if terminal is None or args.silent_start:
        return Config(path if there else None, False, flag)
    reset = ROWS["reset_iterations"]
    resets = exists and reset.key not in given
    rows = [READ] * there + [replace(reset, ask="always")] * resets
    answers = ask_rows(terminal, rows, {READ.key: True, reset.key: False}, {}, first_run=False, back=back)
    read = there and answers[READ.key]
    return Config(path if read else None, bool(rows), flag, {reset.key: answers[reset.key]} if resets else {})


def keep(setup: Setup, say: Callable[[str], None]) -> None:
    """The options as chosen, beside the model; a file that says so already is left as it is. Raises ModelError."""
    path = setup.directory.path(ENDING)
    rows = setup.spec.rows
    chosen = {row.key: setup.values.chosen.get(row.key, setup.values[row.key]) for row in rows}
    if setup.config == path:
        found, _ = mvefile.read(path, rows, ROWS, "--auto-gen-config")
        if all(find(rows, key).parse(value, believe=True) == chosen[key] for key, value in found.items()):
            return
    text = mvefile.text(rows, chosen, setup.directory.full_name)
    try:
        write_bytes(path, text.encode())
    except OSError as error:
        raise ModelError(f"--auto-gen-config {path}: cannot be written ({error.strerror or error}).") from error
    say(f"The options are kept in {path}.")
