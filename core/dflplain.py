"""What may stand in a DeepFaceLab pickle: the few globals such files need, and the values that may come out.

`core.dflreader` looks globals up here by exact name. Each is a wrapper of our own that accepts only the arguments numpy
itself writes: nothing of numpy is called with what a stranger chose.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_DEPTH = 32
MAX_INT_BYTES = 128
"""Longer whole numbers than that are refused: nothing needs them, and Python will not even print those of 4,300
digits."""

NUMERIC = re.compile(r"[<>|=]?(?:b1|\?|[iu][1248]|f[248]|c(?:8|16))")
"""Types of arrays that may be read and written."""

KEYS = {type(None), bool, int, float, str, bytes}  # hashing nested tuples may overflow the C stack
_MAX_EMPTY = 1 << 16  # longest side of an array without content: loops run over sides


class Refused(Exception):
    """What is wrong with a pickle, before the file's name is known."""


class Function:
    """A global of an allowed name: calling it from a pickle runs `call`, which checks its arguments. weight: bytes of
    memory that its result takes, without text and numbers in it."""

    __slots__ = ("call", "name", "weight")

    def __init__(self, name: str, call: Callable[..., Any] | None, weight: int = 64) -> None:
        self.name, self.call, self.weight = name, call, weight


def check_key(key: Any) -> None:
    """Raises Refused for what cannot be a dictionary key. Multiples of 2**61 - 1 share one hash: a dictionary of such
    numbers takes hours to fill, so numbers stay below that."""
    kind = type(key)
    if kind not in KEYS:
        raise Refused(f"a dictionary key that is a {kind.__name__}")
    if kind is int and not -(1 << 60) < key < 1 << 60:
        raise Refused("a dictionary key that is a huge number")


def check_tree(root: Any, max_nodes: int, max_payload: int) -> None:
    """Raises Refused for what is no plain value, too much of it or endless nesting. Shared values count each time, as
    readers copy them: max_nodes is the number of values, max_payload the bytes in text and arrays."""
    level, count, payload, depth = [root], 1, 0, 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise Refused(f"values are nested deeper than {MAX_DEPTH} levels, or contain themselves")
        below: list[Any] = []
        for node in level:
            kind = type(node)
            if kind is float:
                continue
            if kind is list or kind is tuple:
                below.extend(node)
            elif kind is dict:
                below.extend(node.values())
            elif kind in _SIZED:
                payload += node.nbytes if kind is np.ndarray else len(node)
            elif kind not in _PLAIN:
                raise Refused(f"a {node.name if kind is Function else kind.__name__} where a value should be")
            if count + len(below) > max_nodes:
                raise Refused(f"more than {max_nodes:,} values")
        if payload > max_payload:
            raise Refused("the same data is repeated too often")
        count += len(below)
        level = below


def _dtype(spec: Any, align: Any = False, copy: Any = True) -> np.dtype[Any]:
    if type(spec) is not str or not NUMERIC.fullmatch(spec):
        what = repr(spec[:40]) if type(spec) is str else f"a {type(spec).__name__}"
        raise Refused(f"an array of type {what}, only numbers and booleans are allowed")
    # A copy: its byte order is set afterwards, in place.
    return np.dtype(spec, False, True)


def reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray[Any, Any]:
    """The empty array that a pickle fills afterwards."""
    usual = type(shape) is tuple and len(shape) == 1 and type(shape[0]) is int and shape[0] == 0
    if kind is not _NDARRAY or not usual or type(code) not in (bytes, str) or code not in (b"b", "b"):
        raise Refused("an array built in a way numpy never does")
    return np.empty(0, np.int8)


def _encode(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or type(encoding) is not str or encoding not in ("latin1", "latin-1"):
        raise Refused("text encoded in a way numpy never does")
    return text.encode("latin-1")


def _scalar(dtype: Any, raw: Any) -> np.generic:
    raw = raw.encode("latin-1") if type(raw) is str else raw
    if not isinstance(dtype, np.dtype) or type(raw) is not bytes or len(raw) != dtype.itemsize:
        raise Refused("a numpy number of the wrong size")
    return np.frombuffer(raw, dtype)[0]


def checked_shape(shape: Any, dtype: Any, raw: Any) -> tuple[int, ...]:
    """Shape of an array, if it is one and the bytes given fill it exactly."""
    good = type(shape) is tuple and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)
    if not good or not isinstance(dtype, np.dtype) or type(raw) not in (bytes, bytearray):
        raise Refused("an array with a broken description")
    wanted = dtype.itemsize
    for n in shape:
        wanted *= n
    if wanted != len(raw):
        sides = str(shape) if max(shape, default=0) < 1 << 64 else f"of {len(shape)} sides"
        raise Refused(f"an array {sides} needs {min(wanted, 1 << 64):,} bytes, {len(raw):,} are there")
    if not raw and max(shape, default=0) > _MAX_EMPTY:
        raise Refused("an array of nothing that claims a long side")
    return tuple(shape)


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    if type(order) is not str or order not in ("C", "F"):
        raise Refused("an array with a broken description")
    shape = checked_shape(shape, dtype, raw)
    return np.frombuffer(bytearray(raw) if type(raw) is bytes else raw, dtype).reshape(
        shape, order="F" if order == "F" else "C"
    )


_NDARRAY = Function("numpy.ndarray", None)

GLOBALS = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Function("numpy.dtype", _dtype, 128),
    ("_codecs", "encode"): Function("_codecs.encode", _encode),
    **{
        (f"numpy.{core}.{module}", name): Function(name, call, weight)
        for core in ("core", "_core")
        for module, name, call, weight in (
            ("multiarray", "_reconstruct", reconstruct, 224),
            ("multiarray", "scalar", _scalar, 48),
            ("numeric", "_frombuffer", _frombuffer, 320),
        )
    },
}
_NUMBERS = [np.dtype(code).type for code in "?bBhHiIlLqQefdFD"]
_SIZED = {str, bytes, bytearray, np.ndarray}
_PLAIN = {type(None), bool, int, float, *_NUMBERS}
