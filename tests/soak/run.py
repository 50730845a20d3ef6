"""One run of the trainer after the other: what is done to it, how it ends, what must hold then."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import pexpect  # type: ignore[import-untyped]

from core.modeldir import ModelDir
from tests.screen import Screen
from tests.soak.gauge import Reading, family, look, shared_files, slopes
from tests.soak.session import Session

ROOT = Path(__file__).resolve().parent.parent.parent
MAX_BACKUPS = 5
WARM_UP = 45.0
STUCK = 60
AT_START = "kill at start"
KEYS = {"ready": "F1", "save": "s", "backup": "b", "preview": "p", "page": "space", "range": "l"}
ACTIONS = ["save", "save", "backup", "preview", "preview", "page", "range", "worker", "nothing", "nothing"]
QUESTIONS = {
    "Autobackup every": "", "Write preview history": "n", "Target iteration": "0", "Flip SRC": "", "Flip DST": "",
    "Batch_size": ("1", "2"), "Eyes and mouth": "", "Uniform yaw": "yn", "Blur out mask": "", "Place models": "",
    "AdaBelief": "", "learning rate dropout": "ny", "random warp": "yn", "Random hue": ("0", "0.1"), "GAN power": "0",
    "'True face'": "0", "Face style": "0", "Background style": "0", "Color transfer": ("none", "rct"),
    "gradient clipping": "yn", "pretraining mode": "n",
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A run: how long, with which options, how it ends, whether the options come through the questions."""

    seconds: float
    options: dict[str, str]
    end: str
    thinned: bool = False
    asked: bool = False

    def shortened(self, seconds: float) -> Plan:
        return replace(self, seconds=min(self.seconds, seconds))


