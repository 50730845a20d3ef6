"""The option row: one frozen record per option drives its prompt, help, range, flag, stored value, summary and docs.

No terminal, no torch, no model's name in here. A `Values` holds what is in effect as its items and what the user
chose as `.chosen`; the two differ where another option forces one (DFL: pretraining switches random warp off).
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.shown import PLAIN, plain, shown

Kind = Literal["bool", "int", "float", "choice", "text"]
Answers = Mapping[str, Any]

RESTART = "restart"
"""The key of the row, where a model has it, that has all weights begin anew: what shaped them is then asked anew."""

YES = ("y", "yes", "1", "true", "on")
NO = ("n", "no", "0", "false", "off")
LISTED = " Options are: "


class OptionError(ValueError):
    """A value that an option does not take. The message says what was given, what is allowed, what to do."""


class Values(dict[str, Any]):
    """Resolved options: items are in effect, `chosen` is what the user chose and what DFL's record stores, `kept` is
    what else the user chose that goes on with the model, as far as it is not the default; `notes` are lines about
    values that could not be taken as they are."""

    def __init__(self, effective: Answers, chosen: Answers, kept: Answers | None = None) -> None:
        super().__init__(effective)
        self.chosen = dict(chosen)
        self.kept = dict(kept or {})
        self.notes: list[str] = []

    def forced(self) -> dict[str, Any]:
        """Options in effect that differ from the user's choice."""
        return {key: self[key] for key, value in self.chosen.items() if self[key] != value}


def _always(_: Answers) -> bool:
    return True


