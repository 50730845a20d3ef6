"""Several processes that train one model: the step of one with the joined batch, and what happens to lost ones."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import random_batch, small
from tests_support import ROOT
from training import ENVIRONMENT, command, here

from core import dflfile
from core.device import CPU, Device
from core.distributed import World
from core.options import OptionError, Values
from core.prompts import AnswerError
from core.stages import Stages
from core.terminal import ListTerminal
from mainscripts.samples import as_arrays, open_on_device
from mainscripts.train_place import LEASH, Place
from mainscripts.train_setup import choose_devices
from mainscripts.train_world import check_split, chosen, own
from models import MODELS
from samplelib.faceset import Faceset
from samplelib.loader import Loader

TORCHRUN = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


def world(rank: int, size: int) -> World:
    found = World()
    found.rank, found.size = rank, size
    return found


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


def together(count: int, batch_size: int, names: list[str], tmp_path: Path) -> list[dict[str, float]]:
    """What process 0 of world_stage.py tells of each model."""
    logs = [tmp_path / f"process{rank}.txt" for rank in range(count)]
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    more = {"WORLD_SIZE": str(count), "PORT": str(port()), "PYTHONPATH": path}
    processes = []
    for rank, log in enumerate(logs):
        with log.open("wb") as file:
            words = [sys.executable, str(ROOT / "tests" / "world_stage.py"), str(batch_size), *names]
            environment = {**ENVIRONMENT, **more, "RANK": str(rank)}
            processes.append(subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment))
    try:
        codes = [process.wait(150) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said = [log.read_text() for log in logs]
    assert codes == [0] * count, "\n".join(said)
    assert f"{count} processes: " in said[0]
    return [json.loads(line) for line in said[0].splitlines() if line.startswith("{")]


def same_steps(told: list[dict[str, float]], names: list[str], far: float, moments: float) -> None:
    """Gradients differ in rounding alone, which a step of AdaBelief or RMSprop enlarges for the few weights whose
    gradient is next to nothing. Means instead of sums would halve the moments."""
    assert [each["model"] for each in told] == names
    for each in told:
        assert each["far"] <= far and each["distance"] < 0.02 and each["moments"] < moments, each
        assert each["losses"] < 1e-4 and each["iterations"] == [11, 11], each


def test_two_processes_step_as_one(tmp_path: Path) -> None:
    names = list(MODELS)
    same_steps(together(2, 5, names, tmp_path), names, far=1e-4, moments=1e-4)


@pytest.mark.slow
def test_four_processes_step_as_one(tmp_path: Path) -> None:
    names = list(MODELS)
    same_steps(together(4, 6, names, tmp_path), names, far=5e-3, moments=1e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_rows_are_split_without_overlap(size: int) -> None:
    rows = [list(world(rank, size).rows(5)) for rank in range(size)]
    assert [row for part in rows for row in part] == list(range(5))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


@pytest.mark.parametrize("made_on", ["cpu", "device"])
def test_samples_are_those_of_one_process(faces: Path, made_on: str) -> None:
    task = small("SAEHD", ct_mode="rct", random_hsv_power=0.1, uniform_yaw=True)
    requests = task.spec.requests(task.values)
    facesets = {side: Faceset.open(faces / f"data_{side}" / "aligned", print) for side in ("src", "dst")}

    def batches(rows: range | None, workers: int) -> list[dict[str, np.ndarray]]:
        options = {"seed": 5, "workers": workers, "position": 2, "warn": print, "rows": rows}
        if made_on == "device":
            loader = open_on_device(facesets, requests, 5, device="cpu", budget=1 << 30, **options)
        else:
            loader = Loader(facesets, requests, 5, **options)
        found = []
        with loader:
            for _ in range(3):
                batch = as_arrays(next(loader))
                names = {f"{side}/name": np.array([arrays.name_of(0)]) for side, arrays in batch.items()}
                arrays = {f"{s}/{n}": np.array(a) for s, side in batch.items() for n, a in side.items()}
                found.append(arrays | names)
        return found

    whole = batches(None, 0)
    for rank in range(2):
        rows = world(rank, 2).rows(5)
        for part, full in zip(batches(rows, rank), whole, strict=True):
            for name, array in part.items():
                if name.endswith("/name"):
                    continue
                assert len(array) == len(rows)
                assert np.allclose(array, full[name][rows.start : rows.stop], atol=1e-6), name
    assert batches(range(3), 0)[0]["src/name"] == whole[0]["src/name"]


def test_codes_are_those_of_the_joined_batch() -> None:
    """AMP draws a code's channels anew for each face."""
    task = small("AMP", batch_size=5)
    net = task.net
    whole = net.random_share(5, task.draws())
    task.world = world(1, 2)
    assert torch.equal(net.random_share(2, task.draws()), whole[3:])


