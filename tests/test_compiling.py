"""Compiled functions of a network: what is told, what happens where compiling fails, and that the numbers stay.

PyTorch's compiler takes half a minute for the smallest network; where its own work is not what is looked at, its front
end alone runs (`aot_eager`), or a made-up one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import EVERYTHING, SIZES, random_batch, small
from tests_support import ROOT
from torch import Tensor
from training import ENVIRONMENT, command, here

from core import compiling
from core.compiling import Compiler, of_compiler

CPU = torch.device("cpu")
FAILING = "def fail(*args):\n    raise error\n"
THERE = "/somewhere/torch/_inductor/codegen.py"


def failing(error: BaseException, file: str = THERE) -> Callable[..., Any]:
    """A function of that file that raises."""
    names: dict[str, Any] = {"error": error}
    exec(compile(FAILING, file, "exec"), names)
    found: Callable[..., Any] = names["fail"]
    return found


class Fake:
    """Stands for `torch.compile`: told is what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, str]] = []
        self.error: BaseException | None = None
        self.resets = 0
        monkeypatch.setattr(torch, "compile", self)
        monkeypatch.setattr(torch.compiler, "reset", self.reset)
        monkeypatch.setattr(torch._logging, "set_logs", lambda **levels: None)

    def __call__(self, function: Any, dynamic: bool, mode: str) -> Any:
        assert not dynamic
        self.asked.append((function, mode))
        return lambda *args: failing(self.error)() if self.error is not None else ("compiled", function(*args))

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(monkeypatch)


def double(x: Tensor) -> Tensor:
    return 2 * x


ONE = torch.ones(1)


def made(mode: str = "default", device: torch.device = CPU) -> tuple[Compiler, list[str]]:
    told: list[str] = []
    clock = iter(range(0, 1000, 10))
    return Compiler(mode, device, told.append, lambda: float(next(clock))), told


def test_off_is_the_function_itself(fake: Fake) -> None:
    compiler, told = made("off")
    assert compiler(double) is double and compiler.step(lambda: 5, lambda: 0) == 5
    assert not fake.asked and not told
    with pytest.raises(ValueError, match="got 'fast', allowed is off / default / max"):
        Compiler("fast", CPU)


def test_a_function_is_compiled_once_and_timed_for_every_size(fake: Fake) -> None:
    compiler, told = made()

    def step(count: int = 1) -> Any:
        return compiler.step(lambda: compiler(double)(torch.ones(count)), lambda: 0)

    assert step() == ("compiled", 2) and step() == ("compiled", 2)
    start = "Compiling: the first iterations take longer, minutes where the network is large."
    assert told == [start, "Compiled in 10 s."]
    step(3)
    assert told == [start, "Compiled in 10 s."] * 2 and len(fake.asked) == 1
    compiler.let_go()
    step()
    assert len(fake.asked) == 2 and fake.resets == 1


