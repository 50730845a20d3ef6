"""Made-up faces for benchmarks: two people, drawn anew for each call."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SIDES = ("src", "dst")


@contextlib.contextmanager
def made_up_faces(count: int, size: int, masks: bool = False, copies: int = 1) -> Iterator[dict[str, Path]]:
    """Folders of `count` aligned faces of each of two people, `size` pixels, gone at the end. masks: with exact ones.
    copies: every face lies there so many times, under another name."""
    from samplelib.synthetic_faceset import write_faceset
    from samplelib.synthetic_person import identity

    with tempfile.TemporaryDirectory(prefix="facesmith-") as root:
        folders = {side: Path(root, f"data_{side}", "aligned") for side in SIDES}
        for number, folder in enumerate(folders.values()):
            written = write_faceset(folder, identity(number), count, size, seed=number, masks=masks)
            for copy in range(1, copies):
                for path in written:
                    shutil.copyfile(path, folder / f"{copy:04d}_{path.name}")
        yield folders


def warn(text: str) -> None:
    """A warning of the sample generator: beside the figures, not among them."""
    print(text, file=sys.stderr)
