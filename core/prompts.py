"""Asks option rows, the model's name and the device, in DFL's words, through an injected terminal.

Unlike DFL, a wrong answer asks again and says what is allowed, `<` goes back to the question before, and leaving
(Esc, Ctrl-C, end of input) never means "take the default". A `strict` terminal (answers piped in) cannot be asked
again: a wrong answer is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from core.options import RESTART, Answers, Option, OptionError, complete

T = TypeVar("T")

OVERRIDE_SECONDS = 2
BACK = "<"
KEYS = "Enter takes the value in brackets, ? explains, < goes back one question, Esc or Ctrl-C leaves."
Kind = Literal["", "help", "wrong"]
"""What a text at a terminal is: said by the way, an explanation, or why an answer was not taken."""
MAX_NAME = 100
RESERVED_NAMES = ("r", "d")
LATER = ("reset_iterations", "force_recache")
"""Keys of what a new model has nothing of."""
NAME_PATTERN = re.compile(r"[^_/\\:*?\"<>|\x00-\x1f]+")


class Leave(Exception):
    """The user left the questions; nothing has been changed."""


class Back(Exception):
    """The user wants the question before."""


class AnswerError(Exception):
    """A piped answer is wrong or missing. Names the question, what was given and what is allowed."""


class Terminal(Protocol):
    """Where questions go. strict: answers come from a list and are not asked for twice."""

    strict: bool

    def say(self, text: str, kind: Kind = "") -> None: ...

    def ask(self, prompt: str, choices: Sequence[str] = ()) -> str:
        """One line of answer; choices can be completed. Raises Leave, or AnswerError when a strict terminal has no more
        answers."""

    def enter_within(self, seconds: float, line: Callable[[float], str]) -> bool:
        """Whether Enter was pressed within `seconds`, while line(seconds left) is shown. Raises Leave."""


def prompt_text(row: Option, default: Any) -> str:
    """`[y] Masked training ( y/n ?:help ) : `"""
    inside = " ".join(text for text in (row.range_text(), "?:help" if row.help else "") if text)
    label = f"{row.label} ( {inside} )" if inside else row.label
    return f"[{row.show(default)}] {label} : "


def ask(
    terminal: Terminal,
    prompt: str,
    parse: Callable[[str], T],
    help: str = "",
    choices: Sequence[str] = (),
    back: bool | None = None,
) -> T:
    """Asks until `parse` takes the answer. parse raises OptionError saying what is allowed. back: whether there is a
    question before this one, to which `<` leads (Back); None: it is not one of several."""
    while True:
        answer = terminal.ask(prompt, choices).strip()
        if answer == "?" and help:
            terminal.say(help, "help")
            continue
        if answer == BACK and back:
            raise Back
        try:
            if answer == BACK and back is not None:
                raise OptionError("This is the first question.")
            return parse(answer)
        except OptionError as error:
            if terminal.strict:
                raise AnswerError(f"Question {prompt.strip(' :')!r}: {error}") from None
            terminal.say(str(error), "wrong")


def ask_row(terminal: Terminal, row: Option, default: Any, back: bool | None = None) -> Any:
    """Asks one row; Enter alone takes the default. The value taken is echoed."""

    def parse(answer: str) -> Any:
        try:
            return row.parse(answer) if answer else default
        except OptionError as error:  # whoever is asked sees the label, and need not know the key
            raise OptionError(str(error).removeprefix(f"{row.key}: ").capitalize()) from None

    value = ask(terminal, prompt_text(row, default), parse, row.explanation(), row.choices, back)
    terminal.say(row.show(value))
    return value


def ask_rows(
    terminal: Terminal,
    rows: Sequence[Option],
    defaults: Answers,
    given: Mapping[str, Any],
    first_run: bool,
    back: bool = False,
) -> dict[str, Any]:
    """Answers to all rows that apply. given: answers fixed on the command line, not asked. On later runs only
    `always` and `again` rows are asked; the others keep their default, which is then the stored value. A default that
    `defaults` lacks follows from the answers before it. back: there are questions before these, to which `<` at the
    first one leads (Back). Where the user goes back, answers that were typed become the defaults."""
    typed: dict[str, Any] = {}
    asked: list[int] = []
    number = 0
    while number < len(rows):
        row = rows[number]
        before = {key: typed[key] for key in (rows[index].key for index in asked) if key in typed}
        answers = {**defaults, **given, **before}
        if row.key in given or not _is_asked(row, first_run, answers) or not row.when(answers):
            number += 1
            continue
        default = answers[row.key] if row.key in answers else complete(rows, answers)[row.key]
        try:
            value = ask_row(terminal, row, typed.get(row.key, default), back or bool(asked))
        except Back:
            if not asked:
                raise
            number = asked.pop()
            continue
        if value == default:  # not a choice: another answer before it may suggest another value
            typed.pop(row.key, None)
        else:
            typed[row.key] = value
        asked.append(number)
        number += 1
    there = {rows[index].key for index in asked}
    answers = {**defaults, **given, **{key: value for key, value in typed.items() if key in there}}
    for index in asked:
        if rows[index].key not in answers:
            answers[rows[index].key] = complete(rows, answers)[rows[index].key]
    return answers


FURTHER = Option(
    "further", "bool", "Further options?",
    "y asks for the options that DeepFaceLab does not have or does not ask for; n leaves them as they are.",
    default=False,
)  # fmt: skip


def usual(rows: Sequence[Option]) -> list[Option]:
    """The rows that are asked without being asked for."""
    return [row for row in rows if row.ask != "advance"]


def further(rows: Sequence[Option], first_run: bool, offered: bool = False) -> list[Option]:
    """The others, as questions. offered: the question whether to ask them comes first. What a model is only once it
    has been trained is not asked at its first run."""
    found = []
    for row in rows:
        if row.ask == "advance" and not (first_run and row.key in LATER):
            when = partial(_if_wanted, row.when) if offered else row.when
            found.append(replace(row, ask="always", when=when))
    return [FURTHER, *found] if offered and found else found


def _if_wanted(when: Callable[[Answers], bool], answers: Answers) -> bool:
    return bool(answers[FURTHER.key]) and when(answers)


def _is_asked(row: Option, first_run: bool, answers: Answers) -> bool:
    """Whether such a row is asked of a new model, or of one that is there already."""
    if row.ask == "again":
        return not first_run
    return row.ask == "always" or (row.ask == "create" and (first_run or bool(answers.get(RESTART))))


def override_line(seconds: float) -> str:
    left = max(0, math.ceil(seconds))
    return f"Press enter in {left} second{'' if left == 1 else 's'} to override model settings."


def ask_override(terminal: Terminal, seconds: float = OVERRIDE_SECONDS) -> bool:
    """DFL's window for changing the options of an existing model. Piped answers always answer every question."""
    return terminal.strict or (seconds > 0 and terminal.enter_within(seconds, override_line))


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


