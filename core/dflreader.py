"""Reads one pickle with a machine of its own, made for files from strangers; `core.dflfile` is its only user.

The standard unpickler calls whatever a file names, and lets a hundred bytes allocate gigabytes (`LONG_BINPUT`,
`BYTEARRAY8`). This one knows the opcodes that genuine files use; the few globals they need are looked up by exact
name and answered by wrappers that accept only the arguments numpy itself writes. What comes out holds plain Python
values, numpy scalars and arrays, nothing else.

A file is read as a stream: an array's bytes are read once, and numpy takes them over without a copy.
Opcode meanings: the `pickletools` documentation of the standard library.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

MAX_DEPTH = 32
NUMERIC = re.compile(r"[<>|=]?(?:b1|\?|[iu][1248]|f[248]|c(?:8|16))")
"""Types of arrays that may be read and written."""

_CHUNK = 1 << 20

# [x, y] rows of floats, memoized or not, back to back: landmarks and loss histories are made of them.
_ROWS = (
    (re.compile(rb"(?:\]\x94\(G.{8}G.{8}e)+", re.DOTALL), struct.Struct(">4xdxdx"), True),
    (re.compile(rb"(?:\]\(G.{8}G.{8}e)+", re.DOTALL), struct.Struct(">3xdxdx"), False),
)


class Refused(Exception):
    """What is wrong with a pickle, before the file's name is known."""


class _Function:
    """A global of an allowed name: calling it from a pickle runs `call`, which checks its arguments."""

    __slots__ = ("call", "name")

    def __init__(self, name: str, call: Callable[..., Any] | None) -> None:
        self.name = name
        self.call = call


_NDARRAY = _Function("numpy.ndarray", None)


def check_tree(root: Any, max_nodes: int) -> None:
    """Raises Refused for what is no plain value, too many of them (shared ones count each time) or endless nesting."""
    level, count, depth = [root], 1, 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise Refused(f"values are nested deeper than {MAX_DEPTH} levels, or contain themselves")
        below: list[Any] = []
        for node in level:
            kind = type(node)
            if kind is list or kind is tuple:
                below.extend(node)
            elif kind is dict:
                below.extend(node.values())
            elif kind not in _PLAIN:
                raise Refused(f"a {node.name if kind is _Function else kind.__name__} where a value should be")
            if count + len(below) > max_nodes:
                raise Refused(f"more than {max_nodes:,} values")
        count += len(below)
        level = below


# ---- wrappers of the allowed globals ------------------------------------------------------------------------------


def _dtype(spec: Any, align: Any = False, copy: Any = True) -> np.dtype[Any]:
    if type(spec) is not str or not NUMERIC.fullmatch(spec):
        raise Refused(f"an array of type {str(spec)[:40]!r}, only numbers and booleans are allowed")
    # A copy: its byte order is set afterwards, in place.
    return np.dtype(spec, False, True)


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray[Any, Any]:
    if kind is not _NDARRAY or shape != (0,) or code not in (b"b", "b"):
        raise Refused("an array built in a way numpy never does")
    return np.empty(0, np.int8)


def _encode(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise Refused("text encoded in a way numpy never does")
    return text.encode("latin-1")


def _scalar(dtype: Any, raw: Any) -> np.generic:
    raw = raw.encode("latin-1") if type(raw) is str else raw
    if not isinstance(dtype, np.dtype) or type(raw) is not bytes or len(raw) != dtype.itemsize:
        raise Refused("a numpy number of the wrong size")
    return np.frombuffer(raw, dtype)[0]


def _checked_shape(shape: Any, dtype: Any, raw: Any) -> tuple[int, ...]:
    """Shape of an array, if it is one and the bytes given fill it exactly."""
    good = type(shape) is tuple and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)
    if not good or not isinstance(dtype, np.dtype) or type(raw) not in (bytes, bytearray):
        raise Refused("an array with a broken description")
    wanted = dtype.itemsize
    for n in shape:
        wanted *= n
    if wanted != len(raw):
        raise Refused(f"an array of shape {shape} needs {wanted:,} bytes, {len(raw):,} are there")
    return tuple(shape)


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    if order not in ("C", "F"):
        raise Refused("an array with a broken description")
    shape = _checked_shape(shape, dtype, raw)
    return np.frombuffer(bytearray(raw) if type(raw) is bytes else raw, dtype).reshape(shape, order=order)


_GLOBALS = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Function("numpy.dtype", _dtype),
    ("_codecs", "encode"): _Function("_codecs.encode", _encode),
    **{
        (f"numpy.{core}.{module}", name): _Function(name, call)
        for core in ("core", "_core")
        for module, name, call in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}
