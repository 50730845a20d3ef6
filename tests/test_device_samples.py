"""Samples from faces that lie on the device: the batches of `Loader`, for any number of workers and any room; a face
is uploaded once; what happens where the device is short of memory or of an operation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loading import REQUEST, assert_same, damage, silent
from sample_faces import make_folder
from test_resume import saved, state, train
from tests_support import ROOT
from training import command, run

from core.batch import Batch, SampleRequest
from core.devicesamples import DeviceSamples, Store, fitting
from core.modeldir import ModelDir
from mainscripts import samples
from mainscripts.samples import as_arrays, device_budget, open_on_device
from samplelib.faceset import Faceset
from samplelib.loader import Loader, LoaderError
from samplelib.worker import Maker

COLOURED = {"src": replace(REQUEST, ct_mode="lct", ct_from="dst", hsv_power=0.1), "dst": REQUEST}
FACE = 64 * 64 * (3 + 1 + 1)
MB = 1 << 20


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    make_folder(tmp_path / "src", 5)
    make_folder(tmp_path / "dst", 7, first_seed=20)
    return {"src": tmp_path / "src", "dst": tmp_path / "dst"}


@pytest.fixture(autouse=True)
def any_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small a store, it is made."""
    monkeypatch.setattr(samples, "LEAST", 1)


def opened(folders: dict[str, Path]) -> dict[str, Faceset]:
    return {side: Faceset.open(folder, silent) for side, folder in folders.items()}


def on_device(
    folders: dict[str, Path],
    requests: dict[str, SampleRequest] = COLOURED,
    workers: int = 0,
    budget: int = MB,
    **more: Any,
) -> Any:
    given = {"seed": 7, "warn": silent, **more}
    facesets = given.pop("facesets", None) or opened(folders)
    return open_on_device(facesets, requests, 3, device="cpu", budget=budget, workers=workers, **given)


def by_workers(folders: dict[str, Path], requests: dict[str, SampleRequest], count: int, **more: Any) -> list[Batch]:
    with Loader(opened(folders), requests, 3, **{"seed": 7, "workers": 0, "warn": silent, **more}) as loader:
        return [next(loader).map(np.copy) for _ in range(count)]


def taken(loader: Any, count: int) -> list[Batch]:
    with loader:
        return [as_arrays(next(loader)).map(np.copy) for _ in range(count)]


def assert_close(got: list[Batch], wanted: list[Batch]) -> None:
    for a, b in zip(got, wanted, strict=True):
        assert list(a) == list(b)
        for side, arrays in b.items():
            assert list(a[side]) == list(arrays)
            for name, array in arrays.items():
                assert a[side][name].shape == array.shape
                assert np.abs(a[side][name] - array).mean() < 0.003, (side, name)


@pytest.mark.parametrize("mode", ["none", "rct", "lct", "mkl", "idt", "sot"])
def test_batches_are_the_loaders(folders: dict[str, Path], mode: str) -> None:
    requests = {"src": replace(REQUEST, ct_mode=mode, ct_from="dst"), "dst": replace(REQUEST, uniform_yaw=True)}
    assert_close(taken(on_device(folders, requests), 6), by_workers(folders, requests, 6))


def test_any_workers_and_any_room(folders: dict[str, Path]) -> None:
    wanted = taken(on_device(folders), 12)
    assert_close(wanted, by_workers(folders, COLOURED, 12))
    for workers, budget, cache in ((0, 0, 0), (1, 6 * FACE, MB), (2, MB, 0), (3, 0, MB), (2, 20 * FACE, 5 * FACE)):
        loader = on_device(folders, workers=workers, budget=budget, cache_bytes=cache)
        assert_same(taken(loader, 12), wanted)


def test_a_run_resumes_at_its_position(folders: dict[str, Path]) -> None:
    wanted = taken(on_device(folders), 9)
    loader = on_device(folders, workers=1, position=4)
    assert_same(taken(loader, 5), wanted[4:])
    assert loader.position == 9


