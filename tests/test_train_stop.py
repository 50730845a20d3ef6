"""Every way a training ends: what is saved, what is said, the exit code, and that nothing stays behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from screen import Screen
from tests_support import ROOT, soon
from training import command, digest

from core.modeldir import ModelDir

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX", allow_module_level=True)
from person import Person

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")

Start = Callable[..., Person]


def rarely(number: signal.Signals) -> Any:
    """Another signal is handled alike: among the slow tests."""
    return pytest.param(number, marks=pytest.mark.slow)


@pytest.fixture
def start(faces: Path, copy: Path, tmp_path: Path, person: list[Person]) -> Start:
    """Starts a training of `copy`, of 3 iterations, with something wrong in it (see stop_stage.py)."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def begin(what: str = "nothing", *more: str, until: str = r"\[#000006\]", display: str = "") -> Person:
        words = command(faces, copy, "--silent-start", "--set", "target_iter=0", *more, small=False)
        words[1:2] = [str(ROOT / "tests" / "stop_stage.py"), what]
        me = Person(words, scratch, display)
        person.append(me)
        me.child.expect(until)
        return me

    return begin


def saved(folder: Path) -> int:
    """The iteration of a model whose files are whole."""
    directory = ModelDir(folder, "new", "SAEHD")
    assert directory.recover() == []
    state = directory.read_state()
    assert state is not None and state.iteration == directory.read_data().iter
    return state.iteration


@pytest.mark.parametrize("number", [signal.SIGTERM, *(rarely(n) for n in (signal.SIGINT, signal.SIGHUP))])
def test_a_signal_saves_and_leaves(start: Start, copy: Path, tmp_path: Path, number: signal.Signals) -> None:
    me = start()
    me.child.kill(number)
    if number != signal.SIGINT:
        me.child.expect_exact(f"{number.name}: saving and leaving within 10 s. The save of iteration 3 stands")
    assert me.code() == 0 and saved(copy) >= 6
    assert me.left_behind() == [] and list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.slow
def test_the_system_may_ask_every_process_of_it(start: Start, copy: Path) -> None:
    me = start("nothing", "--workers", "2")
    for pid in me.family():
        os.kill(pid, signal.SIGTERM)
    me.child.expect_exact("Done.")
    assert me.code() == 0 and saved(copy) >= 6 and me.left_behind() == []


def test_a_closed_terminal_saves_and_leaves(start: Start, copy: Path) -> None:
    me = start()
    me.child.ptyproc.fileobj.close()
    assert me.left_behind() == [] and saved(copy) >= 6


@pytest.mark.slow
def test_a_hanging_iteration_leaves_in_time_and_names_the_save(start: Start, copy: Path) -> None:
    before = digest(copy)
    me = start("hang", "--stop-within", "2", until="Starting")
    time.sleep(1)
    me.child.kill(signal.SIGTERM)
    me.child.expect_exact("Left after 2 s, before everything was saved. The save of iteration 3 stands in")
    assert me.code() == 1 and me.left_behind() == []
    changed = {name for name, content in digest(copy).items() if before.get(name) != content}
    assert not {name for name in changed if name.endswith((".npy", ".dat"))} and saved(copy) == 3


def test_the_second_control_c_aborts_even_what_hangs(start: Start, copy: Path) -> None:
    me = start("hang", until="Starting")
    time.sleep(1)
    me.child.sendintr()
    time.sleep(0.5)
    me.child.sendintr()
    me.child.expect_exact("The save of iteration 3 stands in")
    assert me.code() == 130 and me.left_behind() == [] and saved(copy) == 3


@pytest.mark.slow
def test_the_second_control_c_does_not_wait_for_the_disk(start: Start, copy: Path) -> None:
    me = start("slow")
    me.child.sendintr()
    assert soon(lambda: ModelDir(copy, "new", "SAEHD").read_data().iter == 3)
    time.sleep(1)
    me.child.sendintr()
    me.child.expect_exact("The save of iteration 3 stands in")
    assert me.code() == 130 and me.left_behind() == [] and saved(copy) == 3


def test_a_save_that_never_ends_is_left_in_time(start: Start, copy: Path) -> None:
    me = start("slow", "--stop-within", "3")
    me.child.kill(signal.SIGTERM)
    me.child.expect_exact("Left after 3 s")
    assert me.code() == 1 and me.left_behind() == [] and saved(copy) == 3


@pytest.mark.slow
def test_enter_is_heard_while_samples_do_not_come(start: Start, copy: Path) -> None:
    me = start("nothing", "--workers", "2")
    workers = [pid for pid in me.family() if pid != me.child.pid]
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2)  # what was made ahead is used up
    me.child.send("\r")
    me.child.expect_exact("Done.")
    assert me.code() == 0 and saved(copy) >= 6 and me.left_behind() == []


@pytest.mark.slow
def test_a_failing_iteration_leaves_nothing_behind(start: Start, copy: Path) -> None:
    me = start("error", until="the card fell off the bus")
    assert me.code() == 1 and saved(copy) == 3 and me.left_behind() == []


@pytest.mark.slow
def test_what_nohup_has_ignored_stays_ignored(start: Start, copy: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a child inherits that, as from nohup
    try:
        me = start()
    finally:
        signal.signal(signal.SIGHUP, before)
    me.child.kill(signal.SIGHUP)
    me.child.expect(r"\[#0000[1-9]\d\]")
    me.child.send("\r")
    assert me.code() == 0 and saved(copy) >= 10


@pytest.mark.parametrize("number", [signal.SIGTERM, rarely(signal.SIGHUP)])
def test_before_there_is_anything_to_save_it_just_leaves(start: Start, copy: Path, number: int) -> None:
    before = digest(copy)
    me = start(until="Loading samples")
    me.child.kill(number)
    me.child.expect_exact("Left without changing anything.")
    assert me.code() == 130 and digest(copy) == before and me.left_behind() == []


def test_a_signal_after_the_end_changes_nothing(start: Start, copy: Path) -> None:
    me = start()
    me.child.send("\r")
    me.child.expect_exact("Done.")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
        me.child.kill(number)
        time.sleep(0.1)
    assert me.code() == 0 and saved(copy) >= 6


@pytest.mark.parametrize("number", [signal.SIGKILL, rarely(signal.SIGTERM)])
def test_with_a_window(start: Start, copy: Path, screen: Screen, tmp_path: Path, number: int) -> None:
    me = start(display=screen.environ["DISPLAY"])
    assert len(me.family()) >= 3  # the trainer, a worker, the window
    me.child.kill(number)
    assert me.code() == (0 if number == signal.SIGTERM else -number)
    assert me.left_behind() == [] and list((tmp_path / "scratch").iterdir()) == []
    assert saved(copy) >= (6 if number == signal.SIGTERM else 3)


@pytest.mark.slow
def test_killed_while_the_window_opens(start: Start, screen: Screen, tmp_path: Path) -> None:
    me = start(display=screen.environ["DISPLAY"], until="Initializing models")
    assert soon(lambda: len(me.family()) > 1)
    me.child.kill(signal.SIGKILL)
    me.code()
    assert me.left_behind() == [] and list((tmp_path / "scratch").iterdir()) == []
