"""Readers of files from strangers, fed with what no honest program writes (`python -m tests.fuzz` goes on for hours).

Whatever comes in: a plain value or the reader's own error, in bounded time and memory, with nothing imported or run.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import random
import signal
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training
from fuzz import honest, readers, values
from fuzz.__main__ import PREFIX, ROOT, scratch_root
from fuzz.child import GROWTH
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from test_dflfile import hostile
from tests_support import soon

from core.dflfile import DflFileError, dumps, load
from core.options import OptionError, Values
from facelib.constants import MEAN_2D
from facelib.dfljpg import CutOffError, DflJpgError, read_header, read_metadata
from main import main
from models import MODELS, ModelSpec
from samplelib.facedata import FaceReadError, check_face
from samplelib.faceset import Faceset, FacesetError, decode_mask, read_face

ALIKE = settings(
    derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip
chances = st.randoms(note_method_calls=False, use_true_random=False)


@pytest.fixture(scope="module")
def scratch() -> Any:
    with tempfile.TemporaryDirectory(dir=scratch_root()) as folder:
        yield Path(folder)


def test_honest_files_are_taken(scratch: Path) -> None:
    readers.assert_seeds_are_taken(scratch)


# ---- the unpickler


@given(rng=chances)
@settings(ALIKE, max_examples=400)
def test_any_stream_of_opcodes(rng: random.Random) -> None:
    data = b"".join(values.piece(rng) for _ in range(rng.randrange(1, 12)))
    for whole in (data + b".", b"\x80\x04]\x94(" + data + b"e."):
        try:
            readers.plain(load(whole))
        except DflFileError as error:
            readers.printable(str(error))


@given(rng=chances, data=st.sampled_from(honest.pickles()))
@settings(ALIKE, max_examples=300)
def test_any_damage_to_an_honest_pickle(rng: random.Random, data: bytes) -> None:
    try:
        readers.plain(load(values.damage(rng, data)))
    except DflFileError as error:
        readers.printable(str(error))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_cut_anywhere(protocol: int, scratch: Path) -> None:
    for data in (pickle.dumps(honest.honest_data()["options"], protocol), dumps(honest.honest_face())):
        for length in range(len(data)):
            with pytest.raises(DflFileError):
                load(data[:length])


BOMBS: dict[str, Callable[[int], bytes]] = {
    "memo": lambda n: b"N" + b"\x94" * n + b".",
    "numbered memo": lambda n: b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(n)) + b".",
    "lists": lambda n: b"(" + b"]" * n + b"t.",
    "dictionaries": lambda n: b"(" + b"}" * n + b"t.",
    "dictionaries of one": lambda n: b"(" + b"}NNs" * n + b"t.",
    "marks": lambda n: b"(" * n,
    "lists of marks": lambda n: b"(" + b"(l" * n + b"t.",
    "entries": lambda n: b"}(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(n)) + b"u.",
    "byte arrays": lambda n: b"(" + (b"\x96" + bytes(8)) * n + b"t.",
    "rows": lambda n: b"]\x94(" + (b"]\x94(G" + bytes(8) + b"G" + bytes(8) + b"e") * n + b"e.",
    "types": lambda n: b"cnumpy\ndtype\n\x94\x8c\x02f4\x85\x94(" + b"h\x00h\x01R" * n + b"t.",
    "arrays": lambda n: (
        b"cnumpy.core.multiarray\n_reconstruct\n\x94cnumpy\nndarray\nK\x00\x85C\x01b\x87\x94cnumpy\ndtype\n\x8c\x02f4"
        b"\x89\x88\x87R\x94(K\x01K\x01\x85h\x02\x89C\x04aaaat\x94(" + b"h\x00h\x01Rh\x03b" * n + b"t."
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_small_opcodes_unfold_into_is_bounded(name: str) -> None:
    nodes = 10_000
    data = BOMBS[name](5 * nodes)
    tracemalloc.start()
    try:
        with contextlib.suppress(DflFileError):
            load(data, max_nodes=nodes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < max(160 * nodes, 32 * len(data)) * 1.25 + len(data)


def test_keys_of_one_hash_are_refused() -> None:
    """A dictionary of 60,000 such numbers took half a minute to fill, twice as many four times as long."""
    keys = b"".join(b"\x8a\x10" + (i * sys.hash_info.modulus).to_bytes(16, "little") + b"N" for i in range(1, 60_000))
    with pytest.raises(DflFileError, match="key that is a huge number"):
        load(b"}(" + keys + b"u.")
    with pytest.raises(DflFileError, match="key that is a huge number"):
        dumps({2**61: 1})


def test_large_data_referred_to_again_and_again_are_refused() -> None:
    for shared in ("x" * 1_000_000, b"x" * 1_000_000, np.zeros(1_000_000, np.uint8)):
        with pytest.raises(DflFileError, match="repeated too often"):
            load(pickle.dumps([shared] * 100, 4))


# ---- pictures, packs, models: whole files -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in readers.TARGETS if name != "pickle"])
def test_any_file(name: str, scratch: Path) -> None:
    target = readers.TARGETS[name]

    @given(rng=chances)
    @settings(ALIKE, max_examples=10 if name == "weights" else 120)
    def holds(rng: random.Random) -> None:
        readers.check(target, target.make(rng), scratch)

    holds()


@pytest.mark.parametrize("name", ["jpg", "pack", "meta", "options", "part", "journal", "state", "index"])
def test_every_cut_of_a_file(name: str, scratch: Path) -> None:
    target = readers.TARGETS[name]
    data = target.seeds()[0]
    for length in range(0, len(data), 1 if len(data) < 1000 else len(data) // 200):
        readers.check(target, data[:length], scratch)


def test_every_cut_of_a_jpg_before_its_pixels() -> None:
    data = readers.TARGETS["jpg"].seeds()[0]
    scan = read_header(data).scan
    for length in range(scan):
        with pytest.raises(DflJpgError):
            read_metadata(data[:length])
    for length in range(2, scan):
        with pytest.raises(CutOffError):
            read_header(data[:length])


@pytest.mark.parametrize("name", [n for n in readers.TARGETS if n not in ("pickle", "journal", "state", "index")])
def test_hostile_pickles_in_every_file(name: str, scratch: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The files by name: `.npy`, `data.dat`, `default_options.dat`, `faceset.pak`, metadata of a JPG."""
    wrapped = {"jpg": honest.jpg, "pack": lambda raw: honest.pak(raw, [honest.jpg(None)])}.get(name, bytes)
    for case, raw in hostile().items():
        assert not readers.check(readers.TARGETS[name], wrapped(raw), scratch), case
    assert "never printed" not in capfd.readouterr().out