class Shelf(Protocol):
    """The saved models of a class, which may be renamed and thrown away."""

    def names(self) -> Sequence[str]:
        """Newest first."""

    def rename(self, old: str, new: str) -> str:
        """Returns what to say. Raises OptionError where that cannot be."""

    def about(self, name: str) -> str:
        """The model in a few words, for the question whether to throw it away."""

    def delete(self, name: str) -> str:
        """Returns what to say. Raises OptionError where that cannot be."""


MODELS_HELP = (
    "A number or a name takes a saved model, Enter the latest. Another name makes a new one. r renames a model, d "
    "moves one into a trash folder."
)


def ask_model_name(terminal: Terminal, shelf: Shelf) -> str:
    """The name of a saved model (by number or name) or of a new one; `r` and `d` rename and delete."""
    while True:
        names = shelf.names()
        if not names:
            return ask(
                terminal, "[new] No saved models found. Enter a name of a new model : ",
                lambda answer: check_name(answer or "new"), back=False,
            )  # fmt: skip
        lines = ("Choose one of saved models, or enter a name to create a new model.", "[r] : rename", "[d] : delete")
        for line in (*lines, "", *(f"[{number}] : {name}" for number, name in enumerate(names))):
            terminal.say(f"{line} - latest" if line.startswith("[0]") else line)
        answer = ask(terminal, " : ", partial(_chosen, names, others=True), MODELS_HELP, names, back=False)
        if answer not in RESERVED_NAMES:
            return answer
        try:
            (_rename if answer == "r" else _delete)(terminal, shelf, names)
        except Back:
            pass
        except OptionError as error:
            if terminal.strict:
                raise
            terminal.say(str(error), "wrong")


def _chosen(names: Sequence[str], answer: str, others: bool = False) -> str:
    """A saved model by name or number, nothing meaning the latest. others: also another name, r or d."""
    if answer in names or (others and answer in RESERVED_NAMES):
        return answer
    if not answer and others:
        return names[0]
    if re.fullmatch(r"[+-]?\d+", answer) or not others:
        if not answer.isdecimal() or int(answer) >= len(names):
            raise OptionError(f"Got {answer!r}, allowed is a number from 0 to {len(names) - 1}, or a name.")
        return names[int(answer)]
    return check_name(answer)


def _which(terminal: Terminal, what: str, names: Sequence[str]) -> str:
    """A saved model; nothing leads back to the list."""

    def parse(answer: str) -> str:
        if not answer:
            raise Back
        return _chosen(names, answer)

    prompt = f"Enter the name of the model you want to {what} : "
    return ask(terminal, prompt, parse, "A number or a name. Enter alone goes back to the list.", names, back=True)


def _rename(terminal: Terminal, shelf: Shelf, names: Sequence[str]) -> None:
    old = _which(terminal, "rename", names)
    new = ask(terminal, "Enter new name of the model : ", check_name, back=True)
    terminal.say(shelf.rename(old, new))


def _delete(terminal: Terminal, shelf: Shelf, names: Sequence[str]) -> None:
    name = _which(terminal, "delete", names)
    terminal.say(shelf.about(name))
    sure = Option(
        "delete", "bool", f"Move {name} to the trash folder?",
        "y moves the files of this model, its backups and its history into a folder of their own, from where they can "
        "be moved back; no other model is touched. n leaves everything as it is.",
        default=False,
    )  # fmt: skip
    if ask_row(terminal, sure, False, back=True):
        terminal.say(shelf.delete(name))


def ask_device(
    terminal: Terminal, names: Mapping[str, str], default: str, back: bool = False,
    check: Callable[[str], object] | None = None,
) -> str:  # fmt: skip
    """The key of one device, or of several as `0,1`. names: `CPU` and GPU numbers -> what to show. check: raises
    OptionError for several that are not allowed; without it none are."""
    terminal.say("Choose one or several GPU idxs (separated by comma).")
    for key, name in names.items():
        terminal.say(f"{'' if key == 'CPU' else '  '}[{key}] : {name}")

    def parse(answer: str) -> str:
        chosen = (answer or default).upper()
        if "," in chosen and check is not None:
            check(chosen)
            return chosen
        if "," in chosen:
            raise OptionError(f"Got {answer!r}: one model trains on one device here. Choose one of {', '.join(names)}.")
        if chosen not in names:
            raise OptionError(f"Got {answer!r}, allowed is one of {', '.join(names)}.")
        return chosen

    chosen = ask(terminal, f"[{default}] Which GPU indexes to choose? : ", parse, choices=tuple(names), back=back)
    terminal.say(chosen)
    return chosen
