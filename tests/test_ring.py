"""How many batches are made ahead, and where they lie."""

from __future__ import annotations

import numpy as np
import pytest

from core import sharedbuf
from core.sharedbuf import Layout
from samplelib import ring
from samplelib.ring import MAX_DEPTH, MIN_DEPTH, Depth, Ring

STEP = 0.1


def simulate(depth: Depth, makes: list[float], step: float) -> list[int]:
    """Depths of a run: one worker that needs makes[n] seconds for batch n, a trainer that needs `step` for each."""
    now = free = last = 0.0
    ready_at: list[float] = []
    depths = []
    for number in range(len(makes)):
        while len(ready_at) < min(number + depth.value, len(makes)):
            free = max(free, now) + makes[len(ready_at)]
            ready_at.append(free)
        start, now = now, max(now, ready_at[number])
        depth.taken(now - start, now - last, sum(at <= now for at in ready_at[number + 1 :]))
        last = now
        now += step
        depths.append(depth.value)
    return depths


def test_slow_steps_need_the_least() -> None:
    assert set(simulate(Depth(MIN_DEPTH, 16), [STEP / 10] * 600, STEP)) == {MIN_DEPTH}


def test_workers_that_are_too_slow_are_not_helped_by_more() -> None:
    assert set(simulate(Depth(MIN_DEPTH, 16), [STEP * 2] * 600, STEP)) == {MIN_DEPTH}


def test_a_few_slow_faces_are_covered_and_forgotten() -> None:
    """Now and then a batch takes four steps to make, such as at the edge of what is kept; later none does."""
    makes = [STEP * (4 if n % 10 == 0 and n < 300 else 0.3) for n in range(2500)]
    depths = simulate(Depth(MIN_DEPTH, 16), makes, STEP)
    assert MIN_DEPTH + 1 < max(depths) <= 8 and depths[-1] == MIN_DEPTH
    assert depths[299] == max(depths)


def test_depth_stays_within_its_limits() -> None:
    assert max(simulate(Depth(MIN_DEPTH, 5), [STEP * (30 if n % 60 == 0 else 0.3) for n in range(600)], STEP)) == 5
    assert Depth(MIN_DEPTH, 1).high == MIN_DEPTH


def test_memory_is_set_aside_as_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Layout.of({"a": (np.float32, (1024,))})
    reserved: list[int] = []
    reserve = sharedbuf.SharedBuffer.reserve

    def counted(self: sharedbuf.SharedBuffer, end: int) -> None:
        if end > 5 * batch.size:
            raise sharedbuf.SharedBufferError("full")
        reserved.append(end // batch.size)
        reserve(self, end)

    monkeypatch.setattr(sharedbuf.SharedBuffer, "reserve", counted)
    places = Ring(batch)
    assert places.most == MAX_DEPTH
    taken = [places.take() for _ in range(5)]
    assert taken == [0, 1, 2, 3, 4] and reserved == [4, 5]
    for place in range(5):
        places.views(place)["a"][:] = place
    assert places.take() is None and places.most == 5
    places.give(3)
    assert places.take() == 3 and places.take() is None
    assert [places.views(place)["a"][7] for place in range(5)] == [0, 1, 2, 3, 4]
    places.buffer.close()


def test_large_batches_keep_to_the_budget() -> None:
    assert Ring(Layout.of({"a": (np.uint8, (ring.RING_BYTES // 4,))})).most == 4
    assert Ring(Layout.of({"a": (np.uint8, (ring.RING_BYTES // 2,))})).most == MIN_DEPTH
