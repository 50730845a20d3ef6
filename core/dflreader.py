"""Reads one pickle with a machine of its own, made for files from strangers; `core.dflfile` is its only user.

The standard unpickler calls whatever a file names, and lets a hundred bytes allocate gigabytes (`LONG_BINPUT`,
`BYTEARRAY8`). This one knows the opcodes that genuine files use; the few globals they need are looked up by exact name
(`core.dflplain`). What comes out holds plain Python values, numpy scalars and arrays, nothing else. Every step is
weighed, so that a file cannot take much more memory than it is long.

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

from core.dflplain import GLOBALS, MAX_INT_BYTES, Function, Refused, check_key, checked_shape, reconstruct

_CHUNK = 1 << 20
_MAX_LINE = 1 << 24  # of the text protocol: a mask is one line there
_MAX_DIGITS = 300  # so that what was read can be written again
_PER_NODE, _PER_BYTE = 160, 32
"""What a file's values may weigh in memory: so many bytes for each value allowed (at most a million of them are counted
here), or for each byte of the file. Genuine files stay far below the one or the other."""

# [x, y] rows of floats, memoized or not, back to back: landmarks and loss histories are made of them.
_ROWS = (
    (re.compile(rb"(?:\]\x94\(G.{8}G.{8}e)+", re.DOTALL), struct.Struct(">4xdxdx"), True),
    (re.compile(rb"(?:\]\(G.{8}G.{8}e)+", re.DOTALL), struct.Struct(">3xdxdx"), False),
)
_ROW_WEIGHT = 150
_ESCAPES = re.compile(rb"""(?:[^\\]|\\[\\'"nrt]|\\x[0-9a-fA-F]{2})*""", re.DOTALL)  # what Python 2 writes


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
        self.max_nodes = max_nodes
        self.weight = max(_PER_NODE * min(max_nodes, 1_000_000), _PER_BYTE * size)  # bytes that values may still take
        self.allowance = 4 * size + _CHUNK  # bytes that calls may produce: shared strings are cheap to repeat
        self.globals = {**GLOBALS, **{key: Function(".".join(key), call) for key, call in extra_globals.items()}}

    def run(self) -> Any:
        """The pickled value, its nesting not yet checked."""
        while (code := self.take(1)) != b".":
            step = _STEPS.get(code)
            if step is None:
                raise Refused(f"byte {code!r} at {self.base + self.at - 1:,} is nothing such a file holds")
            self.weigh(step[1])
            step[0](self)
        if len(self.stack) != 1 or self.outer or self.unbuilt:
            raise Refused("it ends with unfinished values")
        return self.stack[0]

    def weigh(self, count: int) -> None:
        """Counts memory that a step takes; negative: that it gives back."""
        self.weight -= count
        if self.weight < 0:
            raise Refused("it unfolds into far more than its size")

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
        found = b""
        while len(found) <= _MAX_LINE:
            end = self.buffer.find(b"\n", self.at)
            found += self.take((len(self.buffer) if end < 0 else end) - self.at)
            if self.take(1) == b"\n":
                return found
            self.at -= 1
        raise Refused(f"a line of more than {_MAX_LINE:,} bytes")

    def digits(self) -> bytes:
        """A line that holds one whole number."""
        line = self.line()
        if len(line) > _MAX_DIGITS:
            raise Refused(f"a number of {len(line):,} digits")
        return line

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
        self.weigh(-_MARK)
        return items

    def empty_list(self) -> None:
        for pattern, rows, memoized in _ROWS:
            if found := pattern.match(self.buffer, self.at - 1):
                self.weigh((found.end() - found.start()) // rows.size * (_ROW_WEIGHT + (_MEMO if memoized else 0)))
                values = list(map(list, rows.iter_unpack(found.group())))
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
            check_key(key)
            self.weigh(_ENTRY)
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
        if type(function) is not Function or function.call is None or type(arguments) is not tuple:
            raise Refused("a call of what is no function")
        self.weigh(function.weight)
        self.charge(sum(len(a) for a in arguments if type(a) in (str, bytes, bytearray)))
        value = function.call(*arguments)
        if function.call is reconstruct:
            self.unbuilt.add(id(value))
        self.stack.append(value)

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is np.ndarray and id(target) in self.unbuilt and type(state) is tuple and len(state) == 5:
            _, shape, dtype, fortran, raw = state
            if type(fortran) not in (bool, int):
                raise Refused("an array with a broken description")
            raw = raw.encode("latin-1") if type(raw) is str else raw
            self.charge(len(raw))
            target.__setstate__((1, checked_shape(shape, dtype, raw), dtype, bool(fortran), bytes(raw)))  # type: ignore[arg-type]
            self.unbuilt.discard(id(target))
        elif isinstance(target, np.dtype) and type(state) is tuple and len(state) == 8:
            order = state[1].decode("ascii") if type(state[1]) is bytes else state[1]
            plain = all(type(item) in (int, type(None)) for item in (state[0], *state[2:]))
            if not plain or type(order) is not str or order not in ("<", ">", "|", "="):
                raise Refused("an array of a type that is no number")
            if (state[0], *state[2:]) != (3, None, None, None, -1, -1, 0):
                raise Refused("an array of a type that is no number")
            target.__setstate__((3, order, None, None, None, -1, -1, 0))  # type: ignore[attr-defined]
        else:
            raise Refused(f"the state of a {type(target).__name__}, which no such file sets")


def _text_int(reader: Reader) -> int | bool:
    line = reader.digits()
    return line == b"01" if line in (b"00", b"01") else int(line.rstrip(b"L"))


def _text_string(reader: Reader) -> str:
    line = reader.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise Refused("a string without quotes")
    if not _ESCAPES.fullmatch(line[1:-1]):
        raise Refused("a string that no Python 2 wrote")
    return codecs.escape_decode(line[1:-1])[0].decode("latin-1")


def _text(form: str) -> Callable[[Reader], str]:
    # surrogatepass: file names of Windows and Linux that are no valid text are pickled that way.
    return lambda reader: reader.take(reader.number(form)).decode("utf-8", "surrogatepass")


def _raw(form: str) -> Callable[[Reader], bytes]:
    return lambda reader: reader.take(reader.number(form))


def _long(form: str) -> Callable[[Reader], int]:
    def value(reader: Reader) -> int:
        if (count := reader.number(form)) > MAX_INT_BYTES:
            raise Refused(f"a number of {count:,} bytes")
        return int.from_bytes(reader.take(count), "little", signed=True)

    return value


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


_NOTHING, _NUMBER, _TEXT, _LIST, _MARK, _TUPLE, _MEMO, _ENTRY = 32, 40, 64, 88, 88, 80, 112, 112
"""What steps weigh: bytes that CPython takes for their objects at most, rounded up; text and arrays weigh no more than
the file they are in. 32 for what takes none, so that the number of steps is bounded as well."""

_VALUES: dict[bytes, tuple[Callable[[Reader], Any], int]] = {
    b"N": (lambda r: None, _NOTHING),
    b"\x88": (lambda r: True, _NOTHING),
    b"\x89": (lambda r: False, _NOTHING),
    b"J": (lambda r: r.number("<i"), _NUMBER),
    b"K": (lambda r: r.number("<B"), _NOTHING),
    b"M": (lambda r: r.number("<H"), _NUMBER),
    b"\x8a": (_long("<B"), _NUMBER),
    b"\x8b": (_long("<I"), _NUMBER),
    b"I": (_text_int, _NUMBER),
    b"L": (_text_int, _NUMBER),
    b"F": (lambda r: float(r.digits()), _NUMBER),
    b"G": (lambda r: struct.unpack(">d", r.take(8))[0], _NUMBER),
    b"S": (_text_string, _TEXT),
    b"T": (lambda r: _raw("<I")(r).decode("latin-1"), _TEXT),
    b"U": (lambda r: _raw("<B")(r).decode("latin-1"), _TEXT),
    b"V": (lambda r: r.line().decode("raw-unicode-escape"), _TEXT),
    b"X": (_text("<I"), _TEXT),
    b"\x8c": (_text("<B"), _TEXT),
    b"\x8d": (_text("<Q"), _TEXT),
    b"B": (_raw("<I"), _TEXT),
    b"C": (_raw("<B"), _TEXT),
    b"\x8e": (_raw("<Q"), _TEXT),
    b"\x96": (lambda r: bytearray(r.take(r.number("<Q"))), _TEXT),
    b"}": (lambda r: {}, 2 * _LIST),
    b")": (lambda r: (), _NOTHING),
    b"l": (lambda r: r.since_mark(), _LIST),
    b"t": (lambda r: tuple(r.since_mark()), _TUPLE),
    b"\x85": (_last(1), _TUPLE),
    b"\x86": (_last(2), _TUPLE),
    b"\x87": (_last(3), _TUPLE),
    b"g": (lambda r: r.memo[int(r.digits())], _NOTHING),
    b"h": (lambda r: r.memo[r.number("<B")], _NOTHING),
    b"j": (lambda r: r.memo[r.number("<I")], _NOTHING),
}
"""Opcodes that push one value: how, and what it weighs."""

_STEPS: dict[bytes, tuple[Callable[[Reader], Any], int]] = {
    **{code: (_pushes(value), weight) for code, (value, weight) in _VALUES.items()},
    b"\x80": (lambda r: r.take(1), _NOTHING),
    b"\x95": (lambda r: r.take(8), _NOTHING),
    b"(": (Reader.mark, _MARK),
    b"]": (Reader.empty_list, _LIST),
    b"d": (Reader.new_dict, 2 * _LIST),
    b"a": (lambda r: r.append([r.stack.pop()]), _NOTHING),
    b"e": (lambda r: r.append(r.since_mark()), _NOTHING),
    b"s": (lambda r: r.set_items(list(_last(2)(r))), _NOTHING),
    b"u": (lambda r: r.set_items(r.since_mark()), _NOTHING),
    b"p": (lambda r: r.put(int(r.digits())), _MEMO),
    b"q": (lambda r: r.put(r.number("<B")), _MEMO),
    b"r": (lambda r: r.put(r.number("<I")), _MEMO),
    b"\x94": (lambda r: r.put(len(r.memo)), _MEMO),
    b"c": (lambda r: r.find(r.line().decode("ascii"), r.line().decode("ascii")), _NOTHING),
    b"\x93": (lambda r: r.find(*_last(2)(r)), _NOTHING),
    b"R": (Reader.reduce, _NOTHING),
    b"b": (Reader.build, _NOTHING),
}
