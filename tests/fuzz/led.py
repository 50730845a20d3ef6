"""Fuzzing led by coverage: `python -m tests.fuzz.led READER MINUTES SEED FOLDER KEPT`, as `tests.fuzz` does.

atheris is libFuzzer for Python: it watches which lines an input reaches and keeps the inputs that reach new ones. Where
it finds something it prints it, writes the input to KEPT... and ends with a code that is not 0.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found]

from .__main__ import PATIENCE

MAX_BYTES = 1 << 16


def main(arguments: list[str]) -> None:
    name, minutes, seed, folder, kept = arguments
    with atheris.instrument_imports(include=["core", "facelib", "samplelib", "models"]):
        readers = importlib.import_module("tests.fuzz.readers")
    target = readers.TARGETS[name]
    corpus, scratch = Path(folder, "corpus"), Path(folder, "scratch")
    corpus.mkdir()
    scratch.mkdir()
    for number, data in enumerate(target.seeds()):
        (corpus / f"honest-{number}").write_bytes(data)
    for number in range(300):
        (corpus / f"made-{number}").write_bytes(readers.input_number(name, int(seed), number)[:MAX_BYTES])

    def one(data: bytes) -> None:
        readers.check(target, data, scratch)

    limits = {
        "max_total_time": int(float(minutes) * 60), "timeout": int(PATIENCE), "rss_limit_mb": 600,
        "max_len": MAX_BYTES, "seed": int(seed) + 1, "artifact_prefix": kept, "print_final_stats": 1,
    }  # fmt: skip
    atheris.Setup([sys.argv[0], str(corpus), *(f"-{key}={value}" for key, value in limits.items())], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
