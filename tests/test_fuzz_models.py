"""Options and parts from strangers, for every model of the registry: taken, or refused in words that can be printed.

tests/test_fuzz.py does so for SAEHD at length; what is said here of the others is short, as they share its readers.
"""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import readers, values
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import small
from test_fuzz import ALIKE, anything

from core.dflfile import dumps
from core.modeldir import ModelDir, ModelError
from core.options import OptionError, Values
from models import MODELS

OTHERS = [name for name in MODELS if name != "SAEHD"]
PARTS = 24
"""Damaged parts of each model."""


@pytest.mark.parametrize("name", OTHERS)
def test_options_of_any_shape(name: str) -> None:
    spec = MODELS[name]
    rows = [row.key for row in spec.rows]

    @given(
        stored=st.dictionaries(st.sampled_from(rows) | st.text(), anything),
        given=st.dictionaries(st.sampled_from(rows), anything, max_size=2),
    )
    @settings(ALIKE, max_examples=12)
    def holds(stored: dict[str, Any], given: dict[str, Any]) -> None:
        for arguments in ((given, stored), (given, {}, stored), (given, {}, {}, stored)):
            try:
                found = spec.resolve(*arguments)
            except OptionError as error:
                assert len(str(error)) < readers.SHOWN
                readers.printable(str(error))
            else:
                assert isinstance(found, Values) and set(found) == set(rows)

    holds()


def damaged(rng: random.Random, part: dict[str, Any]) -> bytes:
    """An honest part with some arrays and names changed, or its file damaged."""
    part = dict(part)
    for _ in range(rng.randrange(3)):
        name = rng.choice(list(part))
        if rng.random() < 0.6:
            part[name] = rng.choice([values.array(rng), np.ones(np.shape(part[name]), rng.choice(values.TYPES))])
        else:
            part[rng.choice([1, None, "acc_x", "a\x1b[2J", "x" * 3000, "iters:0"])] = part.pop(name)
    data = pickle.dumps(part, 4)
    return values.damage(rng, data) if rng.random() < 0.3 else data


@pytest.mark.parametrize("name", OTHERS)
def test_damaged_parts(name: str, tmp_path: Path) -> None:
    """Refused, or taken so that the model can be saved again with tensors of its own shapes."""
    task = small(name)
    honest = task.parts()
    directory = ModelDir(tmp_path, "x", name)
    rng = random.Random(name)
    refused = 0
    for _ in range(PARTS):
        stem = rng.choice(list(honest))
        directory.part_path(stem).write_bytes(damaged(rng, honest[stem]))
        try:
            part = directory.read_part(stem)
            assert part is not None
            for note in task.load_parts({stem: part}):
                readers.printable(note)
        except ModelError as error:
            readers.printable(str(error))
            assert 0 < len(str(error)) < readers.SHOWN
            refused += 1
        after = task.parts()
        assert {key: array.shape for key, array in after[stem].items() if key in honest[stem]} == {
            key: array.shape for key, array in honest[stem].items()
        }
        dumps(after[stem])
    assert 0 < refused < PARTS
