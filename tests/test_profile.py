"""--profile: what is measured, and the table."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from training import command, here

from core.profiling import OTHER, WARM_UP, Parts, Profile, untimed


class Clock:
    """Every call is a second later."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_parts_do_not_count_what_is_inside_them() -> None:
    waits: list[int] = []
    parts = Parts(Clock(), lambda: waits.append(1))
    with parts.timed("before it begins"):
        pass
    parts.begin()
    with parts.timed("losses"), parts.timed("forward"):  # 1 s before it, 1 s in losses
        pass  # 1 s
    with pytest.raises(MemoryError), parts.timed("backward"):  # 1 s in losses, 1 s between
        raise MemoryError
    parts.end()
    assert parts.seconds == {OTHER: 3, "losses": 2, "forward": 1, "backward": 1} and len(waits) == 8
    with untimed("anything"):
        pass


def train(faces: Path, model: Path, *more: str) -> str:
    words = ["--no-preview", "--exit-at-target", "--workers", "0", "--seed", "1", *more]
    done = here(command(faces, model, *words))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_table_and_the_trace(faces: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json.gz"
    words = ["--target-iter", str(WARM_UP + 5), "--save-every", "7it", "--set", "true_face_power=0.01"]
    said = train(faces, tmp_path / "model", *words, "--profile", "4", "--profile-trace", str(trace))
    head, *lines = said[said.index("Profile of") :].splitlines()
    assert re.fullmatch(r"Profile of 4 iterations, SAEHD df-ud 64, batch 2, on CPU: [\d,.]+ ms each", head)
    table = lines[: next(i for i, line in enumerate(lines) if "Most memory" in line) + 1]
    assert max(map(len, table)) <= 80
    shares: dict[str, float] = {}
    operators = []
    for line in table:
        if part := re.fullmatch(r"  ([a-z ]+?) {2,}[\d,.]+ +([\d.]+)", line):
            shares[part[1]] = float(part[2])
        elif operator := re.fullmatch(r"  (\S.*?) {2,}[\d,.]+ +[\d,.]+ +[\d.]+", line):
            operators.append(operator[1])
    assert list(shares) == [
        "samples", "forward", "losses", "backward", "optimizer", "adversaries", "preview", "saving", "everything else",
    ]  # fmt: skip
    assert sum(shares.values()) == pytest.approx(100, abs=1)
    assert len(operators) == 12 and any("convolution" in name for name in operators)
    assert re.fullmatch(r"  Most memory held meanwhile: [\d.,]+ [GM]B \(main memory\)", table[-1])
    with gzip.open(trace) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"forward", "backward", "optimizer"} <= names and f"The trace is in {trace}" in said
    assert f"[#{WARM_UP + 5:06d}]" in said, "training went on"
    # What is looked at learns the same.
    train(faces, tmp_path / "other", *words)
    for path in sorted((tmp_path / "other").glob("*.npy")):
        assert path.read_bytes() == (tmp_path / "model" / path.name).read_bytes()


@pytest.mark.slow
def test_a_training_that_ends_early(faces: Path, copy: Path) -> None:
    """Tells what there is."""
    words = ["--no-preview", "--exit-at-target", "--workers", "0", "--profile", "50"]
    done = here(command(faces, copy, *words, "--target-iter", str(3 + WARM_UP + 2), small=False))
    assert "Profile of 2 iterations" in done.stdout
    told: list[str] = []
    profile = Profile(3, "a model", "cpu", Clock(), told.append)
    for _ in range(2):
        profile.stepped()
        profile.finish()
    assert told == ["No profile: it begins after 5 iterations, and the training ended before."]


def test_what_cannot_be_asked_for(faces: Path, tmp_path: Path) -> None:
    done = here(command(faces, tmp_path / "model", "--profile-trace", "trace.json"))
    assert done.returncode == 2 and "--profile-trace without --profile" in done.stderr
    nowhere = str(tmp_path / "nowhere" / "trace.json")
    done = here(command(faces, tmp_path / "model", "--profile", "3", "--profile-trace", nowhere))
    assert done.returncode == 2 and "there is no folder" in done.stderr and not (tmp_path / "model").exists()
    assert here(command(faces, tmp_path / "model", "--profile", "0")).returncode == 2