# ---- faces whose data mean nothing


POINTS = honest.honest_face()["landmarks"]


def _faceless() -> Any:
    """Points that the mean face fits at size zero only."""
    points, aligned = np.random.default_rng(1).random((68, 2)) * 64, np.r_[17:49, 54]
    mean = (MEAN_2D - MEAN_2D.mean(0)) / np.linalg.norm(MEAN_2D - MEAN_2D.mean(0))
    for direction in (mean, mean[:, ::-1] * [1, -1]):
        points[aligned] -= (points[aligned] * direction).sum() * direction
    return points


STRANGE: dict[str, dict[str, Any]] = {
    "one long text among numbers": {"landmarks": ["x" * 30_000, *range(16_000)]},
    "a long text in a point": {"landmarks": [*POINTS[:-1], ["x" * 60_000, 1]]},
    "huge numbers": {"landmarks": [*POINTS[:-1], [2**1000, 1]]},
    "points that have nothing of a face": {"landmarks": _faceless()},
    "a number for polygons": {"seg_ie_polys": [(1, 5)]},
    "a number of many digits": {"eyebrows_expand_mod": 2**1000},
    "type of many digits": {"face_type": -(2**1000)},
    "type of many sides": {"face_type": np.zeros((2,) * 15, bool)},
}


@pytest.mark.parametrize("case", STRANGE)
def test_strange_face_data_cost_nothing(case: str) -> None:
    metadata = {**honest.honest_face(), **STRANGE[case]}
    tracemalloc.start()
    try:
        with pytest.raises(FaceReadError) as caught:
            check_face(metadata, (64, 64))
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()
    readers.printable(str(caught.value))
    assert len(str(caught.value)) < 300


def test_a_mask_shared_by_every_face_of_a_pack(scratch: Path) -> None:
    """100 kB that 2,000 faces refer to would be 200 MB of masks."""
    entry = {**honest.honest_entry(), "xseg_mask_compressed": b"\x89PNG" + bytes(100_000)}
    data = honest.pak(pickle.dumps([entry] * 2000, 4), [honest.jpg(None)] * 2000)
    with pytest.raises(FacesetError, match="repeated too often"):
        readers.read_pack(data[: len(data) - 1000], scratch)


# ---- options


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.sampled_from(values.WORDS + values.NUMBERS) | arrays(st.sampled_from(values.TYPES), array_shapes(max_side=3)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner), max_leaves=6,
)  # fmt: skip
ROWS = [row.key for row in MODELS["SAEHD"].rows]


@given(
    stored=st.dictionaries(st.sampled_from(ROWS) | st.text(), anything),
    given=st.dictionaries(st.sampled_from(ROWS), anything, max_size=2),
)
@settings(ALIKE, max_examples=150)
def test_options_of_any_shape(stored: dict[str, Any], given: dict[str, Any]) -> None:
    for arguments in ((given, stored), (given, {}, stored)):
        try:
            found = MODELS["SAEHD"].resolve(*arguments)
        except OptionError as error:
            assert len(str(error)) < 2000
            readers.printable(str(error))
        else:
            assert isinstance(found, Values) and set(found) == set(ROWS)


