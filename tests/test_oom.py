"""Memory runs out: for real, in processes of their own; and in the loop with a task of plain numbers."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import ROOT
from training import ENVIRONMENT, command, digest, run

from core.batch import Batch, Captions, Page, Side
from core.events import Failed, Previewed, Started, Stepped, Stopped, Warned
from core.modeldir import ModelDir, ModelError
from core.trainer import Cadence
from mainscripts.train_memory import Samples
from tests.test_trainer import Clock, FakeTask, Run

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")
SHORT = 48  # MB: too little for a batch of 16 of the tests' network, enough for 8 and for a save
# Large blocks are given back at once, so that the limit means the same on every run.
ENVIRONMENT = {**ENVIRONMENT, "MALLOC_MMAP_THRESHOLD_": "65536"}


def short(when: str, megabytes: int | str, words: list[str]) -> list[str]:
    """The command with too little memory from `when` on."""
    return [words[0], str(ROOT / "tests" / "short_of_memory.py"), when, str(megabytes), *words[2:]]


def start(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, cwd=ROOT, env=ENVIRONMENT,
        check=False,
    )  # fmt: skip


def train(faces: Path, model: Path, when: str, *more: str) -> subprocess.CompletedProcess[str]:
    sets = ["--no-preview", "--set", "batch_size=16", "--target-iter", "4", "--exit-at-target"]
    return start(short(when, SHORT, command(faces, model, *sets, *more)))


def verified(model: Path) -> bool:
    done = run([sys.executable, str(ROOT / "main.py"), "model", "verify", "--model-dir", str(model)])
    return done.returncode == 0


@linux
def test_half_the_batch_and_on(faces: Path, tmp_path: Path) -> None:
    done = train(faces, tmp_path, "3", "--on-oom", "halve")
    assert done.returncode == 0, done.stdout + done.stderr
    for told in ("Out of memory in iteration 3 with batch_size 16", "Main memory: at most", "are free",
                 "--set batch_size=8: quicker", "--set keep_graph=n: ", "goes on with batch_size 8",
                 "Reached target"):  # fmt: skip
        assert told in done.stdout, f"{told}: {done.stdout}"
    data = ModelDir(tmp_path, "new", "SAEHD").read_data()
    assert data.iter == 4 and len(data.loss_history) == 4 and verified(tmp_path)
    assert data.options["batch_size"] == 16, "the model keeps the user's choice"
    state = ModelDir(tmp_path, "new", "SAEHD").read_state()
    assert state is not None and state.iteration == 4 and 2 < state.position < 4, "two whole batches and two parts"


@linux
@pytest.mark.slow
def test_unattended_it_stops_and_the_model_is_whole(faces: Path, tmp_path: Path) -> None:
    done = train(faces, tmp_path, "3")
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert "--on-oom halve would go on with batch_size 8" in done.stdout and "Training ends" in done.stdout
    data = ModelDir(tmp_path, "new", "SAEHD").read_data()
    assert data.iter == 2 and len(data.loss_history) == 2 and verified(tmp_path)


@linux
def test_at_the_first_iteration_nothing_is_written(faces: Path, tmp_path: Path) -> None:
    done = train(faces, tmp_path / "m", "1", "--on-oom", "stop")
    assert done.returncode == 1 and "No model is written" in done.stdout, done.stdout + done.stderr
    left = [path.name for path in (tmp_path / "m").iterdir() if not path.name.endswith((".jpg", "_facesmith_log.txt"))]
    assert left == [], "previews and the log, but no file of a model"


@linux
def test_a_network_too_large_to_be_made(faces: Path, tmp_path: Path) -> None:
    sets = [word for pair in ("ae_dims=1024", "e_dims=128", "d_dims=128") for word in ("--set", pair)]
    done = start(short("build", SHORT, command(faces, tmp_path / "m", "--no-preview", *sets)))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "before training began" in done.stderr and "--set adabelief=n saves about" in done.stderr
    assert not (tmp_path / "m").exists()


@linux
@pytest.mark.skipif(importlib.util.find_spec("pexpect") is None, reason="pexpect drives a pseudo-terminal")
@pytest.mark.slow
def test_a_person_is_asked(faces: Path, copy: Path) -> None:
    import pexpect

    before = digest(copy)
    sets = ["--silent-start", "--set", "batch_size=16", "--set", "target_iter=0", "--no-preview"]
    words = short("4", "over 8", command(faces, copy, *sets, small=False))  # a real shortage may go on below 8
    for answer, code in [("stop", 1), (signal.SIGTERM, 1), ("halve", 0)]:
        child = pexpect.spawn(
            words[0], words[1:], cwd=str(ROOT), env={**ENVIRONMENT, "TERM": "xterm"}, encoding="utf-8", timeout=60,
            dimensions=(40, 140),
        )  # fmt: skip
        try:
            child.expect_exact("[halve] Halve the batch to 8, or stop ( halve/stop ?:help ) :")
            if isinstance(answer, int):
                child.kill(answer)
            else:
                child.send("?\r")
                child.expect_exact("what was learned is saved")
                child.expect_exact("or stop ( halve/stop ?:help ) :")
                child.send("maybe\r")
                child.expect_exact("allowed is halve / stop")
                child.send(f"{answer}\r")
            if answer == "halve":
                child.expect_exact("goes on with batch_size 8")
                child.expect(r"\[#000006\]")
                child.send("\r")
            child.expect(pexpect.EOF)
            child.close()
            assert child.exitstatus == code, child.before
        finally:
            child.close(force=True)
        if code:
            assert ModelDir(copy, "new", "SAEHD").read_data().iter == 3 and digest(copy).keys() >= before.keys()
    assert ModelDir(copy, "new", "SAEHD").read_data().iter >= 6 and verified(copy)


class Full(FakeTask):
    """Batches above `fits` faces, and previews above `shows` rows, do not fit. torn_at: the iteration whose update
    is cut short."""

    def __init__(self, fits: int = 99, shows: int = 99, torn_at: int = 0, iteration: int = 0) -> None:
        super().__init__(Clock(), iteration)
        self.fits, self.shows, self.torn_at, self.torn = fits, shows, torn_at, False

    def step(self, batch: Batch) -> dict[str, Any]:
        if self.data.iter + 1 == self.torn_at:
            self.torn, self.torn_at = True, 0
            raise MemoryError
        if len(batch.src.target) > self.fits:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")
        losses = super().step(batch.map(lambda array: array[0]))
        self.seen[-1:] = batch.src.target.tolist()
        return losses

    def preview(self, batch: Batch) -> list[Page]:
        if len(batch.src.target) > self.shows:
            raise MemoryError
        return [("page", [[row] for row in batch.src.target])]

    def captions(self, batch: Batch) -> Captions:
        return {}

    def let_go(self) -> None: ...


class Numbers:
    """A loader whose samples are numbered."""

    def __init__(self, size: int, position: int) -> None:
        self.size, self.position, self.closed = size, position, False

    def __next__(self) -> Batch:
        assert not self.closed
        first, self.position = self.position * self.size, self.position + 1
        return Batch(src=Side(target=np.arange(first, first + self.size)), dst=Side())

    def close(self) -> None:
        self.closed = True


class Makes:
    """A relief that halves while it can."""

    def __init__(self, samples: Samples) -> None:
        self.samples, self.errors = samples, []  # type: ignore[var-annotated]

    def seen(self, error: BaseException) -> None:
        self.errors.append(str(error))

    def explain(self, iteration: int) -> str:
        return "too little"

    def halve(self, position: Fraction) -> tuple[Fraction, Fraction] | None:
        return self.samples.halve(position) if self.samples.size > 1 else None


class Saves:
    """A rescue that goes back to iteration 1, or has nothing to go back to."""

    def __init__(self, task: Full, there: bool) -> None:
        self.task, self.there = task, there

    def reload(self) -> list[str]:
        if not self.there:
            raise ModelError("Nothing was saved before.")
        self.task.data.iter, self.task.torn = 1, False
        return []

    def roll_back(self) -> list[str]:
        raise AssertionError("nothing has collapsed")

    def keep_suspect(self) -> str:
        raise AssertionError("nothing is suspect")


def loop(task: Full, size: int, *, target: int = 4, position: int = 0, rescue: Any = None, **more: Any) -> Run:
    samples = Samples(Numbers, size, position)  # type: ignore[arg-type]
    run = Run(Cadence(target=target, exit_at_target=True), task=task, relief=Makes(samples), rescue=rescue, **more)
    run.trainer.batches = samples
    run.trainer._position = run.trainer._drawn = Fraction(position)
    return run


@pytest.mark.parametrize(("size", "fits"), [(8, 4), (8, 1), (5, 2), (7, 3), (6, 1)])
def test_no_sample_is_skipped_and_few_come_twice(size: int, fits: int) -> None:
    run = loop(Full(fits), size, position=3)
    assert run.trainer.run() == "target"
    seen = run.task.seen
    assert seen[0] <= 3 * size < seen[0] + fits and seen == list(range(seen[0], seen[0] + 4 * fits))
    assert run.trainer.position == seen[-1] // size or run.trainer.position == (seen[-1] + 1) // size
    assert run.saver.positions[-1] == run.trainer.position, "counted in batches of the start"


def test_when_not_even_one_face_fits_it_ends() -> None:
    run = loop(Full(0), 4)
    assert run.trainer.run() == "memory"
    assert run.saver.calls == [] and run.of(Stopped) == [Stopped(0, "memory")]
    assert "No model is written" in run.of(Failed)[0].text


def test_what_was_learned_is_saved_before_anything_is_asked() -> None:
    run = loop(Full(), 4)
    run.task.during[3] = lambda: setattr(run.task, "fits", 1)
    halve = run.trainer.relief.halve
    run.trainer.relief.halve = lambda position: (run.saver.calls.append("asked"), halve(position))[1]
    assert run.trainer.run() == "target"
    calls = [call if call == "asked" else "save" for call in run.saver.calls]
    assert calls == ["save", "save", "asked", "asked", "save"]
    assert [event.iteration for event in run.of(Stepped)] == [1, 2, 3, 4]


def test_an_update_cut_short_is_never_saved() -> None:
    task = Full(torn_at=3)
    run = loop(task, 4, rescue=Saves(task, there=True))
    assert run.trainer.run() == "target"
    assert [event.iteration for event in run.of(Started)] == [0, 1]
    assert any("in the midst of an update" in event.text for event in run.of(Warned))
    assert [event.iteration for event in run.of(Stepped)] == [1, 2, 3, 4] or not task.torn
    task = Full(torn_at=1)
    run = loop(task, 4, rescue=Saves(task, there=False))
    assert run.trainer.run() == "memory" and run.saver.calls == []
    assert any("Nothing was saved before" in event.text for event in run.of(Warned))


def test_other_errors_are_none_of_this() -> None:
    run = loop(Full(), 4)
    run.task.during[2] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run.trainer.run()


def test_previews_shrink_then_go_and_are_told_once() -> None:
    for shows, rows in [(99, 8), (2, 2), (1, 1), (0, 0)]:
        fixed = Batch(src=Side(target=np.arange(8)), dst=Side())
        run = loop(Full(shows=shows), 8, history_batch=fixed)
        run.trainer.cadence = Cadence(target=4, exit_at_target=True, history_every=2)
        assert run.trainer.run() == "target"
        drawn = [len(page[1]) for event in run.of(Previewed) for page in event.pages]
        assert set(drawn) == ({rows} if rows else set()), shows
        assert len(run.of(Warned)) == (rows < 8) and len(run.of(Previewed)) == 5
