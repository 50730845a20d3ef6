"""Memory that several processes see, which nobody can leave behind.

It never has a name that outlives its users, so nothing is left when a process is killed: on Linux an anonymous
memory file (or, where that is refused, an unlinked file in /dev/shm or the temporary folder, whichever has
room), elsewhere on POSIX an unlinked temporary file, on Windows a tagged mapping of the paging file. Workers get
the open descriptor (or the tag), not a path. Pages are set aside before anybody writes to them: writing to a mapped
file whose disk filled up later would kill the writer without a word.

Arrays are laid out by `Layout`: name -> dtype, shape and offset, which travels as JSON.
"""

from __future__ import annotations

import contextlib
import errno
import math
import mmap
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ALIGNMENT = 64
MEMORY = "memory"
"""The place of a buffer that lies in anonymous memory, where every byte can be written to, set aside or not."""
_CHUNK = 1 << 20


class SharedBufferError(OSError):
    """No place has room for a shared buffer."""


@dataclass(frozen=True)
class Layout:
    """Where each named array lies in a buffer: entries of (name, dtype string, shape, offset), and the total size."""

    entries: tuple[tuple[str, str, tuple[int, ...], int], ...]
    size: int

    @classmethod
    def of(cls, arrays: Mapping[str, tuple[npt.DTypeLike, Sequence[int]]]) -> Layout:
        """Lay out arrays, given as name -> (dtype, shape), one after the other, each aligned to 64 bytes."""
        entries, offset = [], 0
        for name, (dtype, shape) in arrays.items():
            entries.append((name, np.dtype(dtype).str, tuple(int(n) for n in shape), offset))
            count = int(np.prod(shape, dtype=np.int64))
            offset += -(-count * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
        return cls(tuple(entries), max(offset, ALIGNMENT))

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Layout:
        """The reverse of `plain`."""
        return cls(tuple((n, d, tuple(s), o) for n, d, s, o in value["entries"]), value["size"])

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"entries": self.entries, "size": self.size}

    def views(self, memory: memoryview | mmap.mmap, offset: int = 0) -> dict[str, npt.NDArray[Any]]:
        """The arrays, as views of the buffer from `offset` on."""
        return {
            # frombuffer, because its arrays keep the mapping from being closed under them
            name: np.frombuffer(memory, dtype, math.prod(shape), offset + start).reshape(shape)
            for name, dtype, shape, start in self.entries
        }


class SharedBuffer:
    """`size` bytes of zeros that workers can map too. `SharedBuffer(size)` makes, `attach(handle)` joins.

    handle: text to give to a worker; pass_fds: what to give to `subprocess.Popen` besides; place: where it lies.
    Raises SharedBufferError when there is no room.
    """

    def __init__(
        self, size: int, *, first: int | None = None, lazy: bool = False, folders: Sequence[Path] | None = None
    ) -> None:
        """first: bytes to set aside now, the others by `reserve` (all). lazy: nothing is set aside in anonymous memory,
        where every byte can be written to without, and everything elsewhere. folders: where to try, first to last,
        instead of anonymous memory and the usual places."""
        self.size = size
        self._reserved = size if first is None else first
        self.pass_fds: tuple[int, ...] = ()
        if sys.platform == "win32":
            tag = f"facesmith-{os.getpid()}-{secrets.token_hex(8)}"
            self.map = mmap.mmap(-1, size, tagname=tag)
            self.handle = f"tag:{tag}:{size}"
            self.place = "the paging file"
        else:
            descriptor, self.place = _reserve(size, self._reserved, lazy, folders)
            self.map = mmap.mmap(descriptor, size)
            self.handle = f"fd:{descriptor}:{size}"
            self.pass_fds = (descriptor,)

    def reserve(self, end: int) -> None:
        """Sets the bytes up to `end` aside, so that they can be written to. Raises SharedBufferError."""
        if sys.platform != "win32" and end > self._reserved:
            try:
                _fill(self.pass_fds[0], self._reserved, end)
            except OSError as error:
                raise SharedBufferError(errno.ENOSPC, f"{self.place}: {error.strerror}") from error
            self._reserved = end

    def close(self) -> None:
        """Give the memory back (once nothing views it any more: a view keeps its mapping alive). Twice is fine."""
        for descriptor in self.pass_fds:
            os.close(descriptor)
        self.pass_fds = ()
        with contextlib.suppress(BufferError):  # arrays still view it: the mapping goes when the last of them does
            self.map.close()


def attach(handle: str) -> mmap.mmap:
    """Map a buffer made by the parent, from its handle. POSIX: takes over (and closes) the inherited descriptor."""
    kind, where, size = handle.split(":")
    if sys.platform == "win32":
        return mmap.mmap(-1, int(size), tagname=where)
    if kind != "fd":
        raise ValueError(f"a shared buffer's handle here is fd:<number>:<size>, got {handle!r}")
    memory = mmap.mmap(int(where), int(size))
    os.close(int(where))
    return memory


if sys.platform != "win32":

    def _reserve(size: int, first: int, lazy: bool, folders: Sequence[Path] | None) -> tuple[int, str]:
        """An open descriptor of a nameless file of `size` bytes, the first of them set aside, and where that is."""
        refused = []
        if folders is None:
            if hasattr(os, "memfd_create"):
                try:
                    return _sized(os.memfd_create("facesmith"), size, 0 if lazy else first), MEMORY
                except OSError as error:
                    refused.append(f"{MEMORY}: {error.strerror}")
            folders = [Path("/dev/shm"), Path(tempfile.gettempdir())]
        for folder in folders:
            if not folder.is_dir():
                continue
            try:
                with tempfile.TemporaryFile(dir=folder) as file:
                    return _sized(os.dup(file.fileno()), size, first), str(folder)
            except OSError as error:
                refused.append(f"{folder}: {error.strerror}")
        raise SharedBufferError(
            errno.ENOSPC,
            f"no room for {size / 2**20:.0f} MB of shared memory ({'; '.join(refused) or 'no folder to try'}): "
            "free some space or point TMPDIR elsewhere; for batches, a lower batch size or resolution helps too",
        )

    def _sized(descriptor: int, size: int, first: int) -> int:
        """The descriptor, its file `size` bytes long; closed when that fails."""
        try:
            os.ftruncate(descriptor, size)
            _fill(descriptor, 0, first)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _fill(descriptor: int, start: int, end: int) -> None:
        """Sets these bytes aside."""
        if end > start and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(descriptor, start, end - start)
                return
            except OSError as error:  # some file systems cannot; what they can do is be written to
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
        while start < end:
            start += os.pwrite(descriptor, bytes(min(_CHUNK, end - start)), start)
