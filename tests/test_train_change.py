"""Other options while a training runs: by a file of commands, and asked for in the terminal. It goes on as if it had
been stopped and started with them."""

from __future__ import annotations

import queue
import re
import subprocess
import sys
from pathlib import Path

import pytest
from person import Person
from tests_support import ROOT, soon
from training import ENVIRONMENT, command, run

from core.events import Command, Event, Warned
from core.modeldir import ModelDir
from mainscripts.train_commands import CommandFile


def iteration(copy: Path) -> int:
    return ModelDir(copy, "new", "SAEHD").read_data().iter


def test_a_file_of_commands(tmp_path: Path) -> None:
    path, commands, told = tmp_path / "commands.txt", queue.Queue[Command](), list[Event]()
    path.write_text("save\n")  # of an earlier run
    file = CommandFile(path, commands, told.append)
    with path.open("a") as out:
        out.write("backup\n\n  set batch_size=8 ct_mode=rct\nsta")
    file.look()
    with path.open("a") as out:
        out.write("rt\nset\nset batch_size\nstop\n")
    file.look()
    got = [commands.get_nowait() for _ in range(commands.qsize())]
    assert got == [
        Command("backup"), Command("options", {"given": {"batch_size": "8", "ct_mode": "rct"}}), Command("stop"),
    ]  # fmt: skip
    assert [event.text.partition(";")[0] for event in told if isinstance(event, Warned)] == [
        "--commands: got 'start'", "--commands: got 'set'", "--commands: got 'set batch_size'",
    ]  # fmt: skip
    path.write_text("save\n")
    file.look()
    assert commands.get_nowait() == Command("save")
    path.unlink()
    file.look()
    later = CommandFile(tmp_path / "later.txt", commands, told.append)
    later.look()
    (tmp_path / "later.txt").write_text("preview\n")
    later.look()
    assert commands.get_nowait() == Command("preview")


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_a_training_goes_on_as_if_started_with_the_other_options(
    faces: Path, copy: Path, tmp_path: Path, person: list[Person]
) -> None:
    """At the target both pause; one changes options and target there, the other is stopped and started with them."""
    at = iteration(copy)
    orders, apart = tmp_path / "orders.txt", tmp_path / "apart"
    apart.mkdir()
    for path in copy.iterdir():
        if path.is_file():
            (apart / path.name).write_bytes(path.read_bytes())
    first = ["--set", f"target_iter={at + 3}", "--no-preview"]
    other = ["batch_size=3", "random_warp=n", "gan_power=0.1", "gan_patch_size=8", f"target_iter={at + 6}"]
    me = Person(command(faces, copy, *first, "--silent-start", "--no-override", "--commands", str(orders), small=False))
    person.append(me)
    me.child.expect_exact("Reached target iteration.")
    orders.write_text(f"set {' '.join(other)}\nset resolution=128\nset batch_size=0\n")
    me.child.expect_exact("Other options: ")
    me.child.expect_exact("batch_size 2 -> 3")
    me.child.expect_exact("resolution: this model was made with 64")
    me.child.expect_exact("batch_size: got '0'")
    me.child.expect_exact("Reached target iteration.")
    me.child.send("\r")
    assert me.code() == 0
    done = run(command(faces, apart, *first, "--exit-at-target", small=False))
    assert done.returncode == 0, done.stderr
    sets = [word for pair in other for word in ("--set", pair)]
    done = run(command(faces, apart, *sets, "--no-preview", "--exit-at-target", small=False))
    assert done.returncode == 0, done.stderr
    one, two = ModelDir(copy, "new", "SAEHD"), ModelDir(apart, "new", "SAEHD")
    assert one.read_data().iter == at + 6 and one.read_data().options == two.read_data().options
    assert one.read_data().options["batch_size"] == 3
    stems = sorted(path.name for path in copy.glob("*.npy"))
    assert stems == sorted(path.name for path in apart.glob("*.npy")) and "new_SAEHD_GAN.npy" in stems
    for name in stems:
        assert (copy / name).read_bytes() == (apart / name).read_bytes(), name


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_options_are_asked_for_in_the_terminal(faces: Path, copy: Path, person: list[Person]) -> None:
    me = Person(command(faces, copy, "--silent-start", "--set", "target_iter=0", "--no-preview", small=False))
    person.append(me)
    me.child.expect(r"\[#000005\]")
    me.child.send("o")
    me.answers("[0] Autobackup every N hour", "<")
    me.child.expect_exact("The options stay as they are.")
    me.child.expect(r"\[#0000\d\d\]")
    me.child.send("o")
    me.answers("[0] Autobackup every N hour", "25")
    me.child.expect_exact("Got '25', allowed is")
    me.child.send("\x1b[A")  # up: what was typed before
    me.child.expect_exact("25")
    me.child.send("\x03")
    me.child.expect_exact("The options stay as they are.")
    me.child.expect(r"\[#0000\d\d\]")
    me.child.send("o")
    for question in ("Autobackup", "Write", "Target", "SRC"):
        me.answers(question, "")
    me.answers("[y] Flip DST faces randomly", "n")
    me.answers("[2] Batch_size", "x")
    me.child.expect_exact("Got 'x', allowed is")
    me.answers("[2] Batch_size", "4")
    for question in ("Eyes", "Uniform", "Blur", "Place", "AdaBelief", "dropout", "warp", "hue"):
        me.answers(question, "")
    for question in ("GAN", "True face", "Face style", "Background", "Color", "clipping", "pretraining"):
        me.answers(question, "")
    me.answers("[n] Further options?", "y")
    me.answers("[5e-05] Learning rate (", "<")
    me.answers("[y] Further options?", "")
    for question in ("Learning rate (", "Weight decay", "Loss function"):
        me.answers(question, "")
    me.answers("[0] Number of samples to preview", "")
    me.answers("[] Session name", "later")
    for question in ("reset iterations", "Names of", "Maximum N", "Backup every", "Maximum size", "Collapse"):
        me.answers(question, "")
    for question in ("Batches per", "Keep the graphs", "checkpointing", "Make samples", "Max cpu", "Pin samples"):
        me.answers(question, "")
    for question in ("Use face cache", "Mixed precision", "Compile", "old preview"):
        me.answers(question, "")
    me.child.expect_exact("Other options: random_dst_flip y -> n, batch_size 2 -> 4, session_name nothing -> later.")
    me.child.expect_exact('Starting. Press "Enter"')
    me.child.expect(r"\[#0000\d\d\]")
    me.child.send("s")
    me.child.expect(r"\]\[\d\.\d+\](\[data \d+%\])? *\r\n")
    me.child.send("\r")
    assert me.code() == 0
    options = ModelDir(copy, "new", "SAEHD").read_data().options
    assert options["batch_size"] == 4 and options["random_dst_flip"] is False
    assert ModelDir(copy, "new", "SAEHD").read_kept() == {"session_name": "later"}