@dataclass
class Report:
    """Everything that was done and seen."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def totals(self) -> str:
        iterations = sum(run["iterations"] for run in self.runs)
        done = ", ".join(f"{count} {what}" for what, count in sorted(self.done.items()))
        leaving = max((run["leaving"] for run in self.runs if "kill" not in run["plan"]["end"]), default=0.0)
        return (
            f"{len(self.runs)} runs, {iterations:,} iterations; {done}; longest to leave {leaving:.1f} s; "
            f"{len(self.faults)} faults"
        )

    def to_json(self) -> dict[str, Any]:
        return {"runs": self.runs, "done": dict(self.done), "faults": self.faults, "totals": self.totals()}


class Soak:
    """The person in front of it, with a plan for each run and dice for what to do next."""

    def __init__(
        self, folder: Path, train: list[str], environ: dict[str, str], screen: Screen, log: TextIO,
        rng: random.Random, mark: str,
    ) -> None:  # fmt: skip
        self.report = Report()
        self._folder, self._train, self._environ, self._screen = folder, train, environ, screen
        self._log, self._rng, self._mark = log, rng, mark
        self._directory = ModelDir(folder / "model", "soak", "SAEHD")
        self._shared = shared_files()
        self._began = time.monotonic()
        self._session: Session | None = None

    def run(self, plan: Plan) -> str:
        """Does it and returns a line about it."""
        self._log.write(f"\n---- {plan}\n")
        before = self._directory.read_data().iter
        session = self._session = Session(self._words(plan), self._environ, self._log, ROOT)
        window = plan.end != AT_START and self._start(plan, session)
        session.pump(self._rng.uniform(0.5, 8) if plan.end == AT_START else 0)
        began, readings = time.monotonic(), list[Reading]()
        if session.running and plan.end != AT_START:
            self._expect(session.stored == before, f"began at iteration {session.stored}, {before} was saved")
            readings = self._use(plan, session, window)
        lasted = time.monotonic() - began
        leaving = self._leave(plan, session, window and "window" in family(self._mark).values())
        settled = slopes(readings, WARM_UP)
        run = {
            "plan": asdict(plan), "seconds": lasted, "iterations": max(0, session.iteration - before),
            "slopes": settled, "leaving": leaving, "saved": session.saved, "deaths": session.deaths,
            "first": _plain(readings[len(readings) // 4 :][:1]), "last": _plain(readings[-1:]),
            "most": round(max((reading.whole for reading in readings), default=0.0), 1),
        }  # fmt: skip
        self.report.runs.append(run)
        told = ", ".join(f"{role} {value:+.0f}" for role, value in settled.items())
        kind = " thinned" * plan.thinned + " asked" * plan.asked
        return (
            f"{time.monotonic() - self._began:6.0f} s  {plan.end:9} after {lasted:4.0f} s{kind}: "
            f"{run['iterations']:,} iterations, {run['most']:.0f} MB at most; {told}"
        )

    def _words(self, plan: Plan) -> list[str]:
        program = ["-m", "tests.soak.thinned"] if plan.thinned else [str(ROOT / "main.py")]
        options = {"target_iter": "0", "max_backups": str(MAX_BACKUPS), **({} if plan.asked else plan.options)}
        if plan.asked:
            del options["target_iter"]
        sets = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
        return [sys.executable, *program, *self._train, "--save-every", "20s", *sets]

    def _start(self, plan: Plan, session: Session) -> bool:
        """Until it trains and the window is there; false where no window comes."""
        if plan.asked:
            self._answer(session)
        end = time.monotonic() + 120
        while not session.running and time.monotonic() < end and session.child.isalive():
            session.pump(0.2)
        self._expect(session.running, "it does not begin to train")
        while time.monotonic() < end and session.running and session.child.isalive():
            session.pump(0.3)
            if "window" in family(self._mark).values():
                self._do("ready")
                return True
        self._expect(False, "no window")
        return False

    def _answer(self, session: Session) -> None:
        self.report.done["options by question"] += 1
        session.judging = False
        try:
            session.child.expect_exact("Press enter in 2 seconds to override model settings.")
            session.child.send("\r")
            for question, answers in QUESTIONS.items():
                session.child.expect_exact(question)
                session.child.send((self._rng.choice(answers) if answers else "") + "\r")
            session.child.expect_exact("Initializing models...")
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            self._expect(False, f"at the questions: {str(error)[:300]}")
        session.judging = True

    def _use(self, plan: Plan, session: Session, window: bool) -> list[Reading]:
        """Random commands until the time is over."""
        began = worker_killed = time.monotonic()
        end, due = began + plan.seconds, 0.0
        fatal = began + self._rng.uniform(0.2, 1.6) * plan.seconds  # of the window: in many runs it lives on
        readings = []
        moved = (session.iteration, began)
        while (now := time.monotonic()) < end and session.child.isalive():
            if session.iteration != moved[0]:
                moved = (session.iteration, now)
            elif now - moved[1] > STUCK:
                self._expect(False, f"no iteration for {STUCK} s")
                break
            if now >= due:
                readings.append(look(self._mark, now - began, session.iteration))
                due = now + 2
            action = self._rng.choice(ACTIONS)
            if window and now > fatal:
                window, action = False, "window"
            if action == "worker" and now - worker_killed < (60 if plan.seconds > 200 else 10):
                action = "nothing"
            if action == "worker":
                worker_killed = now
            if window or action not in KEYS:
                self._do(action)
            session.pump(self._rng.uniform(0.3, 3))
        self._expect(session.child.isalive(), f"it ended by itself, with {session.child.exitstatus}")
        return readings

    def _do(self, action: str) -> None:
        if action == "nothing":
            return
        if action != "ready":
            self.report.done[action] += 1
        clicked = action == "window" and self._rng.random() < 0.5
        if action in KEYS or clicked:
            try:
                self._screen.click_x() if clicked else self._screen.press(KEYS[action])
            except subprocess.SubprocessError as error:
                self._expect(False, f"the window takes no {action}: {error}")
            return
        pids = [pid for pid, role in family(self._mark).items() if role == action]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._rng.choice(pids), signal.SIGKILL)

    def _leave(self, plan: Plan, session: Session, window: bool) -> float:
        """Ends it as planned, then looks at what is left. Returns the seconds it took."""
        end = plan.end if plan.end != "window" or "window" in family(self._mark).values() else "enter"
        self.report.done[f"end by {end}"] += 1
        shown, began = session.iteration, time.monotonic()
        match end:
            case "enter":
                session.child.send("\r")
            case "window":
                self._screen.press("Return")
            case "ctrl-c":
                session.child.sendintr()
            case "terminate":
                session.child.kill(signal.SIGTERM)
            case "hang up":
                session.hang_up()
            case _:
                if window and end == "kill":  # in the midst of a save, with luck
                    self._do("save")
                    time.sleep(self._rng.random() * 0.5)
                session.child.kill(signal.SIGKILL)
        self._expect(session.ended(60), f"{end}: still there after a minute")
        took = time.monotonic() - began
        self.end()
        code, killed = session.code(), end.startswith("kill")
        self._expect(code == (-signal.SIGKILL if killed else 0), f"{end}: exit code {code}")
        self._expect(session.done or killed or end == "hang up", f"{end}: it did not say that it is done")
        for line in session.strange:
            self._expect(False, f"it said: {line}")
        self._check_files(end, session.saved if killed else shown)
        return took

    def _check_files(self, end: str, least: int) -> None:
        gone = _soon(lambda: not family(self._mark) and shared_files() <= self._shared)
        self._expect(gone, f"{end}: left {family(self._mark)} {shared_files() - self._shared}")
        directory, litter = self._directory, []
        if not end.startswith("kill"):
            litter = [path.name for path in directory.folder.iterdir() if "facesmith_new" in path.name]
            litter += [path.name for path in directory.folder.iterdir() if "facesmith_old" in path.name]
        self._expect(not litter, f"{end}: {litter}")
        if end.startswith("kill"):
            with directory.lock():
                directory.recover()
        found = directory.read_data().iter
        self._expect(found >= least, f"{end}: iteration {found} on the disk, {least} was told to be")
        words = [sys.executable, str(ROOT / "main.py"), "model", "verify", "--model-dir", str(directory.folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
        self._expect(done.returncode == 0, f"{end}: verify says {done.stdout[-500:]}{done.stderr[-500:]}")
        count = len(directory.backups())
        self._expect(count <= 2 * MAX_BACKUPS, f"{count} backups")  # of either naming

    def check_leftovers(self) -> None:
        left = [path.name for path in (self._folder / "tmp").iterdir()]
        self._expect(not left, f"left in the folder of temporary files: {left}")

    def end(self) -> None:
        """Makes sure that the trainer of the last run is gone."""
        if self._session is not None:
            with contextlib.suppress(pexpect.ExceptionPexpect, OSError):
                self._session.child.close(force=True)
            self._session = None

    def _expect(self, holds: bool, fault: str) -> None:
        if not holds:
            self.report.faults.append(fault)
            self._log.write(f"\n---- FAULT {fault}\n")


def _plain(readings: list[Reading]) -> dict[str, Any] | None:
    if not readings:
        return None
    memory = {f"{role} {pid}": round(size, 1) for (role, pid), size in readings[0].memory.items()}
    return {**asdict(replace(readings[0], memory={})), "memory": memory}


def _soon(condition: Any, seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(0.2)
    return bool(holds)
