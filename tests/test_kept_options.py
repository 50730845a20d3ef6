"""Options that DeepFaceLab's record has no key for: kept with the model in a file of ours, asked where the user wants
all questions. What is rounded is told."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from small_models import SIZES, spec_of
from training import command, here

from core.modeldir import ModelDir
from core.options import defaults, rounded, settle
from core.prompts import FURTHER, Leave, ask_rows, further, prompt_text, usual
from core.runstate import RunState
from main import main
from models import MODELS
from models.saehd import SAEHD

STATE = "new_SAEHD_facesmith_state.json"
GO_ON = ["--no-preview", "--exit-at-target", "--workers", "0"]


def go_on(faces: Path, model: Path, *more: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = here(command(faces, model, *GO_ON, *more, small=False), stdin)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def kept(model: Path) -> dict[str, Any]:
    return dict(json.loads((model / STATE).read_text()).get("options", {}))


def told(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("The same run again: ")]
    return line


def test_they_stay_with_the_model(faces: Path, copy: Path, tmp_path: Path) -> None:
    file, saved = tmp_path / "options.json", tmp_path / "saved.json"
    file.write_text('{"session_name": "two", "max_backups": 5}')
    assert kept(copy) == {}
    go_on(faces, copy, "--target-iter", "4", "--set", "session_name=one", "--set", "snapshot_interval=50")
    assert kept(copy) == {"session_name": "one", "snapshot_interval": 50}
    assert "session_name" not in ModelDir(copy, "new", "SAEHD").read_data().options
    done = go_on(faces, copy, "--target-iter", "5", "--save-options", str(saved), "--set", "force_recache=y")
    assert "session_name=one" in told(done) and "snapshot_interval=50" in told(done)
    assert json.loads(saved.read_text())["session_name"] == "one"
    assert kept(copy) == {"session_name": "one", "snapshot_interval": 50}, "what happens once is not kept"
    go_on(faces, copy, "--target-iter", "6", "--options", str(file), "--set", "max_backups=6")
    assert kept(copy) == {"session_name": "two", "snapshot_interval": 50, "max_backups": 6}
    go_on(faces, copy, "--target-iter", "7", "--set", "session_name=-", "--set", "snapshot_interval=0")
    assert kept(copy) == {"max_backups": 6}


def test_they_hold_where_another_program_trained(faces: Path, copy: Path) -> None:
    options = {"session_name": "one", "max_backups": 99999, "augment_on": "moon", "of_a_later_version": 1}
    (copy / STATE).write_bytes(RunState(2, 7, 2, options).to_json())
    done = go_on(faces, copy, "--target-iter", "4")
    notes = [line for line in done.stdout.splitlines() if line.startswith("Kept with the model: ")]
    assert len(notes) == 2 and "max_backups: got 99999" in notes[0] and notes[0].endswith("Using 10000.")
    assert "augment_on: got 'moon'" in notes[1] and notes[1].endswith("Using cpu.")
    assert "is of iteration 2, the model of 3" in done.stdout
    assert kept(copy) == {"session_name": "one", "max_backups": 10000}
    data = copy / "new_SAEHD_data.dat"
    foreign = ModelDir(copy, "new", "SAEHD").read_data()
    foreign.iter += 10
    data.write_bytes(b"".join(map(bytes, foreign.chunks())))
    done = go_on(faces, copy, "--target-iter", "15")
    assert "written by another program" in done.stdout and "max_backups=10000" in told(done)
    assert kept(copy) == {"session_name": "one", "max_backups": 10000}


def test_a_backup_brings_its_own(faces: Path, copy: Path) -> None:
    go_on(faces, copy, "--target-iter", "4", "--set", "session_name=one", "--set", "max_backups=7")
    assert main(["model", "backup", "--model-dir", str(copy)]) == 0
    (backup,) = (copy / "new_SAEHD_autobackups").iterdir()
    go_on(faces, copy, "--target-iter", "5", "--set", "session_name=two")
    assert kept(copy) == {"session_name": "two", "max_backups": 7}
    assert main(["model", "restore", "--model-dir", str(copy), "--from", backup.name]) == 0
    assert kept(copy) == {"session_name": "one", "max_backups": 7}


@pytest.mark.parametrize("name", MODELS)
def test_a_library_keeps_them(tmp_path: Path, name: str) -> None:
    spec = spec_of(name)
    stored = SIZES[name] | ({"resolution": 64} if name in ("SAEHD", "AMP", "SAEHDBW") else {})
    task = spec.build(spec.resolve({"max_backups": 3, "force_recache": True}, stored), seed=5)
    task.data.iter = 2
    task.save(tmp_path, "a")
    directory = ModelDir(tmp_path, "a", name)
    assert directory.read_kept() == {"max_backups": 3}
    assert directory.read_state() == RunState(2, 5, 2, {"max_backups": 3})
    assert spec.resolve({}, stored, kept=directory.read_kept())["max_backups"] == 3
    other = spec.build(spec.resolve({"cpu_cap": 2}, stored))
    other.data.iter = 3
    other.save(tmp_path, "a")
    assert directory.read_kept() == {"max_backups": 3, "cpu_cap": 2}
    plain = spec.build(spec.resolve({}, stored))
    plain.data.iter = 3
    plain.save(tmp_path, "b")
    assert ModelDir(tmp_path, "b", name).read_state() is None or name == "XSeg"  # of which a folder holds one


def labels(done: subprocess.CompletedProcess[str], *rows: Any) -> list[str]:
    """Those of the rows whose questions were asked, in that order."""
    places = {row.key: done.stdout.find(f"] {prompt_text(row, '').partition('] ')[2]}") for row in rows}
    return sorted((key for key, place in places.items() if place >= 0), key=lambda key: places[key])


def test_all_questions(faces: Path, copy: Path) -> None:
    always = [row.key for row in SAEHD.rows if row.ask == "always" and not row.condition]
    # Nothing but Enter at DeepFaceLab's, then the further ones; the last is answered.
    done = go_on(faces, copy, "--target-iter", "4", "--ask", "--override", "--silent-start", stdin="\n" * 60)
    first = labels(done, *SAEHD.rows)
    assert set(always) - {"target_iter"} <= set(first) and "max_backups" not in first and "cpu_cap" not in first
    answers = ["\n"] * len(first) + ["2e-5\n", *["\n"] * 3, "2\n", "night\n", "n\n", "time\n", "x\n"]
    words = ["--target-iter", "5", "--ask", "--override", "--silent-start", "--all-questions"]
    done = here(command(faces, copy, *GO_ON, *words, small=False), "".join(answers))
    assert done.returncode == 2 and "Question '[24] Maximum N backups" in done.stderr, done.stdout + done.stderr
    answers[-1] = "\n" * 10 + "y\n" + "\n" * 11
    done = go_on(faces, copy, *words, stdin="".join(answers))
    every = labels(done, *SAEHD.rows)
    assert every[: len(first)] == first and every[len(first) :] == [
        "lr", "lr_fade", "weight_decay", "loss_function",
        "preview_samples", "session_name", "reset_iterations", "backup_naming", "max_backups", "snapshot_interval",
        "max_backups_gb", "collapse_guard", "accumulate", "keep_graph", "checkpointing", "augment_on", "cpu_cap",
        "pin_samples", "use_cache", "folder_suffix", "image_type", "force_recache", "max_cache_gb", "mp_mode",
        "compile", "force_full_preview",
    ]  # fmt: skip
    assert kept(copy) == {"lr": 2e-5, "preview_samples": 2, "session_name": "night", "use_cache": True}
    shutil.rmtree(copy / ".face_cache_default")


class Typing:
    """Somebody who types answers and leaves when they are used up."""

    strict = False

    def __init__(self, *lines: str) -> None:
        self.lines, self.asked = list(lines), list[str]()

    def say(self, text: str, kind: str = "") -> None: ...

    def ask(self, prompt: str, choices: Any = ()) -> str:
        self.asked.append(prompt)
        if not self.lines:
            raise Leave
        return self.lines.pop(0)

    def enter_within(self, seconds: float, line: Any) -> bool:
        raise AssertionError


def test_the_way_back_leads_across_both_parts() -> None:
    rows = [row for row in SAEHD.rows if row.key in ("batch_size", "session_name", "backup_naming")]
    known = {"batch_size": 4, "session_name": "", "backup_naming": "time", FURTHER.key: False}
    questions = (*usual(rows), *further(rows, first_run=False, offered=True))
    person = Typing("6", "y", "a", "<", "<", "<", "8", "y", "b", "numbers")
    answers = ask_rows(person, questions, known, {}, first_run=False, back=True)
    assert [prompt.partition("] ")[0] for prompt in person.asked] == [
        "[4", "[n", "[", "[time", "[a", "[y", "[6", "[y", "[a", "[time",
    ]  # fmt: skip
    assert answers == {"batch_size": 8, "session_name": "b", "backup_naming": "numbers", FURTHER.key: True}
    person = Typing("6", "y", "a", "<", "<", "n")
    answers = ask_rows(person, questions, known, {}, first_run=False, back=True)
    assert answers == {**known, "batch_size": 6}, "what was typed before n does not count"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("first", [True, False])
def test_enter_at_every_question_changes_nothing(name: str, first: bool) -> None:
    rows = MODELS[name].rows
    person = Typing(*[""] * len(rows))
    answers = ask_rows(person, (*usual(rows), *further(rows, first)), defaults(rows, {}, {}), {}, first)
    assert settle(rows, answers) == MODELS[name].resolve({})
    assert any("Maximum N backups" in prompt for prompt in person.asked)


def test_a_new_model_is_not_asked_what_it_has_nothing_of() -> None:
    keys = {first: {row.key for row in further(SAEHD.rows, first)} for first in (True, False)}
    assert keys[False] - keys[True] == {"reset_iterations", "force_recache"}
    assert further(usual(SAEHD.rows), False, offered=True) == []


def test_what_is_rounded_is_told(faces: Path, tmp_path: Path) -> None:
    given = {"resolution": 70, "e_dims": 17, "ae_dims": 64, "true_face_power": 0.01, "archi": "liae"}
    notes = [
        "resolution: 70 is rounded to 64.", "e_dims: 17 is rounded to 18.",
        "true_face_power: 0.01 is taken as 0.0: it counts only if the architecture is df.",
    ]  # fmt: skip
    assert SAEHD.resolve(given).notes == notes
    assert SAEHD.resolve({"resolution": 96, "archi": "df"}).notes == [], "of defaults nothing is told"
    assert rounded(SAEHD.rows, {**SAEHD.resolve({}), "resolution": 70}, ["e_dims"]) == []
    # At the questions rounding waits for the architecture: 80 is no multiple of 32.
    words = command(faces, tmp_path, "--no-preview", "--ask", "--dry-run", "--set", "e_dims=17", small=False)
    answers = ["", *[""] * 6, "80", "f", "liae-ud", *[""] * 60]
    done = here(words, "\n".join(answers))
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " is rounded to " in line]
    assert lines == ["resolution: 80 is rounded to 64.", "e_dims: 17 is rounded to 18."], done.stdout
    answers[9] = "liae"
    done = here(words, "\n".join(answers))
    assert "e_dims: 17 is rounded to 18." in done.stdout and "resolution: 80 is" not in done.stdout
    done = here(command(faces, tmp_path, "--dry-run", "--set", "resolution=70", "--set", "archi=df-ud"))
    assert done.stdout.count("resolution: 70 is rounded to 64.") == 1


