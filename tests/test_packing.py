"""Packing and unpacking: DFL's own bytes, every picture as it was, and never a moment without the faces."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken_disk import BrokenDisk, StopHere
from sample_faces import make_folder

from core.dflfile import DflFileError, Member, dumps, joined
from core.disk import DISK, Disk
from facelib.dfljpg import parse_metadata, read_header
from samplelib import pack
from samplelib.facedata import check_face
from samplelib.faceset import Faceset, FacesetError, read_bytes
from samplelib.metafile import read_saved
from samplelib.packing import delete_originals, pack_folder, unpack_folder


class _DflReader(pickle.Unpickler):
    """Python's own reader, as DFL uses it; members of DFL's enumerations come out as (module, name, number)."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("samplelib.Sample", "facelib.FaceType"):
            return lambda number: (module, name, number)
        assert module.startswith("numpy"), module
        return super().find_class(module, name)


def opened(data: bytes) -> tuple[list[dict[str, Any]], list[int], bytes]:
    """A pack as DFL reads it: list, offsets, pictures."""
    version, length = struct.unpack("<QQ", data[:16])
    assert version == 1
    config = _DflReader(io.BytesIO(data[16 : 16 + length])).load()
    start = 16 + length + 8 * (len(config) + 1)
    return config, list(struct.unpack(f"<{len(config) + 1}Q", data[16 + length : start])), data[start:]