@pytest.mark.slow
def test_nobody_can_be_asked(faces: Path, copy: Path, tmp_path: Path) -> None:
    """Options through a file go without a terminal; a mistake there changes nothing. Faces kept on the disk are thrown
    away once a run, not with every change."""
    orders, log = tmp_path / "orders.txt", tmp_path / "log.txt"
    words = command(faces, copy, "--set", "target_iter=0", "--no-preview", "--commands", str(orders), small=False)
    words += ["--set", "use_cache=y", "--set", "force_recache=y"]
    with log.open("w") as out:
        trainer = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=ENVIRONMENT)
    try:
        assert soon(lambda: "Starting." in log.read_text()), log.read_text()
        orders.write_text("set batchsize=3\nset pretrain=y\nset batch_size=1\n")
        trained = re.compile(r"batch_size 2 -> 1.*First iteration\.\.\. [\d.]+ s", re.DOTALL)
        assert soon(lambda: trained.search(log.read_text()) is not None), log.read_text()
        with orders.open("a") as out:
            out.write("stop\n")
        assert trainer.wait(60) == 0, log.read_text()
    finally:
        trainer.kill()
        trainer.wait()
    text = log.read_text()
    assert "Did you mean batch_size" in text and "--pretraining-data-dir is not given" in text
    assert text.count("Starting sample workers") == 2
    first, second = text.split("Faces kept on disk: ")[1:]
    assert first.startswith("none") and not second.startswith("none")
    assert ModelDir(copy, "new", "SAEHD").read_data().options["batch_size"] == 1
