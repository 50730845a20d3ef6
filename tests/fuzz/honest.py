"""Honest files, made with the program's own writers: what fuzzing starts from."""

from __future__ import annotations

import functools
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from core.dflfile import dumps
from core.manifest import Entry, Manifest
from facelib.constants import MEAN_3D
from facelib.dfljpg import aligned_metadata
from models import MODELS
from samplelib import faceindex
from samplelib.facedata import check_face
from samplelib.facescan import Known, Refused
from samplelib.facetable import Found, arrays_of

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
SIZE = 64
SAEHD = MODELS["SAEHD"]


def honest_face() -> dict[str, Any]:
    flat = MEAN_3D[:, :2] - MEAN_3D[:, :2].min(0)
    points = flat / flat.max() * SIZE * 0.7 + SIZE * 0.15
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 255
    return aligned_metadata(
        "whole_face", points, source_filename="00001.png", source_rect=(1, 2, 30, 40), source_landmarks=points * 3,
        image_to_face_mat=np.eye(2, 3), xseg_mask=mask, eyebrows_expand_mod=1.0,
        seg_ie_polys={"polys": [{"type": 1, "pts": np.array([[1, 2], [30, 4], [5, 60]], np.float32)}]},
    )  # fmt: skip


def jpg(metadata: bytes | None, progressive: bool = False) -> bytes:
    """A small JPEG whose APP15 segment holds these bytes, whatever they are."""
    noise = np.random.default_rng(5).integers(0, 255, (8, 8, 3), np.uint8)
    picture = cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)])[1].tobytes()
    if metadata is None:
        return coded
    return coded[:20] + b"\xff\xef" + struct.pack(">H", min(len(metadata) + 2, 65535)) + metadata[:65533] + coded[20:]


def other_size() -> bytes:
    return cv2.imencode(".jpg", np.zeros((2 * SIZE, 2 * SIZE, 3), np.uint8))[1].tobytes()


def honest_meta() -> dict[str, Any]:
    return {f"0000{number}.jpg": ((SIZE, SIZE, 3), honest_face()) for number in range(3)}


def honest_entry(number: int = 0) -> dict[str, Any]:
    face = honest_face()
    return {
        "sample_type": 1, "filename": f"{number:05d}.jpg", "face_type": 4, "shape": (SIZE, SIZE, 3),
        "landmarks": face["landmarks"], "seg_ie_polys": face["seg_ie_polys"], "xseg_mask": None,
        "xseg_mask_compressed": face["xseg_mask"], "eyebrows_expand_mod": 1.0, "source_filename": "00001.png",
        "person_name": None,
    }  # fmt: skip


def pak(config: bytes, pictures: list[bytes], version: int = 1) -> bytes:
    offsets = np.cumsum([0, *map(len, pictures)]).tolist()
    offsets[-1] += 16 + len(config) + 8 * len(offsets)
    head = struct.pack("<QQ", version, len(config)) + config
    return head + struct.pack(f"<{len(offsets)}Q", *offsets) + b"".join(pictures)


def honest_data() -> dict[str, Any]:
    chosen = SAEHD.resolve({"resolution": 64}, {}).chosen
    side = [np.zeros((1, 64, 64, channels), np.float32) for channels in (3, 3, 1, 1)]
    return {
        "iter": 5, "options": chosen, "loss_history": [[0.5, 0.25]] * 5, "sample_for_preview": [side, side],
        "choosed_gpu_indexes": None,
    }  # fmt: skip


def pickles() -> list[bytes]:
    found = [path.read_bytes() for path in sorted(GOLDEN.glob("ops/*.npy"))[:3]]
    things = [honest_face(), [honest_entry()], honest_data()["options"], {"a": [[0.5, float("inf")]] * 20, "b": 2**70}]
    found += [dumps(thing) for thing in things]
    found += [pickle.dumps(thing, protocol) for thing in things for protocol in range(6)]
    return found


@functools.cache
def smallest_task() -> Any:
    sizes = {"archi": "df", "resolution": 64, "ae_dims": 32, "e_dims": 16, "d_dims": 16, "d_mask_dims": 16}
    return SAEHD.build(SAEHD.resolve(sizes, {}))


OLD, NEW = b"\x80\x04old.", b"\x80\x04newer."
"""A file of a model before and after a save; it begins and ends as pickles do."""
OLD_ENTRY, NEW_ENTRY = (
    Entry(len(data), 10**18, zlib.crc32(data), number) for data, number in ((OLD, 6), (NEW, 7))
)


def honest_journal() -> bytes:
    """What a save of two files writes, one of them replacing an old one."""
    files = {"data.dat": NEW_ENTRY, "encoder.npy": NEW_ENTRY}
    return Manifest(3, 7, files, {"data.dat": OLD_ENTRY, "encoder.npy": None}, (0.5, None)).to_json()


def honest_index(packed: bool) -> bytes:
    """The index of two faces, one of them masked, and one that is refused."""
    person = {"person_name": "ann"} if packed else {}
    face = check_face({**honest_face(), **person}, (SIZE, SIZE))
    place = [(100 * number, 100) if packed else (0, 0) for number in range(2)]
    at = (10, 90, zlib.crc32(b"mask"))
    stamp = (1000, 10**18, 10**18)
    faces = [Found("0.jpg", *place[0], face, stamp, at, 0.5), Found("1.jpg", *place[1], face, stamp, None, -0.5)]
    refused = [Refused("2.jpg", (0, 0, 0) if packed else stamp, "it has 5 landmarks, 68 are needed", not packed)]
    known = Known(packed, 2 * 10**18, stamp if packed else (0, 0, 0), arrays_of(faces), refused)
    return b"".join(faceindex.pieces(known))
