"""Options of preview and history: rows, interval, how many pictures stay, whose faces, counting anew, sessions."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from person import Person
from training import command, digest, here

from core.backups import BackupRules, make, of_session, prune
from core.disk import DISK
from core.history import jpeg, ours
from core.modeldir import ModelDir
from core.options import OptionError
from core.previewsample import from_stored
from core.thinning import Thinned, surplus
from mainscripts.train_history import count_anew
from models.running import history_every, preview_rows
from models.saehd import SAEHD
from samplelib.faceset import Faceset


def test_what_stays_is_spread_evenly() -> None:
    kept: list[int] = []
    for number in range(10, 20_010, 10):
        kept.append(number)
        gone = surplus(kept, 100, number)
        kept = [each for each in kept if each not in gone]
    gaps = np.diff(kept)
    assert len(kept) == 100 and kept[0] == 10 and kept[-1] == 20_000 and gaps.max() <= 3 * gaps[:-1].min()
    at_once = set(range(10, 20_010, 10)) - set(surplus(list(range(10, 20_010, 10)), 100, 20_000))
    assert len(at_once) in range(98, 102) and np.ptp(np.diff(sorted(at_once))) <= 20
    assert surplus([1, 2], 1, 2) == [] and surplus([1, 5, 9], 2, 5) == [], "first, last and newest stay"


def test_only_our_pictures_go(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    others = ["0000004.jpg", "0000005.png", "note.txt", "12.jpg", "_last.jpg"]
    cv2.imwrite(str(tmp_path / others[0]), picture)
    for name in others[1:]:
        (tmp_path / name).write_bytes(b"mine")
    for number in (1, 2, 3):
        (tmp_path / f"{number:07d}.jpg").write_bytes(jpeg(picture))
    thinned = Thinned(tmp_path, 3, ours)
    for number in (6, 8, 10):
        path = tmp_path / f"{number:07d}.jpg"
        path.write_bytes(jpeg(picture))
        thinned.add(path)
    ours_now = sorted(int(path.stem) for path in tmp_path.glob("*.jpg") if ours(path))
    assert len(ours_now) == 3 and ours_now[0] == 1 and ours_now[-1] == 10
    assert all((tmp_path / name).exists() for name in others)


@pytest.mark.parametrize(
    ("given", "there", "rows"),
    [({}, 8, 4), ({"resolution": 256}, 8, 3), ({"resolution": 640}, 8, 1), ({}, 2, 2),
     ({"preview_samples": 16}, 16, 16), ({"preview_samples": 16}, 8, 8),
     ({"preview_samples": 4, "resolution": 512}, 8, 4)],
)  # fmt: skip
def test_rows_of_the_preview(given: dict[str, int], there: int, rows: int) -> None:
    assert preview_rows(SAEHD.resolve(given), there) == rows


def test_interval_of_the_history() -> None:
    def every(**given: object) -> int:
        return history_every(SAEHD.resolve({"write_preview_history": True, **given}))

    assert [every(resolution=side) for side in (64, 128, 256)] == [10, 20, 40] and every(preview_history_every=7) == 7
    assert every(write_preview_history=False, preview_history_every=7) == 0


def test_a_session_ends_the_name_of_its_backups(tmp_path: Path) -> None:
    file = tmp_path / "x_SAEHD_data.dat"
    file.write_bytes(b"1")
    root = tmp_path / "backups"
    rules = BackupRules(max_count=2, session="gän 1")
    for second in range(4):
        now = datetime(2026, 11, 21, 10, 0, second)
        session = rules.session if second else ""
        notes = {"x_SAEHD_facesmith_backup.txt": b"iteration: 1\n" + of_session(session)}
        folder = make(root, [file], notes, BackupRules(max_count=2, session=session), now, DISK)
        if second == 1:
            folder.rename(root / "2026-11-21_10-00-01_my own")
        prune(root, rules, folder)
    assert sorted(path.name for path in root.iterdir()) == [
        "2026-11-21_10-00-01_my own", "2026-11-21_10-00-02_gän 1", "2026-11-21_10-00-03_gän 1",
    ]  # fmt: skip
    for wrong in ("a/b", "..", "a.", "_a", "x" * 41, "a\nb"):
        with pytest.raises(OptionError, match=r"session_name: got .* allowed is - for none, or 1 to 40 letters"):
            SAEHD.resolve({"session_name": wrong})
    assert SAEHD.resolve({"session_name": " no warp-2 "})["session_name"] == "no warp-2"


def test_a_history_by_options_and_counting_anew(faces: Path, copy: Path) -> None:
    """Chosen faces in their order, bounded pictures, a named session, a backup by iterations; then all from 0 again."""
    names = [sample.filename for sample in Faceset.open(faces / "data_src" / "aligned", print)]
    sets = ["write_preview_history=y", "preview_history_every=2", "preview_history_keep=3", "preview_samples=3"]
    sets += ["session_name=late", "snapshot_interval=10"]
    words = [word for each in sets for word in ("--set", each)]
    words += ["--no-preview", "--exit-at-target", "--silent-start"]
    chosen = ["--history-faces", f"{names[2]},{names[0]}, {Path(names[2]).stem}", names[1]]
    done = here(command(faces, copy, *words, *chosen, "--target-iter", "17", small=False))
    assert done.returncode == 0 and "Session name: late" in done.stdout, done.stderr
    model = ModelDir(copy, "new", "SAEHD")
    assert "Session name: late" in model.summary_path.read_text() and "session_name" not in model.read_data().options
    pages = {path.name: path for path in model.history_folder.iterdir()}
    assert set(pages) == {"SAEHD", "SAEHD masked"}
    for page in pages.values():
        numbers = sorted(path.stem for path in page.iterdir())
        assert len(numbers) == 4 and numbers[0] == "0000004" and numbers[2:] == ["0000016", "_last"], numbers
    values = SAEHD.resolve({}, model.read_data().options)
    sample = from_stored(model.read_data().sample_for_preview, SAEHD.requests(values))
    assert sample is not None and sample.src.target.shape == (3, 3, 64, 64) == sample.dst.target.shape
    assert (sample.src.target[0] == sample.src.target[2]).all() and (sample.src.target[0] != sample.src.target[1]).any()
    assert (sample.dst.target == sample.dst.target[:1]).all()
    (backup,) = model.backups()
    assert backup.iteration == 10 and backup.folder.name.endswith("_late")
    # ---- from 0 again, with other faces since there is no window to choose them in
    before = digest(copy)
    words += ["--set", "reset_iterations=y", "--set", "choose_preview_history=y", "--target-iter", "2"]
    done = here(command(faces, copy, *words, small=False))
    assert done.returncode == 0 and "count from 0 again, at 17 iterations" in done.stdout, done.stderr
    assert "reset_iterations" not in done.stdout.partition("The same run again")[2].partition("\n")[0]
    data = model.read_data()
    assert data.iter == 2 and len(data.loss_history) == 2
    other = from_stored(data.sample_for_preview, SAEHD.requests(values))
    assert other is not None and len(other.src.target) == 3 and (other.src.target != sample.src.target).any()
    (moved,) = copy.glob("new_SAEHD_facesmith_history_*")
    assert f"in {moved.name} now" in done.stdout
    kept = {name: value for name, value in before.items() if name.startswith("new_SAEHD_history")}
    assert {name.replace(moved.name, "new_SAEHD_history"): value for name, value in digest(copy).items()
            if name.startswith(moved.name)} == kept  # fmt: skip
    assert sorted(path.name for path in (model.history_folder / "SAEHD").iterdir()) == ["0000002.jpg", "_last.jpg"]


def test_a_new_count_begins_with_an_empty_history(tmp_path: Path) -> None:
    """After pretraining, and where a model of that name was there before."""
    directory = ModelDir(tmp_path, "x", "SAEHD")
    (directory.history_folder / "SAEHD").mkdir(parents=True)
    setup = SimpleNamespace(values={"reset_iterations": False}, directory=directory, data=None)
    said: list[str] = []
    for iteration in (5, 0, 0):
        count_anew(setup, SimpleNamespace(iteration=iteration), said.append, lambda: datetime(2026, 1, 2))  # type: ignore[arg-type]
        assert len(said) == (iteration == 0)
    assert [path.name for path in tmp_path.iterdir()] == ["x_SAEHD_facesmith_history_2026-01-02_00-00-00"]


def test_history_faces_that_cannot_be(faces: Path, copy: Path) -> None:
    before, on = digest(copy), ("--set", "write_preview_history=y")
    for words, message in (
        (("--history-faces", "nobody.jpg", "x", *on), "src has no face 'nobody.jpg'. There is 0000"),
        (("--history-faces", ",", "x", *on), "got no name for src"),
        (("--history-faces", "a", "b"), "Add --set write_preview_history=y"),
    ):
        done = here(command(faces, copy, *words, "--no-preview", "--silent-start", small=False))
        assert done.returncode == 2 and message in done.stderr and digest(copy) == before, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_counting_anew_in_the_midst_of_a_training(
    faces: Path, copy: Path, tmp_path: Path, person: list[Person]
) -> None:
    orders = tmp_path / "orders.txt"
    words = ["--no-preview", "--silent-start", "--no-override", "--commands", str(orders), "--target-iter", "4"]
    me = Person(command(faces, copy, *words, small=False))
    person.append(me)
    me.child.expect_exact("Reached target iteration.")
    orders.write_text("set reset_iterations=y target_iter=2\n")
    me.child.expect_exact("count from 0 again, at 4 iterations")
    me.child.expect_exact("Reached target iteration.")
    me.child.send("\r")
    assert me.code() == 0 and ModelDir(copy, "new", "SAEHD").read_data().iter == 2
