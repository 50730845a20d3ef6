"""DeepFaceLab's files: Python pickles, read without running anything in them, and written so that DFL can read them.

The only module through which pickles are read or written; none of ours imports `pickle`. Reading is the machine in
`core.dflreader`. The writer emits protocol 4 with numpy 1.19's module names whatever numpy runs here, without the
memo: nothing in these files is shared, and a loss history of a million rows becomes one array operation.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from core.dflplain import MAX_DEPTH, MAX_INT_BYTES, NUMERIC, Refused, check_key, check_tree
from core.dflreader import Reader

MAX_BYTES = 16 << 30
"""Default limit on a file: the optimizer of the largest models stays below it."""

_CHUNK = 1 << 20
_MIN_NODES = 1_000_000
_MAX_NODES = 16_000_000


class DflFileError(ValueError):
    """A file is not what DeepFaceLab writes, or is not safe to read. Says which file, what was found, what to do;
    `reason` is what was found alone, for a caller with its own words around it."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


def load(
    source: Path | bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_nodes: int | None = None,
    extra_globals: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
    name: str = "",
) -> Any:
    """Reads a pickle of plain values and numeric numpy arrays; arrays are writable.

    max_bytes: larger sources are refused before they are read. max_nodes: values allowed in the result, every
    reference counted; by default a million, or as many as a file of that size can honestly hold. extra_globals:
    further allowed names, (module, name) to a function of the pickled arguments that must return a plain value.
    name: what to call a `bytes` source in messages. Python 2 strings come back decoded as latin-1, which keeps
    every byte. Raises DflFileError; OSError if a file cannot be opened.
    """
    if isinstance(source, Path):
        if source.exists() and not (source.is_file() or source.is_dir()):  # opening a pipe may wait for ever
            raise DflFileError(f"{source}: no ordinary file. Use an undamaged, genuine one.", "no ordinary file")
        with source.open("rb") as file:
            return _load(file, b"", os.fstat(file.fileno()).st_size, str(source), max_bytes, max_nodes, extra_globals)
    return _load(None, source, len(source), name or "pickled data", max_bytes, max_nodes, extra_globals)


