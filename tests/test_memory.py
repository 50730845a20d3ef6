"""Memory in words and numbers: which errors mean that it is short, what a device has, what a change would save; and
what an update that is cut short leaves behind."""

from __future__ import annotations

import errno
import functools
import json
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from core import memory, optim
from core.mainmemory import MainMemory
from core.memory import Usage, asked, out_of_memory
from core.modeldir import ModelDir
from core.options import Values
from main import main
from mainscripts import bench_memory
from mainscripts.bench_memory import of_main_memory, train
from models import MODELS
from models.memory import changes, changes_before, need
from models.swap import SwapTask
from tests.small_models import SIZES
from tests.test_saehd_golden import SPEC, random_batch, small

SHORTAGES = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ..."), int(2.5 * 2**30), True),
    (RuntimeError("CUDA error: out of memory"), None, True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), None, True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), None, True),
    (RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"), 20 << 20, True),
    (RuntimeError("XPU out of memory. Tried to allocate 12.00 KiB."), 12 << 10, True),
    (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB). Tried to allocate 256 bytes"), 256, True),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."), 99, False),
    (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."), 99, False),
    (RuntimeError("std::bad_alloc"), None, True),
    (RuntimeError("could not create a primitive"), None, True),
    (RuntimeError("can't start new thread"), None, False),
    (ImportError("libtorch_cpu.so: failed to map segment from shared object"), None, False),
    (OSError("libtorch_cpu.so: failed to map segment from shared object"), None, False),
    (MemoryError(), None, False),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), None, False),
    (cv2.error("OpenCV(4.10.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes"), None, False),
]  # fmt: skip


@pytest.mark.parametrize(("error", "count", "card"), SHORTAGES)
def test_shortages_are_known_by_their_words(error: Exception, count: int | None, card: bool) -> None:
    assert out_of_memory(error) and asked(error) == count
    assert memory.where(error, "cuda:0") == ("cuda:0" if card else "cpu")


def test_a_real_one_is_among_them() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(caught.value) and asked(caught.value) == 1 << 60


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not fit"),
        OSError(errno.ENOSPC, "disk full"),
        ImportError("no name"),
        ValueError("out of memory"),
    ],
)
def test_other_errors_are_not(error: Exception) -> None:
    assert not out_of_memory(error)


def test_main_memory_of_machine_container_and_process(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("proc/self/status", "Name:\tpython\nVmHWM:\t    3000 kB\nVmRSS:\t    2000 kB\n")
    write("proc/meminfo", "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    9000 kB\n")
    main = MainMemory(tmp_path)
    told = [main.peak(), main.held(), main.free(), main.total()]
    assert told == [3000 << 10, 2000 << 10, 9000 << 10, 16000 << 10]
    write("proc/self/cgroup", "0::/job\n")
    write("sys/fs/cgroup/job/memory.max", "5120000\n")
    write("sys/fs/cgroup/job/memory.current", "4096000\n")
    write("sys/fs/cgroup/job/memory.stat", "anon 1\ninactive_file 1024000\n")
    assert (main.free(), main.total()) == (2048000, 5120000)
    write("sys/fs/cgroup/job/memory.max", "max\n")
    assert main.free() == 9000 << 10


def test_what_is_unknown_is_said_to_be() -> None:
    assert Usage("Graphics card").words() == (
        "Graphics card: how much this program held is unknown, how much is free is unknown."
    )
    words = Usage("Main memory", 2_100_000_000, 1, 30_000_000, 16_000_000_000).words()
    assert words == "Main memory: at most 2.1 GB were held by this program, 30 MB of 16.0 GB are free now."


def test_changes_are_counted_and_the_model_in_hand_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.memory.pays", lambda mode, device: True)
    task = small("df-u", gan_power=0.1, gan_dims=64, gan_patch_size=8, face_style_power=1.0)
    before, random = task.parts(), torch.get_rng_state()
    holds = need(SPEC, task.values, card=False)
    weights = sum(weight.numel() for module in task.modules.values() for weight in module.parameters())
    assert (holds.weights, holds.gradients, holds.moments) == (4 * weights, 4 * weights, 8 * weights)
    found = {change.text.split()[1]: change.saves or 0 for change in changes(task, 2, count=9)}
    assert list(found)[:3] == ["batch_size=1", "mp_mode=bfloat", "keep_graph=n"], "least cost first"
    assert found["adabelief=n"] == holds.moments // 2 and found["gan_power=0.0"] > found["gan_dims=32"] > 0
    without = small("df-u", face_style_power=1.0)
    assert found["gan_power=0.0"] == holds.total - need(SPEC, without.values, card=False).total
    half = need(SPEC, Values({**task.values, "mp_mode": "bfloat"}, task.values.chosen), card=False)
    assert found["mp_mode=bfloat"] == holds.total - half.total > 0
    monkeypatch.setattr("models.memory.pays", lambda mode, device: False)
    assert not any("mp_mode" in change.text for change in changes(task, 2, count=9)), "where it would not be quicker"
    assert torch.equal(random, torch.get_rng_state()) and set(task.adversaries) == {"GAN"}
    after = task.parts()
    assert all((array == after[stem][name]).all() for stem, part in before.items() for name, array in part.items())


def test_a_card_holds_what_a_step_on_it_would() -> None:
    """Of a card that stands for itself: gradients have a place of their own, unless the optimizer is elsewhere."""
    sizes = {"archi": "df", "resolution": 64, "ae_dims": 32, "e_dims": 16, "d_dims": 16, "lr_dropout": "y"}
    here = need(SPEC, SPEC.resolve(sizes), card=True)
    apart = need(SPEC, SPEC.resolve({**sizes, "models_opt_on_gpu": False}), card=True)
    assert here.scratch > 3 * here.gradients and (apart.moments, apart.scratch) == (0, 0)
    assert here.moments == 2 * here.weights and apart.weights == here.weights
    assert apart.total < here.total - here.moments - here.scratch + 1


HALVED = {"mp_mode": "bfloat", "checkpointing": True}
COUNTED = [
    *(pytest.param(name, {}, marks=pytest.mark.slow) if name in ("XSeg", "Quick96") else (name, {}) for name in SIZES),
    ("SAEHD", {**HALVED, "keep_graph": False}),
    pytest.param("XSeg", HALVED, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "options"), COUNTED)
def test_a_step_holds_what_was_predicted(name: str, options: dict[str, Any]) -> None:
    """Within a twentieth, of a network that is large enough for what is left out not to count."""
    sizes = {"resolution": 64, "archi": "df-ud", "ae_dims": 64, "e_dims": 32, "d_dims": 32, "d_mask_dims": 16}
    spec = MODELS[name]
    given = {key: value for key, value in sizes.items() if spec.takes(key)} | {"batch_size": 2, "accumulate": 2}
    values = spec.resolve(given | options)
    measured = of_main_memory(functools.partial(train, name, values, "cpu"))
    assert need(spec, values, card=False).total == pytest.approx(measured, rel=0.05)


def test_the_benchmark_says_what_it_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_memory, "CONFIGURATIONS", (("Quick64", {"batch_size": 4}),))
    assert main(["bench", "memory", "--set", "batch_size=2", "--set", "checkpointing=y", "--json"]) == 0
    told = capsys.readouterr()
    row = json.loads(told.out)
    assert (row["model"], row["batch_size"], row["checkpointing"], row["device"]) == ("Quick64", 2, True, "cpu")
    assert abs(row["error_percent"]) < 10 and "profiler" not in told.err
    assert main(["bench", "memory", "--device", "cpu:0"]) == 2 and main(["bench", "memory", "--set", "batch=2"]) == 2
    told = capsys.readouterr()
    assert not told.out and "--device: got 'cpu:0', allowed is cpu" in told.err and "batch_size" in told.err


