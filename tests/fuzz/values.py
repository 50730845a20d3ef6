"""Values and pickles that nobody honest writes, drawn from a random generator: what fuzzing feeds to the readers."""

from __future__ import annotations

import pickletools
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

NAMES = [
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
    ("numpy", "dtype"), ("numpy.core.multiarray", "scalar"), ("numpy.core.numeric", "_frombuffer"),
    ("_codecs", "encode"), ("samplelib.Sample", "SampleType"), ("facelib.FaceType", "FaceType"),
    ("builtins", "eval"), ("os", "system"), ("posix", "system"), ("subprocess", "Popen"), ("copyreg", "_reconstructor"),
    ("numpy", "load"), ("numpy", "testing.os.system"), ("this", "s"), ("antigravity", "webbrowser"),
    ("builtins", "getattr"), ("core.dflplain", "Function"), ("numpy.core.multiarray", "fromfile"), ("", ""),
]  # fmt: skip
KEYS = [
    "face_type", "landmarks", "source_filename", "source_rect", "source_landmarks", "image_to_face_mat", "xseg_mask",
    "seg_ie_polys", "eyebrows_expand_mod", "filename", "shape", "sample_type", "xseg_mask_compressed", "person_name",
    "polys", "type", "pts", "iter", "options", "loss_history", "sample_for_preview", "choosed_gpu_indexes", "iters:0",
]  # fmt: skip
WORDS = [
    "whole_face", "full_face", "wf", "df-ud", "liae-udt", "y", "n", "cpu", "rct", "none", "latin1", "f4", "<", "|", "C",
    "O8", "S3", "V8", "../../x.jpg", "C:\\a.jpg", "a\x1b[2J\n\0", "\udc80\ud800", "日本", "9" * 5000, "nan", "1e999",
    "0x10", "x" * 70_000,
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 3, 4, 16, 67, 68, 69, 100, 127, 128, 255, 256, 65535, 65536, -(2**31), 2**31 - 1, 2**31, 2**32, 2**63,
    2**64 - 1, 2**64, 2**200, -(2**1000), 10**300,
]  # fmt: skip
FLOATS = [0.0, -0.0, 1.0, 0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 3.4e38, 1e6]
SHAPES = [(), (0,), (1,), (2,), (68, 2), (68, 3), (2, 68), (0, 2), (5, 0), (1,) * 12, (2,) * 9, (3, 3, 1), (1, 3, 3)]
TYPES = ["?", "u1", "i1", "<i2", "<i4", ">i4", "<i8", "<u8", "<f2", "<f4", ">f8", "<f8", "<c8", "<c16"]


def array(rng: random.Random) -> Any:
    shape = rng.choice(SHAPES)
    kind = np.dtype(rng.choice(TYPES))
    raw = rng.randbytes(kind.itemsize * int(np.prod(shape, dtype=int)))
    if kind == np.bool_:
        raw = bytes(byte & 1 for byte in raw)
    if rng.random() < 0.4:
        return np.full(shape, rng.choice([0, 1, 5]), kind)
    return np.frombuffer(raw, kind).reshape(shape)


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any value that a pickle may hold, strange ones most of all."""
    kind = rng.randrange(14 if depth < 4 else 8)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice(NUMBERS)
    if kind == 2:
        return rng.choice(FLOATS)
    if kind == 3:
        return rng.choice(WORDS + KEYS)
    if kind == 4:
        return rng.randbytes(rng.choice([0, 1, 4, 8, 100, 3000]))
    if kind == 5:
        return array(rng)
    if kind == 6:
        return rng.choice([np.float32, np.float64, np.int64, np.uint8, np.bool_])(rng.choice([0, 1, 7]))
    if kind == 7:
        return bytearray(b"\x89PNG" + rng.randbytes(9))
    if kind == 8:
        return points(rng)
    if kind == 9:
        return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind == 10:
        return {rng.choice([None, True, 1, 2.5, b"k", "k"]): value(rng, depth + 1)}
    if kind == 11:
        return [value(rng, depth + 1)] * rng.choice([1, 2, 68, 300])
    items = [value(rng, depth + 1) for _ in range(rng.randrange(5))]
    return tuple(items) if kind == 12 else items


def points(rng: random.Random) -> Any:
    """Something like a list of points, with one thing wrong, or none."""
    count = rng.choice([0, 1, 3, 5, 67, 68, 68, 68, 69, 98])
    found: list[Any] = [[rng.uniform(-20, 90), rng.uniform(-20, 90)] for _ in range(count)]
    if count and rng.random() < 0.6:
        where = rng.randrange(count)
        if rng.random() < 0.5:
            found[where][rng.randrange(2)] = value(rng, 3)
        else:
            found[where] = value(rng, 3)
    return found


def nested(rng: random.Random, tree: Any) -> Any:
    """A copy of the tree with one value somewhere in it replaced."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree))
        return {**tree, key: nested(rng, tree[key])}
    if isinstance(tree, (list, tuple)) and tree and rng.random() < 0.85:
        items = list(tree)
        at = rng.randrange(len(items))
        items[at] = nested(rng, items[at])
        return tuple(items) if isinstance(tree, tuple) else items
    return value(rng)


