"""The launchers `1) clear workspace` and `view`: what is deleted, what never, what is opened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import ROOT

from core.lock import ModelLock

ENV = ROOT / "bat" / "env"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with faces, a model and a video."""
    folder = tmp_path / "wörk space"
    names = ("data_src/aligned/00001_0.jpg", "data_dst/aligned/00001_0.jpg", "model/a_SAEHD_data.dat", "data_src.mp4")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(1000))
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def start(script: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ENV / script), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        encoding="utf-8", env={**os.environ, "PYTHONUTF8": "1", **environ}, timeout=60, check=False,
    )  # fmt: skip


def test_clearing_without_anybody(workspace: Path) -> None:
    before = files(workspace)
    done = start("clear.py", str(workspace))
    assert done.returncode == 2 and "--yes" in done.stderr and files(workspace) == before
    assert f"{workspace / 'model'}: 1 file, 0.0 MB" in done.stdout
    assert start("clear.py", str(workspace), "--yes").returncode == 0
    assert files(workspace) == ["data_src.mp4"]
    folders = ("data_src/aligned", "data_dst/aligned", "model")
    assert all((workspace / name).is_dir() for name in folders)
    done = start("clear.py", str(workspace))
    assert done.returncode == 0 and "is empty" in done.stdout, "nothing to ask about"
    assert start("clear.py", str(workspace / "new")).returncode == 0
    assert all((workspace / "new" / name).is_dir() for name in folders)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_clearing_asks(workspace: Path) -> None:
    pexpect = pytest.importorskip("pexpect", reason="pexpect drives a pseudo-terminal (test extra)")
    before = files(workspace)
    for answer, code, left in (("", 0, before), ("what", 0, before), ("\x03", 130, before), ("y", 0, ["data_src.mp4"])):
        child = pexpect.spawn(sys.executable, [str(ENV / "clear.py"), str(workspace)], encoding="utf-8", timeout=30)
        child.expect_exact("Delete all of this? [n] ( y/n ) : ")
        child.send(answer if answer == "\x03" else f"{answer}\r")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == code and files(workspace) == left


@pytest.mark.skipif(sys.platform == "win32", reason="makes a link; an open file cannot be deleted there anyway")
def test_clearing_spares_what_is_elsewhere_or_in_use(workspace: Path, tmp_path: Path) -> None:
    before = files(workspace)
    with ModelLock(workspace / "model" / "a_SAEHD_facesmith_lock"):
        done = start("clear.py", str(workspace), "--yes")
        assert done.returncode == 1 and "is being trained" in done.stderr
    assert files(workspace) == before
    (workspace / "data_dst").rename(tmp_path / "elsewhere")
    (workspace / "data_dst").symlink_to(tmp_path / "elsewhere")
    done = start("clear.py", str(workspace), "--yes")
    assert done.returncode == 1 and "is a link" in done.stderr and (workspace / "model" / "a_SAEHD_data.dat").exists()
    assert files(tmp_path / "elsewhere") == ["aligned/00001_0.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="puts a program of its own in the place of xdg-open")
def test_view(workspace: Path, tmp_path: Path) -> None:
    folder = workspace / "data_src" / "aligned"
    program = tmp_path / "xdg-open"
    program.write_text(f'#!/bin/sh\nprintf %s "$1" >"{tmp_path}/opened"\nexit 4\n', encoding="utf-8")
    program.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    assert start("view.py", str(folder), PATH=path, DISPLAY=":1").returncode == 4
    assert (tmp_path / "opened").read_text("utf-8") == str(folder)
    program.unlink()
    (folder / "faceset.pak").touch()
    done = start("view.py", str(folder), PATH=str(tmp_path), DISPLAY=":1")
    assert done.returncode == 1 and "xdg-utils" in done.stderr and "1 picture and a faceset.pak" in done.stdout
    assert "no desktop" in start("view.py", str(folder), DISPLAY="", WAYLAND_DISPLAY="").stderr
    assert "is no folder" in start("view.py", str(folder / "no")).stderr
