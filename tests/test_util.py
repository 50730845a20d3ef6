"""`main.py util` as it is called: what it says, what it asks, how it ends."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import cv2
import pytest
from sample_faces import make_folder

from main import main
from mainscripts import util


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

    monkeypatch.setattr(util.packing, "_differing", interrupted)
    assert call(aligned, "--pack-faceset") == 130
    assert "Nothing is lost: start it again" in capsys.readouterr().err
    assert names(aligned) == ["00000.jpg", "00001.jpg", "00002.jpg"]
