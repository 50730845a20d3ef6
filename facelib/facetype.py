"""DeepFaceLab's face types: how much around the face an aligned picture shows."""

from __future__ import annotations

FACE_TYPES = {
    "half_face": 0,
    "midfull_face": 1,
    "full_face": 2,
    "full_face_no_align": 3,
    "whole_face": 4,
    "head": 10,
    "head_no_align": 20,
    "mark_only": 100,
}
"""Names in metadata to the numbers in packs; the numbers grow with the part of the head shown."""

NAMES = {value: name for name, value in FACE_TYPES.items()}

SHORT = {"h": "half_face", "mf": "midfull_face", "f": "full_face", "wf": "whole_face", "head": "head"}
"""What models are asked for and store."""

PADDING = {
    "half_face": 0.0,
    "midfull_face": 0.0675,
    "full_face": 0.2109375,
    "full_face_no_align": 0.2109375,
    "whole_face": 0.4,
    "head": 0.7,
    "head_no_align": 0.7,
}
"""Room around the mean face as a fraction of its side. mark_only pictures are not aligned and have none."""

NO_ALIGN = {"full_face_no_align", "head_no_align"}
"""Types whose pictures keep the upright axes of the frame."""
