"""One trainer a model: refusal, stale locks, races, file systems without locks."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest
from tests_support import ROOT

from core import lock
from core.lock import ModelLock
from core.modeldata import ModelError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "face_SAEHD_facesmith_lock"


def test_refused_by_pid_and_host_until_its_owner_dies(path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; from core.lock import ModelLock\n"
        f"with ModelLock(Path({str(path)!r})): print('locked', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None and owner.stdout.readline() == "locked\n"
    named = f"process {owner.pid} on {socket.gethostname()}"
    with pytest.raises(ModelError, match=named), ModelLock(path):
        pass
    assert ModelLock(path).holder() == named
    owner.kill()
    owner.communicate()
    assert path.exists() and ModelLock(path).holder() == ""  # left behind, and recognised
    with ModelLock(path):
        assert str(os.getpid()) in path.read_text()
    assert not path.exists()


def test_never_two_at_a_time(path: Path) -> None:
    """Threads that open, lock and delete the file in turn: a lock on a deleted file would let two in."""
    inside, most, done = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, done
        for _ in range(100):
            try:
                with ModelLock(path):
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1
                        done += 1
            except ModelError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and done > 0


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot ask whether a process lives")
def test_where_there_are_no_locks_the_named_process_decides(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(file: IO[str]) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", none)
    with ModelLock(path):
        pass
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for owner, kept_out in [
        (f"process {os.getppid()} on {socket.gethostname()}", True),
        (f"process {dead.pid} on {socket.gethostname()}", False),
        ("process 1 on another-machine", True),
        ("", False),
        ("nonsense", False),
    ]:
        path.write_text(owner)
        assert ModelLock(path).holder() == (owner if kept_out else "")
        if kept_out:
            with pytest.raises(ModelError, match=f"{owner}.*delete"), ModelLock(path):
                pass
        else:
            with ModelLock(path):
                assert str(os.getpid()) in path.read_text()


def test_a_full_disk_is_told_and_leaves_no_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: IO[str]) -> None:
        file.close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ModelLock, "_sign", staticmethod(full))
    with pytest.raises(ModelError, match=r"No space left on device\)\. Free some space"), ModelLock(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_somebody_who_only_looks_keeps_nobody_out(path: Path) -> None:
    path.write_text("process 1 on here")
    for _ in range(20):
        looking = threading.Thread(target=lambda: [ModelLock(path).holder() for _ in range(50)])
        looking.start()
        with ModelLock(path):
            path.exists()
        looking.join()
        path.write_text("process 1 on here")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="may write to"), ModelLock(tmp_path / "file" / "model" / "lock"):
        pass
