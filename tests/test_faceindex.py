"""The index of a faceset: the same faces with and without it, whatever happens to the files or to the index."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken_disk import BrokenDisk
from fuzz.honest import honest_entry, jpg, pak
from sample_faces import make_folder, mean_landmarks, noise, write_face
from test_faceset import alike
from tests_support import ROOT

from core.dflfile import dumps
from core.disk import Disk
from facelib.dfljpg import encode_mask
from samplelib import faceindex, facescan, packing
from samplelib.faceset import Faceset, decode_mask, read_face

LATER = 10**10  # ns: times of files are no longer too fresh to be believed


def opened(folder: Path, warned: list[str] | None = None, **more: Any) -> Faceset:
    """As at a start some seconds after the last change."""
    lines: list[str] = [] if warned is None else warned
    return Faceset.open(folder, lines.append, index_from=1, now=lambda: time.time_ns() + LATER, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = make_folder(tmp_path / "лица", 6)
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15] = 255
    for number, name in enumerate(("b.jpg", "c.jpg")):
        polygon = {"polys": [{"type": 1, "pts": np.ones((3, 2), np.float32) * number}]}
        write_face(
            made / name, noise(number, 96), mean_landmarks(96), xseg_mask=encode_mask(mask), seg_ie_polys=polygon
        )
    (made / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    (made / "lost.jpg").write_bytes(jpg(None))
    (made / "other.png").write_bytes(b"")
    return made


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read."""
    found: list[str] = []
    real = facescan.read_loose

    def counted(path: Path, name: str, stamp: facescan.Stamp) -> facescan.Found:
        found.append(name)
        return real(path, name, stamp)

    monkeypatch.setattr(facescan, "read_loose", counted)
    return found


def test_nothing_is_read_twice(folder: Path, reads: list[str]) -> None:
    first: list[str] = []
    without = opened(folder, first)
    assert len(reads) == 10 and without.news == "" and (folder / faceindex.NAME).is_file()
    reads.clear()
    second: list[str] = []
    again = opened(folder, second)
    assert reads == [] and again.news == ""
    assert first == second and [line.split(":")[0] for line in first] == ["broken.jpg", "lost.jpg", "other.png"]
    alike(again, without)
    np.testing.assert_array_equal(again.yaws(), np.array([sample.yaw for sample in without], np.float32))
    assert again.summary() == without.summary() and "2 with applied XSeg masks" in again.summary()
    for sample in again:
        assert read_face(sample).shape == (96, 96, 3)
        assert (decode_mask(sample) is not None) == sample.masked == (sample.filename in ("b.jpg", "c.jpg"))
    shutil.copy(folder / "00000.jpg", folder / "meta.dat")  # what mends it is told as soon as it is there
    opened(folder, second)
    assert "--restore-faceset-metadata" in second[-2]


def test_added_changed_and_removed_faces_are_noticed(folder: Path, reads: list[str]) -> None:
    opened(folder)
    reads.clear()
    (folder / "00001.jpg").unlink()
    (folder / "broken.jpg").unlink()
    write_face(folder / "a.jpg", noise(50, 64), mean_landmarks(64))
    write_face(folder / "00002.jpg", noise(51, 128), mean_landmarks(128))
    write_face(folder / "lost.jpg", noise(52, 96), mean_landmarks(96))
    (folder / "00003.jpg").write_bytes(b"")
    faces = opened(folder)
    assert sorted(reads) == ["00002.jpg", "00003.jpg", "a.jpg", "lost.jpg"]
    assert faces.news == "1 new, 3 changed and 2 gone since the last start"
    index = (folder / faceindex.NAME).read_bytes()
    (folder / faceindex.NAME).unlink()
    alike(faces, opened(folder))
    (folder / faceindex.NAME).write_bytes(index)
    alike(faces, opened(folder))
    assert faces[[face.filename for face in faces].index("00002.jpg")].shape == (128, 128)


def test_an_edit_that_keeps_size_and_time_is_noticed(folder: Path) -> None:
    """Programs can set the time of a file's content, not that of its change; Windows has no such time."""
    path = folder / "00004.jpg"
    opened(folder)
    before = path.stat()
    data = path.read_bytes()
    at = data.index(b"whole_face")
    path.write_bytes(data[:at] + b"elbow_face" + data[at + 10 :])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    told: list[str] = []
    faces = opened(folder, told)
    if os.name != "nt":
        assert "00004.jpg" not in {face.filename for face in faces} and any("elbow_face" in line for line in told)


def test_a_file_that_is_too_fresh_is_looked_at_again(folder: Path, reads: list[str]) -> None:
    """Two changes within a tick of the file system's clock leave the same time."""
    Faceset.open(folder, print, index_from=1)
    reads.clear()
    faces = Faceset.open(folder, print, index_from=1)
    assert len(reads) == 10 and faces.news == ""
    opened(folder)
    reads.clear()
    opened(folder)
    assert reads == []


