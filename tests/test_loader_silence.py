"""A loader that hears nothing from its workers says so, and does not wait for what cannot come."""

from __future__ import annotations

import os
import queue
import signal
import sys
from pathlib import Path

import pytest
from loading import assert_same, open_loader, taken
from sample_faces import make_folder

from samplelib.loader import LoaderError
from samplelib.pool import Pool


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {"src": make_folder(tmp_path / "src", 3)}


def test_an_error_in_the_thread_of_a_worker_ends_the_loader(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would ever finish its jobs."""

    def listen(*_: object) -> bool:
        raise RuntimeError("odd")

    monkeypatch.setattr(Pool, "_listen", listen)
    loader = open_loader(folders, 1)
    with loader, pytest.raises(LoaderError, match="thread of a sample worker ended by an error: RuntimeError: odd"):
        next(loader)


def test_long_waits_are_told_less_and_less(folders: dict[str, Path]) -> None:
    """A queue that stays empty, and one that fills at last; no second passes."""
    told: list[str] = []
    with open_loader(folders, 1, warn=told.append) as loader:
        assert loader._pool is not None
        full = loader._pool.results
        waited = [0.0]

        class Empty:
            put = full.put

            def get(self, timeout: float) -> object:
                if waited[0] < 250:
                    waited[0] += timeout
                    raise queue.Empty
                return full.get(timeout=30)

        loader._pool.results = Empty()  # type: ignore[assignment]
        taken(loader, 4)
    assert [text.split()[5] for text in told] == ["30", "60", "120"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_worker_that_hangs_is_replaced_and_no_batch_changes(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it happens: a disk that is away for long must not end the training."""
    told: list[str] = []
    with open_loader(folders, 0) as loader:
        wanted = taken(loader, 40)
    monkeypatch.setattr("samplelib.loader.SLOW_S", 1.0)
    with open_loader(folders, 1, warn=told.append) as loader:
        got = taken(loader, 8)
        for _ in range(4):
            os.kill(loader.pids()[0], signal.SIGSTOP)
            loader._patience = 1.0
            got += taken(loader, 8)
    assert_same(got, wanted)
    assert sum("gave no answer; another takes over its work" in text for text in told) == 4, told