def test_max_records_graphs_where_there_are_any(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    monkeypatch.setattr(compiling, "supports", lambda device, what: what == "compile" or device.type == "cuda")
    for device in ("cpu", "cuda:0"):
        compiler, _ = made("max", torch.device(device))
        compiler.step(lambda compiler=compiler: compiler(double)(ONE), lambda: 0)  # type: ignore[misc]
    assert [mode for _, mode in fake.asked] == ["max-autotune-no-cudagraphs", "max-autotune"] and begun == [1]


def test_a_step_that_does_not_compile_is_done_without(fake: Fake) -> None:
    compiler, told = made()
    fake.error = RuntimeError("\nNo C++ compiler was found.\nSet TORCH_LOGS for more.")
    results = [compiler.step(lambda: compiler(double)(ONE), lambda: 0) for _ in range(2)]
    assert results == [2, 2]
    assert told[1:] == [
        "Compiling failed (No C++ compiler was found.). Training goes on without it; --compile off does not try it "
        "again."
    ]


def test_a_forward_without_gradients_goes_on_by_itself(fake: Fake) -> None:
    """As adversaries have it after the weights have moved: the step cannot be done again."""
    compiler, told = made()
    fake.error = RuntimeError("no")
    moved = iter(range(9))

    def step() -> Tensor:
        next(moved)
        with torch.no_grad():
            result: Tensor = compiler(double)(ONE)
        return result

    assert compiler.step(step, lambda: next(moved)) == 2 and len(told) == 2 and compiler.mode == "off"


def test_what_cannot_be_done_again_is_an_error(fake: Fake) -> None:
    compiler, _ = made()
    fake.error, moved = RuntimeError("no"), iter(range(9))
    with pytest.raises(RuntimeError, match="no"):
        compiler.step(lambda: compiler(double)(ONE), lambda: next(moved))


def test_other_errors_are_nobodys_fault_but_their_own(fake: Fake) -> None:
    for error, file in ((torch.OutOfMemoryError("out of memory"), THERE), (ValueError("sides"), "models/swap.py")):
        compiler, told = made()
        with pytest.raises(type(error)):
            compiler.step(failing(error, file), lambda: 0)
        assert not told and compiler.mode == "default"


def test_an_error_of_windows_paths_and_of_what_was_written_is_known() -> None:
    for file in (r"C:\Python\torch\_dynamo\x.py", "/tmp/torchinductor_me/ab/cab.py", "/site-packages/triton/jit.py"):
        with pytest.raises(RuntimeError) as caught:
            failing(RuntimeError("x"), file)()
        assert of_compiler(caught.value)


@pytest.mark.parametrize(("kind", "wanted"), [("mps", "this device."), ("cuda:0", "needs Triton")])
def test_a_device_without_a_compiler(fake: Fake, monkeypatch: pytest.MonkeyPatch, kind: str, wanted: str) -> None:
    monkeypatch.setattr(compiling, "supports", lambda device, what: False)
    compiler, told = made("max", torch.device(kind))
    assert compiler.step(lambda: compiler(double)(ONE), lambda: 0) == 2
    assert len(told) == 1 and wanted in told[0] and not fake.asked


def gradients(task: Any) -> list[Tensor]:
    optimizers = task.optimizers.values()
    return [optimizer.weights[name].grad.clone() for optimizer in optimizers for name in optimizer.trained]


@pytest.mark.parametrize(
    "name", [name if name == "Quick64" else pytest.param(name, marks=pytest.mark.slow) for name in SIZES]
)
def test_numbers_files_and_graphs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each function is one graph, and losses, gradients and the names of weights are those of the plain network; so
    they are with half the batch."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, dynamic, mode: real(f, dynamic=dynamic, backend="aot_eager"))
    counters = torch._dynamo.utils.counters
    counters.clear()
    more = {**EVERYTHING[name], "lr_dropout": "n"} if name == "SAEHD" else {}
    plain, compiled = small(name, **more), small(name, compile="default", **more)
    told: list[str] = []
    compiled.compiler.tell = told.append
    for count in (2, 1):
        batch = random_batch(plain, count=count)
        for task in (plain, compiled):
            task.load_parts(small(name, **more).parts())
        wanted, got = plain.step(batch), compiled.step(batch)
        assert {key: float(x) for key, x in got.items()} == pytest.approx({k: float(x) for k, x in wanted.items()})
        for a, b in zip(gradients(compiled), gradients(plain), strict=True):
            # One number that sums up a whole picture of both signs (XSeg's eps) is up to 6e-5 off float64 in either.
            assert (a - b).norm() <= (1e-5 if b.numel() > 1 else 1e-4) * b.norm() + 1e-12
    assert compiled.compiler.mode == "default" and len(told) == 4, told
    assert not counters["graph_break"], counters["graph_break"]
    before = counters["stats"]["unique_graphs"]
    compiled.step(batch)
    assert counters["stats"]["unique_graphs"] == before, "nothing is compiled again"
    names = [{stem: list(part) for stem, part in task.parts().items()} for task in (plain, compiled)]
    assert names[0] == names[1]
    compiled.let_go()


@pytest.mark.parametrize("words", [["--compile", "fast"], ["--set", "compile=fast"]])
def test_a_mode_that_there_is_not(faces: Path, tmp_path: Path, words: list[str]) -> None:
    done = here(command(faces, tmp_path, *words))
    assert done.returncode == 2 and "compile: got 'fast', allowed is off / default / max." in done.stderr


@pytest.mark.slow
def test_a_training_is_compiled(faces: Path, tmp_path: Path) -> None:
    words = command(faces, tmp_path, "--compile", "default", "--target-iter", "3", "--exit-at-target", "--no-preview")
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, cwd=ROOT, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Compiling: the first iterations") == done.stdout.count("Compiled in ") == 1
    assert not done.stderr


@pytest.mark.slow
def test_a_training_without_a_compiler_goes_on(faces: Path, tmp_path: Path) -> None:
    words = command(faces, tmp_path, "--compile", "default", "--target-iter", "3", "--exit-at-target", "--no-preview")
    missing = {**os.environ, **ENVIRONMENT, "CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kept")}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=ROOT, env=missing, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Compiling failed (InvalidCxxCompiler: No working C++ compiler found") == 1
    assert not done.stderr
