"""Where tests find recorded data: small copies in tests/golden, the large sets in ../shared (skipped when absent)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from screen import Screen, virtual_screen
from tests_support import ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large recordings and real faces, beside the checkout or in FACESMITH_SHARED."""
    folder = Path(os.environ.get("FACESMITH_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the recordings in {folder}: set FACESMITH_SHARED")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def screen() -> Iterator[Screen]:
    """A virtual screen, or a skipped test."""
    yield from virtual_screen()
