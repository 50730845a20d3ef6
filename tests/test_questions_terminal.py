"""The questions as a person at a terminal meets them: keys, completion, recall, the seconds, the list of models."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest
from person import Person
from tests_support import soon
from training import command, digest

from core.modeldir import ModelDir, saved_models
from core.modelshelf import TRASH
from core.options import Option
from core.prompts import KEYS, ask_row
from core.terminal import PlainTerminal
from mainscripts.verb import find_terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
UP, TAB, ESC = "\x1b[A", "\t", "\x1b"


def type_keys(me: Person, question: str, keys: str) -> None:
    me.child.expect_exact(question)
    time.sleep(0.2)  # the prompt is being drawn
    me.child.send(keys)


def test_help_wrong_answers_recall_completion_and_back(faces: Path, tmp_path: Path, person: list[Person]) -> None:
    me = Person(command(faces, tmp_path, small=False))
    person.append(me)
    me.child.expect_exact(KEYS)
    me.answers("Enter a name of a new model", "mine")
    me.answers("[0] Autobackup every N hour ( 0..24 ?:help ) :", "?")
    me.child.expect_exact("Copies the model to its autobackups folder")
    me.answers("[0] Autobackup every N hour ( 0..24 ?:help ) :", "25")
    me.child.expect_exact("Got '25', allowed is a whole number from 0 to 24.")
    me.answers("[0] Autobackup every N hour ( 0..24 ?:help ) :", "3")
    me.child.expect_exact("3\r\n")
    type_keys(me, "[n] Write preview history", "<\r")
    type_keys(me, "[3] Autobackup every N hour", "\r")
    type_keys(me, "[n] Write preview history", UP + UP + "\r")  # the last answers were < and 3 ... 3 is no yes
    me.child.expect_exact("Got '3', allowed is y or n")
    for question in ("Write preview history", "Target iteration", "Flip SRC", "Flip DST", "Batch_size", "Resolution"):
        type_keys(me, question, "\r")
    type_keys(me, "Face type ( h/mf/f/wf/head", "he" + TAB)
    me.child.expect_exact("ad")
    me.child.send("\r")
    me.child.expect_exact("head\r\n")
    type_keys(me, "AE architecture", ESC)
    me.child.expect_exact("Left without changing anything.")
    assert me.code() == 130 and not list(tmp_path.glob("mine*"))


@pytest.mark.slow
def test_back_to_the_choice_of_the_model(faces: Path, copy: Path, person: list[Person]) -> None:
    before = digest(copy)
    me = Person(command(faces, copy, "--cpu-only", "--override", small=False))
    person.append(me)
    me.answers("[0] : new - latest", "")
    type_keys(me, "Autobackup every N hour", "<\r")
    me.answers("[0] : new - latest", "other")
    type_keys(me, "Autobackup every N hour", "<\r")
    me.child.expect_exact("[0] : new - latest")
    time.sleep(0.3)
    me.child.sendintr()
    assert me.code() == 130 and digest(copy) == before


def test_the_seconds_count_down_and_other_keys_are_kept(faces: Path, copy: Path, person: list[Person]) -> None:
    me = Person(command(faces, copy, "--silent-start", "--cpu-only", "--override-seconds", "20", small=False))
    person.append(me)
    me.child.expect_exact("Press enter in 20 seconds to override model settings.")
    me.child.expect(r"m1\d\x1b")  # the screen gets only what changed
    me.child.send("12")
    time.sleep(0.3)
    me.child.send("\r")
    me.child.expect_exact("Press enter in 20 seconds to override model settings.")
    me.child.expect_exact("Autobackup every N hour")
    time.sleep(0.3)
    me.child.send("\r")
    me.child.expect_exact("12\r\n")
    me.child.sendintr()
    assert me.code() == 130


@pytest.mark.parametrize(
    "flag",
    [
        pytest.param(["--no-override"], marks=pytest.mark.slow),
        pytest.param(["--override-seconds", "0"], marks=pytest.mark.slow),
        ["--override-seconds", "1"],
    ],
)
def test_nobody_presses_enter(faces: Path, copy: Path, person: list[Person], flag: list[str]) -> None:
    words = [*flag, "--silent-start", "--cpu-only", "--target-iter", "4", "--exit-at-target"]
    me = Person(command(faces, copy, *words, small=False))
    person.append(me)
    me.child.expect_exact("Reached target iteration.")
    asked = "to override model settings" in me.child.before
    assert asked == (flag[-1] == "1") and "Autobackup every N hour (" not in me.child.before
    assert me.code() == 0


def test_rename_and_delete_in_the_list(faces: Path, copy: Path, person: list[Person]) -> None:
    me = Person(command(faces, copy, small=False))
    person.append(me)
    me.answers("[0] : new - latest", "r")
    me.answers("Enter the name of the model you want to rename :", "0")
    me.answers("Enter new name of the model :", "her_face")
    me.child.expect_exact("new is called her face now.")
    me.answers("[0] : her face - latest", "d")
    me.answers("Enter the name of the model you want to delete :", "her face")
    me.child.expect(r"her face_SAEHD: iteration \d+, [\d.]+ MB, 0 backups\.")
    me.answers("[n] Move her face to the trash folder? ( y/n ?:help ) :", "")
    me.answers("[0] : her face - latest", "d")
    me.answers("Enter the name of the model you want to delete :", "0")
    me.answers("Move her face to the trash folder?", "yes")
    me.child.expect_exact("To have it back, move its files from there")
    me.child.expect_exact("[new] No saved models found. Enter a name of a new model :")
    time.sleep(0.2)
    me.child.sendintr()
    assert me.code() == 130 and saved_models(copy, "SAEHD") == []
    (trash,) = (copy / TRASH).iterdir()
    assert re.fullmatch(r"her face_SAEHD_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", trash.name)
    assert ModelDir(trash, "her face", "SAEHD").read_data().iter > 0
    assert soon(lambda: not list(copy.glob("*_lock")))


def test_a_dumb_terminal_gets_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    import pty

    hand, end = pty.openpty()
    with os.fdopen(end) as stdin, os.fdopen(os.dup(end), "w") as stdout:
        monkeypatch.setenv("TERM", "dumb")
        terminal = find_terminal(stdin, stdout, ask=False)
        assert isinstance(terminal, PlainTerminal)
        assert not terminal.enter_within(0.1, "{:.0f} seconds".format)
        os.write(hand, b"\n?\n12\n")
        assert terminal.enter_within(5, "{:.0f} seconds".format)
        row = Option("a", "int", "How many", "Some help.", default=1, low=0, high=24)
        assert ask_row(terminal, row, 1) == 12
        assert "\x1b" not in os.read(hand, 4096).decode()
    os.close(hand)
