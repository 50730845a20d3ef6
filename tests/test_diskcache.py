"""Prepared faces on the disk: the same batches with and without, whatever happens to processes, files and disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading import REQUEST, assert_same, damage, taken
from sample_faces import make_folder, mean_landmarks, noise, write_face
from tests_support import ROOT, soon
from training import command, here

from core import dflfile
from core.batch import Batch
from core.options import OptionError
from mainscripts.train_faces import face_cache
from models import MODELS
from samplelib import segments
from samplelib.diskcache import DiskSettings
from samplelib.facecoding import Coding, decode, encode
from samplelib.faceset import Faceset
from samplelib.loader import Loader
from samplelib.prepare import prepare

COLOURED = {"src": replace(REQUEST, ct_mode="rct", ct_from="dst"), "dst": REQUEST}
KINDS = ("image", "mask", "mask_em")
FACES = 5 + 4
RECORDS = FACES + 4  # colours of dst


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    make_folder(tmp_path / "src", 5)
    make_folder(tmp_path / "dst", 4, first_seed=20)
    return {"src": tmp_path / "src", "dst": tmp_path / "dst"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "model" / ".face_cache_default"


def batches(
    folders: dict[str, Path], disk: DiskSettings | None, workers: int = 0, *, count: int = 12,
    told: list[str] | None = None, requests: Any = COLOURED, stored: list[str] | None = None,
) -> list[Batch]:  # fmt: skip
    lines: list[str] = [] if told is None else told
    facesets = {side: Faceset.open(folder, print) for side, folder in folders.items()}
    with Loader(facesets, requests, 3, seed=7, workers=workers, warn=lines.append, disk=disk) as loader:
        if stored is not None:
            stored.append(loader.on_disk)
        found = taken(loader, count)
    assert told is not None or lines == []
    return found


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the faces that are prepared in this process."""
    found: list[str] = []

    def counted(sample, kinds, request):  # type: ignore[no-untyped-def]
        found.append(f"{sample.path.parent.name}/{sample.path.name}")
        return prepare(sample, kinds, request)

    monkeypatch.setattr("samplelib.worker.prepare", counted)
    return found


@pytest.mark.parametrize("image", ["raw", "png"])
def test_batches_are_the_same_with_and_without(folders: dict[str, Path], place: Path, image: str) -> None:
    disk, wanted = DiskSettings(place, Coding(image)), batches(folders, None)
    stored: list[str] = []
    for workers in (2, 0, 1):
        assert_same(batches(folders, disk, workers, stored=stored), wanted)
    assert stored[0].startswith(f"none yet of {FACES} in ")
    assert stored[1].startswith(f"all {FACES}, ") and str(place) in stored[1]


def test_a_face_is_prepared_once_for_all_runs(folders: dict[str, Path], place: Path, prepared: list[str]) -> None:
    disk = DiskSettings(place)
    batches(folders, disk)
    assert len(prepared) == RECORDS
    prepared.clear()
    batches(folders, disk)
    assert prepared == []
    smaller = {side: replace(request, resolution=32) for side, request in COLOURED.items()}
    for _ in range(2):
        batches(folders, disk, requests=smaller)
        batches(folders, disk)
    assert len(prepared) == RECORDS


