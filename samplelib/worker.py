"""The process that computes samples: `python -m samplelib.worker`, started and fed by samplelib.pool.

It reads one JSON line that says where the faces, the ring of batches and the requests are, then one line a job,
and answers each with a line; the samples themselves are written into the ring. It never imports torch, uses one
thread, and ends when its input does (so with its parent, however that dies).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import numpy.typing as npt

from core.batch import SampleRequest
from core.mainmemory import keep_freed
from core.sharedbuf import Layout, SharedBuffer, attach
from samplelib import labelled
from samplelib.backgrounds import ARRAY, Backgrounds
from samplelib.cache import FaceCache, Plan
from samplelib.diskcache import DiskCache
from samplelib.faceset import FaceReadError, Faceset, Sample, current
from samplelib.patience import Patience
from samplelib.prepare import Prepared, kinds, prepare
from samplelib.process import Rows, process
from samplelib.ring import Ring
from samplelib.sampling import generator

Report = Callable[[str, int, str], None]
"""Told (side, face index, reason) of a face that cannot be decoded."""


class NoUsableFaces(Exception):
    """Not one face of a side can be decoded."""


class Broken:
    """Collects what `Maker.make` reports."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int, str]] = []

    def add(self, side: str, index: int, reason: str) -> None:
        self.found.append((side, index, reason))


class Maker:
    """Makes samples of any side; it remembers which faces turned out to be broken, and what it prepared in `cache`."""

    def __init__(
        self,
        facesets: Mapping[str, Faceset],
        requests: Mapping[str, SampleRequest],
        sets: Mapping[str, str],
        seed: int,
        cache: FaceCache | None = None,
        disk: DiskCache | None = None,
        *,
        patience: Patience,
    ) -> None:
        """sets: side -> name of its faceset, see `samplelib.cache.same_sets`."""
        self._disk, self._patience = disk, patience
        self._facesets, self._requests, self._sets, self._seed, self._cache = facesets, requests, sets, seed, cache
        self._kinds = {side: kinds(request) for side, request in requests.items()}
        self._broken: dict[tuple[str, tuple[str, ...]], set[int]] = {}
        self._scenes = {
            side: Backgrounds(paths, requests[side].resolution, patience.tell)
            for side, faces in facesets.items()
            if requests[side].labelled and (paths := faces.to_arrays().get(ARRAY)) is not None
        }

    def make(self, side: str, number: int, index: int, colours: int | None, rows: Rows, report: Report) -> None:
        """Write sample `number` of a side, face `index`, into `rows`; colours: the face that takes part in
        it (see `SampleRequest.partner`), None where none does.

        A face whose pixels cannot be decoded is told to `report` and replaced by the next one of its set, which depends
        on nothing but the files. Raises NoUsableFaces when there is none.
        """
        request = self._requests[side]
        face = self._face(side, index, self._kinds[side], request, report)
        reference = None

        def chance(purpose: str) -> np.random.RandomState:
            return generator(self._seed, purpose, side, number)

        partner = request.partner(side)
        takes_part = not request.labelled or labelled.has_backdrop(request, chance)
        if colours is not None and partner is not None and takes_part:
            if side in self._scenes:
                reference = self._scenes[side].piece(chance("background"))
            if reference is None:
                reference = self._face(partner[0], colours, partner[1], request, report)
        process(face, request, chance, reference, rows)

    def show(self, part: str, side: str, index: int, rows: Mapping[str, npt.NDArray[np.uint8]], report: Report) -> None:
        """Write face `index` of a side into `rows` as it is prepared; where part is `colours`, a face of the side that
        it takes its colours from. Broken ones as in `make`."""
        request = self._requests[side]
        if part == "colours":
            face = self._face(request.ct_from, index, ("colours",), request, report)
        else:
            face = self._face(side, index, self._kinds[side], request, report)
        for kind, row in rows.items():
            row[...] = face[kind]

    def _face(self, side: str, index: int, kinds: tuple[str, ...], request: SampleRequest, report: Report) -> Prepared:
        """The first face from `index` on of which `kinds` can be prepared. What is broken is remembered for each: a
        face with a broken mask still has colours to give."""
        name = self._sets[side]
        faceset, broken = self._facesets[side], self._broken.setdefault((name, kinds), set())
        for offset in range(len(faceset)):
            candidate = (index + offset) % len(faceset)
            if candidate in broken:
                continue
            if self._cache is not None and (kept := self._cache.get(name, candidate, kinds)) is not None:
                return kept
            known = faceset.samples[candidate]
            try:
                face = self._patience.read(known, partial(self._made, known, name, candidate, kinds, request))
            except FaceReadError as error:
                broken.add(candidate)
                report(side, candidate, str(error))
                continue
            if self._cache is not None:
                self._cache.put(name, candidate, face)
            return face
        raise NoUsableFaces(f"none of the {len(faceset)} faces of {side} can be decoded: extract them again")

    def _made(
        self, known: Sample, name: str, index: int, kinds: tuple[str, ...], request: SampleRequest
    ) -> Prepared:
        """A face from the disk, else prepared and kept there. Raises FaceReadError, OSError."""
        if self._disk is not None and (kept := self._disk.get(name, index, kinds)) is not None:
            return kept
        sample = current(known)
        face = prepare(sample, kinds, request)
        if self._disk is None or sample is not known:  # the disk knows it as it was
            return face
        return self._disk.put(name, index, face)


