"""Training with somebody there: questions in a pseudo-terminal, keys, signals, kills, the window."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from person import Person
from screen import Screen
from tests_support import ROOT, soon
from training import ENVIRONMENT, command, digest, run

from core.modeldir import ModelDir

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")


def test_from_the_first_question_to_enter(faces: Path, tmp_path: Path, person: list[Person]) -> None:
    me = Person(command(faces, tmp_path, small=False))
    person.append(me)
    me.answers("Enter a name of a new model", "my_face")
    me.answers("Autobackup every N hour ( 0..24 ?:help )", "?")
    for answer in ("x", "0"):
        me.answers("Autobackup every N hour ( 0..24 ?:help )", answer)
    for question in ("Write preview history", "Target iteration", "Flip SRC", "Flip DST"):
        me.answers(question, "")
    pairs = [
        ("Batch_size", "2"),
        ("Resolution ( 64-640 ?:help )", "64"),
        ("Face type", "wf"),
        ("AE architecture", "df"),
    ]
    pairs += [(f"{kind} dimensions ( ", number) for kind, number in (("AutoEncoder", "32"), ("Encoder", "16"))]
    pairs += [
        ("Decoder dimensions", "16"),
        ("Decoder mask dimensions", "16"),
        ("Masked training ( y/n ?:help )", "yes"),
    ]
    pairs += [("Eyes and mouth priority", ""), ("Uniform yaw", ""), ("Blur out mask", ""), ("Place models", "")]
    pairs += [("AdaBelief", ""), ("learning rate dropout", "n"), ("random warp", ""), ("Random hue", "0.31")]
    pairs += [("Random hue/saturation/light intensity ( 0.0 .. 0.3 ?:help )", "0.1"), ("GAN power", "")]
    pairs += [("'True face'", ""), ("Face style", ""), ("Background style", ""), ("Color transfer", "")]
    pairs += [("gradient clipping", ""), ("Enable pretraining mode", "n")]
    for question, answer in pairs:
        me.answers(question, answer)
    me.child.expect_exact('Starting. Press "Enter" to stop training and save model.')
    me.child.expect(r"\[#000003\]")
    assert not me.hands_out_lines()
    for key in ("x", "\x1b[A", "some text"):  # none is a key of the training
        me.child.send(key)
        time.sleep(0.2)
    me.child.send("?")
    me.child.expect_exact("Enter    save and end")
    me.child.send("\r")
    assert me.code() == 0
    data = ModelDir(tmp_path, "my face", "SAEHD").read_data()
    assert data.iter >= 3 and data.options["archi"] == "df" and data.options["face_type"] == "wf"


def test_two_seconds_to_override(faces: Path, copy: Path, person: list[Person]) -> None:
    me = Person(command(faces, copy, small=False))
    person.append(me)
    me.answers("[0] : new - latest", "")
    me.child.expect_exact("Press enter in 2 seconds to override model settings.")
    me.child.send("\r")
    for question, answer in [
        ("Autobackup", ""),
        ("Write", ""),
        ("Target", "5"),
        ("SRC", ""),
        ("DST", ""),
        ("Batch", "3"),
    ]:
        me.answers(question, answer)
    for question in ("Eyes", "Uniform", "Blur", "Place", "AdaBelief", "dropout", "warp", "hue"):
        me.answers(question, "")
    for question in ("GAN", "True face", "Face style", "Background", "Color", "clipping", "pretraining"):
        me.answers(question, "")
    me.child.expect_exact("Reached target iteration.")
    me.child.send("\r")
    assert me.code() == 0 and ModelDir(copy, "new", "SAEHD").read_data().options["batch_size"] == 3


def test_control_c_at_a_question_changes_nothing(faces: Path, copy: Path, person: list[Person]) -> None:
    before = digest(copy)
    me = Person(command(faces, copy, small=False))
    person.append(me)
    me.child.expect_exact("Choose one of saved models")
    me.child.expect_exact(" : ")
    time.sleep(0.3)
    me.child.sendintr()
    assert me.code() == 130 and digest(copy) == before


@pytest.mark.slow
def test_a_missing_part_is_asked_about(faces: Path, copy: Path, person: list[Person]) -> None:
    (copy / "new_SAEHD_inter.npy").unlink()
    before = digest(copy)
    me = Person(command(faces, copy, "--silent-start", small=False))
    person.append(me)
    me.answers("[n] inter is missing. Start it anew? ( y/n ?:help )", "n")
    assert me.code() == 1 and digest(copy) == before
    me = Person(command(faces, copy, "--silent-start", "--target-iter", "4", "--exit-at-target", small=False))
    person.append(me)
    me.answers("[n] inter is missing. Start it anew?", "y")
    me.child.send("\r\r")  # one Enter too many does not stop what has not begun
    me.child.expect_exact("inter starts anew")
    me.child.expect_exact("Reached target iteration.")
    assert me.code() == 0 and ModelDir(copy, "new", "SAEHD").read_data().iter == 4


def children(pid: int) -> list[int]:
    """Child processes, whichever thread started them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(word) for task in tasks for word in (task / "children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_killed_worker_is_replaced_and_a_killed_trainer_leaves_nothing(
    faces: Path, copy: Path, person: list[Person]
) -> None:
    me = Person(command(faces, copy, "--silent-start", "--set", "target_iter=0", small=False))
    person.append(me)
    me.child.expect(r"\[#000005\]")
    workers = children(me.child.pid)
    os.kill(workers[0], signal.SIGKILL)
    me.child.expect("Warning: .*worker")
    me.child.expect(r"\[#0000[2-9]\d\]")
    workers = children(me.child.pid)
    assert workers
    me.child.kill(signal.SIGKILL)
    me.code()
    assert soon(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    done = run(command(faces, copy, "--no-preview", "--target-iter", "5", small=False))
    assert done.returncode == 0, done.stderr


def test_the_window_from_first_picture_to_enter(faces: Path, copy: Path, screen: Screen) -> None:
    words = command(faces, copy, "--set", "target_iter=0", small=False)
    log = copy / "log.txt"
    with log.open("w") as out:
        trainer = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            env={**ENVIRONMENT, "DISPLAY": screen.environ["DISPLAY"]},
        )  # fmt: skip
    try:
        for key, proof in [("s", "]["), ("b", "Backup made"), ("p", ""), ("space", ""), ("l", ""), ("Return", "Done.")]:
            screen.press(key)
            assert soon(lambda proof=proof: proof in log.read_text()), log.read_text()
        assert trainer.wait(30) == 0
    finally:
        trainer.kill()
        trainer.wait()
    (backup,) = ModelDir(copy, "new", "SAEHD").backups()
    assert ModelDir(backup.folder, "new", "SAEHD").read_data().iter >= 3 and (backup.iteration or 0) >= 3
    assert ModelDir(copy, "new", "SAEHD").read_data().iter > 3