@pytest.mark.parametrize("budget", [MB, 0])
def test_a_face_is_prepared_once_where_it_has_a_place(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    shown: list[tuple[str, str, int]] = []
    show = Maker.show

    def counted(self: Maker, part: str, side: str, index: int, *rest: Any) -> None:
        shown.append((part, side, index))
        show(self, part, side, index, *rest)

    monkeypatch.setattr(Maker, "show", counted)
    taken(on_device(folders, budget=budget), 30)
    assert (len(shown) == len(set(shown)) == 5 + 7 + 7) == bool(budget)
    if not budget:
        assert 30 * 3 * 2 < len(shown) < 30 * 3 * 3  # every batch sends its own, a face that it shows twice once


def test_pretraining_keeps_one_faceset_once(folders: dict[str, Path]) -> None:
    faces = Faceset.open(folders["dst"], silent)
    requests = {"src": replace(REQUEST, ct_mode="mkl", ct_from="dst"), "dst": REQUEST}
    for budget in (MB, 4 * FACE, 0):
        loader = on_device(folders, requests, budget=budget, facesets={"src": faces, "dst": faces})
        got = taken(loader, 8)
        with Loader({"src": faces, "dst": faces}, requests, 3, seed=7, workers=0, warn=silent) as plain:
            assert_close(got, [next(plain).map(np.copy) for _ in range(8)])
        if budget == MB:
            assert loader.kept == "all 7, 0 MB on cpu"


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_faces_are_told_once_and_replaced_alike(folders: dict[str, Path], workers: int) -> None:
    damage(folders["src"], 1)
    damage(folders["dst"], 2)
    told: list[str] = []
    wanted = by_workers(folders, COLOURED, 10, warn=lambda text: None)
    assert_close(taken(on_device(folders, workers=workers, warn=told.append), 10), wanted)
    assert sorted(text.split()[0] for text in told) == ["00001.jpg", "00002.jpg"]
    for number in range(5):
        damage(folders["src"], number)
    loader = on_device(folders, workers=workers, warn=lambda text: None)
    with pytest.raises(LoaderError, match="none of the 5 faces of src can be decoded"):
        taken(loader, 1)


def test_what_it_says_and_leaves(folders: dict[str, Path]) -> None:
    loader = on_device(folders, workers=2, budget=8 * FACE, cache_bytes=MB)
    first = next(loader)
    before = first.map(torch.clone)
    assert isinstance(first.src.warped, torch.Tensor) and first.src.warped.dtype == torch.float32
    next(loader)
    assert_same([as_arrays(first)], [as_arrays(before)])  # a batch is nobody else's
    assert "of 12, 0 MB on cpu; of the others, in main memory all " in loader.kept
    assert loader.wait_ms > 0 and len(loader.pids()) == 2 and loader.depth >= 3
    loader.close()
    loader.close()
    assert not loader.pids()
    with pytest.raises(LoaderError, match="closed"):
        next(loader)


def test_workers_end_when_nothing_is_left_to_prepare(folders: dict[str, Path]) -> None:
    wanted = taken(on_device(folders), 40)
    with on_device(folders, workers=2) as loader:
        got = [as_arrays(next(loader)) for _ in range(40)]
        assert not loader.pids()
    assert_same(got, wanted)


def test_a_device_that_is_short_keeps_fewer_faces(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, told, tried = taken(on_device(folders), 4), [], []
    make = Store.__init__

    def full(self: Store, rows: Any, resolution: int, device: torch.device) -> None:
        tried.append(sum(rows.values()))
        if tried[-1] > 14:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        make(self, rows, resolution, device)

    monkeypatch.setattr(Store, "__init__", full)
    assert_same(taken(on_device(folders, budget=MB, warn=told.append), 4), wanted)
    *refused, made, closed = tried
    assert len(refused) > 1 and 0 == closed < made <= 14 < min(refused)
    assert len(told) == 1 and "cpu has no room for 1 MB of faces" in told[0]
    with pytest.raises(torch.OutOfMemoryError):
        fitting(lambda size: full(Store.__new__(Store), {("src", ()): 99}, 64, torch.device("cpu")), MB, 1)
    with pytest.raises(RuntimeError, match="broken"):
        fitting(lambda size: (_ for _ in ()).throw(RuntimeError("broken")), MB, 1)


def test_a_device_without_an_operation(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **more: Any) -> None:
        raise NotImplementedError("grid_sampler_2d: Unsupported Bicubic interpolation\nand more")

    monkeypatch.setattr("core.augment.F.grid_sample", refuse)
    told: list[str] = []
    loader = on_device(folders, warn=told.append)
    assert isinstance(loader, Loader) and not isinstance(loader, DeviceSamples)
    assert_same(taken(loader, 3), by_workers(folders, COLOURED, 3))
    assert len(told) == 1 and "(grid_sampler_2d: Unsupported Bicubic interpolation)" in told[0]


def test_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_budget(0, "cpu") == 0 and device_budget(3, "cpu") == 3 * MB
    assert device_budget(None, "cpu") > 0
    assert device_budget(None, "hpu") == samples.UNKNOWN


@pytest.mark.slow
def test_a_training_resumes_to_the_byte(faces: Path, tmp_path: Path) -> None:
    """Real processes; also that a run may be resumed with another store and other workers."""
    more = ["--set", "augment_on=device"]
    new = [*more, "--set", "ct_mode=rct", "--set", "random_hsv_power=0.1", "--set", "write_preview_history=y"]
    said = train(faces, tmp_path / "whole", 4, 1, "--seed", "11", *new, new=True)
    assert "Faces kept in memory: all 12, 0 MB on cpu." in said, said
    train(faces, tmp_path / "parts", 2, 0, "--seed", "11", *new, new=True)
    said = train(faces, tmp_path / "parts", 4, 2, *more, "--device-cache-mb", "0")
    assert "Faces kept in memory: none of 12 on cpu; of the others, in main memory all 12" in said, said
    assert state(tmp_path / "parts")["position"] == 4
    assert saved(tmp_path / "parts") == saved(tmp_path / "whole")


@pytest.mark.slow
def test_short_of_memory_while_samples_are_made(faces: Path, tmp_path: Path) -> None:
    """As any shortage; but before the batch is halved the faces on the device make room."""
    sets = ["--no-preview", "--set", "batch_size=8", "--set", "augment_on=device", "--target-iter", "4"]
    words = command(faces, tmp_path, *sets, "--exit-at-target", "--on-oom", "halve")
    done = run([words[0], str(ROOT / "tests" / "short_of_memory.py"), "augment", "over 4", *words[2:]])
    assert done.returncode == 0, done.stdout + done.stderr
    short = "Out of memory in iteration 3 with batch_size 8"
    told = [short, "The faces on the device give back 0 MB", "in memory: none of 12 on cpu; of the others, in main",
            short, "goes on with batch_size 4", "Reached target"]  # fmt: skip
    for text in told:
        assert text in done.stdout, f"{text}: {done.stdout}"
    at = [done.stdout.rindex(text) for text in told]
    assert done.stdout.index(short) < at[1] < at[3] < at[4] < at[5] and done.stdout.count(told[1]) == 1
    assert ModelDir(tmp_path, "new", "SAEHD").read_data().iter == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card that PyTorch calls cuda")
@pytest.mark.parametrize("mode", ["none", "rct", "lct", "mkl", "idt", "sot"])
def test_a_card_makes_the_same_and_is_not_waited_for(folders: dict[str, Path], mode: str) -> None:
    requests = {"src": replace(REQUEST, ct_mode=mode, ct_from="dst", hsv_power=0.1), "dst": REQUEST}
    wanted = taken(on_device(folders, requests), 6)
    facesets = opened(folders)
    loader = open_on_device(facesets, requests, 3, device="cuda", budget=8 * FACE, workers=0, seed=7, warn=silent)
    with loader:
        got = [as_arrays(next(loader)) for _ in range(4)]
        torch.cuda.set_sync_debug_mode("error")
        try:
            batches = [next(loader) for _ in range(2)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert_close([*got, *map(as_arrays, batches)], wanted)


def test_every_sample_knows_its_file(folders: dict[str, Path]) -> None:
    with on_device(folders) as here, Loader(opened(folders), COLOURED, 3, seed=7, workers=0, warn=silent) as loader:
        for _ in range(3):
            made, wanted = next(here), next(loader)
            for side in folders:
                names = [made[side].name_of(row) for row in range(3)]
                assert names == [wanted[side].name_of(row) for row in range(3)] and all(names)