def assert_same(a: Any, b: Any) -> None:
    """Equal, of equal types, in the same order."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for one, two in zip(a, b, strict=True):
            assert_same(one, two)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def aligned(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "aligned", 4, size=64)


@pytest.mark.parametrize("name", ["small/src_pak", "masked/both_pak", "masked/person_pak"])
def test_packs_are_value_for_value_what_dfl_wrote(name: str, shared: Path, tmp_path: Path, warned: list[str]) -> None:
    theirs = shared / "faces" / name / "faceset.pak"
    shutil.copyfile(theirs, tmp_path / "faceset.pak")
    count = len(pack.read_pack(theirs))
    assert unpack_folder(tmp_path, warned.append, DISK) == (count, 0)
    assert not (tmp_path / "faceset.pak").exists()
    persons = (tmp_path / "src").is_dir()
    assert len(pack_folder(tmp_path, persons, warned.append, DISK)) == count
    data = (tmp_path / "faceset.pak").read_bytes()
    config, offsets, pictures = opened(data)
    wanted, wanted_offsets, wanted_pictures = opened(theirs.read_bytes())
    assert_same(config, wanted)
    assert offsets[:-1] == wanted_offsets[:-1] and pictures == wanted_pictures
    assert offsets[-1] == len(data)  # a position in the whole file, as DFL writes it
    assert warned == []


def test_a_folder_comes_back_byte_for_byte(tmp_path: Path, shared: Path, warned: list[str]) -> None:
    for name in ("odd_valid", "masked/odd", "types/head"):
        folder = tmp_path / name.replace("/", " ")
        shutil.copytree(shared / "faces" / name, folder, copy_function=shutil.copyfile)
        folder.chmod(0o755)
        before = content(folder)
        pictures = pack_folder(folder, False, warned.append, DISK)
        assert delete_originals(folder, pictures, DISK) == [] and list(content(folder)) == ["faceset.pak"]
        assert unpack_folder(folder, warned.append, DISK) == (len(before), 0)
        assert content(folder) == before
    assert warned == []


def test_persons_keep_their_folders(tmp_path: Path, warned: list[str]) -> None:
    for person in ("ann", "ben ü"):
        make_folder(tmp_path / person, 3, size=64)
    make_folder(tmp_path, 1, size=64)
    (tmp_path / "ben ü" / "notes.txt").write_text("not a picture")
    before = content(tmp_path)
    pictures = pack_folder(tmp_path, True, warned.append, DISK)
    assert warned == ["1 pictures beside the sub-folders belong to no person; not packed"]
    delete_originals(tmp_path, pictures, DISK)
    assert sorted(content(tmp_path)) == ["00000.jpg", "ben ü/notes.txt", "faceset.pak"]
    assert not (tmp_path / "ann").exists()
    faceset = Faceset.open(tmp_path, warned.append)
    assert faceset.persons() == ["ann", "ben ü"]
    assert [read_bytes(sample) for sample in faceset] == [
        before[f"{sample.person_name}/{sample.filename}"] for sample in faceset
    ]
    assert unpack_folder(tmp_path, warned.append, DISK) == (6, 0)
    assert content(tmp_path) == before


def test_what_is_no_face_stays(aligned: Path, warned: list[str]) -> None:
    (aligned / "empty.jpg").write_bytes(b"")
    (aligned / "x.png").write_bytes(b"\x89PNG")
    (aligned / "notes.txt").write_text("x")
    pictures = pack_folder(aligned, False, warned.append, DISK)
    delete_originals(aligned, pictures, DISK)
    assert sorted(content(aligned)) == ["empty.jpg", "faceset.pak", "notes.txt", "x.png"]
    assert [line.split(":")[0] for line in warned] == ["empty.jpg", "x.png"]
    with pytest.raises(FacesetError, match="no faces to pack"):
        pack_folder(aligned, False, warned.append, DISK)


def test_files_changed_after_packing_are_kept(aligned: Path, warned: list[str]) -> None:
    pictures = pack_folder(aligned, False, warned.append, DISK)
    (aligned / "00001.jpg").write_bytes((aligned / "00001.jpg").read_bytes() + b"edited")
    assert delete_originals(aligned, pictures, DISK) == [aligned / "00001.jpg"]
    assert sorted(content(aligned)) == ["00001.jpg", "faceset.pak"]


def test_a_pack_that_is_there_is_never_replaced(aligned: Path, warned: list[str]) -> None:
    pack_folder(aligned, False, warned.append, DISK)
    packed = (aligned / "faceset.pak").read_bytes()
    assert len(pack_folder(aligned, False, warned.append, DISK)) == 4  # all in it: the run before was stopped
    (aligned / "00002.jpg").unlink()
    assert len(pack_folder(aligned, False, warned.append, DISK)) == 3
    make_folder(aligned, 6, size=64, first_seed=9)
    with pytest.raises(
        FacesetError, match=r"6 of the 6 faces beside it are not in it \(such as 00000\.jpg\)\. Unpack it"
    ):
        pack_folder(aligned, False, warned.append, DISK)
    assert (aligned / "faceset.pak").read_bytes() == packed


class _FullDisk(Disk):
    def free(self, folder: Path) -> int:
        return 1 << 20


class _LyingDisk(Disk):
    """Changes one byte of what is written, and says nothing."""

    def write(self, file: Any, data: Any) -> None:
        changed = bytearray(data)
        changed[len(changed) // 2] ^= 1
        super().write(file, changed)


def test_no_room_and_bad_writes_are_noticed_before_anything_is_lost(aligned: Path, warned: list[str]) -> None:
    before = content(aligned)
    with pytest.raises(FacesetError, match=r"MB are needed and 34 MB must stay free, but there are 1 MB"):
        pack_folder(aligned, False, warned.append, _FullDisk())
    with pytest.raises(FacesetError, match="is not what was packed"):
        pack_folder(aligned, False, warned.append, _LyingDisk())
    assert content(aligned) == before
    delete_originals(aligned, pack_folder(aligned, False, warned.append, DISK), DISK)
    packed = content(aligned)
    with pytest.raises(FacesetError, match="Make room"):
        unpack_folder(aligned, warned.append, _FullDisk())
    with pytest.raises(FacesetError, match="is not what was read"):
        unpack_folder(aligned, warned.append, _LyingDisk())
    assert content(aligned) == packed


def _whole(folder: Path, before: dict[str, bytes]) -> None:
    """Every face is there: as its file, or in a pack that opens."""
    now = content(folder)
    held = {}
    if "faceset.pak" in now:
        entries, whole = pack.read_entries(folder / "faceset.pak")
        assert whole
        held = {e.filename: now["faceset.pak"][e.offset : e.offset + e.size] for e in entries}
    for name, data in before.items():
        assert now.get(name) == data or held.get(name) == data, name


@pytest.mark.parametrize("how", ["stop", "fail", "dead"])
@pytest.mark.parametrize("unpacking", [False, True])
def test_broken_at_every_step_and_the_power_cut(how: str, unpacking: bool, aligned: Path, warned: list[str]) -> None:
    """Whatever step fails, the process ends or the power goes: no face is lost, and the next run completes the work."""
    before = content(aligned)

    def work(disk: Disk) -> None:
        if unpacking:
            unpack_folder(aligned, warned.append, disk)
        else:
            delete_originals(aligned, pack_folder(aligned, False, warned.append, disk), disk)

    if unpacking:
        delete_originals(aligned, pack_folder(aligned, False, warned.append, DISK), DISK)
    start = content(aligned)
    for at in range(1, 100):
        for path in aligned.iterdir():
            path.unlink()
        for name, data in start.items():
            (aligned / name).write_bytes(data)
        disk = BrokenDisk(aligned, at=at, how=how)
        try:
            work(disk)
        except (OSError, StopHere):
            pass
        else:
            break
        _whole(aligned, before)
        if how == "stop":
            disk.cut_power(random.Random(at))
            _whole(aligned, before)
        if unpacking and not (aligned / "faceset.pak").exists():
            assert content(aligned) == before  # stopped behind the last step that matters
            continue
        if unpacking or any(name.endswith(".jpg") for name in content(aligned)):
            work(DISK)
            assert list(content(aligned)) == (list(before) if unpacking else ["faceset.pak"])
        _whole(aligned, before)
    assert at > 10 and at < 99


# ---- packs of strangers


def _pack_of(folder: Path, names: list[tuple[str, str | None]]) -> None:
    """A pack of noise faces under any names."""
    made = make_folder(folder / "made", len(names), size=64)
    entries, sizes, data = [], [], b""
    for (name, person), path in zip(names, sorted(made.iterdir()), strict=True):
        raw = path.read_bytes()
        header = read_header(raw)
        metadata = parse_metadata(header.metadata)
        entries.append(pack.entry(name, header, metadata, check_face(metadata, (64, 64)), person))
        sizes.append(len(raw))
        data += raw
    shutil.rmtree(made)
    (folder / "faceset.pak").write_bytes(pack.head(entries, sizes) + data)


def test_names_that_lead_elsewhere_are_left_in_the_pack(tmp_path: Path, warned: list[str]) -> None:
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    bad: list[tuple[str, str | None]] = [
        ("../up.jpg", None), ("/tmp/root.jpg", None), ("..", None), ("a\\b.jpg", None), ("c:d.jpg", None),
        ("x.bat", None), ("con.jpg", None), ("e\x1b[2J.jpg", None), ("x.jpg ", None), (".jpg", ".."),
        ("y.jpg", "../z"), ("y.jpg", ""),
        ("Twice.jpg", None), ("twice.JPG", None), ("faceset.pak", None),
    ]  # fmt: skip
    _pack_of(folder, [*bad, ("good.jpg", None), ("имя 顔.jpg", "ann")])
    done, problems = unpack_folder(folder, warned.append, DISK)
    assert (done, problems) == (2, len(bad)) and len(warned) == len(bad)
    assert all(line.isprintable() for line in warned)
    assert sorted(content(tmp_path)) == ["in/side/ann/имя 顔.jpg", "in/side/faceset.pak", "in/side/good.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_not_followed(tmp_path: Path, warned: list[str]) -> None:
    folder = tmp_path / "in"
    (tmp_path / "out").mkdir()
    folder.mkdir()
    (folder / "ann").symlink_to(tmp_path / "out", target_is_directory=True)
    (folder / "y.jpg").symlink_to(tmp_path / "out" / "y.jpg")
    _pack_of(folder, [("x.jpg", "ann"), ("y.jpg", None), ("z.jpg", None)])
    assert unpack_folder(folder, warned.append, DISK) == (1, 2) and len(warned) == 2
    assert not list((tmp_path / "out").iterdir())


def test_files_that_are_there_are_not_overwritten(aligned: Path, warned: list[str]) -> None:
    pictures = pack_folder(aligned, False, warned.append, DISK)
    delete_originals(aligned, pictures[1:], DISK)
    (aligned / "00002.jpg").write_bytes(b"somebody's own")
    assert unpack_folder(aligned, warned.append, DISK) == (3, 1)
    assert warned == ["00002.jpg: another file of that name is there already; left as it is"]
    assert (aligned / "00002.jpg").read_bytes() == b"somebody's own" and (aligned / "faceset.pak").exists()


def test_packs_that_are_cut_off_stay(aligned: Path, warned: list[str]) -> None:
    pictures = pack_folder(aligned, False, warned.append, DISK)
    delete_originals(aligned, pictures, DISK)
    data = (aligned / "faceset.pak").read_bytes()
    (aligned / "faceset.pak").write_bytes(data[:-100])
    assert unpack_folder(aligned, warned.append, DISK) == (4, 1)
    assert "not as long as it says" in warned[0] and (aligned / "faceset.pak").exists()
    (aligned / "faceset.pak").write_bytes(data[:100])
    with pytest.raises(FacesetError, match="Nothing was unpacked"):
        unpack_folder(aligned, warned.append, DISK)


def test_recorded_bad_packs_write_nothing_outside(shared: Path, tmp_path: Path, warned: list[str]) -> None:
    for number, source in enumerate(sorted((shared / "faces" / "bad").glob("pak_*"))):
        folder = tmp_path / "deep" / str(number)
        folder.mkdir(parents=True)
        shutil.copyfile(source / "faceset.pak", folder / "faceset.pak")
        try:
            _, problems = unpack_folder(folder, warned.append, DISK)
        except FacesetError as error:
            assert str(folder) in str(error) and list(content(folder)) == ["faceset.pak"]
        else:
            assert (folder / "faceset.pak").exists() == bool(problems)
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert all(path.is_dir() for path in (tmp_path / "deep").iterdir())


@pytest.mark.slow
def test_large_facesets_are_no_attack(tmp_path: Path, warned: list[str]) -> None:
    """Landmarks are many values in few bytes: packs of more than 4,600 faces were refused once."""
    make_folder(tmp_path, 1, size=64)
    raw = (tmp_path / "00000.jpg").read_bytes()
    header = read_header(raw)
    metadata = parse_metadata(header.metadata)
    face = check_face(metadata, (64, 64))
    entries = [pack.entry(f"{number}.jpg", header, metadata, face, None) for number in range(6000)]
    (tmp_path / "faceset.pak").write_bytes(pack.head(entries, [8] * 6000) + bytes(8 * 6000))
    assert len(pack.read_pack(tmp_path / "faceset.pak")) == 6000
    config = pickle.dumps([{"n": number, **metadata, "shape": (64, 64, 3)} for number in range(3)], 4)
    assert len(config) // 3 // 4 > 216  # what DFL's own pickles of a face leave
    (tmp_path / "meta.dat").write_bytes(
        joined([dumps({f"{number}.jpg": ((64, 64, 3), metadata)}) for number in range(3000)])
    )
    assert len(read_saved(tmp_path / "meta.dat", warned.append)) == 3000 and warned == []


def test_only_dfls_enumerations_are_written() -> None:
    assert b"csamplelib.Sample\nSampleType\nK\x01\x85R" in dumps([Member("samplelib.Sample", "SampleType", 1)])
    with pytest.raises(DflFileError, match=r"os\.system cannot be saved"):
        dumps([Member("os", "system", 1)])
