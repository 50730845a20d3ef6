"""Who may import whom, and how long files and functions may be (docs/architecture.md), read from the syntax trees."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "main": {"mainscripts"},
    "mainscripts": {"mainscripts", "models", "samplelib", "facelib", "core"},
    "models": {"models", "core"},
    "samplelib": {"samplelib", "facelib", "core"},
    "facelib": {"facelib", "core"},
    "core": {"core"},
}
DEPENDENCIES = {"torch", "numpy", "cv2", "prompt_toolkit", "rich", "h5py", "onnx", "onnxruntime", "av", "yaml"}
ONLY = {
    "core.nn": {"torch"},
    "core.losses": {"torch"},
    "core.optim": {"torch"},
    "core.options": set(),
    "core.events": set(),
    "core.batch": set(),
    "core.child": set(),
}
TORCH_FREE = [
    "samplelib", "facelib", "core.imagelib", "core.batch", "core.events", "core.options", "core.dflfile",
    "core.modeldir", "core.preview", "core.console", "core.window", "core.web", "core.web_child",
]  # fmt: skip
PICKLES = {"pickle", "_pickle", "shelve", "marshal", "dill", "joblib"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for room in ALLOWED for path in sorted((ROOT / room).rglob("*.py"))}
FILES["main"] = ROOT / "main.py"
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in FILES.items()}


def imports_of(name: str) -> set[str]:
    """Full names of all modules a file imports, those inside functions too; `from core import nn` counts as core.nn."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {module for module in inner if module in FILES} or {str(node.module)}
    return found


IMPORTS = {name: imports_of(name) for name in FILES}


def foreign(name: str) -> set[str]:
    """Top-level names of what a module imports from outside the project and the standard library."""
    return {module.split(".")[0] for module in IMPORTS[name]} - set(ALLOWED) - sys.stdlib_module_names


def reached(name: str) -> set[str]:
    """A module and all of ours that importing it can bring in."""
    seen, todo = set(), {name}
    while todo:
        module = todo.pop()
        seen.add(module)
        parents = {".".join(module.split(".")[:depth]) for depth in range(1, module.count(".") + 1)}
        todo |= {new for new in IMPORTS[module] | parents if new in FILES} - seen
    return seen


@pytest.mark.parametrize("name", FILES)
def test_rooms(name: str) -> None:
    ours = {module.split(".")[0] for module in IMPORTS[name]} & set(ALLOWED)
    assert ours <= ALLOWED[name.split(".")[0]]
    assert foreign(name) <= DEPENDENCIES
    if name.startswith("core.imagelib"):
        assert foreign(name) <= {"numpy", "cv2"}
    if name != "core.dflfile":
        assert not IMPORTS[name] & PICKLES, "only core/dflfile.py reads and writes pickles"


@pytest.mark.parametrize("name", ONLY)
def test_narrow_modules(name: str) -> None:
    assert foreign(name) <= ONLY[name]


@pytest.mark.parametrize("room", TORCH_FREE)
def test_torch_stays_out(room: str) -> None:
    names = [name for name in FILES if name == room or name.startswith(f"{room}.")]
    assert names
    for name in names:
        assert not {module for module in reached(name) if "torch" in foreign(module)}, f"{name} brings in torch"


OUTSIDE = [path for folder in ("bat", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("name", [str(path.relative_to(ROOT)) for path in [*FILES.values(), *OUTSIDE]])
def test_sizes(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.count("\n") <= 400, "split the file"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 120, f"split {node.name}"
