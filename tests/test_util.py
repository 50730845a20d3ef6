"""`main.py util` as it is called: what it says, what it asks, how it ends."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from sample_faces import make_folder
from tests_support import ROOT

from main import main
from samplelib import metafile, packing
from samplelib.faceset import Faceset

KILLS = int(os.environ.get("FACESMITH_KILLS", "40"))


@pytest.fixture
def aligned(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "aligned", 3, size=64)


def call(folder: Path, *arguments: str) -> int:
    return main(["util", "--input-dir", str(folder), *arguments])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_packing_deletes_nothing_unasked(aligned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(aligned, "--pack-faceset") == 0
    said = capsys.readouterr().out
    assert "faceset.pak: 3 faces" in said and "checked against the files" in said
    assert "The files stay, as nobody could be asked: --set delete_original=y deletes them." in said
    assert names(aligned) == ["00000.jpg", "00001.jpg", "00002.jpg", "faceset.pak"]
    assert (
        call(aligned, "--pack-faceset", "--set", "delete_original=y") == 0
    )  # the pack is there: only the rest is done
    assert "3 files deleted." in capsys.readouterr().out and names(aligned) == ["faceset.pak"]
    assert call(aligned, "--unpack-faceset") == 0
    assert names(aligned) == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert "3 pictures, as they were packed." in capsys.readouterr().out


@pytest.mark.parametrize(("answers", "left"), [("y\ny\n", ["faceset.pak"]), ("\nn\n", ["ann", "ben", "faceset.pak"])])
def test_questions_are_dfls(
    answers: str, left: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for person in ("ann", "ben"):
        make_folder(tmp_path / person, 2, size=64)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
    assert call(tmp_path, "--pack-faceset", "--ask") == 0
    said = capsys.readouterr().out
    assert "[y] 2 subdirectories found, process as person faceset? ( y/n ?:help ) : " in said
    assert "[y] Delete original files? ( y/n ?:help ) : " in said
    assert names(tmp_path) == left


def test_face_data_saved_and_restored(aligned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(aligned, "--save-faceset-metadata") == 0
    assert "meta.dat: face data of 3 pictures." in capsys.readouterr().out
    path = aligned / "00001.jpg"
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (128, 128)))
    assert call(aligned, "--restore-faceset-metadata") == 0
    said = capsys.readouterr().out
    assert "1 pictures got their face data back, 2 had them." in said and "no pixel was changed" in said
    assert names(aligned) == ["00000.jpg", "00001.jpg", "00002.jpg"]


def test_what_is_left_undone_is_told_by_the_exit_code(aligned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(aligned, "--save-faceset-metadata")
    (aligned / "00000.jpg").write_bytes(b"")
    assert call(aligned, "--restore-faceset-metadata") == 1
    assert "meta.dat stays" in capsys.readouterr().out
    assert call(aligned, "--unpack-faceset") == 1
    assert "Error: " in capsys.readouterr().err
    assert call(aligned / "absent", "--pack-faceset") == 1
    assert "absent" in capsys.readouterr().err
    assert call(aligned, "--pack-faceset", "--set", "delete_original=perhaps") == 2
    assert "delete_original: got 'perhaps', allowed is y or n" in capsys.readouterr().err
    assert not (aligned / "faceset.pak").exists()
    for wrong in ([], ["--pack-faceset", "--unpack-faceset"]):
        with pytest.raises(SystemExit) as stopped:
            call(aligned, *wrong)
        assert stopped.value.code == 2


def test_ctrl_c_says_that_nothing_is_lost(
    aligned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "_differing", interrupted)
    assert call(aligned, "--pack-faceset") == 130
    assert "Nothing is lost: start it again" in capsys.readouterr().err
    assert names(aligned) == ["00000.jpg", "00001.jpg", "00002.jpg"]


def test_a_full_disk_is_told_with_place_and_remedy(
    aligned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # without a name, as writing raises it

    monkeypatch.setattr(metafile, "write_bytes", full)
    assert call(aligned, "--save-faceset-metadata") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"Error: {aligned}: No space left on device. Free some space there")
    assert said.endswith("Nothing is lost: start it again to go on.\n") and said.count("\n") == 1


def contents(folder: Path) -> dict[str, str]:
    """What is in the pictures of a folder and of its pack, by name."""
    found = {path.name: path.read_bytes() for path in folder.glob("*.jpg")}
    if (folder / "faceset.pak").exists():
        inside = folder.with_name("inside")
        shutil.copytree(folder, inside)
        for path in inside.glob("*.jpg"):
            path.unlink()
        assert call(inside, "--unpack-faceset") == 0
        found = {path.name: path.read_bytes() for path in inside.glob("*.jpg")} | found
        shutil.rmtree(inside)
    return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(found.items())}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills are POSIX")
@pytest.mark.parametrize("work", ["pack", "unpack", "save", "restore"])
def test_killed_at_any_moment(work: str, tmp_path: Path) -> None:
    """Real processes killed while they change files: nothing is lost, and the next one goes on."""
    dice, interrupted = random.Random(work), 0
    start = make_folder(tmp_path / "start", 30, size=64)
    whole = contents(start)
    if work == "unpack":
        assert call(start, "--pack-faceset", "--set", "delete_original=y") == 0
    elif work == "restore":
        assert call(start, "--save-faceset-metadata") == 0
        for path in sorted(start.glob("*.jpg")):
            cv2.imwrite(str(path), cv2.imread(str(path)))
    words = {"pack": ["--pack-faceset", "--set", "delete_original=y"], "unpack": ["--unpack-faceset"]}
    words |= {"save": ["--save-faceset-metadata"], "restore": ["--restore-faceset-metadata"]}
    for number in range(KILLS):
        folder = Path(shutil.copytree(start, tmp_path / str(number)))
        before = changes(folder)
        command = [sys.executable, "main.py", "util", "--input-dir", str(folder), *words[work]]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            while changes(folder) == before and process.poll() is None:
                time.sleep(0.0005)
            time.sleep(dice.random() * 0.01)
            process.kill()
        interrupted += process.returncode != 0
        if work in ("pack", "unpack"):
            assert contents(folder) == whole
        code = call(folder, *words[work])
        assert code == 0 or process.returncode == 0 or work in ("pack", "unpack")  # then nothing is left to do
        assert not [name for name in names(folder) if name.endswith((".new", ".tmp"))]
        if work == "save":
            assert len(metafile.read_saved(folder / "meta.dat", pytest.fail)) == 30
        elif work == "restore":
            assert len(Faceset.open(folder, pytest.fail)) == 30
        else:
            assert contents(folder) == whole
        shutil.rmtree(folder)
    assert interrupted > KILLS / 2


def changes(folder: Path) -> set[tuple[str, int]]:
    """What tells that work on a folder has begun."""
    with os.scandir(folder) as entries:
        return {(entry.name, entry.inode()) for entry in entries}