def test_half_precision_halves_what_is_kept() -> None:
    """Of a network that keeps much for the backward pass."""
    sizes = {"archi": "df-ud", "resolution": 128, "ae_dims": 64, "e_dims": 32, "d_dims": 32, "batch_size": 16}
    exact, half = (need(SPEC, SPEC.resolve({**sizes, "mp_mode": mode}), card=True) for mode in ("full", "bfloat"))
    assert 0.45 < half.batch / exact.batch < 0.75 and half.weights == exact.weights


def test_a_card_is_told_what_leaves_it_first() -> None:
    values = SPEC.resolve({"archi": "df", "resolution": 64, "ae_dims": 32, "e_dims": 16, "lr_dropout": "y"})
    texts = [change.text for change in changes_before(SPEC, values, "cuda:0")]
    assert texts[-2:] == ["--set models_opt_on_gpu=n", "--set adabelief=n"]
    assert [change.text for change in changes_before(SPEC, values, "cpu")] == ["--set adabelief=n"]


def short_update(monkeypatch: pytest.MonkeyPatch, task: SwapTask, after: int) -> None:
    """The next step runs out of memory after so many pieces of an update."""
    update, done = optim.AdaBelief.fused_update, iter(range(after))

    def cut(self: Any, *given: Any) -> Any:
        if next(done, None) is None:
            raise MemoryError
        return update(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(optim.AdaBelief, "fused_update", cut)
        with pytest.raises(MemoryError):
            task.step(random_batch())


def test_an_update_cut_short_is_known_and_mended_by_the_last_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = small("df-u", gan_power=0.1, gan_dims=4, gan_patch_size=8)
    task.step(random_batch())
    task.save(tmp_path, "a")
    saved, pieces = task.parts(), len(task.optimizer.trained)
    for after in (3, pieces + 2):  # in the network's update; in that of the GAN
        short_update(monkeypatch, task, after)
        assert task.torn and task.iteration == 1
        task.let_go()
        assert task.torn, "only other weights make it whole"
        task.load(tmp_path, "a")
        assert not task.torn
        assert all(
            (array == task.parts()[stem][name]).all() for stem, part in saved.items() for name, array in part.items()
        )
    assert ModelDir(tmp_path, "a", "SAEHD").read_data().iter == 1


@pytest.mark.slow
def test_before_and_between_updates_the_model_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    task = small("df-u", gan_power=0.1, gan_dims=4, gan_patch_size=8, clipgrad=True)
    task.step(random_batch())
    for name in ("_norm", "_gradients"):
        before = task.parts()
        with monkeypatch.context() as patched:
            patched.setattr(optim.Optimizer, name, lambda *_: (_ for _ in ()).throw(MemoryError))
            with pytest.raises(MemoryError):
                task.step(random_batch())
        assert not task.torn and task.optimizer.iterations == 1
        assert all(
            (array == task.parts()[stem][name]).all() for stem, part in before.items() for name, array in part.items()
        )
    with monkeypatch.context() as patched:
        patched.setattr(task.adversaries["GAN"], "learn", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            task.step(random_batch())
    assert not task.torn
    task.let_go()
    task.step(random_batch())
    assert task.iteration == 2


def test_memory_of_several_processes(tmp_path: Path) -> None:
    for pid, held in ((11, 20), (12, 7)):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        text = f"00-ff ---p 00 00:00 0  [rollup]\nRss: 99 kB\nPss: {held} kB\n"
        (tmp_path / f"proc/{pid}/smaps_rollup").write_text(text)
    assert MainMemory(tmp_path).held_by([11, 12]) == 27 * 1024
    assert MainMemory(tmp_path).held_by([11, 12, 13]) is None, "one that has ended, or a system that does not tell"
