"""A small model whose every file tells the iteration it is of, and what a folder must look like at any time.

As a program (`python tests/saved_model.py FOLDER LAST`) it recovers, checks that nothing before iteration LAST is left,
says so, and saves on for ever, saying each save that is done: to be killed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from core.disk import DISK, Disk
from core.modeldir import LossHistory, ModelData, ModelDir
from core.options import Values
from core.runstate import RunState

VALUES = Values({"resolution": 64}, {"resolution": 64})
STEMS = ("encoder", "decoder", "src_dst_opt")


def model(folder: Path, disk: Disk = DISK) -> ModelDir:
    return ModelDir(folder, "face", "SAEHD", disk)


def save(
    directory: ModelDir, iteration: int, stems: tuple[str, ...] = STEMS, size: int = 8, state: bool = True
) -> None:
    parts = {stem: {"a/weight:0": np.full((size, size), iteration, np.float32)} for stem in stems}
    data = ModelData(iteration, {"resolution": 64}, LossHistory([[1.0, 2.0]] * 3))
    directory.write(parts, data, VALUES, state=RunState(iteration, 7, iteration) if state else None)


def iterations(directory: ModelDir) -> dict[str, int]:
    """What each file that is there says."""
    found = {"data.dat": directory.read_data().iter}
    for path in directory.files():
        if path.suffix == ".npy":
            stem = path.stem.removeprefix("face_SAEHD_")
            part = directory.read_part(stem)
            assert part is not None and (part["a/weight:0"] == part["a/weight:0"].flat[0]).all()
            found[stem] = int(part["a/weight:0"].flat[0])
    lines = directory.summary_path.read_text().splitlines()
    found["summary"] = next(int(line.split(":")[1].strip(" =")) for line in lines if "Current iteration" in line)
    if (state := directory.read_state()) is not None:  # None once another program has written
        found["state"] = state.iteration
    return found


def the_iteration(directory: ModelDir) -> int:
    """The iteration all files are of; no file of a save under way may be left. A part that the last saves left alone
    (GAN) must be the one of the manifest."""
    found = iterations(directory)
    manifest = directory.journal.manifest()
    if "GAN" in found and found["GAN"] != found["data.dat"]:
        assert manifest is not None and manifest.files["GAN.npy"].iteration == found.pop("GAN")
    assert len(set(found.values())) == 1, f"files of several saves: {found}"
    assert manifest is None or manifest.iteration == found["data.dat"] or directory.journal.changed()
    litter = [path.name for path in directory.folder.iterdir() if "_new_" in path.name or "_old_" in path.name]
    assert not litter and not directory.journal.journal_path.exists(), litter
    assert set(STEMS) <= set(found)
    return found["data.dat"]


def main(folder: Path, last: int) -> None:
    directory = model(folder)
    with directory.lock():
        notes = directory.recover()
        iteration = the_iteration(directory) if directory.data_path.exists() else 0
        assert iteration >= last, f"iteration {last} was saved, {iteration} is there"
        print("start", iteration, *notes, flush=True)
        while True:
            iteration += 1
            save(directory, iteration, (*STEMS, "GAN") if iteration % 2 else STEMS, size=128)
            print("saved", iteration, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
