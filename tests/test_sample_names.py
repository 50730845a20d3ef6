"""The file names of the faces in a batch: from folders and packs, by any number of workers, some of them broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loading import REQUEST, damage, open_loader, silent
from sample_faces import make_folder

from core.disk import DISK
from samplelib.packing import delete_originals, pack_folder


@pytest.mark.parametrize(("workers", "packed"), [(0, False), (2, True)])
def test_every_sample_knows_its_file(tmp_path: Path, workers: int, packed: bool) -> None:
    """Told by its pixels; also for a face in the place of a broken one, and in a pack."""
    folders = {"src": make_folder(tmp_path / "src", 5), "dst": make_folder(tmp_path / "dst", 4, first_seed=100)}
    damage(folders["src"], 2)
    names = {side: [path.name for path in sorted(folder.iterdir())] for side, folder in folders.items()}
    still = replace(REQUEST, flip=False, random_warp=False, rotation=0.0, scale=0.0, shift=0.0)
    if packed:
        for folder in folders.values():
            delete_originals(folder, pack_folder(folder, False, silent, DISK), DISK)
    with open_loader(folders, workers, warn=lambda text: None, request=still, batch_size=5) as loader:
        batch = next(loader)
        for side, arrays in batch.items():
            told = [arrays.name_of(row) for row in range(5)]
            assert set(told) <= set(names[side])
            pictures = {name: arrays.target[row] for row, name in enumerate(told)}
            for row, name in enumerate(told):
                assert np.array_equal(arrays.target[row], pictures[name])
            assert len({array.tobytes() for array in pictures.values()}) == len(pictures)
        src = [batch.src.name_of(row) for row in range(5)]
        assert sorted(src) == [f"0000{number}.jpg" for number in (0, 1, 3, 3, 4)], "the next one for the broken one"
        kept = batch.map(lambda array: array[:2])
        assert [kept.src.name_of(row) for row in range(2)] == src[:2] and "name_of" not in kept.src