def test_alone_nothing_is_joined() -> None:
    task = small("Quick64")
    task.join(World())
    assert all(optimizer.reduce is None for optimizer in task.optimizers.values())
    assert task.world.account() == "" and task.step(random_batch(task))


def test_places() -> None:
    assert Place.of({}) is None
    assert Place.of({"RANK": "0", "WORLD_SIZE": "1", **TORCHRUN}) is None
    assert Place.of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", **TORCHRUN}) == Place(
        3, 4, 1, 2
    )
    with pytest.raises(OptionError, match="MASTER_PORT is not"):
        Place.of({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "here"})
    with pytest.raises(OptionError, match="not numbers"):
        Place.of({"RANK": "first", "WORLD_SIZE": "2", **TORCHRUN})


def test_choice_of_devices() -> None:
    cards = [Device(str(number), "card", f"cuda:{number}") for number in range(3)]
    table = {device.key: device for device in (CPU, *cards)}
    assert chosen("0, 2", table, 1, "x") == [cards[0], cards[2]]
    assert chosen("cpu", table, 3, "x") == [CPU] * 3
    for keys, count, message in (
        ("0,9", 1, "got '9'"),
        ("0,0", 1, "different cards"),
        ("0,CPU", 1, "different cards"),
        ("0,1", 2, "only the CPU is shared"),
    ):
        with pytest.raises(OptionError, match=message):
            chosen(keys, table, count, "--force-gpu-idxs")
    with pytest.raises(OptionError, match="float16"):
        check_split([CPU, CPU], Values({"batch_size": 4, "mp_mode": "float16"}, {}), debug=False)
    with pytest.raises(OptionError, match="batch_size: got 1 for 2 processes"):
        check_split([CPU, CPU], Values({"batch_size": 1}, {}), debug=False)


def test_several_cards_are_chosen_at_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [Device(str(number), "card", f"cuda:{number}", 1 << 30) for number in range(2)]
    monkeypatch.setattr("core.device.gpus", lambda: cards)
    args = argparse.Namespace(cpu_only=False, force_gpu_idxs=None, processes=1, silent_start=False)
    stages = Stages(lambda event: None, time.monotonic)

    def answered(text: str) -> list[Device]:
        return choose_devices(args, ListTerminal(io.StringIO(text), io.StringIO()), stages, False)[0]

    assert answered("0,1\n") == cards
    assert answered("\n") == [cards[0]]
    with pytest.raises(AnswerError, match="got '7'"):
        answered("0,7\n")
    args.force_gpu_idxs = "1,0"
    assert answered("") == cards[::-1]
    args.processes = 2
    with pytest.raises(OptionError, match="only the CPU is shared"):
        answered("")
    args.cpu_only = True
    assert answered("") == [CPU, CPU]


def test_torchrun_gives_each_process_a_card() -> None:
    cards = [Device(str(number), "card", f"cuda:{number}") for number in range(2)]
    args = argparse.Namespace(force_gpu_idxs=None, cpu_only=False)
    assert own(Place(3, 4, 1, 2), args, cards) == [cards[1]] * 4
    with pytest.raises(OptionError, match="2 cards for 4 processes"):
        own(Place(3, 4, 3, 4), args, cards)
    args.force_gpu_idxs = "1"
    assert own(Place(0, 2, 0, 1), args, cards) == [cards[1]] * 2
    args.cpu_only = True
    assert own(Place(1, 2, 1, 2), args, cards) == [CPU] * 2


def words_of(faces: Path, model: Path, *more: str) -> list[str]:
    words = ("--no-preview", "--force-model-name", "m", "--seed", "7", "--set", "batch_size=3", *more)
    return command(faces, model, *words)


