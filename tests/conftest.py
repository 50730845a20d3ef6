"""Where tests find recorded data: small copies in tests/golden, the large sets in ../shared (skipped when absent)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_faces import make_folder
from save_stage import make_scenes, memory_folder
from screen import Screen, virtual_screen
from tests_support import ROOT
from training import command, run

# Nets as small as the tests' run faster on one thread, and alike on every machine. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large recordings and real faces, beside the checkout or in FACESMITH_SHARED."""
    folder = Path(os.environ.get("FACESMITH_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the recordings in {folder}: set FACESMITH_SHARED")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def screen() -> Iterator[Screen]:
    """A virtual screen, or a skipped test."""
    yield from virtual_screen()


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of noise faces, in a folder with a space and a letter beyond ASCII."""
    folder = tmp_path_factory.mktemp("wörk space")
    make_folder(folder / "data_src" / "aligned", 6)
    make_folder(folder / "data_dst" / "aligned", 6, first_seed=50)
    return folder


@pytest.fixture(scope="session")
def trained(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder after three headless iterations; not to be changed."""
    model = tmp_path_factory.mktemp("model")
    done = run(command(faces, model, "--no-preview", "--target-iter", "3", "--exit-at-target", "--seed", "7"))
    assert done.returncode == 0, done.stdout + done.stderr
    return model


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained` to work on."""
    return Path(shutil.copytree(trained, tmp_path / "model"))


@pytest.fixture
def person() -> Iterator[list[Any]]:
    """The people of a test, whose programs end with it."""
    people: list[Any] = []
    yield people
    for one in people:
        one.child.close(force=True)


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder in memory, where syncing costs nothing."""
    with memory_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saves to be interrupted, as folders to copy (see save_stage.py)."""
    root = tmp_path_factory.mktemp("scenes")
    make_scenes(root)
    return root