@dataclass(frozen=True)
class Option:
    """One option.

    key: DFL's key in data.dat. label: DFL's prompt label. help: what it does; advice: when to use it. default: a value,
    or a function of the defaults of the rows before (DFL: stored values and defaults, not what was just typed); with
    `follows` a function of the answers before it. low, high: inclusive range. shown: the range as the prompt shows it,
    where DFL's spelling is not `low-high`; of a text, what it takes in words. ask: `create` rows shape the weights and
    are asked once, `always` rows again at every override, `advance` rows only where the user wants all questions: else
    they are answered in advance or keep their default; `fixed` rows have no other value than their default; `again`
    rows are asked of a model that is there already. when: whether to ask, given the answers so far; condition: the same
    in words. forced: what other options make of it (None: nothing). tidy: rounding after all answers are known.
    spellings: values that older files use, mapped to ours. stored: whether the choice stands in DFL's record of the
    model, else in a file of ours beside it. check: a rule of its own; raises ValueError saying what is allowed.
    default_text: a computed default in words, for the docs. aliases: other keys that forks call it by. once: it does
    something at a start and is kept nowhere.
    """

    key: str
    kind: Kind
    label: str
    help: str
    default: Any
    advice: str = ""
    follows: bool = False
    low: float | None = None
    high: float | None = None
    shown: str | None = None
    choices: tuple[str, ...] = ()
    group: str = ""
    ask: Literal["create", "always", "advance", "fixed", "again"] = "always"
    when: Callable[[Answers], bool] = _always
    condition: str = ""
    forced: Callable[[Answers], Any] | None = None
    tidy: Callable[[Any, Answers], Any] | None = None
    spellings: tuple[tuple[Any, Any], ...] = ()
    stored: bool = True
    check: Callable[[str], str] | None = None
    default_text: str = ""
    aliases: tuple[str, ...] = ()
    once: bool = False

    @property
    def kept(self) -> bool:
        """Whether the choice goes on with the model in a file of ours, as DFL's record has no key for it."""
        return not self.stored and not self.once and self.ask != "fixed"

    def explanation(self) -> str:
        """What `?` prints: what the option does, and when to use it."""
        return " ".join(text for text in (self.help, self.advice) if text)

    def allowed(self) -> str:
        """What the option takes, in words: for error messages and docs."""
        if self.kind == "bool":
            return "y or n"
        if self.kind == "choice":
            return " / ".join(self.choices)
        if self.kind == "text":
            return self.shown or "text"
        noun = "a whole number" if self.kind == "int" else "a number"
        if self.low is None:
            return noun
        return f"{noun} from {self.low:.10g}" + ("" if self.high is None else f" to {self.high:.10g}")

    def range_text(self) -> str:
        """The range inside the prompt's brackets: `64-640`, `n/y/cpu`, `y/n`; empty when there is none."""
        if self.kind == "bool":
            return "y/n"
        if self.kind == "choice":
            return "/".join(self.choices)
        if self.kind == "text":
            return ""
        if self.shown is not None or self.low is None or self.high is None:
            return self.shown or ""
        return f"{self.low:.10g}-{self.high:.10g}"

    def show(self, value: Any) -> str:
        """A value as the prompt shows it and as `parse` reads it."""
        if self.kind == "bool":
            return "y" if value else "n"
        return str(value)

    def parse(self, given: Any, believe: bool = False) -> Any:
        """The value meant by text or by a Python value. believe: no range check (a stored model is believed).

        Raises OptionError naming the option, what was given and what is allowed.
        """
        given = plain(given)
        try:
            if type(given) not in PLAIN:
                raise ValueError
            value = self._convert(given)
            if believe:
                self._possible(value)
            else:
                self._inside(value)
        except (ValueError, TypeError, OverflowError) as error:
            own = str(error) if self.check is not None else ""
            raise OptionError(f"{self.key}: got {shown(given)}, allowed is {own or self.allowed()}.") from None
        return value

    def nearest(self, value: Any, default: Any) -> tuple[Any, str]:
        """A value from a file and "", or what comes nearest to it here and a line saying so. default: for what nothing
        comes near to."""
        try:
            return self.parse(value), ""
        except OptionError as error:
            found: Any = default
            if self.kind in ("int", "float"):
                with contextlib.suppress(ValueError, TypeError, OverflowError):
                    number = self._convert(plain(value))
                    low, high = (
                        math.inf * sign if end is None else end for end, sign in ((self.low, -1), (self.high, 1))
                    )
                    if number == number:
                        found = type(number)(min(max(number, low), high))
            using = "the usual default" if found is None else self.show(found)
            return found, f"{error} Using {using}."

    def _convert(self, given: Any) -> Any:
        for old, new in self.spellings:
            if type(given) is type(old) and given == old:
                return new
        given = given.strip() if isinstance(given, str) else given
        if self.kind == "bool":
            word = str(given).lower()
            if word not in YES + NO:
                raise ValueError
            return word in YES
        if self.kind == "int":
            number = int(given)
            if isinstance(given, bool) or (not isinstance(given, str) and number != given):
                raise ValueError
            return number
        if self.kind == "float":
            if isinstance(given, bool):
                raise ValueError
            return float(given)
        if given is None:
            raise ValueError
        text = str(given)
        if self.kind == "choice":
            meant = {choice.lower(): choice for choice in self.choices}
            return meant[text.lower()] if text.lower() in meant else self._switched(text.lower())
        return self.check(text) if self.check is not None else text

    def _switched(self, word: str) -> Any:
        """A choice that was a switch in older files, given as a word of one."""
        for old, new in self.spellings:
            if isinstance(old, bool) and word in (YES if old else NO):
                return new
        raise ValueError

    def _possible(self, value: Any) -> None:
        """What even a stored model cannot have: sizes below 1, or far beyond anything that ever ran."""
        if self.kind in ("int", "float"):
            least = 1 if self.low is not None and self.low >= 1 else 0
            if not least <= value <= (16 * self.high if self.high else 1 << 31):
                raise ValueError

    def _inside(self, value: Any) -> None:
        if self.kind not in ("int", "float"):
            return
        if (
            value != value
            or (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
        ):
            raise ValueError


def find(rows: Iterable[Option], key: str) -> Option:
    """The row of `key`, which may be an alias; raises OptionError with the nearest names when there is none."""
    table = {row.key: row for row in rows}
    names = {alias: row for row in table.values() for alias in row.aliases} | table
    if key in names:
        return names[key]
    known = [name for name, row in names.items() if row.ask != "fixed"]
    near = difflib.get_close_matches(key[:80], known, 3)
    options = ", ".join(name for name, row in table.items() if row.ask != "fixed")
    hint = f" Did you mean {' or '.join(near)}?" if near else f"{LISTED}{options}."
    raise OptionError(f"{shown(key)} is not an option of this model.{hint}")


def by_key(rows: Sequence[Option], given: Answers) -> dict[str, Any]:
    """The answers under the rows' own keys. Raises OptionError, a line for each: an unknown key, and two that mean the
    same option and say different things."""
    result: dict[str, Any] = {}
    names: dict[str, str] = {}

    def take(name: str, value: Any) -> None:
        key = find(rows, name).key
        if key in result and result[key] != value:
            both = f"got {shown(result[key])} and {shown(value)}"
            raise OptionError(f"{names[key]} and {name} are one option: {both}. Give one of them.")
        result[key], names[key] = value, name

    _each(take, given)
    return result


def _each(take: Callable[[str, Any], None], given: Answers) -> None:
    """Takes every answer. Raises OptionError with a line for each that cannot be taken."""
    wrong: list[str] = []
    for name, value in given.items():
        try:
            take(name, value)
        except OptionError as error:
            said, listed, names = str(error).partition(LISTED)
            wrong.append(said if any(LISTED in line for line in wrong) else said + listed + names)
    if wrong:
        raise OptionError("\n".join(wrong))


def defaults(
    rows: Sequence[Option],
    stored: Answers,
    preferred: Answers,
    given: Iterable[str] = (),
    notes: list[str] | None = None,
    kept: Answers | None = None,
) -> dict[str, Any]:
    """The default of every row: the stored value (of rows that DFL's record does not have: the one that is kept beside
    it), else the preferred one (DFL's `default_options.dat`), else the row's own. Rows whose own default follows from
    the answers are left out; `complete` adds them.

    What shaped the weights is believed even outside the prompt's range, and raises OptionError when it is impossible.
    Another value that is not allowed here (forks know more) is replaced, which is told in `notes`, unless the row is
    `given` anyway.
    """
    result: dict[str, Any] = {}
    told: list[str] = []
    for row in rows:
        own = None if row.follows else row.default(result) if callable(row.default) else row.default
        if row.stored and row.key in stored:
            if row.ask == "create":
                try:
                    result[row.key] = row.parse(stored[row.key], believe=True)
                except OptionError as error:
                    raise OptionError(f"Stored with the model: {error} Restore its data.dat from a backup.") from None
                continue
            value, note = row.nearest(stored[row.key], own)
            source = "Stored with the model"
        elif row.stored and row.key in preferred:
            value, note = row.nearest(preferred[row.key], own)
            source = "In default_options.dat"
        elif row.kept and kept and row.key in kept:
            value, note = row.nearest(kept[row.key], own)
            source = "Kept with the model"
        else:
            value, note, source = own, "", ""
        if note and row.key not in given:
            told.append(f"{source}: {note}")
        if value is not None:
            result[row.key] = value
    if notes is not None:
        notes += told
    return result


def complete(rows: Sequence[Option], answers: Answers) -> dict[str, Any]:
    """The answers, rounded where they need rounding, with the defaults that follow from them."""
    chosen = dict(answers)
    for row in rows:
        if row.follows and row.key not in chosen:
            chosen[row.key] = row.default(chosen)
        if row.tidy is not None:
            chosen[row.key] = row.tidy(chosen[row.key], chosen)
    return chosen


def settle(rows: Sequence[Option], answers: Answers) -> Values:
    """Complete answers -> Values: rounds what needs rounding, then applies what options force on each other."""
    chosen = complete(rows, answers)
    effective = dict(chosen)
    for row in rows:
        forced = row.forced(chosen) if row.forced is not None else None
        if forced is not None:
            effective[row.key] = forced
    stored = {row.key: chosen[row.key] for row in rows if row.stored}
    return Values(
        effective, stored, {row.key: chosen[row.key] for row in rows if row.kept and chosen[row.key] != row.default}
    )


def rounded(rows: Sequence[Option], answers: Answers, keys: Iterable[str]) -> list[str]:
    """Lines saying which of the answers to `keys` are taken as another value. answers: to all rows."""
    taken, lines = complete(rows, answers), []
    for row in rows:
        if row.tidy is not None and row.key in keys and row.key in answers and taken[row.key] != answers[row.key]:
            was, now = row.show(answers[row.key]), row.show(taken[row.key])
            why = f"taken as {now}: it counts only {row.condition}" if row.condition else f"rounded to {now}"
            lines.append(f"{row.key}: {was} is {why}.")
    return lines


def _same(given: Any, stored: Any) -> bool:
    given, stored = plain(given), plain(stored)
    known = type(given) in PLAIN and type(stored) in PLAIN
    return known and (bool(given == stored) or str(given).strip() == str(stored))


def resolve(
    rows: Sequence[Option], given: Answers, stored: Answers, preferred: Answers, kept: Answers | None = None
) -> Values:
    """given > stored, kept > preferred > the rows' own defaults, all through the rows' own validation.

    Raises OptionError, with a line for each: an unknown key, a given value outside its range, an attempt to change what
    shaped the weights of an existing model, or what no model of this kind can change.
    """
    notes: list[str] = []
    given = by_key(rows, given)
    answers = defaults(rows, stored, preferred, given, notes, kept)

    def take(key: str, value: Any) -> None:
        row = find(rows, key)
        parsed = row.parse(value, believe=key in stored and _same(value, stored[key]))
        if row.ask == "create" and key in stored and parsed != answers[key] and not answers.get(RESTART):
            raise OptionError(
                f"{key}: this model was made with {row.show(answers[key])}; got {row.show(parsed)}. "
                "It shaped the weights and cannot be changed: leave it out, or make a new model."
            )
        if row.ask == "fixed" and parsed != answers[key]:
            raise OptionError(
                f"{key}: got {row.show(parsed)}, but with this kind of model it is always {row.show(answers[key])}: "
                "leave it out."
            )
        answers[key] = parsed

    _each(take, given)
    values = settle(rows, answers)
    values.notes = notes + rounded(rows, answers, given)
    return values