def apart(one: Path, other: Path) -> float:
    """Share of the weights that are not within 1e-5."""
    off = []
    for path in sorted(one.glob("m_SAEHD_*coder*.npy")):
        mine, theirs = dflfile.load(path), dflfile.load(other / path.name)
        off += [np.abs(mine[name] - theirs[name]).ravel() for name in mine]
    return float((np.concatenate(off) > 1e-5).mean())


def test_a_run_of_two_processes_is_one_of_one(faces: Path, tmp_path: Path) -> None:
    """With samples, saved, and gone on with by one process."""
    models = [tmp_path / "together", tmp_path / "alone"]
    more = ["--target-iter", "1", "--exit-at-target", "--no-override"]
    done = here(words_of(faces, models[0], *more, "--processes", "2"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 processes train together, with 2 + 1 faces of each batch." in done.stdout
    assert not list(models[0].glob("*process*")), "a process that has ended well leaves no log"
    more[1] = "2"
    for model in models:
        assert here(words_of(faces, model, *more)).returncode == 0
    assert apart(*models) < 1e-3


@contextlib.contextmanager
def training(words: list[str], out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A training in the background; it and what it has started is gone afterwards."""
    with out.open("wb") as file:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=ENVIRONMENT
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def started_by(pid: int) -> list[int]:
    """The processes that carry the leash of this one, and their workers."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{LEASH}={pid}".encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return sorted(found)


def until(true: object, out: Path, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, out.read_text()
        time.sleep(0.1)


def iterations(model: Path, out: Path) -> None:
    until(lambda: re.search(r"\[#0*[1-9]\d*\].*avg", out.read_text()), out)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_process_ends_the_run_with_a_save(faces: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "out.txt", tmp_path / "model"
    with training(words_of(faces, model, "--processes", "3", "--save-every", "10000it"), out) as process:
        iterations(model, out)
        time.sleep(3)
        there = started_by(process.pid)
        follower = next(pid for pid in there if b"main.py" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(follower, signal.SIGKILL)
        assert process.wait(20) == 1
        until(lambda: not started_by(process.pid), out, 5)
    said = out.read_text()
    ended = rf"Process \d \(pid {follower}\) has ended \(SIGKILL\)\. Its log: .*process\d_log\.txt"
    assert re.search(ended, said), said
    last = int(re.findall(r"\[#(\d+)\]", said)[-1])
    done = subprocess.run(
        words_of(faces, model, "--target-iter", str(last + 1), "--exit-at-target", "--no-override"),
        capture_output=True, text=True, timeout=120, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and f"Current iteration: {last}" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_others_end_with_process_0(faces: Path, tmp_path: Path, number: signal.Signals) -> None:
    out, model = tmp_path / "out.txt", tmp_path / "model"
    with training(words_of(faces, model, "--processes", "2"), out) as process:
        iterations(model, out)
        assert started_by(process.pid)
        process.send_signal(number)
        assert process.wait(20) == (0 if number == signal.SIGTERM else -signal.SIGKILL), out.read_text()
        until(lambda: not started_by(process.pid), out, 10)


@pytest.mark.slow
def test_options_change_for_all(faces: Path, tmp_path: Path) -> None:
    out, model, asks = tmp_path / "out.txt", tmp_path / "model", tmp_path / "commands"
    asks.touch()
    with training(words_of(faces, model, "--processes", "2", "--commands", str(asks)), out) as process:
        iterations(model, out)
        for line, answer in (
            ("set batch_size=1", "batch_size: got 1 for 2 processes"),
            ("set batch_size=5 random_warp=n", "Other options: batch_size 3 -> 5"),
            ("stop", "Done."),
        ):
            with asks.open("a") as file:
                file.write(f"{line}\n")
            until(lambda answer=answer: answer in out.read_text(), out)  # type: ignore[misc]
            time.sleep(5)
        assert process.wait(20) == 0
    assert not list(model.glob("*process*"))


@pytest.mark.slow
def test_torchrun(faces: Path, tmp_path: Path) -> None:
    models = [tmp_path / "torchrun", tmp_path / "own"]
    more = ("--target-iter", "2", "--exit-at-target")
    runner = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port())]
    started = [*runner, *words_of(faces, models[0], *more)[1:]]
    for words in (started, words_of(faces, models[1], *more, "--processes", "2")):
        done = subprocess.run(words, capture_output=True, text=True, timeout=150, env=ENVIRONMENT, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert apart(*models) == 0