def test_changed_and_renamed_faces_are_prepared_anew(
    folders: dict[str, Path], place: Path, prepared: list[str]
) -> None:
    disk = DiskSettings(place)
    batches(folders, disk)
    prepared.clear()
    write_face(folders["dst"] / "00002.jpg", noise(99, 96), mean_landmarks(96))
    (folders["src"] / "00001.jpg").rename(folders["src"] / "a.jpg")
    found = batches(folders, disk)
    assert sorted(prepared) == ["dst/00002.jpg", "dst/00002.jpg", "src/a.jpg"]  # dst's for its colours too
    assert_same(found, batches(folders, None))
    path = folders["dst"] / "00003.jpg"
    stat = path.stat()
    write_face(path, noise(77, 96) // 2, mean_landmarks(96))
    path.write_bytes(path.read_bytes().ljust(stat.st_size, b"\0"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    if os.name != "nt":  # which keeps no time that programs cannot set
        assert_same(batches(folders, disk), batches(folders, None))


def test_broken_faces_are_told_and_replaced_as_without(folders: dict[str, Path], place: Path) -> None:
    damage(folders["src"], 2)
    lines: list[list[str]] = [[], [], []]
    found = [
        batches(folders, disk, told=told)
        for disk, told in zip((None, DiskSettings(place), DiskSettings(place)), lines, strict=True)
    ]
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])
    assert lines[0] == lines[1] == lines[2] and "cut off" in lines[0][0]


def test_jpg_gives_the_same_batches_whether_it_is_there_or_not(folders: dict[str, Path], place: Path) -> None:
    disk = DiskSettings(place, Coding("jpg", 90))
    first = batches(folders, disk)
    assert_same(batches(folders, disk, 1), first)
    exact = batches(folders, None)
    assert all(np.array_equal(a.src.mask, b.src.mask) for a, b in zip(first, exact, strict=True))
    off = np.mean([np.abs(a.dst.target - b.dst.target).mean() for a, b in zip(first, exact, strict=True)])
    assert 0 < off < 0.02


def test_coding(folders: dict[str, Path]) -> None:
    face = prepare(Faceset.open(folders["src"], print)[0], KINDS, REQUEST)
    for coding in (Coding("raw"), Coding("png"), Coding("jpg", 100)):
        data = encode(face, coding)
        again = decode(data, KINDS, 64, coding)
        assert list(again) == list(KINDS)
        for kind in KINDS:
            off = np.abs(again[kind].astype(int) - face[kind]).max()
            assert off <= (0 if coding.exact or kind != "image" else 12)
        for broken in (data[:-1], data + b"\0", data[:3], b"", data[:4] + bytes(len(data) - 4)):
            if coding.image != "raw" or len(broken) != len(data):
                with pytest.raises(ValueError):
                    decode(broken, KINDS, 64, coding)


@pytest.mark.slow
def test_damaged_bytes_are_prepared_anew(folders: dict[str, Path], place: Path, prepared: list[str]) -> None:
    wanted = batches(folders, None)
    rng = np.random.default_rng(1)
    for ending in (segments.FACES, segments.LIST):
        for number in range(4):
            disk = DiskSettings(place.with_name(f"{ending}{number}"))
            batches(folders, disk)
            (path,) = disk.folder.glob(f"*{ending}")
            data = bytearray(path.read_bytes())
            for at in rng.integers(0, len(data), 8).tolist():
                data[at] ^= 0x10
            path.write_bytes(data[: int(rng.integers(len(data) // 2, len(data)))])
            prepared.clear()
            assert_same(batches(folders, disk), wanted)
            assert 0 < len(prepared) <= RECORDS
            prepared.clear()
            batches(folders, disk)
            assert prepared == []
    place.mkdir()
    (place / f"x{segments.LIST}").write_bytes(b"another program's")
    (place / f"y{segments.LIST}").mkdir()
    assert_same(batches(folders, DiskSettings(place), 1), wanted)


def test_a_list_is_read_in_the_memory_it_needs(tmp_path: Path) -> None:
    writer = segments.Writer(tmp_path, "a")
    writer.append(bytes(16), b"face")
    writer.close()
    tracemalloc.start()
    try:
        (found,) = segments.read_segments(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert list(found.records) == [bytes(16)]


def test_what_is_deleted_meanwhile_is_prepared_anew(folders: dict[str, Path], place: Path) -> None:
    wanted = batches(folders, None, count=20)
    batches(folders, DiskSettings(place), count=3)
    facesets = {side: Faceset.open(folder, print) for side, folder in folders.items()}
    told: list[str] = []
    with Loader(facesets, COLOURED, 3, seed=7, workers=2, warn=told.append, disk=DiskSettings(place)) as loader:
        found = taken(loader, 1)
        shutil.rmtree(place, ignore_errors=True)
        found += taken(loader, 19)
    assert_same(found, wanted)
    assert len(told) <= 1


# ---- disks that are full, forbidden or small


def test_a_folder_that_cannot_be_used_is_told_once(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    wanted = batches(folders, None)
    for place in (tmp_path / "file", tmp_path / "file" / "inside"):
        told: list[str] = []
        assert_same(batches(folders, DiskSettings(place), 1, told=told), wanted)
        assert len(told) == 1 and "training goes on without" in told[0]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_only_be_read(folders: dict[str, Path], place: Path) -> None:
    wanted = batches(folders, None)
    batches(folders, DiskSettings(place), count=3)
    place.chmod(0o500)
    told: list[str] = []
    try:
        assert_same(batches(folders, DiskSettings(place), 1, told=told), wanted)
    finally:
        place.chmod(0o700)
    assert len(told) == 1 and "Permission denied" in told[0]


@pytest.mark.parametrize(
    "limits, reason",
    [({"limit": 30_000}, "max_cache_gb"), ({"spare": 1 << 60}, "nearly full")],
)
def test_limits(folders: dict[str, Path], place: Path, limits: dict[str, int], reason: str) -> None:
    wanted, told = batches(folders, None, count=20), list[str]()
    found = batches(folders, DiskSettings(place, **{"spare": 0, **limits}), 1, told=told, count=20)
    assert_same(found, wanted)
    assert len(told) == 1 and reason in told[0] and told[0].endswith("training goes on without")
    assert sum(path.stat().st_size for path in place.iterdir()) <= 30_000


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = ["tests", "."]
if __name__ == "__main__":
    import test_diskcache
    from samplelib.diskcache import DiskSettings
    root, place, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    folders = {"src": root / "src", "dst": root / "dst"}
    requests = test_diskcache.COLOURED
    if what != "64":
        requests = {side: replace(request, resolution=int(what)) for side, request in requests.items()}
    wanted = test_diskcache.batches(folders, None, requests=requests)
    while True:
        told, stored = [], []
        found = test_diskcache.batches(
            folders, DiskSettings(place, spare=0), 2, told=told, requests=requests, stored=stored
        )
        test_diskcache.assert_same(found, wanted)
        print(stored[0], told, flush=True)
"""


def other(tmp_path: Path, place: Path, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(place), what]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def lines_of(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    found = [process.stdout.readline() for _ in range(count)]
    process.kill()
    process.communicate()
    assert all(found), found
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="a limit that only Linux can set from outside")
def test_a_disk_that_refuses_to_write(folders: dict[str, Path], place: Path) -> None:
    import resource

    wanted, told = batches(folders, None), list[str]()
    facesets = {side: Faceset.open(folder, print) for side, folder in folders.items()}
    disk = DiskSettings(place, spare=0)
    with Loader(facesets, COLOURED, 3, seed=7, workers=2, warn=told.append, disk=disk) as loader:
        assert soon(lambda: len(loader.pids()) == 2)
        for pid in loader.pids():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
        assert_same(taken(loader, 12), wanted)
    assert len(told) == 1 and "(File too large); training goes on without" in told[0]
    assert max(path.stat().st_size for path in place.iterdir()) <= 50_000
    assert_same(batches(folders, DiskSettings(place), 1), wanted)


@pytest.mark.slow
def test_several_trainers_at_once(folders: dict[str, Path], place: Path, tmp_path: Path) -> None:
    """The same faces twice, and another model's, in one folder: each finds its own batches, as it does alone."""
    running = [other(tmp_path, place, what) for what in ("64", "64", "48")]
    for process in running:
        assert lines_of(process, 3)[2].startswith(f"all {FACES}")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills are POSIX here")
def test_killed_while_writing(folders: dict[str, Path], place: Path, tmp_path: Path, prepared: list[str]) -> None:
    """Workers and parent by SIGKILL, at moments of the writing; then whoever comes finds what is whole."""
    wanted, there = batches(folders, None), []
    for number in range(3):
        make_folder(folders["src"], 5, first_seed=100 + number)  # new faces: there is always something to write
        before = set(place.glob("*")) if place.is_dir() else set()
        process = other(tmp_path, place, "64")
        end = time.monotonic() + 30
        while time.monotonic() < end and not (place.is_dir() and set(place.glob(f"*{segments.LIST}")) - before):
            time.sleep(0.001)
        time.sleep(number * 0.008)
        family = [process.pid, *children(process.pid)]
        for pid in reversed(family):
            os.kill(pid, signal.SIGKILL)
        process.communicate()
        there.append(len(segments.read_segments(place)))
        for path in list(place.glob(f"*{segments.LIST}"))[-1:]:  # and as a power cut might leave it
            path.write_bytes(path.read_bytes() + b"torn")
        wanted = batches(folders, None)
        assert_same(batches(folders, DiskSettings(place), number % 3), wanted)
        prepared.clear()
        batches(folders, DiskSettings(place))
        assert prepared == []
    assert max(there) > 0


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in found.split()]


@pytest.mark.parametrize("where", ["cpu", pytest.param("device", marks=pytest.mark.slow)])
def test_a_training_finds_the_faces_of_the_one_before(faces: Path, tmp_path: Path, where: str) -> None:
    words = ["--no-preview", "--exit-at-target", "--cache-mb", "0", "--set", "use_cache=y", "--set", "folder_suffix=a"]
    words += ["--set", f"augment_on={where}", "--target-iter"]
    first, second, third = (
        here(command(faces, tmp_path, *words, *more))
        for more in (["8"], ["9"], ["10", "--set", "force_recache=y", "--set", "image_type=jpg"])
    )
    assert (first.returncode, second.returncode, third.returncode) == (0, 0, 0), first.stderr + second.stderr
    place = tmp_path / ".face_cache_a"
    assert f"Faces kept on disk: none yet of 12 in {place}." in first.stdout
    assert f"Faces kept on disk: all 12, 0 MB in {place}." in second.stdout
    assert f"Faces kept on disk: none yet of 12 in {place}." in third.stdout
    options = dflfile.load(tmp_path / "new_SAEHD_data.dat")["options"]
    assert not {"use_cache", "folder_suffix", "image_type", "force_recache"} & set(options)


def test_a_run_empties_the_folder_once(tmp_path: Path) -> None:
    values = MODELS["SAEHD"].resolve({"use_cache": "y", "force_recache": "y", "image_type": "jpg"}, {})
    place, emptied = tmp_path / ".face_cache_default", set[Path]()
    place.mkdir()
    for left in (0, 1):
        (place / f"a{segments.FACES}").write_bytes(b"")
        assert face_cache(tmp_path, values, emptied) == DiskSettings(place, Coding("jpg", 95))
        assert len(list(place.iterdir())) == left
    assert face_cache(tmp_path, MODELS["SAEHD"].resolve({}, {}), emptied) is None
    for suffix in ("", "..", "a/b", "a_b\\c", "-", "x" * 41, "a."):
        with pytest.raises(OptionError, match=r"folder_suffix: got .*, allowed is 1 to 40 letters"):
            MODELS["SAEHD"].resolve({"folder_suffix": suffix}, {})
