#!/usr/bin/env python3
"""Everything CI checks: `python3 bat/env/checks.py [--fresh] [arguments of pytest]`, run by `bat/linux/test.sh`.

Makes the environment with the extras test, dfm, video and tensorboard (see setup.py), then runs lint, types and tests
in it. All three run even when one fails, pytest last, so that one run says everything. With FACESMITH_PYTHON set, that
Python is used as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import setup


def main(arguments: list[str]) -> int:
    """Exit code 0 where all passed. pytest's "no test was run" counts as a failure."""
    fresh = "--fresh" in arguments
    arguments = [argument for argument in arguments if argument != "--fresh"]
    python = Path(sys.executable)
    if fresh or not os.environ.get("FACESMITH_PYTHON"):
        if setup.main(["--extras", "test,dfm,video,tensorboard", *(["--fresh"] if fresh else [])]):
            return 1
        python = setup.python_of(setup.ROOT / (setup.FRESH if fresh else setup.KEPT))
    # One more than there are cores: many tests wait for a terminal, a window or another process.
    cores = ["--numprocesses", str((os.cpu_count() or 1) + 1), "--dist", "worksteal"]
    checks = {"ruff": ["check", "."], "mypy": [], "pytest": [*cores, *arguments]}
    failed = []
    for name, rest in checks.items():
        print(f"== {name}", flush=True)
        if subprocess.run([str(python), "-m", name, *rest], cwd=setup.ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