def record(rng: random.Random, honest: dict[str, Any]) -> dict[str, Any]:
    """The record with one to three of its values replaced, removed or added."""
    changed = dict(honest)
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            changed = nested(rng, changed) if (inside := rng.random() < 0.95) else value(rng)
            if not inside or not isinstance(changed, dict):
                return changed
            continue
        key = rng.choice([*honest, *honest, *KEYS])
        if rng.random() < 0.15:
            changed.pop(key, None)
        else:
            changed[key] = value(rng)
    return changed


# ---- opcodes ------------------------------------------------------------------------------------------------------


def _counted(form: str) -> Callable[[random.Random], bytes]:
    """A length and so many bytes; one in ten lies about the length."""

    def make(rng: random.Random) -> bytes:
        data = rng.choice(
            [rng.randbytes(rng.choice([0, 1, 4, 8, 40])), rng.choice(WORDS)[:200].encode("utf-8", "replace")]
        )
        data = data[:255] if form == "<B" else data
        top = 256 ** struct.calcsize(form) - 1
        length = len(data) if rng.random() < 0.9 else rng.choice([0, top, top // 2 + 1, len(data) + 1])
        return struct.pack(form, length & top) + data

    return make


def _line(texts: list[str]) -> Callable[[random.Random], bytes]:
    return lambda rng: rng.choice(texts).encode("latin-1", "replace") + b"\n"


_ARGUMENTS: dict[str, Callable[[random.Random], bytes]] = {
    "uint1": lambda rng: bytes([rng.randrange(12) if rng.random() < 0.8 else rng.randrange(256)]),
    "uint2": lambda rng: rng.randbytes(2),
    "int4": lambda rng: struct.pack("<i", rng.choice([0, 1, 68, -1, 2**31 - 1])),
    "uint4": lambda rng: struct.pack("<I", rng.choice([0, 1, 5, 2**31, 2**32 - 1])),
    "uint8": lambda rng: struct.pack("<Q", rng.choice([0, 1, 300, 2**63, 2**64 - 1])),
    "float8": lambda rng: struct.pack(">d", rng.choice(FLOATS)),
    "decimalnl_short": _line(["0", "1", "00", "01", "68", "-1", "9" * 5000, "x", "", "1_0", "٣"]),
    "decimalnl_long": _line(["0L", "1", "-5L", "9" * 399 + "L", "L", "0x10"]),
    "floatnl": _line(["1.5", "nan", "inf", "1e999", "-", "9" * 390]),
    "stringnl": _line(["'a'", '"b"', "'\\x41\\n'", "'\\q'", "'\\777'", "'", "abc", "'\\N{x}'"]),
    "stringnl_noescape": _line(["a", "", "posix system"]),
    "unicodestringnl": _line(["a", "\\u0041", "\\ud800", "\\U00110000", ""]),
    "stringnl_noescape_pair": lambda rng: "{}\n{}\n".format(*rng.choice(NAMES)).encode(),
    "string1": _counted("<B"), "string4": _counted("<I"), "bytes1": _counted("<B"), "bytes4": _counted("<I"),
    "bytes8": _counted("<Q"), "bytearray8": _counted("<Q"), "unicodestring1": _counted("<B"),
    "unicodestring4": _counted("<I"), "unicodestring8": _counted("<Q"), "long1": _counted("<B"),
    "long4": _counted("<I"),
}  # fmt: skip
OPCODES = [(op.code.encode("latin-1"), op.arg.name if op.arg else "") for op in pickletools.opcodes]


def opcode(rng: random.Random) -> bytes:
    """Any opcode of Python's pickles, with an argument."""
    code, argument = rng.choice(OPCODES)
    return code + (_ARGUMENTS[argument](rng) if argument else b"")


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")[:255]
    return b"\x8c" + bytes([len(raw)]) + raw


def piece(rng: random.Random) -> bytes:
    """One opcode, or a whole value with perhaps one lie in it."""
    kind = rng.randrange(9)
    if kind < 4:
        return opcode(rng)
    if kind == 4:
        module, name = rng.choice(NAMES)
        return f"c{module}\n{name}\n".encode() if rng.random() < 0.5 else _text(module) + _text(name) + b"\x93"
    if kind == 5:  # a type of numbers
        state = b"(K\x03" + _text(rng.choice("<>|=O")) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        return (
            b"cnumpy\ndtype\n"
            + _text(rng.choice(["f4", "u1", "i8", "O8", "S4", "b1", "V9"]))
            + b"\x89\x88\x87R"
            + state
        )
    if kind == 6:  # an array
        shape = rng.choice(
            [b"K\x01\x85", b"K\x00\x85", b"J\xff\xff\xff\x7f\x85", b"K\x02K\x02\x86", b")", b"J\xff\xff\xff\xff\x85"]
        )
        head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01" + shape
        dtype = b"cnumpy\ndtype\n" + _text(rng.choice(["f4", "u1", "?"])) + b"\x89\x88\x87R"
        return (
            head + dtype + rng.choice([b"\x89", b"\x88", b"N"]) + b"C\x04abcd" + rng.choice([b"tb", b"tb", b"t", b"R"])
        )
    if kind == 7:
        return b"](G" + rng.randbytes(8) + b"G" + rng.randbytes(8) + b"e"
    return _text(rng.choice(KEYS)) + rng.choice([b"\x94", b"K\x01s", b"h\x00s", b""])


def stream(rng: random.Random) -> bytes:
    """A pickle made of pieces in any order; one in a hundred repeats some of them very often."""
    pieces = [piece(rng) for _ in range(rng.choice([1, 3, 8, 20, 60]))]
    if rng.random() < 0.01:
        at = rng.randrange(len(pieces))
        pieces[at] *= rng.choice([100, 10_000, 400_000 // len(pieces[at])])
    head = rng.choice([b"", b"\x80\x02", b"\x80\x04", b"\x80\x04\x95" + bytes(8), b"\x80\x05]\x94(", b"}\x94("])
    return head + b"".join(pieces) + rng.choice([b".", b".", b"e.", b"u.", b"t.", b""])


# ---- damage -------------------------------------------------------------------------------------------------------

_EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]


def damage(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """The data with a few bytes changed, removed, repeated, cut off or taken from another file."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 8])):
        at = rng.randrange(len(found) + 1)
        length = rng.choice([1, 2, 4, 8, 50])
        kind = rng.randrange(8)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at : at + 1] = rng.randbytes(1)
        elif kind == 2:
            width = rng.choice([1, 2, 4, 8])
            number = rng.choice(_EDGES) & (256**width - 1)
            found[at : at + width] = number.to_bytes(width, rng.choice(["little", "big"]))  # type: ignore[arg-type]
        elif kind == 3:
            del found[at : at + length]
        elif kind == 4:
            found[at:at] = found[at : at + length] * rng.choice([1, 2, 2, 1000])
        elif kind == 5:
            found[at:at] = piece(rng)
        elif kind == 6 and other:
            start = rng.randrange(len(other))
            found[at : at + length] = other[start : start + length]
        elif kind == 7 and rng.random() < 0.3:
            del found[at:]
    return bytes(found[: 1 << 23])
