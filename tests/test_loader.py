"""Batches from workers: the same for any number of them, whatever happens to them; nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from loading import REQUEST, assert_same, damage, open_loader, silent, taken
from sample_faces import make_folder

from core import sharedbuf
from core.batch import Batch, SampleRequest
from core.sharedbuf import Layout, SharedBuffer, SharedBufferError, attach
from samplelib.faceset import Faceset, FacesetError
from samplelib.loader import Loader, LoaderError, default_workers

ROOT = Path(__file__).resolve().parent.parent
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders of faces, with a space and letters beyond ASCII in the path."""
    base = tmp_path_factory.mktemp("лица with space")
    return {"src": make_folder(base / "src", 7), "dst": make_folder(base / "dst ü", 9, first_seed=100)}


def wait_until(happened: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z" if Path("/proc/self").exists() else True
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def wanted(folders: dict[str, Path]) -> list[Batch]:
    """The first batches, computed in this process."""
    with open_loader(folders, 0) as loader:
        return taken(loader, 24)


def test_batches_have_the_promised_form(wanted: list[Batch]) -> None:
    batch = wanted[0]
    assert list(batch) == ["src", "dst"]
    for side in ("src", "dst"):
        assert list(batch[side]) == ["warped", "target", "mask", "mask_em"]
        assert {a.shape for _, a in batch[side].items()} == {(3, 3, 64, 64), (3, 1, 64, 64)}
        assert {a.dtype for _, a in batch[side].items()} == {np.dtype(np.float32)}
    assert not np.array_equal(batch.src.target, wanted[1].src.target)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_do_not_depend_on_the_number_of_workers(
    folders: dict[str, Path], wanted: list[Batch], workers: int
) -> None:
    with open_loader(folders, workers) as loader:
        assert_same(taken(loader, 24), wanted)
        assert loader.position == 24
        assert loader.wait_ms >= 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumes_at_its_position(folders: dict[str, Path], wanted: list[Batch], workers: int) -> None:
    with open_loader(folders, workers, position=5) as loader:
        assert_same(taken(loader, 19), wanted[5:])
        assert loader.position == 24


def test_another_seed_gives_other_batches(folders: dict[str, Path], wanted: list[Batch]) -> None:
    with open_loader(folders, 0, seed=8) as loader:
        assert not np.array_equal(next(loader).src.target, wanted[0].src.target)


def test_a_batch_stays_valid_until_the_next(folders: dict[str, Path]) -> None:
    with open_loader(folders, 2) as loader:
        for _ in range(20):
            batch = next(loader)
            before = batch.map(np.copy)
            time.sleep(0.01)
            assert_same([batch], [before])


def test_a_batch_may_be_larger_than_the_faceset_and_sides_may_have_other_names(folders: dict[str, Path]) -> None:
    with open_loader({"face": folders["src"]}, 2, batch_size=20) as loader:
        batch = next(loader)
        assert list(batch) == ["face"]
        assert batch.face.warped.shape == (20, 3, 64, 64)


def test_uniform_yaw_is_the_same_with_workers(folders: dict[str, Path]) -> None:
    request = SampleRequest(64, "whole_face", names=("target",), uniform_yaw=True)
    with open_loader(folders, 0, request=request) as loader:
        wanted = taken(loader, 5)
    with open_loader(folders, 2, request=request) as loader:
        assert_same(taken(loader, 5), wanted)


def test_relative_folders_work(folders: dict[str, Path], wanted: list[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders["src"].parent)
    with open_loader({side: Path(folder.name) for side, folder in folders.items()}, 1) as loader:
        assert_same(taken(loader, 2), wanted[:2])


def test_unsuitable_faces_are_refused_before_any_worker_starts(folders: dict[str, Path]) -> None:
    with pytest.raises(FacesetError, match="wants head"):
        open_loader(folders, 2, request=SampleRequest(64, "head"))
    with pytest.raises(ValueError, match="requests for"):
        Loader({}, {"src": REQUEST}, 1, seed=0, workers=0, warn=silent)


@posix
def test_a_killed_worker_is_reported_and_replaced(folders: dict[str, Path], wanted: list[Batch]) -> None:
    told: list[str] = []
    with open_loader(folders, 2, warn=told.append) as loader:
        got = taken(loader, 2)
        for _ in range(2):
            os.kill(loader.pids()[0], signal.SIGKILL)
            got += taken(loader, 11)
        assert_same(got, wanted)
    assert any("sample worker" in text and "SIGKILL" in text and "takes over" in text for text in told), told


@posix
def test_all_workers_killed_at_once(folders: dict[str, Path], wanted: list[Batch]) -> None:
    told: list[str] = []
    with open_loader(folders, 2, warn=told.append) as loader:
        wait_until(lambda: len(loader.pids()) == 2)
        for pid in loader.pids():
            os.kill(pid, signal.SIGKILL)
        assert_same(taken(loader, 24), wanted)
    assert told


def test_workers_that_never_come_up_end_the_loader(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('the disk is on fire')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with open_loader(folders, 1, warn=lambda text: None) as loader:
        with pytest.raises(LoaderError, match=r"(?s)3 times in a row.*the disk is on fire"):
            next(loader)
        with pytest.raises(LoaderError, match="closed"):
            next(loader)


def test_a_job_that_kills_every_worker_ends_the_loader(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, cv2; cv2.imdecode = lambda *given: os._exit(5)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told: list[str] = []
    loader = open_loader(folders, 1, warn=told.append)
    with loader, pytest.raises(LoaderError, match=r"exit code 5\), 3 times in a row"):
        next(loader)
    assert len(told) == 2


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_broken_pictures_are_told_once_and_replaced_alike(tmp_path: Path, workers: int) -> None:
    folder = make_folder(tmp_path / "faces", 5)
    damage(folder, 1)
    damage(folder, 2)
    told: list[str] = []
    with open_loader({"src": folder}, 0, warn=lambda text: None) as loader:
        wanted = taken(loader, 8)
    with open_loader({"src": folder}, workers, warn=told.append) as loader:
        assert_same(taken(loader, 8), wanted)
    assert sorted(text.split()[0] for text in told) == ["00001.jpg", "00002.jpg"]
    assert all("of src is skipped: " in text for text in told)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_faceset_without_a_whole_picture_is_an_error(tmp_path: Path, workers: int) -> None:
    folder = make_folder(tmp_path / "faces", 2)
    damage(folder, 0)
    damage(folder, 1)
    loader = open_loader({"src": folder}, workers, warn=lambda text: None)
    with loader, pytest.raises(LoaderError, match="none of the 2 faces of src can be decoded"):
        next(loader)


def test_broken_faces_of_strangers_do_no_harm(shared: Path) -> None:
    told: list[str] = []
    faceset = Faceset.open(shared / "faces" / "bad", told.append)
    requests = {"src": SampleRequest(64, "half_face")}
    listed = len(told)
    with Loader({"src": faceset}, requests, 8, seed=0, workers=1, warn=told.append) as loader:
        for _ in range(2 * len(faceset) // 8 + 1):
            batch = next(loader)
            assert all(np.isfinite(array).all() for _, array in batch.src.items())
    assert len(set(told[listed:])) == len(told[listed:])


def test_every_kind_of_real_face_makes_samples(shared: Path) -> None:
    for folder in ("odd_valid", "masked/xseg", "masked/odd", "masked/both_pak", "types/head", "small/src_pak"):
        faceset = Faceset.open(shared / "faces" / folder, silent)
        requests = {"src": SampleRequest(64, "full_face")}
        with Loader({"src": faceset}, requests, len(faceset), seed=0, workers=0, warn=silent) as loader:
            batch = next(loader)
            assert 0.15 < batch.src.mask.mean() < 0.95, folder
            assert batch.src.mask_em.max(axis=(1, 2, 3)).min() == 1, folder


def test_close_ends_the_workers_and_may_come_twice(folders: dict[str, Path]) -> None:
    loader = open_loader(folders, 2)
    next(loader)
    pids = loader.pids()
    loader.close()
    loader.close()
    assert len(pids) == 2
    wait_until(lambda: not any(alive(pid) for pid in pids))
    with pytest.raises(LoaderError, match="closed"):
        next(loader)


def test_close_before_the_first_batch(folders: dict[str, Path]) -> None:
    loader = open_loader(folders, 2)
    loader.close()
    assert not loader.pids()


@posix
def test_close_does_not_wait_for_a_stopped_worker(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samplelib.pool._GOODBYE_S", 0.3)
    loader = open_loader(folders, 1)
    next(loader)
    pid = loader.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    loader.close()
    wait_until(lambda: not alive(pid))


PARENT = """
    import sys, time
    from pathlib import Path
    from core.batch import SampleRequest
    from samplelib.faceset import Faceset
    from samplelib.loader import Loader
    if __name__ == "__main__":
        faceset = Faceset.open(Path(sys.argv[1]), print)
        loader = Loader({"src": faceset}, {"src": SampleRequest(64, "whole_face")}, 2, seed=0, workers=2, warn=print)
        next(loader)
        print(*loader.pids(), "torch" in sys.modules, flush=True)
        time.sleep(60)
"""


@posix
def test_workers_and_buffers_go_when_the_parent_is_killed(folders: dict[str, Path], tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    places = [Path("/dev/shm"), tmp_path]
    before = {place: set(place.iterdir()) for place in places if place.is_dir()}
    process = subprocess.Popen(
        [sys.executable, str(script), str(folders["src"])],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )
    with process:
        assert process.stdout is not None
        *pids, torch_there = process.stdout.readline().split()
        assert torch_there == "False"
        assert all(alive(int(pid)) for pid in pids) and len(pids) == 2
        process.kill()
    wait_until(lambda: not any(alive(int(pid)) for pid in pids))
    assert not any("facesmith" in p.name for place in before for p in set(place.iterdir()) - before[place])
    assert set(tmp_path.iterdir()) == before[tmp_path]


def ignores_ctrl_c(pid: int) -> bool:
    """Whether a process is past its imports and has said so."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(mask, 16) >> (signal.SIGINT - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc whether the workers have come up")
def test_workers_ignore_ctrl_c(folders: dict[str, Path], wanted: list[Batch]) -> None:
    with open_loader(folders, 2) as loader:
        got = taken(loader, 1)
        wait_until(lambda: all(ignores_ctrl_c(pid) for pid in loader.pids()))
        for pid in loader.pids():
            os.kill(pid, signal.SIGINT)
        assert_same(got + taken(loader, 23), wanted)


def test_workers_import_no_torch() -> None:
    code = "import sys, samplelib.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@posix
def test_a_shared_buffer_goes_where_there_is_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.mkdir()
    empty.mkdir()
    reserve = sharedbuf._fill
    tried: list[int] = []

    def fill(descriptor: int, start: int, end: int) -> None:
        tried.append(end)
        if len(tried) in (1, 3):
            raise OSError(28, "No space left on device")
        reserve(descriptor, start, end)

    monkeypatch.setattr(sharedbuf, "_fill", fill)
    buffer = SharedBuffer(1 << 16, first=1 << 12, folders=[full, empty])
    assert buffer.place == str(empty) and tried == [1 << 12, 1 << 12]
    with pytest.raises(SharedBufferError, match="No space left"):
        buffer.reserve(1 << 14)
    buffer.map[:5] = b"there"
    buffer.reserve(1 << 16)
    buffer.reserve(1 << 13)
    assert buffer.map[:5] == b"there" and tried[2:] == [1 << 14, 1 << 16]
    assert list(empty.iterdir()) == []
    with pytest.raises(SharedBufferError, match="no room for"):
        SharedBuffer(1 << 16, folders=[tmp_path / "missing"])
    buffer.close()


@posix
def test_a_lazy_buffer_outside_anonymous_memory_tries_the_next_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A sparse file fits into any /dev/shm, however small: what counts is whether it can be filled."""
    set_aside = sharedbuf._fill
    small = tmp_path / "small"
    small.mkdir()

    def fill(descriptor: int, start: int, end: int) -> None:
        if end > 0 and Path(f"/proc/self/fd/{descriptor}").readlink().parent == small:
            raise OSError(28, "No space left on device")
        set_aside(descriptor, start, end)

    monkeypatch.setattr(sharedbuf, "_fill", fill)
    if sys.platform == "linux":
        buffer = SharedBuffer(1 << 16, lazy=True, folders=[small, tmp_path])
        assert buffer.place == str(tmp_path)
        assert os.fstat(buffer.pass_fds[0]).st_blocks * 512 >= 1 << 16
        buffer.close()
    if hasattr(os, "memfd_create"):
        buffer = SharedBuffer(1 << 16, lazy=True)
        assert buffer.place == sharedbuf.MEMORY and os.fstat(buffer.pass_fds[0]).st_blocks == 0
        buffer.close()


def test_a_layout_survives_the_journey() -> None:
    layout = Layout.of({"a": (np.float32, (2, 3)), "b": (np.uint8, (5,)), "empty": (np.int64, (0, 4))})
    buffer = SharedBuffer(layout.size * 2)
    views = layout.views(buffer.map, layout.size)
    views["a"][...] = 3
    views["b"][...] = 7
    if sys.platform != "win32":
        kind, where, size = buffer.handle.split(":")
        other = attach(f"{kind}:{os.dup(int(where))}:{size}")
    else:
        other = attach(buffer.handle)
    seen = Layout.parse(layout.plain()).views(other, layout.size)
    assert (seen["a"] == 3).all() and (seen["b"] == 7).all() and seen["empty"].shape == (0, 4)
    del views, seen
    buffer.close()
    buffer.close()
    other.close()


def test_default_workers_are_at_most_eight() -> None:
    assert 1 <= default_workers() <= 8
