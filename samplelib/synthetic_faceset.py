"""Made-up people written as DFL's own files: aligned JPGs of every face type, full frames, a workspace.

Each JPG says in a comment segment that it is synthetic: pictures leave the folder they were made in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from facelib.dfljpg import aligned_metadata, embed
from facelib.facetype import FACE_TYPES
from facelib.landmarks import transform_points
from samplelib.synthetic import Aligned, aligned, frame_for, render, scenes
from samplelib.synthetic_occluders import occluded
from samplelib.synthetic_paint import Bytes
from samplelib.synthetic_person import Identity, identity

COMMENT = b"synthetic face, made by facesmith demo-faces; nobody's picture"
SIZES = (64, 1024)
OCCLUDED = 0.75
Progress = Callable[[int, int], None]


def encode_jpg(image: Bytes, quality: int = 95) -> bytes:
    """JPEG bytes of a BGR picture with the comment that calls it synthetic."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"OpenCV cannot encode a picture of shape {image.shape} as JPEG; give (h, w, 3) uint8")
    raw = data.tobytes()
    end = 4 + int.from_bytes(raw[4:6], "big")  # behind JFIF's APP0, where DFL and most readers expect it
    return raw[:end] + b"\xff\xfe" + (len(COMMENT) + 2).to_bytes(2, "big") + COMMENT + raw[end:]


def aligned_jpg(face: Aligned, face_type: str, name: str, *, masks: bool, quality: int) -> bytes:
    """A face as a DFL aligned JPG; `name` is the frame's. mark_only has no matrix, as in DFL."""
    whole = face_type == "mark_only"
    low, high = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    margin = (high - low) * 0.12
    rect = [*np.round(low - margin).astype(int), *np.round(high + margin).astype(int)]
    metadata = aligned_metadata(face_type, transform_points(face.landmarks, face.matrix), source_filename=name,
                                source_rect=rect, source_landmarks=face.landmarks,
                                image_to_face_mat=None if whole else face.matrix,
                                xseg_mask=face.mask if masks else None)
    return embed(encode_jpg(face.image, quality), metadata)


def write_faceset(folder: Path, who: Identity, count: int, size: int, face_type: str = "whole_face", seed: int = 0, *,
                  masks: bool = False, occluders: bool = False, frames: Path | None = None, quality: int = 95,
                  prefix: str = "", progress: Progress = lambda done, total: None) -> list[Path]:
    """Writes `count` aligned JPGs of one person into `folder` and returns their paths.

    seed as in `synthetic.scenes`: the same seed gives every identity the same scenes. masks embeds the exact mask as
    DFL's xseg_mask; occluders puts hands, microphones or hair in front of most faces, which the mask leaves out; frames
    is a folder for the full frames, without them; file names begin with prefix. Raises ValueError for a count, size or
    type out of range.
    """
    if count < 1:
        raise ValueError(f"count {count}: give 1 or more faces")
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size {size}: give {SIZES[0]} to {SIZES[1]} pixels")
    if face_type not in FACE_TYPES:
        raise ValueError(f"face type {face_type!r}: give one of {', '.join(FACE_TYPES)}")
    for place in [folder, *([frames] if frames else [])]:
        place.mkdir(parents=True, exist_ok=True)
    frame = frame_for(size, face_type)
    written = []
    for number, scene in enumerate(scenes(seed, count), start=1):
        face = aligned(who, scene, size, face_type)
        if occluders:
            face = with_occluders(face, seed, number)
        name = f"{prefix}{number:05d}.jpg"
        if frames:
            (frames / name).write_bytes(encode_jpg(render(who, scene, *frame).image, quality))
        path = folder / f"{prefix}{number:05d}_0.jpg"
        path.write_bytes(aligned_jpg(face, face_type, name, masks=masks, quality=quality))
        written.append(path)
        progress(number, count)
    return written


def with_occluders(face: Aligned, seed: int, number: int) -> Aligned:
    """The face with something in front of it, three times of four; the same for the same seed and number."""
    rng = np.random.Generator(np.random.Philox(key=[seed, number], counter=1 << 64))
    if rng.random() >= OCCLUDED:
        return face
    image, mask = occluded(face.image, face.mask, transform_points(face.landmarks, face.matrix), rng)
    return face._replace(image=image, mask=mask)


def write_people(folder: Path, people: range, count: int, size: int, face_type: str = "whole_face", seed: int = 0, *,
                 masks: bool = False, occluders: bool = False,
                 progress: Progress = lambda done, total: None) -> None:
    """A faceset of many people for pretraining: `count` faces of each, every person in other scenes."""
    for place, number in enumerate(people):
        write_faceset(folder, identity(number), count, size, face_type, seed + place, masks=masks,
                      occluders=occluders, prefix=f"person{number:04d}_",
                      progress=lambda n, total, done=place * count: progress(done + n, total * len(people)))  # type: ignore[misc]


def write_demo_workspace(folder: Path, count: int, size: int, seed: int = 0, *, face_type: str = "whole_face",
                         people: tuple[int, int] = (0, 1), masks: bool = False, occluders: bool = False,
                         frames: bool = False,
                         progress: Progress = lambda done, total: None) -> None:
    """A workspace as DFL lays it out: data_src and data_dst with `count` faces each, and an empty model folder.

    people: identity numbers of src and dst; dst gets other scenes than src. frames puts the full frames beside
    `aligned`, where DFL keeps extracted frames.
    """
    (folder / "model").mkdir(parents=True, exist_ok=True)
    for i, (side, number) in enumerate(zip(("data_src", "data_dst"), people, strict=True)):
        done = i * count
        write_faceset(folder / side / "aligned", identity(number), count, size, face_type, seed * 2 + i, masks=masks,
                      occluders=occluders, frames=folder / side if frames else None,
                      progress=lambda n, total, done=done: progress(done + n, total * 2))  # type: ignore[misc]