def _load(
    file: BinaryIO | None,
    data: bytes,
    size: int,
    name: str,
    max_bytes: int,
    max_nodes: int | None,
    extra_globals: Mapping[tuple[str, str], Callable[..., Any]] | None,
) -> Any:
    if size > max_bytes:
        reason = f"{size:,} bytes, at most {max_bytes:,} are read here"
        raise DflFileError(f"{name}: {reason}. Use a genuine file.", reason)
    nodes = max_nodes or max(_MIN_NODES, min(size // 2, _MAX_NODES))
    try:
        reader = Reader(file, data, size, nodes, extra_globals or {})
        result = reader.run()
        check_tree(result, nodes, 8 * size + _CHUNK)
    except Refused as error:
        reason = str(error)
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, struct.error) as error:
        reason = f"damaged, or no DeepFaceLab file ({type(error).__name__}: {str(error)[:100]!a})"
    else:
        return result
    reason = _zeros(file, data, size) or reason
    raise DflFileError(f"{name}: {reason}. Nothing in it was run; use an undamaged, genuine file.", reason)


def _zeros(file: BinaryIO | None, data: bytes, size: int) -> str:
    """What to say of a source that begins with zeros; empty for others. Its first 64 MB are looked at."""
    if file is not None:
        file.seek(0)
        data = file.read(64)
    if not data or data[:64].strip(b"\0"):
        return ""
    while file is not None and file.tell() < min(size, 64 * _CHUNK) and not data.strip(b"\0"):
        data = file.read(_CHUNK)
    return f"{'begins with' if data.strip(bytes(1)) else 'only'} zeros, as after a power cut"


ENUMERATIONS = {("samplelib.Sample", "SampleType"), ("facelib.FaceType", "FaceType")}
"""Names of DFL's own enumerations, which its packs hold."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of one of ENUMERATIONS, for `dumps`: in DFL it comes out as the enumeration's member of that number."""

    module: str
    name: str
    value: int


ROWS_AT_ONCE = 16384  # a millisecond: other threads of a training wait no longer


class Rows:
    """A table (n, columns) of float64, pickled as a list of n lists of floats: a million of them need not be made."""

    def __init__(self, table: np.ndarray[Any, Any]) -> None:
        self.table = table


# ---- writing ------------------------------------------------------------------------------------------------------


def dumps(obj: Any, protocol: int = 4) -> bytes:
    """Pickles plain values, numpy numbers and numeric arrays so that numpy 1.19 and later, and DFL, can read them.

    Equal to `b"".join(chunks(obj))`: for models use `chunks`, which copies no array. Raises DflFileError for
    anything that `load` would not read back.
    """
    if protocol != 4:
        raise DflFileError(f"pickle protocol {protocol} was asked for; DeepFaceLab's files are protocol 4.")
    return b"".join(chunks(obj))


def joined(items: Sequence[bytes]) -> bytes:
    """One list (or dictionary) of many, each as `dumps` writes it: a long one without its values in memory."""
    return items[0][:4] + b"".join(item[4:-2] for item in items) + items[0][-2:]


def chunks(obj: Any) -> Iterator[bytes | memoryview]:
    """The pickle of `obj` in pieces; large pieces are the arrays themselves, so do not change them meanwhile.

    Arrays are written C-contiguous and little-endian. Shared values are written out each time.
    """
    yield b"\x80\x04"
    pending = bytearray()
    for piece in _pieces(obj, "", 1):
        if len(piece) < 65536:
            pending += piece
        else:
            yield bytes(pending)
            pending.clear()
            yield piece
    yield bytes(pending) + b"."


def _pieces(obj: Any, where: str, depth: int) -> Iterator[bytes | memoryview]:
    kind = type(obj)
    if depth > MAX_DEPTH:
        raise DflFileError(f"{where or 'the value'}: nested deeper than {MAX_DEPTH} levels, or contains itself.")
    if kind is list or kind is tuple:
        yield b"(" if kind is tuple else b"]("
        if kind is list and _is_rows(obj):
            yield _row_bytes(np.array(obj, np.float64))
        else:
            for index, item in enumerate(obj):
                yield from _pieces(item, f"{where}[{index}]", depth + 1)
        yield b"t" if kind is tuple else b"e"
    elif kind is Rows:
        yield b"]("
        for start in range(0, len(obj.table), ROWS_AT_ONCE):
            yield _row_bytes(obj.table[start : start + ROWS_AT_ONCE])
        yield b"e"
    elif kind is dict:
        yield b"}("
        for key, item in obj.items():
            try:
                check_key(key)
            except Refused as error:
                raise DflFileError(f"{where or 'the value'}: {error} cannot be saved.") from None
            yield _atom(key, where)
            yield from _pieces(item, f"{where}[{key!r}]", depth + 1)
        yield b"u"
    elif kind is Member:
        if (obj.module, obj.name) not in ENUMERATIONS:
            raise DflFileError(
                f"{where or 'the value'}: {obj.module}.{obj.name} cannot be saved in DeepFaceLab's files."
            )
        yield f"c{obj.module}\n{obj.name}\n".encode("ascii") + _atom(obj.value, where) + b"\x85R"
    elif isinstance(obj, np.ndarray):
        yield from _array_pieces(obj, where)
    elif isinstance(obj, np.generic):
        dtype, raw = _dtype_piece(obj.dtype, where), np.asarray(obj, obj.dtype.newbyteorder("<")).tobytes()
        yield b"cnumpy.core.multiarray\nscalar\n" + dtype + _atom(raw, where) + b"\x86R"
    else:
        yield _atom(obj, where)


def _atom(value: Any, where: str) -> bytes:
    kind = type(value)
    if value is None:
        return b"N"
    if kind is bool:
        return b"\x88" if value else b"\x89"
    if kind is float:
        return b"G" + struct.pack(">d", value)
    if kind is int:
        if -(2**31) <= value < 2**31:
            return b"K" + struct.pack("<B", value) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        if len(raw) > MAX_INT_BYTES:
            raise DflFileError(f"{where or 'the value'}: a number of {len(raw)} bytes cannot be saved.")
        return b"\x8b" + struct.pack("<I", len(raw)) + raw
    if kind is str:
        raw = value.encode("utf-8", "surrogatepass")
        return (b"\x8c" + struct.pack("<B", len(raw)) if len(raw) < 256 else b"X" + struct.pack("<I", len(raw))) + raw
    if kind is bytes or kind is bytearray:
        return _bytes_head(len(value)) + bytes(value)
    raise DflFileError(f"{where or 'the value'}: a {kind.__name__} cannot be saved in DeepFaceLab's files.")


def _bytes_head(size: int) -> bytes:
    return b"C" + struct.pack("<B", size) if size < 256 else b"\x8e" + struct.pack("<Q", size)


def _dtype_piece(dtype: np.dtype[Any], where: str) -> bytes:
    code = f"{dtype.kind}{dtype.itemsize}"
    if not NUMERIC.fullmatch(code):
        raise DflFileError(f"{where or 'the value'}: arrays of {dtype} cannot be saved, only numbers and booleans.")
    order = _atom("|" if dtype.itemsize == 1 else "<", where)
    minus = b"J\xff\xff\xff\xff"
    return b"cnumpy\ndtype\n" + _atom(code, where) + b"\x89\x88\x87R(K\x03" + order + b"NNN" + minus * 2 + b"K\x00tb"


def _array_pieces(array: np.ndarray[Any, Any], where: str) -> Iterator[bytes | memoryview]:
    dtype = _dtype_piece(array.dtype, where)
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
    shape = b"(" + b"".join(_atom(int(n), where) for n in array.shape) + b"t"
    head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01"
    yield head + shape + dtype + b"\x89" + _bytes_head(flat.size)
    yield flat.data
    yield b"tb"


def _is_rows(items: list[Any]) -> bool:
    """Whether these are many [float, float] rows: a loss history has millions."""
    return (
        len(items) > 16
        and set(map(type, items)) == {list}
        and set(map(len, items)) == {2}
        and set(map(type, chain.from_iterable(items))) == {float}
    )


def _row_bytes(table: np.ndarray[Any, Any]) -> bytes:
    """The rows (n, columns) of floats as lists, without the list around them."""
    columns = range(table.shape[1])
    fields = [field for i in columns for field in ((f"opcode{i}", "S1"), (f"value{i}", ">f8"))]
    rows = np.empty(len(table), np.dtype([("open", "S2"), *fields, ("close", "S1")]))
    rows["open"], rows["close"] = b"](", b"e"
    for i in columns:
        rows[f"opcode{i}"], rows[f"value{i}"] = b"G", table[:, i]
    return rows.tobytes()


def write_bytes(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Writes a whole file or leaves the old one as it was: beside it, flushed to the disk, then put in its place.

    data: bytes, or pieces such as `chunks` makes. Raises OSError; then `path` is untouched.
    """
    partial = path.with_name(path.name + ".tmp")
    try:
        with partial.open("wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if os.name == "posix":  # the name itself must reach the disk too; Windows cannot open folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
