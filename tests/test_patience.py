"""Faces that cannot be read for a while, are gone, or are others than at the start."""

from __future__ import annotations

import errno
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loading import REQUEST, assert_same, open_loader, silent, taken
from sample_faces import make_folder

from samplelib.faceset import FaceReadError, Faceset, current
from samplelib.patience import PAUSES, Patience, Stopped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "faces ü", 6)


class Clock:
    """A sleeper that does something after so many seconds."""

    def __init__(self, after: float = 1e9, what: Callable[[], object] = lambda: None) -> None:
        self.slept, self._after, self._what = 0.0, after, what

    def sleep(self, seconds: float) -> None:
        before, self.slept = self.slept, self.slept + seconds
        if before < self._after <= self.slept:
            self._what()


def test_a_folder_that_is_away_is_waited_for(folder: Path) -> None:
    sample, away, told = Faceset.open(folder, silent)[2], folder.with_name("away"), list[str]()
    folder.rename(away)
    clock = Clock(100, lambda: away.rename(folder))
    patience = Patience(told.append, sleep=clock.sleep)
    for _ in range(2):
        assert patience.read(sample, sample.path.read_bytes) == sample.path.read_bytes()
    assert told == [f"{folder} is away: training waits until it is there again"] and clock.slept == 100


def test_who_waits_may_be_asked_to_stop(folder: Path) -> None:
    sample = Faceset.open(folder, silent)[2]
    shutil.rmtree(folder)
    answers = iter([False, False, True])
    with pytest.raises(Stopped):
        Patience(lambda text: None, lambda: next(answers), Clock().sleep).read(sample, sample.path.read_bytes)


def test_one_file_is_tried_again_and_then_given_up(folder: Path) -> None:
    sample, clock = Faceset.open(folder, silent)[2], Clock()
    failures: Iterator[int] = iter([errno.EIO, errno.EIO])

    def work() -> str:
        for number in failures:
            raise OSError(number, "Input/output error")
        return "read"

    assert Patience(silent, sleep=clock.sleep).read(sample, work) == "read" and clock.slept == sum(PAUSES[:2])
    failures = iter([errno.EIO] * 9)
    with pytest.raises(FaceReadError, match="cannot be read \\(Input/output error\\)"):
        Patience(silent, sleep=clock.sleep).read(sample, work)
    sample.path.unlink()
    with pytest.raises(FaceReadError, match="is gone"):
        Patience(silent, sleep=clock.sleep).read(sample, sample.path.read_bytes)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_goes_on_where_it_was_when_the_faces_are_back(folder: Path, workers: int) -> None:
    with open_loader({"src": folder}, 0) as loader:
        wanted = taken(loader, 30)
    away, told = folder.with_name("away"), list[str]()
    with open_loader({"src": folder}, workers, warn=told.append) as loader:
        got = taken(loader, 4)
        folder.rename(away)
        threading.Timer(1.5, lambda: away.rename(folder)).start()
        got += taken(loader, 26)
    assert_same(got, wanted)
    assert told == [f"{folder} is away: training waits until it is there again"]


@pytest.mark.parametrize("workers", [0, 1])
def test_stopping_while_the_folder_is_away(folder: Path, workers: int) -> None:
    asked = [False]
    faces = {"src": Faceset.open(folder, silent)}
    from samplelib.loader import Loader

    with Loader(
        faces, {"src": REQUEST}, 2, seed=1, workers=workers, warn=lambda text: None, stopping=lambda: asked[0]
    ) as loader:
        shutil.rmtree(folder)
        threading.Timer(0.5, lambda: asked.__setitem__(0, True)).start()
        with pytest.raises(StopIteration):
            for _ in range(20):
                next(loader)


def replace_by(path: Path, other: Path) -> None:
    """Another face under the same name, as an extraction into the folder does."""
    content = other.read_bytes()
    time.sleep(0.01)  # another time, whatever the disk's clock
    path.write_bytes(content)


def test_a_face_that_was_changed_gets_its_own_face_data(folder: Path, tmp_path: Path) -> None:
    """As a start after the change would see it: picture, landmarks and mask of one and the same face."""
    other = sorted(make_folder(tmp_path / "other", 2, first_seed=70).iterdir())
    with open_loader({"src": folder}, 0) as before:
        path = sorted(folder.iterdir())[3]
        replace_by(path, other[1])
        got = taken(before, 6)
        with open_loader({"src": folder}, 0) as after:
            assert_same(got, taken(after, 6))
    known = Faceset.open(folder, silent)[3]
    assert current(known) is known
    replace_by(path, other[0])
    assert current(known).landmarks.tolist() != known.landmarks.tolist()


def test_a_face_that_became_useless_is_skipped(folder: Path, tmp_path: Path) -> None:
    small = sorted(make_folder(tmp_path / "small", 1, face_type="half_face").iterdir())[0]
    paths, told = sorted(folder.iterdir()), list[str]()
    with open_loader({"src": folder}, 0, warn=told.append) as loader:
        replace_by(paths[1], small)
        paths[2].unlink()
        paths[4].write_bytes(b"no picture")
        taken(loader, 8)
    assert sorted(text.partition(": ")[2].partition(":")[0] for text in told)[1:] == ["was changed since the start"] * 2
    assert any("half_face cannot show whole_face" in text for text in told) and any("is gone" in text for text in told)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be replaced there")
def test_what_was_changed_is_not_kept_on_disk_as_what_it_was(folder: Path, tmp_path: Path) -> None:
    from samplelib.diskcache import DiskSettings
    from samplelib.loader import Loader

    other = sorted(make_folder(tmp_path / "other", 2, first_seed=70).iterdir())
    path, place = sorted(folder.iterdir())[3], tmp_path / "kept"
    original = path.read_bytes()
    stat = path.stat()

    def batches(warn: Callable[[str], None] = silent) -> list:
        faces = {"src": Faceset.open(folder, silent)}
        with Loader(faces, {"src": REQUEST}, 3, seed=7, workers=0, warn=warn, disk=DiskSettings(place)) as loader:
            if path.read_bytes() == original:
                replace_by(path, other[1])
            return taken(loader, 8)

    changed = batches()
    assert_same(batches(), changed)
    assert stat.st_mtime_ns != path.stat().st_mtime_ns
