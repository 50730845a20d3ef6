"""Saves to break: scenes of a model folder before and after a save, and fresh folders to play them in."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from broken_disk import BrokenDisk, StopHere
from saved_model import STEMS, model, save, the_iteration

GAN = (*STEMS, "GAN")
LINKS = pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])


@dataclass(frozen=True)
class Scene:
    """A save of iteration 2. before: parts of iteration 1 (none: no model yet); ours: whether it was saved here."""

    before: tuple[str, ...]
    after: tuple[str, ...] = STEMS
    ours: bool = True
    state: bool = True


SCENES = {
    "first save": Scene(()),
    "DFL's model": Scene(STEMS, ours=False),
    "our model": Scene(STEMS),
    "GAN switched on": Scene(STEMS, GAN),
    "GAN switched off": Scene(GAN),
    "state removed": Scene(STEMS, state=False),
}


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory where there is one: these tests make and delete ten thousands of files."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def make_scenes(root: Path) -> None:
    """A folder for each scene, before its save."""
    for name, scene in SCENES.items():
        folder = root / name
        folder.mkdir()
        if scene.before:
            save(model(folder), 1, scene.before, state=scene.ours)
        if not scene.ours:
            for path in folder.glob("*_facesmith_*"):
                path.unlink()


class Stage:
    """Fresh folders of one scene."""

    def __init__(self, scenes: Path, root: Path, name: str, links: bool = True) -> None:
        self.scene, self.links, self.root, self.template = SCENES[name], links, root, scenes / name
        self.old = 1 if self.scene.before else 0
        disk = BrokenDisk(folder := self.fresh(), links=links)
        assert self.attempt(folder, disk) and the_iteration(model(folder)) == 2
        self.steps = disk.steps  # of an undisturbed save

    def fresh(self) -> Path:
        return Path(shutil.copytree(self.template, Path(tempfile.mkdtemp(dir=self.root)) / "m"))

    def attempt(self, folder: Path, disk: BrokenDisk) -> bool:
        """The save on that disk; whether it was reported as done."""
        try:
            save(model(folder, disk), 2, self.scene.after, state=self.scene.state)
        except (StopHere, OSError):
            return False
        return True

    def broken(self, at: int, how: str = "stop") -> tuple[Path, BrokenDisk, bool]:
        """A fresh folder after an attempt that broke at that step."""
        folder = self.fresh()
        disk = BrokenDisk(folder, at, how, self.links)
        return folder, disk, self.attempt(folder, disk)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def recovered(folder: Path) -> int:
    """The iteration found by the next start; 0 where there is no model yet."""
    directory = model(folder, BrokenDisk(folder))
    directory.recover()
    return the_iteration(directory) if directory.data_path.exists() else 0
