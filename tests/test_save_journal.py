"""A save is all or nothing: broken at every step, killed at random moments, and with the power cut."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from broken_disk import BrokenDisk, StopHere
from save_stage import LINKS, SCENES, Stage, recovered, snapshot
from saved_model import model, save, the_iteration
from tests_support import ROOT

ALL = pytest.mark.parametrize(
    ("name", "links"),
    [pytest.param(name, True, id=name) for name in SCENES]
    + [
        pytest.param(name, False, id=f"{name}, no links", marks=[] if name == "GAN switched on" else pytest.mark.slow)
        for name in SCENES
    ],
)


@ALL
def test_broken_at_every_step_one_save_is_there(scenes: Path, quick: Path, name: str, links: bool) -> None:
    stage = Stage(scenes, quick, name, links)
    assert {"create", "write", "sync", "sync_folder", "replace"} <= set(stage.steps)
    before = snapshot(stage.template)
    for how in ("stop", "fail", "dead"):
        for at in range(1, len(stage.steps) + 1):
            folder, _, done = stage.broken(at, how)
            where = f"{how} at step {at}, {stage.steps[at - 1]}"
            if how == "fail" and not done:  # the disk works again at once: nothing may be left of the attempt
                assert snapshot(folder) == before, where
            assert (2 if done else stage.old) <= recovered(folder) <= 2, where
            shutil.rmtree(folder.parent)


@pytest.mark.parametrize("how", ["fail", "dead"])
def test_after_any_failure_the_next_save_succeeds(scenes: Path, quick: Path, how: str) -> None:
    stage = Stage(scenes, quick, "GAN switched on")
    for at in range(1, len(stage.steps) + 1):
        folder, _, _ = stage.broken(at, how)
        save(model(folder, BrokenDisk(folder)), 3)
        assert the_iteration(model(folder)) == 3


@LINKS
def test_every_step_of_a_recovery_may_be_the_last(scenes: Path, quick: Path, links: bool) -> None:
    """Stopped in the save, stopped in the recovery of the next start: the third start finds one save."""
    stage = Stage(scenes, quick, "GAN switched on", links)
    for at in range(2, len(stage.steps) + 1):
        broken, _, _ = stage.broken(at)
        for second in range(1, 40):
            folder = Path(shutil.copytree(broken, broken.with_name(f"again{second}")))
            try:
                model(folder, BrokenDisk(folder, second, links=links)).recover()
            except StopHere:
                assert recovered(folder) in (1, 2)
                continue
            break
        assert second < 39
        shutil.rmtree(broken.parent)


def cut_power_everywhere(stage: Stage, seeds: range) -> int:
    """A save breaks at every step: it is stopped, or fails and is stopped soon after, in its own undoing; then the
    power goes, or only the process. The next start is stopped as well, and the power goes. Returns the number tried."""
    for at in range(1, len(stage.steps) + 2):
        for seed in seeds:
            rng = random.Random(f"{at} {seed}")
            folder = stage.fresh()
            disk = BrokenDisk(folder, at, rng.choice(["stop", "fail"]), stage.links)
            disk.stop = at + rng.randint(1, 12)
            done = stage.attempt(folder, disk)
            if rng.random() < 0.5:
                disk.cut_power(rng)
                disk = BrokenDisk(folder, links=stage.links)
            disk.at, disk.stop = 0, len(disk.steps) + rng.randint(1, 20)
            with contextlib.suppress(StopHere):
                model(folder, disk).recover()
            disk.cut_power(rng)
            assert (2 if done else stage.old) <= recovered(folder) <= 2, f"step {at}, seed {seed}"
            shutil.rmtree(folder.parent)
    return len(seeds) * (len(stage.steps) + 1)


@ALL
def test_the_power_may_go_at_every_step(scenes: Path, quick: Path, name: str, links: bool) -> None:
    assert cut_power_everywhere(Stage(scenes, quick, name, links), range(1)) > 30


@pytest.mark.slow
@LINKS
@pytest.mark.parametrize("name", SCENES)
def test_the_power_goes_often(scenes: Path, quick: Path, name: str, links: bool) -> None:
    print(f"{cut_power_everywhere(Stage(scenes, quick, name, links), range(1, 40))} power cuts")


# ---- real processes -----------------------------------------------------------------------------------------------


def kill_saves(folder: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kills a saving process again and again; each new one recovers and checks. Returns how many of the kills left an
    open journal, and the last iteration saved."""
    rng, last, opened = random.Random(seed), 0, 0
    for _ in range(kills):
        words = [sys.executable, str(ROOT / "tests" / "saved_model.py"), str(folder), str(last)]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stderr is not None
        first = child.stdout.readline()
        if first:
            time.sleep(rng.random() * 0.15)
        child.kill()
        rest, errors = child.communicate()
        assert first.startswith("start"), errors
        last = max(
            last, int(first.split()[1]), *(int(line.split()[1]) for line in rest.splitlines() if line[-1:].isdigit())
        )
        opened += model(folder).journal.journal_path.exists()
    return opened, last


def test_killed_at_random_moments(tmp_path: Path) -> None:
    _, last = kill_saves(tmp_path, 20, 1)
    assert last >= 5 and recovered(tmp_path) >= last


@pytest.mark.slow
def test_killed_many_times(tmp_path: Path) -> None:
    opened, last = kill_saves(tmp_path, 400, 2)
    print(f"400 kills, {opened} of them while files were switched, {last} saves")
    assert opened >= 10 and recovered(tmp_path) >= last