def test_history_faces_are_chosen_in_the_window(faces: Path, copy: Path, screen: Screen) -> None:
    log = copy / "log.txt"
    sets = ["--set", "target_iter=0", "--set", "write_preview_history=y", "--set", "choose_preview_history=y"]
    with log.open("w") as out:
        trainer = subprocess.Popen(
            command(faces, copy, *sets, small=False), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            env={**ENVIRONMENT, "DISPLAY": screen.environ["DISPLAY"]},
        )  # fmt: skip
    try:
        assert soon(lambda: "Choose the faces" in log.read_text()), log.read_text()
        screen.press("p")
        screen.press("Return")
        history = copy / "new_SAEHD_history" / "SAEHD"
        assert soon(lambda: (history / "0000010.jpg").exists()), log.read_text()
        screen.press("Return")
        assert trainer.wait(30) == 0
    finally:
        trainer.kill()
        trainer.wait()
    assert ModelDir(copy, "new", "SAEHD").read_data().sample_for_preview is not None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="needs bash")
def test_ctrl_z_and_the_background(faces: Path, copy: Path, person: list[Person]) -> None:
    """Under a shell that suspends it, lets it run in the background, and gets the terminal back each time."""
    me = Person(["/bin/bash", "--norc", "--noprofile", "-i"])
    person.append(me)
    asks = "stty -a | grep -o '.icanon'"
    words = command(faces, copy, "--silent-start", "--no-preview", "--set", "target_iter=0", small=False)
    me.child.sendline(shlex.join(words))
    me.child.expect(r"\[avg ")
    for _ in range(2):
        me.child.send("\x1a")
        me.child.expect_exact("Stopped")
        me.child.sendline(asks)
        me.child.expect_exact(" icanon")
        me.child.sendline("bg")
        me.child.expect(r"\[avg .*\[avg ")
        me.child.sendline(asks)
        me.child.expect_exact(" icanon")
        me.child.sendline("fg")
        assert soon(lambda: not me.hands_out_lines())
        time.sleep(0.5)
        me.child.send("s")
        me.child.expect(r"\]\[\d\.\d+\](\[data \d+%\])? *\r\n")
    me.child.send("\r")
    me.child.expect_exact("Done.")
    me.child.sendline("exit")
    assert me.code() == 0
