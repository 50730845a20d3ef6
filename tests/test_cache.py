"""Prepared faces in shared memory: the same samples with and without, for any number of workers and any budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loading import REQUEST, assert_same, damage, taken
from sample_faces import make_folder

from core.batch import SampleRequest
from core.mainmemory import MainMemory
from mainscripts.train_run import cache_budget
from samplelib.cache import FaceCache, plan, same_sets, wanted
from samplelib.faceset import Faceset
from samplelib.loader import Loader
from samplelib.prepare import kinds, prepare

COLOURED = {"src": replace(REQUEST, ct_mode="rct", ct_from="dst"), "dst": REQUEST}


SETS = {"src": "src", "dst": "dst"}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    make_folder(tmp_path / "src", 5)
    make_folder(tmp_path / "dst", 4, first_seed=20)
    return {"src": tmp_path / "src", "dst": tmp_path / "dst"}


def opened(folders: dict[str, Path]) -> dict[str, Faceset]:
    return {side: Faceset.open(folder, print) for side, folder in folders.items()}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("budget", [1 << 20, 60_000, 100])
def test_samples_are_the_same_with_any_memory(folders: dict[str, Path], workers: int, budget: int) -> None:
    batches = []
    for some_workers, some_bytes in ((0, 0), (workers, budget)):
        told: list[str] = []
        with Loader(
            opened(folders), COLOURED, 3, seed=7, workers=some_workers, warn=told.append, cache_bytes=some_bytes
        ) as loader:
            batches.append(taken(loader, 12))  # several epochs
        assert told == []
    assert_same(*batches)


def test_a_face_is_prepared_once_for_each_use(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[tuple[str, tuple[str, ...]]] = []

    def counted(sample, kinds, request):  # type: ignore[no-untyped-def]
        prepared.append((str(sample.path), tuple(kinds)))
        return prepare(sample, kinds, request)

    monkeypatch.setattr("samplelib.worker.prepare", counted)
    with Loader(opened(folders), COLOURED, 3, seed=7, workers=0, warn=print, cache_bytes=1 << 20) as loader:
        taken(loader, 20)
    own = [path for path, parts in prepared if parts != ("colours",)]
    assert len(own) == 9 and len(prepared) == len(set(prepared)) <= 9 + 4


def test_what_fits(folders: dict[str, Path]) -> None:
    requests = {"src": REQUEST, "dst": REQUEST}
    whole = plan({"src": 100, "dst": 50}, requests, SETS, 1 << 30)
    assert whole.kept == {"src": 100, "dst": 50} and 150 * 64 * 64 * 5 <= whole.size < 150 * 64 * 64 * 5 * 1.01
    half = plan({"src": 100, "dst": 50}, requests, SETS, whole.size // 2)
    assert 45 <= half.kept["src"] <= 50 and 22 <= half.kept["dst"] <= 25 and half.size <= whole.size // 2
    none = plan({"src": 100, "dst": 50}, requests, SETS, 0)
    assert none.kept == {"src": 0, "dst": 0} and none.size == 0 and none.words({"src": 100}) == "none of 100"
    assert whole.words({"src": 100, "dst": 50}) == "all 150, 3 MB"
    assert half.words({"src": 100, "dst": 50}).endswith(" of 150, 1 MB")
    for budget in range(0, whole.size, whole.size // 97):
        assert plan({"src": 100, "dst": 50}, requests, SETS, budget).size <= budget


def test_only_what_is_asked_for_is_kept() -> None:
    assert wanted(COLOURED, SETS) == {
        "src": ("image", "mask", "mask_em"),
        "dst": ("image", "colours", "mask", "mask_em"),
    }
    assert kinds(SampleRequest(64, "whole_face", names=("warped",))) == ("image",)
    assert kinds(SampleRequest(64, "whole_face", names=("mask_em", "target"))) == ("image", "mask_em")


def test_a_place_is_empty_until_all_of_it_is_there(folders: dict[str, Path]) -> None:
    faces = opened(folders)
    some = plan({"src": 3, "dst": 4}, COLOURED, SETS, 1 << 20)
    cache = FaceCache(some, memoryview(bytearray(some.size)))
    face = prepare(faces["dst"][1], ("image", "mask", "mask_em"), REQUEST)
    assert cache.get("dst", 1, ("image",)) is None
    cache.put("dst", 1, face)
    again = FaceCache(some, memoryview(bytearray(some.size)))
    kept = cache.get("dst", 1, ("mask", "image"))
    assert kept is not None and list(kept) == ["mask", "image"]
    assert all(np.array_equal(kept[kind], face[kind]) for kind in kept)
    assert cache.get("dst", 1, ("colours",)) is None and again.get("dst", 1, ("image",)) is None
    assert cache.get("src", 3, ("image",)) is None  # beyond its places
    cache.put("src", 4, face)


def test_broken_faces_are_told_and_replaced_as_without(folders: dict[str, Path]) -> None:
    damage(folders["src"], 2)
    batches, lines = [], []
    for budget in (0, 1 << 20):
        told: list[str] = []
        with Loader(opened(folders), COLOURED, 3, seed=7, workers=1, warn=told.append, cache_bytes=budget) as loader:
            batches.append(taken(loader, 8))
        lines.append(told)
    assert_same(*batches)
    assert lines[0] == lines[1] and len(lines[0]) == 1 and "cut off" in lines[0][0]


def test_the_budget_is_what_was_asked_for_or_a_quarter_of_what_is_free(tmp_path: Path) -> None:
    class Free(MainMemory):
        room: int | None = 8 << 30

        def free(self) -> int | None:
            return self.room

    memory = Free(tmp_path)
    assert cache_budget(0, memory) == 0 and cache_budget(300, memory) == 300 << 20
    assert cache_budget(None, memory) == 2 << 30
    memory.room = None
    assert cache_budget(None, memory) == 1 << 30


@pytest.mark.parametrize("workers", [0, 2])
def test_a_faceset_on_both_sides_is_kept_once(folders: dict[str, Path], workers: int) -> None:
    damage(folders["src"], 2)
    faces = Faceset.open(folders["src"], print)
    requests, told = dict.fromkeys(("src", "dst"), REQUEST), list[str]()
    apart = {side: Faceset.open(folders["src"], print) for side in requests}
    assert same_sets({"src": faces, "dst": faces}) == {"src": "src", "dst": "src"} and same_sets(apart) == SETS
    batches, kept = [], []
    for facesets in (apart, {"src": faces, "dst": faces}):
        with Loader(facesets, requests, 3, seed=7, workers=workers, warn=told.append, cache_bytes=1 << 20) as loader:
            batches.append(taken(loader, 8))
            kept.append(loader.kept)
    assert_same(*batches)
    assert kept[0].startswith("all 10,") and kept[1].startswith("all 5,")
    assert len(told) == 3  # of both sides, then of both at once
