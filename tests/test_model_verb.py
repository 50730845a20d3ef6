"""main.py model: list, verify, backup, restore."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saved_model import STEMS, iterations, model, save, the_iteration
from tests_support import ROOT

from core import dflfile
from core.backups import BackupRules
from core.modeldir import ModelDir
from main import main

Run = Any


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on tmp_path: exit code, output, errors."""

    def call(command: str, *more: str) -> tuple[int, str, str]:
        code = main(["model", command, "--model-dir", str(tmp_path), *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_torch_stays_out_and_usage_is_told(tmp_path: Path) -> None:
    save(model(tmp_path), 3)
    words = [sys.executable, "-X", "importtime", "main.py", "model", "verify", "--model-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "sound" in done.stdout and "torch" not in done.stderr
    for wrong in (["model"], ["model", "list"], ["model", "mend"], ["model", "backup", "--model-dir", ""]):
        with pytest.raises(SystemExit) as left:
            main(wrong)
        assert left.value.code == 2


def test_list(run: Run, tmp_path: Path) -> None:
    save(model(tmp_path), 12345)
    model(tmp_path).backup()
    save(model(tmp_path), 23456)
    other = ModelDir(tmp_path, "new one", "AMP")
    other.data_path.write_bytes(b"\0" * 20)
    code, out, _ = run("list")
    assert code == 0 and "face (SAEHD): iteration 23,456, losses 1.0000 2.0000" in out
    assert "iteration 12,345" in out and "new one (AMP): iteration unknown" in out and "cannot be read" in out
    code, out, _ = run("list", "--json", "--model", "saehd")
    (row,) = map(json.loads, out.splitlines())
    assert (row["name"], row["class"], row["iteration"], row["losses"]) == ("face", "SAEHD", 23456, [1.0, 2.0])
    assert row["bytes"] > 1000 and row["backups"][0]["iteration"] == 12345 and row["trained_by"] == ""
    code, _, err = run("list", "--model", "XYZ")
    assert code == 1 and err == f"Error: No model of class XYZ in {tmp_path}.\n"
    assert main(["model", "list", "--model-dir", str(tmp_path / "absent")]) == 1


def test_dfls_backups_are_listed_and_restored(run: Run, tmp_path: Path) -> None:
    directory = model(tmp_path)
    for number in (1, 2):
        save(model(directory.backups_folder / f"0{number}"), 100 - number, state=False)
        for path in (directory.backups_folder / f"0{number}").glob("*facesmith*"):
            path.unlink()
    save(directory, 200, ("encoder", "decoder", "src_dst_opt", "GAN"))
    code, out, _ = run("list", "--json")
    backups = json.loads(out)["backups"]
    assert {(row["name"], row["iteration"]) for row in backups} == {("01", 99), ("02", 98)} and backups[0]["losses"]
    code, out, _ = run("restore", "--from", "02")
    assert code == 0 and "iteration 98" in out
    assert the_iteration(directory) == 98 and not directory.part_path("GAN").exists()
    kept = next(backup for backup in directory.backups() if backup.iteration == 200)
    assert str(kept.folder) in out and iterations(model(kept.folder))["GAN"] == 200
    assert directory.recover() == []
    code, out, _ = run("restore", "--from", kept.folder.name)
    assert (
        the_iteration(directory) == 200 and directory.read_state() is not None and iterations(directory)["GAN"] == 200
    )


def test_restore_asks_where_it_is_not_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = model(tmp_path)
    save(directory, 5)
    directory.backup()
    save(directory, 6)
    code, _, err = run("restore")
    assert code == 2 and "Say which backup by --from" in err
    code, _, err = run("restore", "--from", "yesterday")
    assert code == 2 and "'yesterday'" in err
    answers = tmp_path / "answers.txt"
    answers.write_text("0\n")
    with answers.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        code, out, _ = run("restore", "--ask")
    assert code == 0 and "[0] : " in out and the_iteration(directory) == 5


def test_a_broken_model_is_restored_and_its_remains_are_kept(run: Run, tmp_path: Path) -> None:
    directory = model(tmp_path)
    save(directory, 5)
    name = directory.backup().name
    save(directory, 6)
    directory.data_path.write_bytes(b"\0" * 50)
    directory.part_path("encoder").unlink()
    directory.journal.journal_path.write_bytes(b"\0" * 50)
    (tmp_path / "face_SAEHD_facesmith_old_decoder.npy").write_bytes(b"remains")
    assert run("verify")[0] == 1
    code, out, _ = run("restore", "--from", name)
    assert code == 0 and the_iteration(directory) == 5
    kept = Path(out.splitlines()[-1].removeprefix("What was there before is in ").rstrip("."))
    remains = {path.name for path in kept.iterdir()}
    assert {"face_SAEHD_data.dat", "face_SAEHD_decoder.npy", "face_SAEHD_facesmith_old_decoder.npy"} <= remains
    assert "could not be read" in (kept / "face_SAEHD_facesmith_backup.txt").read_text()


def test_a_backup_that_is_not_sound_is_not_restored(run: Run, tmp_path: Path) -> None:
    directory = model(tmp_path)
    save(directory, 5)
    folder = directory.backup(BackupRules(links=False))
    save(directory, 6)
    part = folder / "face_SAEHD_encoder.npy"
    sound, other = part.read_bytes(), dflfile.dumps({"a/weight:0": np.zeros((8, 8), np.float32)})
    for content, reason in [
        (other, "written by another program"),
        (sound[:-9], "cut off"),
        (None, "is gone"),
    ]:
        part.unlink()
        if content is not None:
            part.write_bytes(content)
        code, _, err = run("restore", "--from", folder.name)
        assert code == 1 and "is not sound, nothing is restored: face_SAEHD_encoder.npy" in err and reason in err
        part.write_bytes(sound)
    assert the_iteration(directory) == 6 and len(directory.backups()) == 1


def test_verify_names_what_is_wrong(run: Run, tmp_path: Path) -> None:
    directory = model(tmp_path)
    save(directory, 5)
    assert run("verify")[0] == 0
    path = directory.part_path("decoder")
    sound, times = path.read_bytes(), path.stat()
    flipped = bytearray(sound)
    flipped[-60] ^= 1
    nan = dflfile.dumps({"a/weight:0": np.full((8, 8), np.nan, np.float32), "b:0": np.ones(3, np.float32)})
    for content, state, told in [
        (bytes(flipped), "changed", "another program"), (sound[:100], "damaged|unreadable", "decoder"),
        (b"", "unreadable", "decoder"), (nan, "not finite", r"NaN or infinite numbers in a/weight:0"),
        (None, "missing", "is gone"),
    ]:  # fmt: skip
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        code, out, _ = run("verify", "--json")
        report = json.loads(out)
        found = next(row for row in report["files"] if row["name"] == path.name)
        assert found["state"] in state.split("|") and code == (0 if state == "changed" else 1), report
        assert any(told in text for text in report["problems"] + report["notes"])
    path.write_bytes(bytes(flipped))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a rotten disk would show it
    code, out, _ = run("verify")
    assert code == 1 and "damaged    face_SAEHD_decoder.npy (its bytes are not those that were saved)" in out


def test_a_problem_is_told_once(run: Run, tmp_path: Path) -> None:
    directory = model(tmp_path)
    save(directory, 5)
    directory.data_path.write_bytes(bytes(300))
    directory.part_path("decoder").unlink()
    code, out, _ = run("verify")
    assert code == 1 and "2 problems" in out and out.count("data.dat") == out.count("decoder.npy") == 1, out
    assert len(out.splitlines()) == 1 + len(STEMS) + 3, out
    directory.data_path.write_bytes(dflfile.dumps({"iter": "many"}))
    code, out, _ = run("verify")
    assert code == 1 and out.count("face_SAEHD_data.dat cannot be read") == 1, out


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe without a reader is another error there")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, unbuffered: str) -> None:
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    save(model(tmp_path), 5)
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "main.py", "model", "list", "--model-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=environ)
    os.close(writer)
    assert done.stderr == "" and done.returncode == 141


def test_a_model_that_is_not_sound_is_not_backed_up(run: Run, tmp_path: Path) -> None:
    directory = model(tmp_path)
    save(directory, 5)
    part = directory.part_path("decoder")
    os.truncate(part, 100)
    code, out, err = run("backup")
    assert code == 1 and "Backup made" not in out and err.count(part.name) == 1, err
    assert "not sound, no backup is made: face_SAEHD_decoder.npy: " in err and "model restore" not in err
    assert directory.backups() == [] and not directory.backups_folder.exists()
    save(directory, 6)
    assert run("backup")[0] == 0
    part.unlink()
    assert "model restore" in run("backup")[2] and len(directory.backups()) == 1


def test_verify_and_list_run_beside_a_training_and_the_others_refuse(run: Run, tmp_path: Path) -> None:
    directory = model(tmp_path)
    save(directory, 5)
    directory.backup()
    with directory.lock():
        assert run("verify")[0] == 0
        code, out, _ = run("list")
        assert code == 0 and "is being trained by process" in out
        for command in ("backup", "restore"):
            code, _, err = run(command)
            assert code == 1 and "is being trained by process" in err
    assert run("backup")[0] == 0


def test_which_model_is_asked_for(run: Run, tmp_path: Path) -> None:
    save(model(tmp_path), 5)
    ModelDir(tmp_path, "other", "SAEHD").data_path.write_bytes(model(tmp_path).data_path.read_bytes())
    code, _, err = run("backup")
    assert code == 2 and "several models: face (SAEHD), other (SAEHD)" in err
    code, out, _ = run("backup", "--force-model-name", "other", "--naming", "numbers")
    assert code == 0 and out.rstrip().endswith("01") and (tmp_path / "other_SAEHD_autobackups" / "01").is_dir()
    code, _, err = run("restore", "--force-model-name", "face")
    assert code == 1 and "has no backups" in err
