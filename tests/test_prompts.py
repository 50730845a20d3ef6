"""Questions through a scripted terminal: exact transcripts, re-asking, leaving, strict lists of answers."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from core.options import OptionError, defaults, resolve
from core.prompts import (
    AnswerError,
    Back,
    Kind,
    Leave,
    ask_device,
    ask_model_name,
    ask_override,
    ask_row,
    ask_rows,
    check_name,
    prompt_text,
)
from core.terminal import ListTerminal
from models import MODELS

ALL = MODELS["SAEHD"].rows
ROWS = tuple(row for row in ALL if row.ask != "advance")


class Script:
    """A person who types the given lines; Leave when they are used up."""

    strict = False

    def __init__(self, *lines: str, enter: bool = False) -> None:
        self.lines, self.enter, self.out = list(lines), enter, ""

    def say(self, text: str, kind: Kind = "") -> None:
        self.out += text + "\n"

    def ask(self, prompt: str, choices: Sequence[str] = ()) -> str:
        self.choices = tuple(choices)
        if not self.lines:
            raise Leave
        line = self.lines.pop(0)
        self.out += prompt + line + "\n"
        return line

    def enter_within(self, seconds: float, line: Callable[[float], str]) -> bool:
        self.out += line(seconds) + "\n"
        return self.enter


def row(key: str):  # type: ignore[no-untyped-def]
    return next(r for r in ROWS if r.key == key)


def test_prompts_are_spelled_as_in_dfl() -> None:
    values = resolve(ROWS, {}, {}, {})
    assert [prompt_text(r, values[r.key]) for r in ROWS] == [
        "[0] Autobackup every N hour ( 0..24 ?:help ) : ",
        "[n] Write preview history ( y/n ?:help ) : ",
        "[n] Choose image for the preview history ( y/n ?:help ) : ",
        "[0] Target iteration ( ?:help ) : ",
        "[n] Flip SRC faces randomly ( y/n ?:help ) : ",
        "[y] Flip DST faces randomly ( y/n ?:help ) : ",
        "[4] Batch_size ( ?:help ) : ",
        "[128] Resolution ( 64-640 ?:help ) : ",
        "[f] Face type ( h/mf/f/wf/head ?:help ) : ",
        "[liae-ud] AE architecture ( ?:help ) : ",
        "[256] AutoEncoder dimensions ( 32-2048 ?:help ) : ",
        "[64] Encoder dimensions ( 16-256 ?:help ) : ",
        "[64] Decoder dimensions ( 16-256 ?:help ) : ",
        "[22] Decoder mask dimensions ( 16-256 ?:help ) : ",
        "[y] Masked training ( y/n ?:help ) : ",
        "[n] Eyes and mouth priority ( y/n ?:help ) : ",
        "[n] Uniform yaw distribution of samples ( y/n ?:help ) : ",
        "[n] Blur out mask ( y/n ?:help ) : ",
        "[y] Place models and optimizer on GPU ( y/n ?:help ) : ",
        "[y] Use AdaBelief optimizer? ( y/n ?:help ) : ",
        "[n] Use learning rate dropout ( n/y/cpu ?:help ) : ",
        "[y] Enable random warp of samples ( y/n ?:help ) : ",
        "[0.0] Random hue/saturation/light intensity ( 0.0 .. 0.3 ?:help ) : ",
        "[0.0] GAN power ( 0.0 .. 10.0 ?:help ) : ",
        "[16] GAN patch size ( 3-640 ?:help ) : ",
        "[16] GAN dimensions ( 4-512 ?:help ) : ",
        "[0.0] 'True face' power. ( 0.0000 .. 1.0 ?:help ) : ",
        "[0.0] Face style power ( 0.0..100.0 ?:help ) : ",
        "[0.0] Background style power ( 0.0..100.0 ?:help ) : ",
        "[none] Color transfer for src faceset ( none/rct/lct/mkl/idt/sot ?:help ) : ",
        "[n] Enable gradient clipping ( y/n ?:help ) : ",
        "[n] Enable pretraining mode ( y/n ?:help ) : ",
    ]


def test_the_questions_of_a_recorded_first_run(shared: Path) -> None:
    """Those that DeepFaceLab itself asked, in its order, with its defaults."""
    recorded = json.loads((shared / "golden" / "genuine_saehd_df" / "_prompts.json").read_text())
    plain = {"False": "n", "True": "y"}
    terminal = Script(*(plain.get(answer, answer) for _, _, answer in recorded))
    ask_rows(terminal, ROWS, dict(resolve(ROWS, {}, {}, {})), {}, first_run=True)
    asked = re.findall(r"^\[(.*?)\] (.*?) \( .*?\?:help \) : ", terminal.out, re.MULTILINE)
    assert asked == [(plain.get(default, default), label) for label, default, _ in recorded]


def test_transcript_help_wrong_then_right() -> None:
    terminal = Script("?", "700", "seven", "192")
    assert ask_row(terminal, row("resolution"), 128) == 192
    prompt = "[128] Resolution ( 64-640 ?:help ) : "
    allowed = "allowed is a whole number from 64 to 640."
    terminal.choices = ()
    assert terminal.out.splitlines() == [
        f"{prompt}?", row("resolution").explanation(), f"{prompt}700", f"Got '700', {allowed}",
        f"{prompt}seven", f"Got 'seven', {allowed}", f"{prompt}192", "192",
    ]  # fmt: skip


def test_first_run_asks_all_later_runs_only_what_can_change() -> None:
    values = dict(resolve(ROWS, {}, {}, {}))
    terminal = Script(*[""] * 40)
    ask_rows(terminal, ROWS, values, {}, first_run=True)
    asked = [r.key for r in ROWS if r.label in terminal.out]
    left_out = {"masked_training", "choose_preview_history", "gan_patch_size", "gan_dims", "true_face_power"}
    assert set(asked) == {r.key for r in ROWS} - left_out, "for face type f, a liae and no GAN"
    terminal = Script(*[""] * 40)
    ask_rows(terminal, ROWS, values, {"batch_size": 8}, first_run=False)
    assert "Resolution" not in terminal.out and "Batch_size" not in terminal.out and "Blur out mask" in terminal.out


def test_masked_training_is_asked_for_whole_face() -> None:
    values = dict(resolve(ROWS, {"face_type": "wf"}, {}, {}))
    terminal = Script(*[""] * 40)
    assert ask_rows(terminal, ROWS, values, {}, first_run=True)["masked_training"] is True
    assert "Masked training" in terminal.out


def test_what_is_answered_in_advance_is_not_asked() -> None:
    answers = ask_rows(Script(*[""] * 40), ALL, dict(resolve(ALL, {}, {}, {})), {}, first_run=True)
    assert answers["collapse_guard"] is True and len(ALL) > len(ROWS)
    assert ask_rows(Script(), ALL, answers, {row.key: answers[row.key] for row in ROWS}, first_run=True) == answers


def test_gan_size_is_asked_with_a_gan_and_suggests_an_eighth_of_the_resolution() -> None:
    """The suggestion follows the answers, before they are rounded to what the architecture takes."""
    lines = {"Resolution": "200", "AE architecture": "df", "GAN power": "0.1"}
    labels = [r.label for r in ROWS if r.key not in ("choose_preview_history", "masked_training")]
    terminal = Script(*[lines.get(label, "") for label in labels])
    answers = ask_rows(terminal, ROWS, defaults(ROWS, {}, {}), {}, first_run=True)
    assert answers["gan_patch_size"] == 24 and "[24] GAN patch size" in terminal.out
    assert "'True face' power." in terminal.out and terminal.lines == []


def test_leaving_is_not_a_default() -> None:
    with pytest.raises(Leave):
        ask_row(Script(), row("clipgrad"), False)


def test_list_of_answers_is_strict() -> None:
    out = io.StringIO()
    with pytest.raises(AnswerError, match=r"Resolution.*64 to 640"):
        ask_row(ListTerminal(io.StringIO("9\n"), out), row("resolution"), 128)
    with pytest.raises(AnswerError, match=r"Resolution.*no answer left"):
        ask_row(ListTerminal(io.StringIO(""), out), row("resolution"), 128)
    assert ask_row(ListTerminal(io.StringIO("?\n\n"), out), row("resolution"), 128) == 128
    assert ask_override(ListTerminal(io.StringIO(""), out)) is True


def test_override_window() -> None:
    terminal = Script(enter=True)
    assert ask_override(terminal) is True
    assert terminal.out == "Press enter in 2 seconds to override model settings.\n"
    assert ask_override(Script()) is False


class Saved:
    """Two models; what is done to them is kept."""

    def __init__(self, *names: str) -> None:
        self.models, self.done = list(names), list[str]()

    def names(self) -> Sequence[str]:
        return tuple(self.models)

    def rename(self, old: str, new: str) -> str:
        if new in self.models:
            raise OptionError(f"There is {new} already.")
        self.models[self.models.index(old)] = new
        return f"{old} is called {new} now."

    def about(self, name: str) -> str:
        return f"{name}: iteration 5."

    def delete(self, name: str) -> str:
        self.models.remove(name)
        return f"{name} lies elsewhere now."


def test_model_list() -> None:
    for answer, name in [("", "late"), ("1", "early"), ("early", "early"), ("other one", "other one"), ("a_b", "a b")]:
        assert ask_model_name(Script(answer), Saved("late", "early")) == name
    terminal = Script("7", "<", "x/y", "0")
    assert ask_model_name(terminal, Saved("late", "early")) == "late"
    assert terminal.out.startswith(
        "Choose one of saved models, or enter a name to create a new model.\n[r] : rename\n[d] : delete\n\n"
        "[0] : late - latest\n[1] : early\n : 7\n"
    )
    assert "from 0 to 1" in terminal.out and "This is the first question." in terminal.out
    assert terminal.choices == ("late", "early")
    assert ask_model_name(Script(""), Saved()) == "new"


def test_models_are_renamed_and_thrown_away_from_the_list() -> None:
    saved = Saved("late", "early")
    terminal = Script("r", "9", "1", "late", "r", "<", "r", "early", "old one", "old one")
    assert ask_model_name(terminal, saved) == "old one"
    assert "There is late already." in terminal.out and "early is called old one now." in terminal.out
    assert "name of the model you want to rename : 9\nGot '9', allowed is a number from 0 to 1" in terminal.out
    saved = Saved("late", "early")
    terminal = Script("d", "late", "", "d", "late", "<", "d", "", "?", "d", "?", "late", "y", "d", "0", "y", "")
    assert ask_model_name(terminal, saved) == "new" and saved.models == []
    assert terminal.out.count("[n] Move late to the trash folder? ( y/n ?:help ) : ") == 3
    assert "late: iteration 5.\n" in terminal.out and "early lies elsewhere now." in terminal.out
    assert "[new] No saved models found" in terminal.out


def test_back_to_the_question_before() -> None:
    """What was typed is offered again; what follows from it is suggested anew."""
    keys = ("face_type", "masked_training", "resolution", "gan_power", "gan_patch_size")
    rows = tuple(r for r in ROWS if r.key in keys)
    terminal = Script("200", "wf", "n", "<", "<", "f", "0.1", "<", "<", "<", "<", "160", "", "", "")
    answers = ask_rows(terminal, rows, defaults(rows, {}, {}), {}, first_run=True)
    assert (answers["resolution"], answers["face_type"], answers["gan_power"]) == (160, "f", 0.1)
    assert answers["gan_patch_size"] == 20 and "masked_training" not in terminal.out.rpartition("160")[2]
    prompts = [line.partition("(")[0].strip() for line in terminal.out.splitlines() if " : " in line]
    assert prompts == [
        "[128] Resolution", "[f] Face type", "[y] Masked training", "[0.0] GAN power", "[n] Masked training",
        "[wf] Face type", "[0.0] GAN power", "[24] GAN patch size", "[0.1] GAN power", "[f] Face type",
        "[200] Resolution", "[200] Resolution", "[f] Face type", "[0.1] GAN power", "[20] GAN patch size",
    ]  # fmt: skip


def test_back_from_the_first_question() -> None:
    rows = tuple(r for r in ROWS if r.key in ("resolution", "archi"))
    with pytest.raises(Back):
        ask_rows(Script("64", "<", "<"), rows, defaults(rows, {}, {}), {}, first_run=True, back=True)
    terminal = Script("<", "64", "df")
    assert ask_rows(terminal, rows, defaults(rows, {}, {}), {}, first_run=True)["resolution"] == 64
    assert "This is the first question." in terminal.out
    with pytest.raises(Back):
        ask_device(Script("<"), {"CPU": "CPU", "0": "Big"}, "0", back=True)
    with pytest.raises(AnswerError, match="allowed"):
        ask_row(ListTerminal(io.StringIO("<\n"), io.StringIO()), row("resolution"), 128)


@pytest.mark.parametrize("name", ["", "a/b", "..", 'q"', "r", "\x00"])
def test_bad_names(name: str) -> None:
    with pytest.raises(OptionError, match="allowed"):
        check_name(name)


def test_device() -> None:
    names = {"CPU": "CPU", "0": "Big", "1": "Small"}
    terminal = Script("5", "0,1", "cpu")
    assert ask_device(terminal, names, "0") == "CPU"
    assert "[CPU] : CPU\n  [0] : Big\n  [1] : Small\n" in terminal.out
    assert "[0] Which GPU indexes to choose? : " in terminal.out
    assert ask_device(Script(""), names, "0") == "0"