_NUMBERS = [np.dtype(code).type for code in "?bBhHiIlLqQefdFD"]
_PLAIN = {type(None), bool, int, float, str, bytes, bytearray, np.ndarray, *_NUMBERS}
KEYS = {type(None), bool, int, float, str, bytes}  # hashing nested tuples may overflow the C stack


# ---- the machine --------------------------------------------------------------------------------------------------


class Reader:
    """A stack machine over one pickle: bytes in memory, or a file read in pieces."""

    def __init__(
        self,
        file: BinaryIO | None,
        data: bytes,
        size: int,
        max_nodes: int,
        extra_globals: Mapping[tuple[str, str], Callable[..., Any]],
    ) -> None:
        self.file, self.buffer, self.size = file, data, size
        self.base = 0  # position of the buffer in the file
        self.at = 0  # position in the buffer
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # stacks below the marks
        self.memo: dict[int, Any] = {}
        self.unbuilt: set[int] = set()  # ids of arrays still waiting for their content
        self.max_nodes, self.rows = max_nodes, 0
        self.allowance = 4 * size + _CHUNK  # bytes that calls may produce: shared strings are cheap to repeat
        self.globals = {**_GLOBALS, **{key: _Function(".".join(key), call) for key, call in extra_globals.items()}}

    def run(self) -> Any:
        """The pickled value, its nesting not yet checked."""
        for _ in range(4 * self.max_nodes + 1000):
            code = self.take(1)
            if code == b".":
                if len(self.stack) != 1 or self.outer or self.unbuilt:
                    raise Refused("it ends with unfinished values")
                return self.stack[0]
            step = _STEPS.get(code)
            if step is None:
                raise Refused(f"byte {code!r} at {self.base + self.at - 1:,} is nothing such a file holds")
            step(self)
        raise Refused(f"more than {self.max_nodes:,} values")

    # -- bytes

    def take(self, count: int) -> bytes:
        """The next `count` bytes. Never allocates more than the source still holds."""
        end = self.at + count
        if end <= len(self.buffer):
            start, self.at = self.at, end
            return self.buffer[start:end]
        start = self.base + self.at
        if self.file is None or start + count > self.size:
            raise Refused("it is cut off")
        self.file.seek(start)
        data = self.file.read(max(count, _CHUNK))
        if len(data) < count:
            raise Refused("it is cut off")
        if count >= _CHUNK:  # an array: handed on as it is, so that numpy can take it over
            self.buffer, self.base, self.at = b"", start + count, 0
            return data
        self.buffer, self.base, self.at = data, start, count
        return data[:count]

    def line(self) -> bytes:
        """The rest of a text line, for the oldest protocol."""
        found = bytearray()
        while (byte := self.take(1)) != b"\n":
            found += byte
        return bytes(found)

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def charge(self, count: int) -> None:
        self.allowance -= count
        if self.allowance < 0:
            raise Refused("the same data is repeated too often")

    # -- values

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def empty_list(self) -> None:
        for pattern, rows, memoized in _ROWS:
            if found := pattern.match(self.buffer, self.at - 1):
                values = list(map(list, rows.iter_unpack(found.group())))
                self.rows += 3 * len(values)
                if self.rows > self.max_nodes:
                    raise Refused(f"more than {self.max_nodes:,} values")
                if memoized:
                    self.memo.update(enumerate(values, len(self.memo)))
                self.stack.extend(values)
                self.at = found.end()
                return
        self.stack.append([])

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise Refused("values added to what is not a list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise Refused("values added to what is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in KEYS:
                raise Refused(f"a dictionary key that is a {type(key).__name__}")
            target[key] = value

    def new_dict(self) -> None:
        items = self.since_mark()
        self.stack.append({})
        self.set_items(items)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    # -- globals

    def find(self, module: Any, name: Any) -> None:
        known = self.globals.get((module, name)) if type(module) is type(name) is str else None
        if known is None:
            wanted = ascii(f"{module}.{name}"[:90])
            raise Refused(f"it wants to load {wanted}, which no such file needs")
        self.stack.append(known)

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Function or function.call is None or type(arguments) is not tuple:
            raise Refused("a call of what is no function")
        self.charge(sum(len(a) for a in arguments if type(a) in (str, bytes, bytearray)))
        value = function.call(*arguments)
        if function.call is _reconstruct:
            self.unbuilt.add(id(value))
        self.stack.append(value)

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is np.ndarray and id(target) in self.unbuilt and type(state) is tuple and len(state) == 5:
            _, shape, dtype, fortran, raw = state
            raw = raw.encode("latin-1") if type(raw) is str else raw
            self.charge(len(raw))
            target.__setstate__((1, _checked_shape(shape, dtype, raw), dtype, bool(fortran), bytes(raw)))  # type: ignore[arg-type]
            self.unbuilt.discard(id(target))
        elif isinstance(target, np.dtype) and type(state) is tuple and state[0] == 3:
            order = state[1].decode("ascii") if type(state[1]) is bytes else state[1]
            if order not in ("<", ">", "|", "=") or state[2:] != (None, None, None, -1, -1, 0):
                raise Refused("an array of a type that is no number")
            target.__setstate__((3, order, None, None, None, -1, -1, 0))  # type: ignore[attr-defined]
        else:
            raise Refused(f"the state of a {type(target).__name__}, which no such file sets")


def _text_int(reader: Reader) -> int | bool:
    line = reader.line()
    return line == b"01" if line in (b"00", b"01") else int(line.rstrip(b"L"))


def _text_string(reader: Reader) -> str:
    line = reader.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise Refused("a string without quotes")
    return codecs.escape_decode(line[1:-1])[0].decode("latin-1")


def _text(form: str) -> Callable[[Reader], str]:
    # surrogatepass: file names of Windows and Linux that are no valid text are pickled that way.
    return lambda reader: reader.take(reader.number(form)).decode("utf-8", "surrogatepass")


def _raw(form: str) -> Callable[[Reader], bytes]:
    return lambda reader: reader.take(reader.number(form))


def _long(form: str) -> Callable[[Reader], int]:
    return lambda reader: int.from_bytes(reader.take(reader.number(form)), "little", signed=True)


def _pushes(value: Callable[[Reader], Any]) -> Callable[[Reader], None]:
    return lambda reader: reader.push(value(reader))


def _last(count: int) -> Callable[[Reader], tuple[Any, ...]]:
    def pop(reader: Reader) -> tuple[Any, ...]:
        items = tuple(reader.stack[-count:])
        if len(items) < count:
            raise Refused("values are missing")
        del reader.stack[-count:]
        return items

    return pop


_VALUES: dict[bytes, Callable[[Reader], Any]] = {
    b"N": lambda r: None,
    b"\x88": lambda r: True,
    b"\x89": lambda r: False,
    b"J": lambda r: r.number("<i"),
    b"K": lambda r: r.number("<B"),
    b"M": lambda r: r.number("<H"),
    b"\x8a": _long("<B"),
    b"\x8b": _long("<I"),
    b"I": _text_int,
    b"L": _text_int,
    b"F": lambda r: float(r.line()),
    b"G": lambda r: struct.unpack(">d", r.take(8))[0],
    b"S": _text_string,
    b"T": lambda r: _raw("<I")(r).decode("latin-1"),
    b"U": lambda r: _raw("<B")(r).decode("latin-1"),
    b"V": lambda r: r.line().decode("raw-unicode-escape"),
    b"X": _text("<I"),
    b"\x8c": _text("<B"),
    b"\x8d": _text("<Q"),
    b"B": _raw("<I"),
    b"C": _raw("<B"),
    b"\x8e": _raw("<Q"),
    b"\x96": lambda r: bytearray(r.take(r.number("<Q"))),
    b"}": lambda r: {},
    b")": lambda r: (),
    b"l": lambda r: r.since_mark(),
    b"t": lambda r: tuple(r.since_mark()),
    b"\x85": _last(1),
    b"\x86": _last(2),
    b"\x87": _last(3),
    b"g": lambda r: r.memo[int(r.line())],
    b"h": lambda r: r.memo[r.number("<B")],
    b"j": lambda r: r.memo[r.number("<I")],
}
"""Opcodes that push one value."""

_STEPS: dict[bytes, Callable[[Reader], Any]] = {
    **{code: _pushes(value) for code, value in _VALUES.items()},
    b"\x80": lambda r: r.take(1),
    b"\x95": lambda r: r.take(8),
    b"(": Reader.mark,
    b"]": Reader.empty_list,
    b"d": Reader.new_dict,
    b"a": lambda r: r.append([r.stack.pop()]),
    b"e": lambda r: r.append(r.since_mark()),
    b"s": lambda r: r.set_items(list(_last(2)(r))),
    b"u": lambda r: r.set_items(r.since_mark()),
    b"p": lambda r: r.put(int(r.line())),
    b"q": lambda r: r.put(r.number("<B")),
    b"r": lambda r: r.put(r.number("<I")),
    b"\x94": lambda r: r.put(len(r.memo)),
    b"c": lambda r: r.find(r.line().decode("ascii"), r.line().decode("ascii")),
    b"\x93": lambda r: r.find(*_last(2)(r)),
    b"R": Reader.reduce,
    b"b": Reader.build,
}
