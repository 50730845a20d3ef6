"""How processes of the program are started and how their end is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core import child


def test_a_child_finds_the_program_and_no_core_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    environ = child.environment(MORE="1")
    assert environ["PYTHONPATH"].split(os.pathsep) == [str(child.ROOT), str(tmp_path)] and environ["MORE"] == "1"
    code = "import core.child, os; print(core.child.ROOT, os.getsid(0) == os.getpid() if os.name == 'posix' else True)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=child.ROOT, env=environ, capture_output=True, text=True, check=True,
        **child.detached(),
    )  # fmt: skip
    assert done.stdout.split() == [str(child.ROOT), "True"]


def test_the_program_stands_alone_in_an_empty_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert child.environment()["PYTHONPATH"] == str(child.ROOT)  # an empty entry would be the working folder


@pytest.mark.parametrize(
    ("code", "told"),
    [(0, "exit code 0"), (3, "exit code 3"), (-signal.SIGTERM, "SIGTERM"), (-250, "signal 250")],
)
def test_how_it_ended(code: int, told: str) -> None:
    assert child.ending(code) == told
