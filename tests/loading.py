"""What tests of the sample loader share: opening one, taking batches, comparing them, damaging a face."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from core.batch import Batch, SampleRequest
from samplelib.faceset import Faceset
from samplelib.loader import Loader

REQUEST = SampleRequest(64, "whole_face", flip=True)


def silent(text: str) -> None:
    raise AssertionError(f"unexpected warning: {text}")


def open_loader(
    folders: dict[str, Path],
    workers: int,
    *,
    warn: Callable[[str], None] = silent,
    batch_size: int = 3,
    seed: int = 7,
    position: int = 0,
    request: SampleRequest = REQUEST,
) -> Loader:
    facesets = {side: Faceset.open(folder, silent) for side, folder in folders.items()}
    requests = dict.fromkeys(folders, request)
    return Loader(facesets, requests, batch_size, seed=seed, workers=workers, position=position, warn=warn)


def taken(loader: Loader, count: int) -> list[Batch]:
    return [next(loader).map(np.copy) for _ in range(count)]


def assert_same(got: list[Batch], wanted: list[Batch]) -> None:
    assert len(got) == len(wanted)
    for number, (a, b) in enumerate(zip(got, wanted, strict=True)):
        for side, arrays in b.items():
            for name, array in arrays.items():
                assert np.array_equal(a[side][name], array), f"batch {number}, {side}.{name}"


def damage(folder: Path, number: int) -> None:
    """Cut the end of a face's picture off; its header stays."""
    path = sorted(folder.iterdir())[number]
    path.write_bytes(path.read_bytes()[:-700])
