#!/usr/bin/env python3
"""Empties a workspace: `python3 bat/env/clear.py WORKSPACE [--yes]`, run by `1_clear_workspace.sh`.

Deletes the folders data_src, data_dst and model after one question that says what is in them, and makes them anew.
Videos and anything else beside them stay. Standard library only.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TextIO

import setup

FOLDERS = ("data_src", "data_dst", "model")
MADE = ("data_src/aligned", "data_dst/aligned", "model")
LOCKS = "model/*_facesmith_lock"


def main(arguments: list[str], stdin: TextIO, stdout: TextIO) -> int:
    """Exit code 0 where the workspace is empty now, 1 where it could not be done, 2 where nobody could be asked."""
    parser = argparse.ArgumentParser(description="Empties a workspace.")
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    given = parser.parse_args(arguments)
    workspace: Path = given.workspace
    folders = [workspace / name for name in FOLDERS if (workspace / name).exists() or (workspace / name).is_symlink()]
    counts = {folder: count(folder) for folder in folders}
    if any(files for files, _ in counts.values()):
        if problem := obstacle(workspace, folders):
            print(f"Nothing was deleted: {problem}", file=sys.stderr)
            return 1
        for folder, (files, size) in counts.items():
            print(f"{folder}: {files:,} file{'' if files == 1 else 's'}, {size / 1e6:,.1f} MB", file=stdout)
        if not given.yes and not stdin.isatty():
            print("Nothing was deleted: nobody can be asked here; --yes answers in advance.", file=sys.stderr)
            return 2
        if not given.yes and not agreed(stdin, stdout):
            print("Nothing was deleted.", file=stdout)
            return 0
    try:
        for folder in folders:
            shutil.rmtree(folder)
        for name in MADE:
            (workspace / name).mkdir(parents=True)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}. Close what uses it, and start again to go on.", file=sys.stderr)
        return 1
    print(f"{workspace} is empty.", file=stdout)
    return 0


def count(folder: Path) -> tuple[int, int]:
    """Files in a folder and its folders, and their bytes."""
    sizes = [path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()]
    return len(sizes), sum(sizes)


def obstacle(workspace: Path, folders: list[Path]) -> str:
    """Why nothing may be deleted: a folder that lies elsewhere, a model that is being trained; or empty."""
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir():
            return f"{folder} is a link or a file. Remove it yourself, if that is what you want."
    for path in workspace.glob(LOCKS):
        try:
            with path.open("r+", encoding="utf-8") as file:
                if not setup.try_lock(file.fileno()):
                    return f"a model is being trained ({path.name}). Stop that trainer first."
        except OSError as error:
            return f"{path}: {error.strerror}. Stop the trainer first."
    return ""


def agreed(stdin: TextIO, stdout: TextIO) -> bool:
    print("Delete all of this? [n] ( y/n ) : ", end="", file=stdout, flush=True)
    return stdin.readline().strip().lower() in ("y", "yes", "1")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:], sys.stdin, sys.stdout))
    except KeyboardInterrupt:
        print("\nNothing more was deleted.", file=sys.stderr)
        sys.exit(130)