def layout(requests: Mapping[str, SampleRequest], batch_size: int) -> Layout:
    """One batch as it lies in memory: arrays `side/name`, each (N, C, H, W) float32."""
    return Layout.of(
        {
            f"{side}/{name}": (np.float32, (batch_size, *request.shape(name)))
            for side, request in requests.items()
            for name in request.names
        }
    )


def prefix(side: str, part: str) -> str:
    """What the names of a job's arrays in a batch begin with."""
    return side if part == "sample" else f"{side} {part}"


def hello(
    faces: SharedBuffer,
    faces_layout: Layout,
    ring: Ring,
    requests: Mapping[str, SampleRequest],
    sets: Mapping[str, str],
    batch: Layout,
    seed: int,
    cache: SharedBuffer | None,
    plan: Plan,
    disk: tuple[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The first message to a worker: where the faces, the ring of batches and the kept faces are, and what to make.
    disk: handle and `Stock.plain` of faces kept on disk."""
    return {
        "parent": os.getpid(),
        "folder": str(Path.cwd()),
        "faces": faces.handle,
        "faces_layout": faces_layout.plain(),
        "ring": ring.buffer.handle,
        "places": ring.most,
        "sets": sets,
        "requests": {side: asdict(request) for side, request in requests.items()},
        "batch": batch.plain(),
        "seed": seed,
        "cache": cache.handle if cache is not None else None,
        "plan": asdict(plan),
        "disk": disk,
    }


def _serve(first: dict[str, Any], messages: IO[bytes], answers: IO[bytes]) -> None:
    """Do jobs until the input ends."""
    requests = {s: SampleRequest(**{**r, "names": tuple(r["names"])}) for s, r in first["requests"].items()}
    arrays = Layout.parse(first["faces_layout"]).views(attach(first["faces"]))
    facesets = {
        side: Faceset.from_arrays({n.split("/", 1)[1]: a for n, a in arrays.items() if n.startswith(f"{name}/")})
        for side, name in first["sets"].items()
    }
    batch = Layout.parse(first["batch"])
    ring = attach(first["ring"])
    places = [batch.views(ring, place * batch.size) for place in range(first["places"])]
    cache = FaceCache(Plan(**first["plan"]), attach(first["cache"])) if first["cache"] else None
    disk = None
    if first["disk"]:
        disk = DiskCache(first["disk"][1], attach(first["disk"][0]), facesets, requests, first["sets"])
    patience = Patience(lambda text: _answer(answers, {"note": text}))
    maker = Maker(facesets, requests, first["sets"], first["seed"], cache, disk, patience=patience)
    _answer(answers, {"ready": True})
    for line in messages:
        job = json.loads(line)
        side, part, broken = job["side"], job["part"], Broken()
        arrays = {name: a for name, a in places[job["place"]].items() if name.startswith(f"{prefix(side, part)}/")}
        colours = job["colours"] or [None] * len(job["indexes"])
        for place, (index, colour) in enumerate(zip(job["indexes"], colours, strict=True)):
            rows = {name.rpartition("/")[2]: array[job["row"] + place] for name, array in arrays.items()}
            try:
                if part == "sample":
                    maker.make(side, job["number"] + place, index, colour, rows, broken.add)
                else:
                    maker.show(part, side, index, rows, broken.add)
            except NoUsableFaces as error:
                _answer(answers, {"fatal": str(error)})
                return
        _answer(answers, {"broken": broken.found})


def _answer(answers: IO[bytes], message: dict[str, Any]) -> None:
    answers.write(json.dumps(message).encode() + b"\n")


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, even if some other process still holds our input open."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def main() -> None:
    # The parent decides when to end: whoever shuts the system down may send this to every process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is not an answer
    cv2.setNumThreads(1)
    keep_freed()
    first = sys.stdin.buffer.readline()
    if not first:
        return
    message = json.loads(first)
    os.chdir(message["folder"])  # what relative paths of faces start from
    if sys.platform != "win32":
        threading.Thread(target=_end_with, args=(message["parent"],), daemon=True).start()
    try:
        _serve(message, sys.stdin.buffer, answers)
    except BrokenPipeError:
        return  # the parent is gone


if __name__ == "__main__":
    main()
