"""Prepared faces on the disk stay within their limit, and what nobody can want any more goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loading import assert_same, taken
from sample_faces import make_folder
from test_diskcache import COLOURED, batches
from tests_support import ROOT, soon

from samplelib import cachetidy, segments
from samplelib.cachetidy import tidy
from samplelib.diskcache import DiskSettings
from samplelib.faceset import Faceset
from samplelib.loader import Loader
from samplelib.segments import FACES, HEAD, LINE, LIST, Writer, read_segments

DAY, NOW = 86400.0, 1e9
RECORD = 1000 + LINE


def key(face: int, state: int = 0) -> bytes:
    return bytes([face]) * 8 + bytes([state]) * 8


def write(place: Path, name: str, keys: list[bytes], days: float = 0.0) -> Writer:
    """A segment last used so many days before NOW; its writer, to close."""
    place.mkdir(exist_ok=True)
    writer = Writer(place, name)
    for one in keys:
        writer.append(one, one * 62 + bytes(8))
    os.utime(place / f"{name}{LIST}", (NOW - days * DAY, NOW - days * DAY))
    return writer


def filled(place: Path, **kept: tuple[list[bytes], float]) -> None:
    for name, (keys, days) in kept.items():
        write(place, name, keys, days).close()


def tidied(
    place: Path, wanted: list[bytes], limit: int = 1 << 30, need: int = 0, name: str = "z"
) -> dict[str, list[bytes]]:
    found = tidy(place, read_segments(place), set(wanted), limit, NOW, name, need)
    assert [one.name for one in found] == [one.name for one in read_segments(place)]
    for one in found:
        reader = segments.Reader(place)
        assert all(reader.read(one.name, record) == k * 62 + bytes(8) for k, record in one.records.items())
        reader.close()
    return {one.name: sorted(one.records) for one in found}


def size(place: Path) -> int:
    return sum(path.stat().st_size for path in place.iterdir())


def test_changed_faces_go(tmp_path: Path) -> None:
    old, new = [key(n) for n in range(10)], [key(n, 1) for n in range(9)]
    filled(tmp_path, a=(old, 1), b=(new, 1))
    assert tidied(tmp_path, [*new, old[9]]) == {"b": new, "z-1": [old[9]]}
    assert tidied(tmp_path, [*new, old[9]]) == {"b": new, "z-1": [old[9]]}
    assert size(tmp_path) == 10 * RECORD + 2 * HEAD


def test_what_another_training_wants_stays_and_ages_by_itself(tmp_path: Path) -> None:
    mine, other = [key(n) for n in range(4)], [key(n) for n in range(10, 16)]
    filled(tmp_path, a=([*mine, *other], 20))
    assert tidied(tmp_path, mine) == {"z-1": mine, "z-2": other}
    used = {one.name: NOW - one.used for one in read_segments(tmp_path)}
    assert used == {"z-1": 0, "z-2": 20 * DAY}
    assert tidied(tmp_path, other) == {"z-1": mine, "z-2": other}  # which uses them: nothing is copied again
    os.utime(tmp_path / f"z-1{LIST}", (NOW - 31 * DAY, NOW - 31 * DAY))
    assert tidied(tmp_path, other) == {"z-2": other}


def test_what_is_there_twice_or_damaged_goes(tmp_path: Path) -> None:
    keys = [key(n) for n in range(4)]
    filled(tmp_path, a=(keys, 0), b=(keys[:3], 0))
    assert tidied(tmp_path, keys) == {"b": keys[:3], "z-1": keys[3:]}
    data = (tmp_path / f"b{FACES}").read_bytes()
    (tmp_path / f"b{FACES}").write_bytes(data[:1000] + b"?" * 1000 + data[2000:] + b"?" * 5000)  # no line names these
    assert tidied(tmp_path, keys, name="y") == {"y-1": [keys[0], keys[2]], "z-1": keys[3:]}
    assert size(tmp_path) == 3 * RECORD + 2 * HEAD


def test_room_is_made_of_what_is_unused_for_longest(tmp_path: Path) -> None:
    groups = [[key(10 * g + n) for n in range(4)] for g in range(4)]
    filled(tmp_path, a=(groups[0], 3), b=(groups[1], 9), c=(groups[2], 6), d=(groups[3], 12))
    full = 16 * RECORD + 4 * HEAD
    assert set(tidied(tmp_path, groups[3], full)) == {"a", "b", "c", "d"}
    assert set(tidied(tmp_path, groups[3], full, need=RECORD)) == {"a", "c", "d"}
    assert set(tidied(tmp_path, groups[3], 9 * RECORD)) == {"a", "d"}


def test_a_smaller_limit_is_held_whatever_is_wanted(tmp_path: Path) -> None:
    keys = [key(n) for n in range(40)]
    filled(tmp_path, a=(keys[:20], 0), b=(keys[20:], 0))
    left = tidied(tmp_path, keys, 15 * RECORD)
    assert sum(map(len, left.values())) == 14 and size(tmp_path) <= 15 * RECORD
    tidied(tmp_path, keys, 100)
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_has_open_is_left_alone(tmp_path: Path) -> None:
    filled(tmp_path, a=([key(1), key(2)], 50))
    reader, record = segments.Reader(tmp_path), read_segments(tmp_path)[0].records[key(1)]
    writer = write(tmp_path, "b", [key(3), key(4)], 50)
    assert reader.read("a", record)
    assert set(tidied(tmp_path, [key(1)], 100)) == {"a", "b"}
    reader.close()
    assert set(tidied(tmp_path, [key(3)], 3 * RECORD)) == {"b"}
    writer.append(key(5), key(5) * 62 + bytes(8))
    writer.close()
    assert tidied(tmp_path, [key(3), key(5)]) == {"z-1": [key(3), key(5)], "z-2": [key(4)]}


def test_many_small_segments_become_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cachetidy, "MAX_SEGMENTS", 6)
    keys = [key(n) for n in range(8)]
    filled(tmp_path, **{f"s{n}": ([one], 0) for n, one in enumerate(keys)}, t=([key(99)], 1))
    assert tidied(tmp_path, keys)["z-1"] and len(read_segments(tmp_path)) <= 4
    assert sorted(k for one in read_segments(tmp_path) for k in one.records) == keys


def test_other_files_and_versions_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / f"new{LIST}").write_bytes(b"facesmith faces 9\n")
    (tmp_path / f"new{FACES}").write_bytes(b"x" * 500)
    (tmp_path / "mine.txt").write_bytes(b"not ours")
    (tmp_path / f"killed{FACES}").write_bytes(b"x")
    (tmp_path / f"empty{LIST}").write_bytes(b"")
    (tmp_path / f"empty{FACES}").write_bytes(b"")
    for path in tmp_path.iterdir():
        os.utime(path, (NOW - DAY, NOW - DAY))
    assert set(tidied(tmp_path, [key(1)])) == {"new"}
    tidied(tmp_path, [key(1)], 100)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key(n) for n in range(4)]
    filled(tmp_path, a=(keys, 0))
    append = Writer.append

    def full(self: Writer, one: bytes, data: bytes) -> segments.Record:
        if one == keys[1]:
            raise OSError(28, "No space left on device")
        return append(self, one, data)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "append", full)
        tidied(tmp_path, keys[:2])
    assert set(keys) == {k for one in read_segments(tmp_path) for k in one.records}
    left = tidied(tmp_path, keys[:2], name="y")
    assert sorted(k for found in left.values() for k in found) == keys


KILLED = """
import sys
from pathlib import Path
from samplelib.cachetidy import tidy
from samplelib.segments import read_segments
place = Path(sys.argv[1])
wanted = {bytes([n]) * 8 + bytes(8) for n in range(200) if n % 3}
print("ready", flush=True)
tidy(place, read_segments(place), wanted, 1 << 30, 1e9, sys.argv[2])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills are POSIX here")
def test_killed_while_it_copies(tmp_path: Path) -> None:
    keys = [key(n) for n in range(200)]
    for number in range(8):
        write(tmp_path, f"a{number}", keys[number::8], 1).close()
    for number in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), f"z{number}"], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline()
        time.sleep(0.002 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert {k for one in read_segments(tmp_path) for k in one.records} == set(keys)
    found = tidied(tmp_path, [k for n, k in enumerate(keys) if n % 3])
    assert sorted(k for one in found.values() for k in one) == keys  # none twice


# ---- as a training does it


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    make_folder(tmp_path / "src", 8)
    make_folder(tmp_path / "dst", 4, first_seed=20)
    return {"src": tmp_path / "src", "dst": tmp_path / "dst"}


@pytest.mark.slow
def test_faces_changed_again_and_again_never_fill_the_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    """Room for little more than all of them; all but one of src change before each start."""
    disk, told, stored = DiskSettings(tmp_path / "kept", limit=400_000, spare=0), list[str](), list[str]()
    for number in range(5):
        for path in sorted(folders["src"].iterdir())[1:]:
            os.utime(path, (1e9 + number, 1e9 + number))
        batches(folders, disk, 1, told=told, stored=stored)
        batches(folders, disk, 0, told=told, stored=stored)
        assert size(disk.folder) <= 400_000
    assert told == [] and all(line.startswith("all 12, 0 MB in ") for line in stored[1::2])
    assert all(line.startswith("5 of 12, ") for line in stored[2::2])


def test_removed_faces_make_room(folders: dict[str, Path], tmp_path: Path) -> None:
    disk, told, stored = DiskSettings(tmp_path / "kept", limit=400_000, spare=0), list[str](), list[str]()
    for number in range(4):
        batches(folders, disk, 1, told=told, stored=stored)
        for path in sorted(folders["src"].iterdir()):
            path.unlink()
        make_folder(folders["src"], 8, first_seed=100 * number)
        for path in sorted(folders["src"].iterdir()):
            path.rename(path.with_name(f"{number}_{path.name}"))
    assert told == [] and size(disk.folder) <= 400_000


def test_the_limit_of_a_start_counts(folders: dict[str, Path], tmp_path: Path) -> None:
    wanted, place = batches(folders, None), tmp_path / "kept"
    batches(folders, DiskSettings(place))
    assert size(place) > 200_000
    told: list[str] = []
    assert_same(batches(folders, DiskSettings(place, limit=100_000), 2, told=told), wanted)
    assert size(place) <= 100_000 and len(told) == 1 and "max_cache_gb" in told[0]
    assert_same(batches(folders, DiskSettings(place, limit=100_000), 0, told=told), wanted)


def test_faces_are_counted_not_records(folders: dict[str, Path], tmp_path: Path) -> None:
    """dst's faces are kept for their colours too."""
    disk, stored = DiskSettings(tmp_path / "kept"), list[str]()
    batches(folders, disk, count=1, stored=stored)
    batches(folders, disk, stored=stored)
    batches(folders, disk, stored=stored)
    assert [line.partition(" ")[0] for line in stored[::2]] == ["none", "all"] and "none yet of 12 in" in stored[0]
    assert stored[2].startswith("all 12, ")


def test_what_is_deleted_meanwhile_is_kept_anew(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be written, unseen by anybody, into files without a name."""
    monkeypatch.setattr("samplelib.diskcache._LOOK_EVERY", 1)
    wanted, place = batches(folders, None, count=20), tmp_path / "kept"
    facesets = {side: Faceset.open(folder, print) for side, folder in folders.items()}
    with Loader(facesets, COLOURED, 3, seed=7, workers=0, warn=print, disk=DiskSettings(place)) as loader:
        found = taken(loader, 1)
        segments.empty(place)
        assert list(place.iterdir()) == []
        found += taken(loader, 19)
    assert_same(found, wanted)
    (kept,) = read_segments(place)
    assert len(kept.records) >= 4 and size(place) == kept.size


def test_a_long_segment_is_followed_by_another(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samplelib.diskcache.MAX_SEGMENT", 60_000)
    disk, stored = DiskSettings(tmp_path / "kept"), list[str]()
    assert_same(batches(folders, disk), batches(folders, None))
    assert len(read_segments(disk.folder)) > 2
    batches(folders, disk, stored=stored)
    assert stored[0].startswith("all 12, ")


def test_two_trainers_one_tidies(folders: dict[str, Path], tmp_path: Path) -> None:
    """What one has open stays; where the other took something away, the first makes it anew."""
    wanted, place = batches(folders, None, count=24), tmp_path / "kept"
    batches(folders, DiskSettings(place), count=3)
    facesets = {side: Faceset.open(folder, print) for side, folder in folders.items()}
    with Loader(facesets, COLOURED, 3, seed=7, workers=2, warn=print, disk=DiskSettings(place)) as loader:
        found = taken(loader, 6)
        assert soon(lambda: len(read_segments(place)) > 0)
        told: list[str] = []
        assert_same(batches(folders, DiskSettings(place, limit=50_000), 1, told=told), wanted[:12])
        found += taken(loader, 18)
    assert_same(found, wanted)
