"""Every reader of files from strangers as a function of bytes, with honest files to start from and what must hold.

A reader may return plain values or raise one of its documented errors, nothing else; it imports nothing; what it says
can be printed. `check` holds it to that. What a file may cost is measured by whoever calls (`fuzz.child`, test_fuzz).
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import dflreader
from core.batch import SampleRequest
from core.dflfile import DflFileError, dumps, load
from core.disk import DISK
from core.manifest import Manifest
from core.modeldir import ModelDir, ModelError
from core.nn import state
from core.options import OptionError
from core.previewsample import from_stored
from core.summary import summary
from facelib.dfljpg import DflJpgError, parse_metadata, read_header
from facelib.facetype import FACE_TYPES, PADDING
from samplelib import faceindex, metafile
from samplelib.faceset import FaceReadError, Faceset, FacesetError, Sample, decode_mask, read_face
from samplelib.pixels import decode
from samplelib.prepare import kinds, prepare
from samplelib.process import process

from .honest import (
    GOLDEN,
    NEW,
    OLD,
    OLD_ENTRY,
    SAEHD,
    honest_data,
    honest_entry,
    honest_index,
    honest_journal,
    honest_meta,
    jpg,
    other_size,
    pak,
    smallest_task,
)
from .makers import (
    JPGS,
    PICKLES,
    make_index,
    make_journal,
    make_jpg,
    make_pack,
    make_pickle,
    make_record,
    make_state,
    make_weights,
)  # fmt: skip

SHOWN = 2000  # letters of a message, at most


class Fault(Exception):
    """A reader did what it never may."""


@dataclass(frozen=True)
class Target:
    """read: bytes and a scratch folder -> anything. errors: what it may raise. seeds: honest files. make: a new input
    that knows the format."""

    read: Callable[[bytes, Path], Any]
    errors: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]
    make: Callable[[random.Random], bytes]


def check(target: Target, data: bytes, scratch: Path) -> bool:
    """Whether the reader took the data. Raises Fault, or whatever the reader raised that it must not."""
    modules = set(sys.modules)
    try:
        plain(target.read(data, scratch))
        taken = True
    except target.errors as error:
        said = str(error)
        if not 0 < len(said) < SHOWN:
            raise Fault(f"a message of {len(said)} letters: {said[:200]!a}") from error
        printable(said)
        if any(word in said for word in ("allocat", "nsufficient memory")):
            raise Fault(f"it wanted more memory than there is: {said[:200]}") from error
        taken = False
    # Codecs are modules that Python itself loads when first used; their names are fixed in the reader.
    if new := {name for name in set(sys.modules) - modules if not name.startswith("encodings.")}:
        raise Fault(f"reading imported {sorted(new)}")
    return taken


def printable(text: str) -> None:
    for line in text.split("\n"):
        if not line.isprintable() and line.strip():
            raise Fault(f"a message that cannot be printed: {line[:200]!a}")


def plain(root: Any) -> None:
    """Raises Fault for anything but plain values and arrays of numbers."""
    todo = [root]
    for _ in range(30_000_000):
        if not todo:
            return
        node = todo.pop()
        kind = type(node)
        if kind in (list, tuple):
            todo.extend(node)
        elif kind is dict:
            todo.extend(node.values())
            todo.extend(node)
        elif isinstance(node, np.ndarray) and kind is np.ndarray:
            if node.dtype.kind not in "biufc":
                raise Fault(f"an array of {node.dtype}")
        elif kind not in (type(None), bool, int, float, str, bytes, bytearray) and not isinstance(
            node, np.number | np.bool_
        ):
            raise Fault(f"a {kind.__name__} came out")
    raise Fault("an endless value came out")


# ---- readers ------------------------------------------------------------------------------------------------------


def read_pickle(data: bytes, scratch: Path) -> Any:
    """From memory, and as a stream read in small pieces: both must agree."""
    path = scratch / "stranger.dat"
    path.write_bytes(data)
    whole, dflreader._CHUNK = dflreader._CHUNK, 16
    streamed: Any = None
    try:
        streamed = load(path)
    except DflFileError as error:
        streamed = error
    finally:
        dflreader._CHUNK = whole
    try:
        value = load(data)
    except DflFileError as error:
        # The allowance for what calls make contains one chunk, so it is smaller here.
        if not isinstance(streamed, DflFileError):
            raise Fault("the stream is taken, the bytes are refused") from error
        raise
    if isinstance(streamed, DflFileError) and "repeated" not in str(streamed):
        raise Fault(f"the bytes are taken, the stream is refused: {streamed}")
    return value


def read_jpg(data: bytes, scratch: Path) -> Any:
    (scratch / "a.jpg").write_bytes(data)
    lines: list[str] = []
    try:
        faceset = Faceset.open(scratch, lines.append)
    finally:
        for line in lines:
            printable(line)
    metadata = parse_metadata(read_header(data).metadata)
    _use(faceset, data)
    return metadata


def _use(faceset: Faceset, data: bytes | None = None) -> None:
    """What training does with faces: geometry, mask, pixels. Raises FaceReadError."""
    again = Faceset.from_arrays(faceset.to_arrays())
    for line in faceset.summary():
        printable(line)
    for sample in again[:4]:
        printable(sample.filename + sample.source_filename + (sample.person_name or ""))
        pose = sample.pose
        if not all(-4 < angle < 4 for angle in pose):
            raise Fault(f"a pose of {pose}")
        decode_mask(sample)
        image = decode(data) if data is not None else read_face(sample)
        if data is None and image.shape != (*sample.shape, 3):
            raise Fault("pixels of another size")
    if len(data or b"") % 4 == 0:  # not always: it takes as long as all the rest
        _train(again[0])


def _train(sample: Sample) -> None:
    """The arrays that a model would train on, of another face type where that can be cut out."""
    area = FACE_TYPES[sample.face_type]
    wanted = next((kind for kind in PADDING if FACE_TYPES[kind] < area), sample.face_type)
    request = SampleRequest(64, wanted)
    face = prepare(sample, kinds(request), request)
    made = process(face, request, lambda _: np.random.RandomState(0))
    if not all(np.isfinite(array).all() for array in made.values()):
        raise Fault("a sample with infinite pixels")


def read_pack(data: bytes, scratch: Path) -> Any:
    path = scratch / "faceset.pak"
    path.write_bytes(data)
    lines: list[str] = []
    try:
        faceset = Faceset.open(scratch, lines.append)
        _use(faceset)
    finally:
        for line in lines:
            printable(line)
            if len(line) > SHOWN:
                raise Fault(f"a line of {len(line)} letters")
        path.unlink()
    for sample in faceset:
        if not 0 < sample.offset < sample.offset + sample.size <= len(data):
            raise Fault("a face outside the pack")


def read_meta(data: bytes, scratch: Path) -> Any:
    """Beside three pictures without face data, two of the size that an honest file names."""
    pictures = {"00000.jpg": jpg(None), "00001.jpg": jpg(None), "00002.jpg": other_size()}
    for name, picture in pictures.items():
        (scratch / name).write_bytes(picture)
    (scratch / "meta.dat").write_bytes(data)
    lines: list[str] = []
    try:
        metafile.restore_metadata(scratch, lines.append, DISK)
    finally:
        for line in lines:
            printable(line)
            if len(line) > SHOWN:
                raise Fault(f"a line of {len(line)} letters")
        found = {name: (scratch / name).read_bytes() for name in pictures}
        for path in list(scratch.iterdir()):
            path.unlink()
    for name, picture in pictures.items():
        if picture[read_header(picture).scan :] != found[name][read_header(found[name]).scan :]:
            raise Fault("pixels were changed")
        if (metadata := read_header(found[name]).metadata) is not None:
            plain(parse_metadata(metadata))


def read_options(data: bytes, scratch: Path) -> Any:
    directory = ModelDir(scratch, "x", "SAEHD")
    directory.default_options_path.write_bytes(data)
    stored = directory.read_default_options()
    for given in ({}, {"batch_size": 4}, {"resolution": stored.get("resolution", 64)}):
        for found in (SAEHD.resolve(given, stored), SAEHD.resolve(given, {}, stored)):
            plain(dict(found))
            SAEHD.requests(found)
            printable(summary("x_SAEHD", 1, found.chosen, found.forced()))
    return stored


def read_model(data: bytes, scratch: Path) -> Any:
    directory = ModelDir(scratch, "x", "SAEHD")
    directory.data_path.write_bytes(data)
    record = directory.read_data()
    found = SAEHD.resolve({}, record.options)
    from_stored(record.sample_for_preview, SAEHD.requests(found))
    printable(summary("x_SAEHD", record.iter, {**record.options, **found.chosen}, found.forced()))
    history = record.loss_history
    if history.array().nbytes > 64 * len(data) + (1 << 20):
        raise Fault(f"losses of {history.array().nbytes} bytes")
    f"{record.iter:,}".encode("ascii")
    dumps({**record.to_dict()})  # a save must be able to keep what it has read


def read_part(data: bytes, scratch: Path) -> Any:
    directory = ModelDir(scratch, "x", "SAEHD")
    directory.part_path("encoder").write_bytes(data)
    return directory.read_part("encoder")


def read_weights(data: bytes, scratch: Path) -> Any:
    """A part as the network takes it, and as its optimizer does; what was taken can be saved again."""
    directory = ModelDir(scratch, "x", "SAEHD")
    directory.part_path("inter").write_bytes(data)
    part = directory.read_part("inter")
    task, refused, taken = smallest_task(), None, False
    for stem in ("inter", "src_dst_opt"):
        try:
            for note in task.load_parts({stem: part}):
                printable(note)
        except ModelError as error:
            printable(str(error))
            refused = error
        else:
            dumps(state(task.modules[stem]) if stem == "inter" else {"iters:0": np.int64(task.optimizer.iterations)})
            taken = True
    if not taken and refused is not None:
        raise refused


def read_journal(data: bytes, scratch: Path) -> Any:
    """As the journal of a model whose save was interrupted, with all new files there, one or none, and after an honest
    manifest or as the manifest too: recovering may touch files of that model only."""
    folder, others = scratch / "model", {"other.npy": b"mine", "y_SAEHD_data.dat": b"mine"}
    folder.mkdir()
    staged = ["facesmith_new_data.dat", "facesmith_new_encoder.npy"][: 2 - len(data) % 4]
    files = {"data.dat": OLD, **dict.fromkeys(staged, NEW), "notes.md": b"mine"}
    inside = {**others, **{f"x_SAEHD_{ending}": content for ending, content in files.items()}}
    before = data if len(data) % 8 < 4 else Manifest(2, 6, {"data.dat": OLD_ENTRY}).to_json()
    inside |= {"x_SAEHD_facesmith_journal.json": data, "x_SAEHD_facesmith_manifest.json": before}
    for place, there in ((scratch, others), (folder, inside)):
        for name, content in there.items():
            (place / name).write_bytes(content)
    try:
        for line in ModelDir(folder, "x", "SAEHD").recover():
            printable(line)
    finally:
        there = [*(scratch / name for name in others), *folder.iterdir()]
        found = {path: path.read_bytes() for path in there if path.is_file()}
        shutil.rmtree(folder)
        for name in others:
            (scratch / name).unlink(missing_ok=True)
    for path in (*(scratch / name for name in others), *(folder / name for name in (*others, "x_SAEHD_notes.md"))):
        if found.get(path) != b"mine":
            raise Fault(f"{path.name} was changed")
    if strange := {path.name for path in found if path.parent == folder} - set(inside) - {"x_SAEHD_encoder.npy"}:
        raise Fault(f"files that nobody wrote: {sorted(strange)}")
    if found.get(folder / "x_SAEHD_data.dat") not in (OLD, NEW, None):  # None: a journal may tell that it is removed
        raise Fault("data.dat is neither of the two")


def read_state(data: bytes, scratch: Path) -> Any:
    directory = ModelDir(scratch, "x", "SAEHD")
    directory.state_path.write_bytes(data)
    directory.read_state()


def read_index(data: bytes, scratch: Path) -> Any:
    """As the index of a folder in which its files are as it says."""
    known = faceindex.parse(data)
    if known is None:
        raise faceindex.IndexFileError("of another version")
    place = {"folder": np.frombuffer(str(scratch).encode(), np.uint8), "packed": np.array([known.packed], np.uint8)}
    faceset = Faceset({**place, **known.arrays})
    plain(faceset.yaws())
    for line in (*faceset.summary(), *faceset.persons(), *(face.reason for face in known.refused)):
        printable(line)
    for sample in faceset.subset(range(len(faceset)))[:4]:
        printable(sample.filename + sample.source_filename + (sample.person_name or ""))
        if not all(-4 < angle < 4 for angle in sample.pose):
            raise Fault("a pose")
        with contextlib.suppress(FaceReadError, FileNotFoundError):  # there are no such faces
            decode_mask(sample)


_OPTION_KEYS = [*(row.key for row in SAEHD.rows), "random_flip", "unknown", "a\x1b[2J"]
_PACK_ERRORS = (FacesetError, FaceReadError)
TARGETS = {
    "pickle": Target(read_pickle, (DflFileError,), lambda: PICKLES, make_pickle),
    "jpg": Target(
        read_jpg, (DflJpgError, *_PACK_ERRORS),
        lambda: JPGS, make_jpg,
    ),
    "pack": Target(
        read_pack, _PACK_ERRORS, lambda: [pak(dumps([honest_entry(0), honest_entry(1)]), [jpg(None)] * 2)], make_pack
    ),
    "meta": Target(
        read_meta, (FacesetError,), lambda: [dumps(honest_meta())], make_record(honest_meta, list(honest_meta()))
    ),
    "options": Target(
        read_options, (OptionError, ModelError), lambda: [dumps(honest_data()["options"])],
        make_record(lambda: honest_data()["options"], _OPTION_KEYS),
    ),
    "model": Target(
        read_model, (OptionError, ModelError), lambda: [dumps(honest_data())], make_record(honest_data, _OPTION_KEYS)
    ),
    "part": Target(
        read_part, (ModelError,), lambda: [path.read_bytes() for path in sorted(GOLDEN.glob("ops/*.npy"))[-2:]],
        make_record(lambda: {"a/weight:0": np.ones((2, 3), np.float32), "iters:0": np.array(5)}, ["x", "a/weight:0"]),
    ),
    "weights": Target(
        read_weights, (ModelError,), lambda: [dumps({"iters:0": np.array(5), "acc_x": np.ones(2)})], make_weights
    ),
    "journal": Target(read_journal, (ModelError,), lambda: [honest_journal()], make_journal),
    "state": Target(
        read_state, (ModelError,), lambda: [b'{"format": 1, "iteration": 5, "seed": 7, "position": 5}'], make_state
    ),
    "index": Target(
        read_index, (faceindex.IndexFileError,), lambda: [honest_index(False), honest_index(True)], make_index
    ),
}  # fmt: skip


def input_number(name: str, seed: int, index: int) -> bytes:
    """The input of that number: always the same bytes."""
    return TARGETS[name].make(random.Random(f"{seed} {name} {index}"))


def assert_seeds_are_taken(scratch: Path) -> None:
    for name, target in TARGETS.items():
        for data in target.seeds():
            if data != jpg(None) and not check(target, data, scratch):
                raise Fault(f"{name}: an honest file is refused")