def test_losses_that_are_no_table_take_no_memory(scratch: Path) -> None:
    """One long row among many short ones would be padded to gigabytes."""
    history = [[0.5] * 20_000, *([0.5] for _ in range(20_000))]
    tracemalloc.start()
    try:
        assert not readers.check(
            readers.TARGETS["model"], dumps({**honest.honest_data(), "loss_history": history}), scratch
        )
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


# ---- what is there to find faults finds them


def test_faults_are_noticed(scratch: Path) -> None:
    def imports(data: bytes, scratch: Path) -> None:
        sys.modules.pop("antigravity_of_ours", None)
        sys.modules["antigravity_of_ours"] = math

    def says(text: str) -> Callable[[bytes, Path], Any]:
        def read(data: bytes, scratch: Path) -> Any:
            raise DflFileError(text)

        return read

    usual = readers.TARGETS["pickle"]
    for read, fault in (
        (imports, "imported"), (lambda *_: object(), "came out"), (lambda *_: np.array([None]), "an array of object"),
        (says("x" * 5000), "letters"), (says("\x1b[2J"), "printed"),
    ):  # fmt: skip
        target = readers.Target(read, usual.errors, usual.seeds, usual.make)
        with pytest.raises(readers.Fault, match=fault):
            readers.check(target, b"", scratch)
    del sys.modules["antigravity_of_ours"]


def test_the_long_run_works_and_finds_nothing() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "part", "--minutes", "0.01", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 faults" in done.stdout and " 0 inputs" not in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_long_run_that_is_killed_leaves_nothing(number: int) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "state"]
    before = set(Path(scratch_root() or tempfile.gettempdir()).glob(f"{PREFIX}*"))

    def new() -> set[Path]:
        return set(Path(scratch_root() or tempfile.gettempdir()).glob(f"{PREFIX}*")) - before

    with subprocess.Popen(command, cwd=ROOT) as process:
        assert soon(lambda: [path for path in new() if (path / "scratch" / "x_SAEHD_facesmith_state.json").exists()])
        process.send_signal(number)
    assert soon(lambda: not new())


@pytest.mark.slow
def test_no_file_takes_200_mb() -> None:
    """Every bomb at 4 MB, in a process that may grow by 200 MB."""
    script = (
        "import sys; sys.path[:0] = ['tests', '.']\n"
        "import test_fuzz; from fuzz.child import bound; from core.dflfile import DflFileError, load\n"
        "for name, bomb in test_fuzz.BOMBS.items():\n"
        "    data = bomb(4_000_000 // len(bomb(1000)) * 1000)\n"
        "    bound() if name == 'memo' else None\n"
        "    try: load(data)\n"
        "    except DflFileError as error: print(name, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_recorded_bad_files_cost_little(shared: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Everything in `faces/bad` as training reads it: list, mask, pixels."""
    bad, modules = shared / "faces" / "bad", set(sys.modules)
    read = 0
    tracemalloc.start()
    try:
        for folder in (bad, *sorted(bad.glob("pak_*"))):
            try:
                faceset = Faceset.open(folder, readers.printable)
            except FacesetError as error:
                readers.printable(str(error))
                continue
            for sample in faceset:
                try:
                    decode_mask(sample)
                    read += read_face(sample).shape == (*sample.shape, 3)
                except FaceReadError as error:
                    readers.printable(str(error))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read > 20 and peak < GROWTH
    assert not {name for name in set(sys.modules) - modules if not name.startswith("encodings.")}
    assert not [path for path in Path(tempfile.gettempdir()).iterdir() if "pwned_by_pickle" in path.name]
    assert capfd.readouterr().out == ""


def test_a_record_that_asks_for_a_monster(
    faces: Path, copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Believed, these options would take terabytes before anybody looks at the parts."""
    path = copy / "new_SAEHD_data.dat"
    record = load(path)
    huge = {"resolution": 10240, "ae_dims": 16384, "e_dims": 4096, "d_dims": 4096, "d_mask_dims": 4096}
    path.write_bytes(dumps({**record, "options": {**record["options"], **huge}}))
    build = ModelSpec.build
    monkeypatch.setattr(
        ModelSpec,
        "build",
        lambda self, *given, device="cpu", **more: (
            build(self, *given, device=device, **more) if device == "meta" else pytest.fail("memory was taken")
        ),
    )
    for words in (training.command(faces, copy, "--no-preview", small=False)[2:], ["exportdfm", "--model", "SAEHD"]):
        words += ["--model-dir", str(copy)] if words[0] == "exportdfm" else []
        assert main(words) == 1
        assert "they are of different models, or damaged" in capsys.readouterr().err
