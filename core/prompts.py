"""Asks option rows, the model's name and the device, in DFL's words, through an injected terminal.

Unlike DFL, a wrong answer asks again and says what is allowed, and leaving (Ctrl-C, end of input) never means
"take the default". A `strict` terminal (answers piped in) cannot be asked again: a wrong answer is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from core.options import Answers, Option, OptionError, complete

T = TypeVar("T")

OVERRIDE_SECONDS = 2
MAX_NAME = 100
RESERVED_NAMES = ("r", "d")
NAME_PATTERN = re.compile(r"[^_/\\:*?\"<>|\x00-\x1f]+")


class Leave(Exception):
    """The user left the questions; nothing has been changed."""


class AnswerError(Exception):
    """A piped answer is wrong or missing. Names the question, what was given and what is allowed."""


class Terminal(Protocol):
    """Where questions go. strict: answers come from a list and are not asked for twice."""

    strict: bool

    def say(self, text: str) -> None: ...

    def ask(self, prompt: str) -> str:
        """One line of answer. Raises Leave, or AnswerError when a strict terminal has no more answers."""

    def enter_within(self, seconds: float) -> bool:
        """Whether Enter was pressed within `seconds`."""


def prompt_text(row: Option, default: Any) -> str:
    """`[y] Masked training ( y/n ?:help ) : `"""
    inside = " ".join(text for text in (row.range_text(), "?:help" if row.help else "") if text)
    label = f"{row.label} ( {inside} )" if inside else row.label
    return f"[{row.show(default)}] {label} : "


def ask(terminal: Terminal, prompt: str, parse: Callable[[str], T], help: str = "") -> T:
    """Asks until `parse` takes the answer. parse raises OptionError saying what is allowed."""
    while True:
        answer = terminal.ask(prompt).strip()
        if answer == "?" and help:
            terminal.say(help)
            continue
        try:
            return parse(answer)
        except OptionError as error:
            if terminal.strict:
                raise AnswerError(f"Question {prompt.strip(' :')!r}: {error}") from None
            terminal.say(str(error))


def ask_row(terminal: Terminal, row: Option, default: Any) -> Any:
    """Asks one row; Enter alone takes the default. The value taken is echoed."""
    value = ask(
        terminal,
        prompt_text(row, default),
        lambda answer: row.parse(answer) if answer else default,
        help=row.explanation(),
    )
    terminal.say(row.show(value))
    return value


def ask_rows(
    terminal: Terminal, rows: Sequence[Option], defaults: Answers, given: Mapping[str, Any], first_run: bool
) -> dict[str, Any]:
    """Answers to all rows that apply. given: answers fixed on the command line, not asked. On later runs only
    `always` rows are asked; the others keep their default, which is then the stored value. A default that `defaults`
    lacks follows from the answers before it."""
    answers = {**defaults, **given}
    for row in rows:
        asked = row.ask == "always" or (row.ask == "create" and first_run)
        if row.key in given or not asked or not row.when(answers):
            continue
        default = answers[row.key] if row.key in answers else complete(rows, answers)[row.key]
        answers[row.key] = ask_row(terminal, row, default)
    return answers


def ask_override(terminal: Terminal, seconds: float = OVERRIDE_SECONDS) -> bool:
    """DFL's window for changing the options of an existing model. Piped answers always answer every question."""
    if terminal.strict:
        return True
    terminal.say(f"Press enter in {seconds:g} seconds to override model settings.")
    return terminal.enter_within(seconds)


def check_name(name: str) -> str:
    """A valid model name; `_` becomes a space (DFL splits file names at the first one). Raises OptionError."""
    tidy = name.replace("_", " ").strip()
    if len(tidy) > MAX_NAME:
        raise OptionError(f"Model name: got {len(tidy)} letters, allowed are {MAX_NAME}: it begins every file name.")
    if not NAME_PATTERN.fullmatch(tidy) or tidy.startswith(".") or tidy.endswith(".") or tidy in RESERVED_NAMES:
        raise OptionError(
            f'Model name: got {name!r}, allowed is a name that can stand in a file name, without / \\ : * ? " < > | '
            f"and not just {' or '.join(RESERVED_NAMES)}."
        )
    return tidy


def ask_model_name(terminal: Terminal, models: Sequence[str]) -> str:
    """The name of a saved model (by number or name) or of a new one. models: newest first."""
    if not models:
        return ask(
            terminal, "[new] No saved models found. Enter a name of a new model : ",
            lambda answer: check_name(answer or "new"),
        )  # fmt: skip
    terminal.say("Choose one of saved models, or enter a name to create a new model.")
    for number, name in enumerate(models):
        terminal.say(f"[{number}] : {name}" + (" - latest" if number == 0 else ""))

    def parse(answer: str) -> str:
        if answer in models:
            return answer
        if not answer:
            return models[0]
        if re.fullmatch(r"[+-]?\d+", answer):
            number = int(answer)
            if not 0 <= number < len(models):
                raise OptionError(f"got {answer}, allowed is a number from 0 to {len(models) - 1}, or a name.")
            return models[number]
        return check_name(answer)

    return ask(terminal, " : ", parse)


def ask_device(terminal: Terminal, names: Mapping[str, str], default: str) -> str:
    """The key of one device. names: `CPU` and GPU numbers -> what to show."""
    terminal.say("Choose one or several GPU idxs (separated by comma).")
    for key, name in names.items():
        terminal.say(f"{'' if key == 'CPU' else '  '}[{key}] : {name}")

    def parse(answer: str) -> str:
        chosen = (answer or default).upper()
        if "," in chosen:
            raise OptionError(f"got {answer!r}: one model trains on one device here. Choose one of {', '.join(names)}.")
        if chosen not in names:
            raise OptionError(f"got {answer!r}, allowed is one of {', '.join(names)}.")
        return chosen

    chosen = ask(terminal, f"[{default}] Which GPU indexes to choose? : ", parse)
    terminal.say(chosen)
    return chosen
