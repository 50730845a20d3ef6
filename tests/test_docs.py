"""What the documents say is what the program does."""

from __future__ import annotations

import re
import subprocess
import sys

from tests_support import ROOT

from mainscripts.options import table


def test_options_table_is_fresh() -> None:
    stored = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert stored == table(), "stale: python main.py options > docs/options.md"


def test_the_map_names_every_file() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme[readme.index("## Map") :]
    for room in ("core", "models", "samplelib", "facelib", "mainscripts", "docs"):
        for path in sorted((ROOT / room).glob("*.*")):
            if path.name != "__init__.py":
                assert path.name in tree, f"{room}/{path.name} is missing in the README's map"
    named = set(re.findall(r"\b(\w+\.py)\b", tree))
    present = {path.name for path in ROOT.rglob("*.py") if not {".venv", "build"} & set(path.parts)}
    assert named <= present, f"the README's map names files that do not exist: {sorted(named - present)}"


def test_help_is_instant_and_lists_the_verbs() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "main.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "train" in done.stdout and "demo-faces" in done.stdout
    assert "torch" not in done.stderr and "cv2" not in done.stderr
    wrong = subprocess.run([sys.executable, "main.py", "trian"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "'trian' is not a verb" in wrong.stderr