def test_small_sets_and_folders_that_cannot_be_written(folder: Path) -> None:
    Faceset.open(folder, print)
    assert not (folder / faceindex.NAME).exists()
    told: list[str] = []
    faces = opened(folder, told, disk=BrokenDisk(folder, 1, "dead", number=errno.ENOSPC))
    assert len(faces) == 8 and not [path for path in folder.iterdir() if path.name.startswith(".")]
    lines = [line for line in told if faceindex.NAME in line]
    assert len(lines) == 1 and "No space left on device" in lines[0] and lines[0].endswith("reads all faces again")


def test_any_damage_to_an_index_is_told_once_and_harmless(folder: Path) -> None:
    faces, path = opened(folder), folder / faceindex.NAME
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    flipped = [int(at) for at in rng.integers(0, len(whole), 60)]
    broken = [whole[:length] for length in (0, 7, 39, 60, 200, len(whole) - 1)] + [whole + b"\0"]
    broken += [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in flipped]
    for data in broken:
        path.write_bytes(data)
        told: list[str] = []
        alike(opened(folder, told), faces)
        assert len([line for line in told if faceindex.NAME in line and "all faces are read anew" in line]) <= 1
        assert path.read_bytes() != data
    path.unlink()
    path.mkdir()
    alike(opened(folder, told), faces)


def test_masks_are_found_though_their_file_was_changed_since(folder: Path) -> None:
    faces = opened(folder)
    (sample,) = (face for face in faces if face.filename == "b.jpg")
    mask = np.full((9, 9), 255, np.uint8)
    write_face(folder / "b.jpg", noise(3, 96), mean_landmarks(96), xseg_mask=encode_mask(mask))
    found = decode_mask(sample)
    assert found is not None and found.shape == (9, 9, 1) and found.min() == 1


def test_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [{**honest_entry(number), "person_name": ["ann", "bob"][number % 2]} for number in range(4)]
    entries[2]["landmarks"] = None
    data = pak(dumps(entries), [jpg(None)] * 4)
    path = tmp_path / "faceset.pak"
    path.write_bytes(data)
    told: list[str] = []
    first = opened(tmp_path, told)
    assert len(first) == 3 and first.persons() == ["ann", "bob"] and "2.jpg" in told[0]
    assert all(face.mask_at[1] and data[face.mask_at[0] :].startswith(b"\x89PNG") for face in first)
    with monkeypatch.context() as patch:
        patch.setattr("samplelib.pack.read_pack", lambda path: pytest.fail("read"))
        again = opened(tmp_path, told)
    alike(first, again)
    assert told[0] == told[1] and again.persons() == ["ann", "bob"]
    assert all(np.array_equal(decode_mask(a), decode_mask(b)) for a, b in zip(first, again, strict=True))
    write_face(tmp_path / "0.jpg", noise(0, 96), mean_landmarks(96))
    path.write_bytes(pak(dumps(entries[:1]), [jpg(None)]))
    assert len(opened(tmp_path)) == 1
    path.unlink()
    assert [face.filename for face in opened(tmp_path)] == ["0.jpg"]


def test_a_pack_whose_masks_are_coded_otherwise(shared: Path, tmp_path: Path) -> None:
    for name in ("both_pak", "person_pak"):
        made = tmp_path / name
        shutil.copytree(shared / "faces" / "masked" / name, made)
        first, again = opened(made), opened(made)
        alike(first, again)
        for face in again:
            assert (decode_mask(face) is not None) == face.masked


def test_packing_leaves_the_index_out(folder: Path) -> None:
    for name in ("broken.jpg", "lost.jpg", "other.png"):
        (folder / name).unlink()
    for person in ("ann", "bob"):
        make_folder(folder / person, 2)
        opened(folder / person)
    faces = opened(folder)
    pictures = packing.pack_folder(folder, False, lambda line: None, Disk())
    assert len(pictures) == 8
    alike_pictures = [read_face(face) for face in faces]
    packed = opened(folder)
    assert len(packed) == 8 and packed[0].path.name == "faceset.pak"
    for face, picture in zip(packed, alike_pictures, strict=True):
        np.testing.assert_array_equal(read_face(face), picture)
    (folder / "faceset.pak").unlink()
    pictures = packing.pack_folder(folder, True, lambda line: None, Disk())
    assert packing.delete_originals(folder, pictures, Disk()) == [] and not (folder / "ann").exists()


WRITER = """
import sys, time
from pathlib import Path
from samplelib.faceset import Faceset
folder, number = Path(sys.argv[1]), 0
while True:
    number += 1
    Faceset.open(folder, print, index_from=1, now=lambda: time.time_ns() + number % 2 * 10**10)
    print(number, flush=True)
"""


def test_programs_that_write_it_at_once_and_are_killed(folder: Path) -> None:
    faces, told = opened(folder), []
    command = [sys.executable, "-c", WRITER, str(folder)]
    for _ in range(3):
        pair = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
        for process in pair:
            assert process.stdout is not None
            process.stdout.readline()
        for _ in range(5):
            alike(opened(folder, told), faces)
        for process in pair:
            process.kill()
            process.communicate()
        alike(opened(folder, told), faces)
    assert not [line for line in told if faceindex.NAME in line]
