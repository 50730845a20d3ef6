"""Pickles of strangers: genuine ones come out whole, hostile ones run nothing and cost nothing; what we write, DFL
can read."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.dflfile import DflFileError, chunks, dumps, load, write_bytes

VALUES: dict[str, Any] = {
    "iter": 12345,
    "big": 2**70,
    "negative": -(2**31) - 1,
    "flag": True,
    "nothing": None,
    "name": "имя 日本語",
    "long": "x" * 300,
    "raw": bytes(range(256)) * 2,
    "pair": (1, 2.5),
    "empty": [[], {}, ()],
    "history": [[i / 7, float("inf")] for i in range(2500)],
    "few": [[0.5, 0.25], [1.0, 2.0]],
    "options": {"archi": "df-ud", "lr_dropout": "n", "power": 0.0},
    "samples": [[np.arange(24, dtype=np.float32).reshape(2, 3, 4)], [np.zeros((0, 3), np.uint8)]],
    "order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "scalar": np.float32(1.5),
    "zero_d": np.array(7, np.int64),
    "swapped": np.arange(5, dtype=">i4"),
    "bools": np.array([True, False]),
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        alike = isinstance(b, np.ndarray) and a.shape == b.shape and a.dtype == b.dtype.newbyteorder("=")
        return bool(alike and np.array_equal(a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def native(value: Any) -> Any:
    """What is written is little-endian."""
    return {**value, "swapped": value["swapped"].astype("<i4")}


def test_what_we_write_comes_back_from_us_and_from_python() -> None:
    data = dumps(VALUES)
    assert same(native(VALUES), load(data))
    assert same(native(VALUES), pickle.loads(data))  # noqa: S301
    assert b"".join(chunks(VALUES)) == data


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_python_is_read(protocol: int) -> None:
    values = VALUES if protocol > 2 else {**VALUES, "samples": VALUES["samples"][:1]}  # no file has empty arrays there
    result = load(pickle.dumps(values, protocol))
    assert same(native(values), {**result, "swapped": result["swapped"].astype("<i4")})
    result["order"][0, 0] = 5  # arrays are the reader's own
    result["samples"][0][0][:] = 1


def test_files_are_streamed(tmp_path: Path) -> None:
    weights = {f"conv{i}/weight:0": np.random.default_rng(i).random((300, 1111), np.float32) for i in range(4)}
    path = tmp_path / "имя encoder.npy"
    for data in (pickle.dumps(weights, 4), pickle.dumps(weights, 2), dumps(weights)):
        path.write_bytes(data)
        result = load(path)
        assert same(weights, result)
        assert all(array.flags.writeable and array.flags.aligned for array in result.values())


def test_only_globals_of_numpy_1_19_are_written() -> None:
    names = {argument for code, argument, _ in pickletools.genops(dumps(VALUES)) if code.name == "GLOBAL"}
    assert names == {
        "numpy.core.multiarray _reconstruct",
        "numpy.core.multiarray scalar",
        "numpy ndarray",
        "numpy dtype",
    }
    assert not [c for c, _, _ in pickletools.genops(dumps(VALUES)) if c.proto > 4 or c.name == "STACK_GLOBAL"]


def test_recorded_models_are_read_and_written_again(shared: Path) -> None:
    paths = [*shared.glob("golden/saehd/*/*.npy"), *shared.glob("golden/**/*.dat")]
    assert paths
    for path in paths:
        value = load(path)
        assert same(value, load(dumps(value))), path


def test_values_that_dfl_could_not_read_are_not_written() -> None:
    for value, where in (
        ({"a": [1, {2, 3}]}, r"\['a'\]\[1\]: a set"),
        ({"a": np.array(["text"])}, "arrays of"),
        ({"a": np.array([None])}, "arrays of object"),
        ({(1, 2): 3}, "dictionary key"),
    ):
        with pytest.raises(DflFileError, match=where):
            dumps(value)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(DflFileError, match="contains itself"):
        dumps(endless)
    with pytest.raises(DflFileError, match="protocol 4"):
        dumps({}, protocol=5)


class _Evil:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


def hostile() -> dict[str, bytes]:
    """Pickles that would run code, or cost memory or time, in Python's own reader."""
    laughs = b"\x80\x04]\x94" + b"".join(b"](" + bytes([ord("h"), i]) * 10 + b"e\x94" for i in range(25))
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n"
    head = b"\x80\x04" + reconstruct + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R("
    floats = b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNN"
    floats += b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    return {
        "call": pickle.dumps(_Evil(eval, "1/0"), 4),
        "hidden": pickle.dumps({"x": [1, (_Evil(print, "never printed"),)]}, 4),
        "protocol 0": b"cposix\nsystem\n(S'false'\ntR.",
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x11testing.os.system\x93.",
        "numpy function": b"\x80\x04cnumpy\nfromfile\nX\x01\x00\x00\x00x\x85R.",
        "instance": b"(iposix\nsystem\n.",
        "persistent": b"Psomething\n.",
        "extension": b"\x80\x04\x82\x01.",
        "object array": pickle.dumps(np.array([_Evil(print, "never printed")]), 4),
        "32 TiB": b"\x80\x04" + reconstruct + b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85C\x01b\x87R.",
        "big shape": head + b"K\x01(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft" + floats + b"\x89C\x04aaaatb.",
        "negative shape": head + b"K\x01(J\xff\xff\xff\xffJ\xff\xff\xff\xfft" + floats + b"\x89C\x04aaaatb.",
        "unbuilt": b"\x80\x04" + reconstruct + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R.",
        "bytes claim": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
        "bytearray claim": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        "text claim": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
        "laughs": b"\x80\x04(]\x94" + laughs[4:] + b"t.",
        "itself": b"\x80\x04]\x94h\x00a.",
        "deep": b"]" * 50_000 + b"a" * 49_999 + b".",
        "deep key": b"}" + b")" + b"\x85" * 200_000 + b"Ns.",
        "repeated": b"\x80\x04X\xff\xff\x00\x00" + b"a" * 65535 + b"\x94"
        + b"(" + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 3000 + b"t\x86.",
        "function as value": b"\x80\x04cnumpy\ndtype\n.",
        "dtype as value": b"\x80\x04" + floats + b".",
        "set state": b"\x80\x04}}b.",
        "append to number": b"K\x01K\x02a.",
        "no stop": b"\x80\x04]",
        "empty": b"",
        "marks": b"((((.",
        "underflow": b"\x80\x04R.",
        "missing memo": b"h\x07.",
        "long number": b"I" + b"9" * 100_000 + b"\n.",
    }  # fmt: skip


@pytest.mark.parametrize("case", hostile())
def test_hostile_pickles_are_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = hostile()[case]
    path = tmp_path / "stranger.dat"
    path.write_bytes(data)
    for source in (data, path):
        with pytest.raises(DflFileError, match="Nothing in it was run"):
            load(source)
    assert capsys.readouterr().out == ""
    with pytest.raises(DflFileError, match=r"stranger\.dat"):
        load(path)


def test_a_thousand_damaged_files_only_ever_raise_our_error() -> None:
    data = bytearray(dumps({k: v for k, v in VALUES.items() if k not in ("history", "raw")}))
    rng = np.random.default_rng(0)
    for _ in range(1000):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            damaged[at] = rng.integers(0, 256)
        with contextlib.suppress(DflFileError):
            load(bytes(damaged[: rng.integers(1, len(data) + 1)] if rng.random() < 0.3 else damaged))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_does_not_hold_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dat")
    with pytest.raises(DflFileError, match="no ordinary file"):
        load(tmp_path / "pipe.dat")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.dat")


def test_a_memo_index_of_two_billion_costs_nothing() -> None:
    assert load(b"\x80\x04Nr\xff\xff\xff\x7f.") is None


def test_limits_and_further_globals() -> None:
    with pytest.raises(DflFileError, match="at most 10 are read"):
        load(dumps(VALUES), max_bytes=10)
    with pytest.raises(DflFileError, match="more than 100 values"):
        load(dumps(VALUES), max_nodes=100)
    enum = b"\x80\x04cfacelib.FaceType\nFaceType\nK\x04\x85R."
    with pytest.raises(DflFileError, match=r"facelib\.FaceType\.FaceType"):
        load(enum)
    assert load(enum, extra_globals={("facelib.FaceType", "FaceType"): int}) == 4


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new_SAEHD_data.dat"
    write_bytes(path, b"first")

    def breaks() -> Any:
        yield b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_bytes(path, breaks())
    assert path.read_bytes() == b"first"
    write_bytes(path, chunks({"a": 1}))
    assert load(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert pickle.load(io.BytesIO(path.read_bytes())) == {"a": 1}  # noqa: S301
