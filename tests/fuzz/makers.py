"""New files for each reader, from a random generator: honest ones with lies in them, damaged ones, random opcodes."""

from __future__ import annotations

import pickle
import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from core.dflfile import dumps

from . import values
from .honest import honest_entry, honest_face, honest_index, honest_journal, jpg, pak, pickles, smallest_task

PICKLES = pickles()
WEIGHTS = smallest_task().parts()["inter"]
JPGS = [jpg(dumps(honest_face())), jpg(dumps(honest_face()), progressive=True), jpg(None)]


def _pickled(rng: random.Random, honest: Any) -> bytes:
    """A value, pickled by Python (which shares what is shared), by us or damaged afterwards."""
    data = pickle.dumps(honest, rng.choice([2, 3, 4, 4, 5]))
    return values.damage(rng, data) if rng.random() < 0.3 else data


def make_jpg(rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return values.damage(rng, rng.choice(JPGS))
    if kind == 1:
        return jpg(values.stream(rng))
    return jpg(_pickled(rng, values.record(rng, honest_face())))


def make_pack(rng: random.Random) -> bytes:
    pictures = [jpg(None)] * rng.choice([1, 2, 3])
    kind = rng.randrange(4)
    if kind == 0:
        return values.damage(rng, pak(dumps([honest_entry(i) for i in range(len(pictures))]), pictures))
    if kind == 1:
        return pak(values.stream(rng), pictures)
    entries: list[Any] = [values.record(rng, honest_entry(i)) for i in range(len(pictures))]
    if rng.random() < 0.2:
        entries[0] = values.value(rng)
    if rng.random() < 0.1:
        entries, pictures = entries[:1] * 200, pictures[:1] * 200
    data = pak(_pickled(rng, entries), pictures)
    return values.damage(rng, data) if rng.random() < 0.2 else data


def make_record(honest: Callable[[], dict[str, Any]], keys: list[str]) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        kind = rng.randrange(4)
        if kind == 0:
            return values.damage(rng, dumps(honest()))
        if kind == 1:
            return values.stream(rng)
        changed = values.record(rng, honest())
        options = changed.get("options") if isinstance(changed, dict) else None
        for _ in range(rng.randrange(3) if isinstance(changed, dict) else 0):
            inside = options if isinstance(options, dict) and rng.random() < 0.6 else changed
            inside[rng.choice(keys)] = values.value(rng)
        return _pickled(rng, changed)

    return make


def make_state(rng: random.Random) -> bytes:
    number = rng.choice(["-1", "1e9", "9" * 5000, "NaN", "true", "[" * 900, '"\\ud800"', "{}", "null"])
    text = b'{"format": 1, "iteration": 5, "seed": 7, "position": 5}'
    return values.damage(rng, text.replace(rng.choice([b"1", b"5", b"7"]), number.encode()))


def make_pickle(rng: random.Random) -> bytes:
    return values.stream(rng) if rng.random() < 0.5 else values.damage(rng, rng.choice(PICKLES), rng.choice(PICKLES))


def make_weights(rng: random.Random) -> bytes:
    """A part of the smallest model, or another optimizer's file, with a few arrays and names changed."""
    part = dict(WEIGHTS if rng.random() < 0.5 else {"iters:0": np.array(5), "acc_x": np.ones(2, np.float32)})
    for _ in range(rng.randrange(1, 4)):
        name = rng.choice(list(part))
        if rng.random() < 0.5:
            part[name] = rng.choice([values.array(rng), np.ones(np.shape(part[name]), rng.choice(values.TYPES))])
        else:
            part[rng.choice([1, None, b"x", "ms_x", "acc_x", "a\x1b[2J", "x" * 3000, "iters:0"])] = part.pop(name)
    return pickle.dumps(part, 4)


NAMES = ["../other.npy", "../../other.npy", "/etc/passwd", "..", "notes.md", "other.npy", "encoder.npy", ""]
TOKENS = ["NaN", "-1", "4", "null", "{}", "1e99", "9" * 5000, "[" * 900, '"\\ud800"']


def make_journal(rng: random.Random) -> bytes:
    """A journal with names and numbers replaced, or damaged."""
    text = honest_journal().decode()
    for _ in range(rng.randrange(4)):
        name = rng.random() < 0.4
        old = rng.choice(["data.dat", "encoder.npy"] if name else re.findall(r'"\w+"|[\w.]+', text))
        text = text.replace(old, rng.choice(NAMES if name else TOKENS), rng.choice([-1, 1]))
    text += " " * rng.randrange(8)  # its length decides which files are there
    return text.encode() if rng.random() < 0.6 else values.damage(rng, text.encode())


INDEXES = [honest_index(packed) for packed in (False, True)]
NUMBERS = [0, 1, -1, 2**31, 2**63 - 1, 2**32 - 1, 255]


def make_index(rng: random.Random) -> bytes:
    """An index with numbers replaced under a checksum that is right, or damaged."""
    data = bytearray(rng.choice(INDEXES))
    if rng.random() < 0.2:
        return values.damage(rng, bytes(data))
    for _ in range(rng.randrange(1, 4)):
        start = 40 if rng.random() < 0.3 else rng.randrange(40, len(data) - 8)
        at = start + 8 * rng.randrange(15) if start == 40 else start
        form, most = rng.choice([("<B", 1 << 8), ("<I", 1 << 32), ("<Q", 1 << 64)])
        struct.pack_into(form, data, min(at, len(data) - 8), rng.choice([*NUMBERS, rng.getrandbits(64)]) % most)
    data[12:16] = struct.pack("<I", zlib.crc32(data[16:]))
    return bytes(data)
