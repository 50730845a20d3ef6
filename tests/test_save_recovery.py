"""What the next start makes of a folder: other programs, other hands, bad disks, hostile journals."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from save_stage import GAN, LINKS, Stage, recovered, snapshot
from saved_model import STEMS, iterations, model, save, the_iteration

from core import dflfile
from core.disk import Disk
from core.manifest import Manifest
from core.modeldir import ModelDir, ModelError, saved_models

# ---- other programs, other hands ----------------------------------------------------------------------------------


def rewrite(folder: Path, iteration: int) -> None:
    """What DFL does: every file of its own written over, ours let be."""
    other = folder / "elsewhere"
    save(model(other), iteration, state=False)
    for path in model(other).files():
        path.replace(folder / path.name)
    for path in other.iterdir():
        path.unlink()
    other.rmdir()


def test_files_of_another_program_win(tmp_path: Path) -> None:
    directory = model(tmp_path)
    save(directory, 5)
    assert directory.recover() == []
    rewrite(tmp_path, 9)
    (note,) = directory.recover()
    assert "face_SAEHD_data.dat" in note and "written by another program" in note and "\n" not in note
    assert directory.read_state() is None and the_iteration(directory) == 9
    assert directory.recover() == [note]  # nothing is written before there is something to save
    save(directory, 10)
    assert directory.recover() == [] and the_iteration(directory) == 10


def test_files_of_another_program_win_over_an_open_journal(scenes: Path, quick: Path) -> None:
    """A save was interrupted, and the user went on in DFL without opening the model here first."""
    stage = Stage(scenes, quick, "our model")
    opened = 0
    for at in range(1, len(stage.steps) + 1):
        folder, _, _ = stage.broken(at)
        opened += model(folder).journal.journal_path.exists()
        rewrite(folder, 50)
        (note,) = model(folder).recover()
        assert "another program" in note and the_iteration(model(folder)) == 50
    assert opened > 5


def test_what_is_put_in_or_taken_away_by_hand_stays_so(tmp_path: Path) -> None:
    directory = model(tmp_path)
    save(directory, 5, GAN)
    directory.part_path("decoder").unlink()
    assert directory.recover() == [] and directory.missing(["encoder", "decoder"]) == ["decoder"]
    assert directory.read_state() is not None
    other = model(tmp_path / "other")
    save(other, 3)
    other.part_path("encoder").replace(directory.part_path("encoder"))
    (note,) = directory.recover()
    assert note.startswith("face_SAEHD_encoder.npy: written by another program")
    assert iterations(directory) == {"encoder": 3, "src_dst_opt": 5, "GAN": 5, "data.dat": 5, "summary": 5}


def test_copies_with_new_times_are_the_same_files(tmp_path: Path) -> None:
    save(model(tmp_path), 5)
    for path in tmp_path.iterdir():
        raw = path.read_bytes()
        path.unlink()
        path.write_bytes(raw)
    assert model(tmp_path).recover() == [] and model(tmp_path).read_state() is not None


@LINKS
@pytest.mark.parametrize("name", ["our model", "GAN switched on"])
def test_readers_see_one_save_while_files_are_switched(scenes: Path, quick: Path, name: str, links: bool) -> None:
    stage = Stage(scenes, quick, name, links)
    for at in range(1, len(stage.steps) + 1):
        folder, _, _ = stage.broken(at)
        directory = model(folder)
        assert directory.missing(STEMS) == [] and saved_models(folder, "SAEHD") == ["face"]
        found = {int(directory.read_part(stem)["a/weight:0"][0, 0]) for stem in STEMS}  # type: ignore[index]
        state = directory.read_state()
        assert state is not None and found == {directory.read_data().iter} == {state.iteration}


# ---- bad disks ----------------------------------------------------------------------------------------------------


class FlippingDisk(Disk):
    """Stores one byte wrongly and says nothing."""

    def write(self, file: object, data: bytes | memoryview) -> None:
        raw = bytearray(data)
        if len(raw) > 100:
            raw[50] ^= 1
        super().write(file, bytes(raw))  # type: ignore[arg-type]


def test_what_the_disk_gives_back_is_compared(tmp_path: Path) -> None:
    save(model(tmp_path), 1)
    before = snapshot(tmp_path)
    with pytest.raises(OSError, match="other bytes than were written"):
        save(model(tmp_path, FlippingDisk()), 2)
    assert snapshot(tmp_path) == before


@pytest.fixture
def interrupted(scenes: Path, quick: Path) -> ModelDir:
    """A folder whose save stopped in the midst of the switch: one file is new, five are still to be."""
    stage = Stage(scenes, quick, "our model")
    switches = [at for at, step in enumerate(stage.steps, 1) if step == "replace"][1:-1]
    folder, _, _ = stage.broken(switches[1])
    assert model(folder).journal.plan().action == "finish" and len(list(folder.glob("*_facesmith_new_*"))) == 5
    return model(folder)


def test_a_new_file_that_is_lost_undoes_the_save(interrupted: ModelDir) -> None:
    directory = interrupted
    staged = next(directory.folder.glob("*_facesmith_new_src_dst_opt.npy"))
    staged.write_bytes(bytes(staged.stat().st_size))
    (note,) = directory.recover()
    assert "undone" in note and the_iteration(directory) == 1


def test_a_broken_journal_undoes_the_save(interrupted: ModelDir) -> None:
    directory = interrupted
    directory.journal.journal_path.write_bytes(bytes(500))
    (note,) = directory.recover()
    assert "undone" in note and the_iteration(directory) == 1


def test_what_cannot_be_mended_is_named_and_a_new_save_mends_it(interrupted: ModelDir) -> None:
    directory, folder = interrupted, interrupted.folder
    for path in (*folder.glob("*_facesmith_new_*"), *folder.glob("*_facesmith_old_*")):
        path.write_bytes(b"")
    with pytest.raises(ModelError, match=r"for want of .*src_dst_opt\.npy.*Restore a backup"):
        directory.recover()
    save(directory, 7)
    assert recovered(folder) == 7


def test_a_journal_is_believed_only_in_its_own_folder(tmp_path: Path) -> None:
    entry = '{"size": 0, "mtime_ns": 0, "crc32": 0, "iteration": 0}'
    for name in (
        "../x.npy",
        "a/b.npy",
        "facesmith_journal.json",
        "facesmith_old_x.npy",
        "x.exe",
        "..npy",
        "x\\\\y.npy",
    ):
        table = f'{{"{name}": {entry}}}'
        raw = f'{{"format": 1, "generation": 1, "iteration": 1, "losses": [], "before": {{}}, "files": {table}}}'
        with pytest.raises(ValueError, match="no table of a model's files"):
            Manifest.from_json(raw.encode())
    for damage in ("", "[]", '{"format": 2}', '{"format": 1}', "[" * 9999, '{"format": 1, "losses": [NaN, "x"]}'):
        with pytest.raises(ValueError, match=r"^(it|its) "):
            Manifest.from_json(damage.encode())
    with pytest.raises(ValueError, match="larger"):
        Manifest.from_json(b" " * (1 << 21))
    manifest = Manifest(1, 2, {}, {"a.npy": None}, (0.5, None))
    assert Manifest.from_json(manifest.to_json()) == manifest
    with pytest.raises(ValueError, match="is no name for a file of a model"):
        save(model(tmp_path), 1, ("../x",))


def test_a_refused_rename_is_tried_again_where_scanners_hold_files(tmp_path: Path) -> None:
    waited: list[float] = []
    (tmp_path / "a").write_bytes(b"1")

    class Held(type(tmp_path)):  # type: ignore[misc]
        def replace(self, target: Path) -> Path:
            if len(waited) < 2:
                raise PermissionError(errno.EACCES, "in use")
            return Path(super().replace(target))

    Disk(patience=(0.1, 0.2, 0.3), sleep=waited.append).replace(Held(tmp_path / "a"), tmp_path / "b")
    assert waited == [0.1, 0.2] and (tmp_path / "b").read_bytes() == b"1"
    with pytest.raises(PermissionError):
        waited.clear()
        (tmp_path / "a").write_bytes(b"1")
        Disk(patience=(0.1,), sleep=waited.append).replace(Held(tmp_path / "a"), tmp_path / "b")


def test_dfls_own_rename_takes_everything_along(interrupted: ModelDir) -> None:
    """DFL renames every path by what stands before the first `_`; its loader looks for `*SAEHD_data.dat`."""
    folder = interrupted.folder
    assert [path.name for path in folder.iterdir() if path.name.endswith("SAEHD_data.dat")] == ["face_SAEHD_data.dat"]
    for path in list(folder.iterdir()):
        name, rest = path.name.split("_", 1)
        assert name == "face"
        path.rename(folder / f"other_{rest}")
    directory = ModelDir(folder, "other", "SAEHD")
    assert "completed" in directory.recover()[0]
    assert directory.read_data().iter == 2 and dflfile.load(directory.part_path("decoder"))
