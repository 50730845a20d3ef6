"""A disk that fails or stops at a chosen step, and knows what would be left of a folder if the power went.

Power: content that was not synced is lost, cut or zeroed; of names that changed since the folder was last synced any
part may have happened. Real syncs are left out: the files are small and no test pulls the plug.
"""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from core.disk import Disk


class StopHere(BaseException):
    """The process ends: no `except Exception` may see it."""


@dataclass
class Inode:
    content: bytearray = field(default_factory=bytearray)
    synced: bytes | None = None
    mtime_ns: int = 0


class BrokenDisk(Disk):
    """at: the step, from 1, at which it breaks (0 never). how: `stop` ends the process before that step, `fail` refuses
    it once, `dead` refuses it and everything after. stop: another step before which the process ends. links: whether
    the file system has hard links."""

    def __init__(
        self, folder: Path, at: int = 0, how: str = "stop", links: bool = True, number: int = errno.EIO
    ) -> None:
        super().__init__()
        self.folder, self.at, self.how, self.links, self.number = folder, at, how, links, number
        self.stop = 0
        self.steps: list[str] = []
        self.files: dict[str, Inode] = {}
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_file():
                raw = path.read_bytes()
                self.files[path.name] = Inode(bytearray(raw), raw, path.stat().st_mtime_ns)
        self.on_disk = dict(self.files)
        self.pending: list[tuple[str, str, Inode]] = []  # (from or "", to or "", file): one change of names

    def _step(self, name: str) -> None:
        self.steps.append(name)
        count = len(self.steps)
        if count == self.stop:
            raise StopHere(name)
        if self.at and (count == self.at or (count > self.at and self.how == "dead")):
            if self.how == "stop":
                raise StopHere(name)
            raise OSError(self.number, os.strerror(self.number))

    def _rename(self, source: str, target: str, inode: Inode) -> None:
        self.pending.append((source, target, inode))
        self.files.pop(source, None)
        if target:
            self.files[target] = inode

    def create(self, path: Path) -> BinaryIO:
        self._step("create")
        self._rename("", path.name, Inode())
        return path.open("wb", buffering=0)  # type: ignore[return-value]

    def write(self, file: BinaryIO, data: bytes | memoryview) -> None:
        inode = self.files[Path(file.name).name]
        try:
            self._step("write")
        except BaseException:
            data = data[: len(data) // 2]
            raise
        finally:
            file.write(data)
            inode.content += data
            inode.synced = None

    def sync(self, file: BinaryIO) -> None:
        self._step("sync")
        inode = self.files[Path(file.name).name]
        inode.synced, inode.mtime_ns = bytes(inode.content), os.fstat(file.fileno()).st_mtime_ns

    def sync_folder(self, folder: Path) -> None:
        self._step("sync_folder")
        self.on_disk, self.pending = dict(self.files), []

    def replace(self, source: Path, target: Path) -> None:
        self._step("replace")
        super().replace(source, target)
        if source.name in self.files:  # not a folder
            self._rename(source.name, target.name, self.files[source.name])

    def link(self, source: Path, target: Path) -> None:
        self._step("link")
        if not self.links:
            raise PermissionError(errno.EPERM, "no hard links here")
        super().link(source, target)
        self._rename("", target.name, self.files[source.name])

    def unlink(self, path: Path) -> None:
        self._step("unlink")
        super().unlink(path)
        if path.name in self.files:
            self._rename(path.name, "", self.files[path.name])

    def cut_power(self, rng: random.Random) -> None:
        """Makes the folder what may be found after the power went now."""
        names = dict(self.on_disk)
        for source, target, inode in self.pending:
            if rng.random() < 0.5 and (not source or names.get(source) is inode):
                names.pop(source, None)
                if target:
                    names[target] = inode
        for path in self.folder.iterdir():
            if path.is_file():
                path.unlink()
        for name, inode in names.items():
            content = inode.synced
            if content is None:
                size = len(inode.content)
                whole = bytes(inode.content)
                content = rng.choice(
                    [b"", bytes(size), whole[: size // 2] + bytes(size - size // 2), whole[: size // 3]]
                )
            path = self.folder / name
            path.write_bytes(content)
            os.utime(path, ns=(inode.mtime_ns, inode.mtime_ns))
