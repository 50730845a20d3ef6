"""How well XSeg learns masks, measured on made-up people whose masks are known exactly:

    python main.py bench xseg --minutes 15
    python main.py bench xseg --iterations 3000
    python main.py bench xseg --iterations 1000 --set plain_share=100 --set target_iter=1000 --set lr_fade=500

Trains on faces with hands, microphones and hair in front of most of them, and looks at regular marks at faces of other
people in other scenes, with other things in front. The figure is the mean over these faces of intersection over union
of the mask seen and the true one, both cut at a half; `worst` is that of the worst tenth. seconds is training alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from core.options import OptionError
from core.values import parse_sets
from mainscripts.flags import number, whole

HELD_OUT_SEED, HELD_OUT_PEOPLE = 1_000_003, 1000
AT_A_TIME = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets", help="a model option")
    add("--iterations", type=whole(1, 10_000_000), default=3000, metavar="N", help="most iterations (%(default)s)")
    add("--minutes", type=number(0.01, 10_000), default=1e4, metavar="M", help="most minutes of training")
    add("--every", type=whole(1, 1_000_000), default=50, metavar="N", help="iterations between marks (%(default)s)")
    add("--people", type=whole(1, 1000), default=40, metavar="N", help="people to train on (%(default)s)")
    add("--faces", type=whole(1, 10_000), default=10, metavar="N", help="faces of each (%(default)s)")
    add("--held-out", type=whole(1, 10_000), default=48, metavar="N", help="faces to measure on (%(default)s)")
    add("--seed", type=whole(0, 2**31 - 1), default=0, metavar="N", help="start weights and samples (%(default)s)")
    add("--workers", type=whole(0, 64), default=1, metavar="N", help="sample processes (%(default)s)")
    add("--device", default="cpu", metavar="NAME", help="PyTorch's name (%(default)s)")
    add("--pictures", type=Path, metavar="FILE", help="write held-out faces with their masks as one PNG")
    add("--json", action="store_true", help="print one JSON object a line")


def overlaps(seen: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(N,) intersection over union of masks (N, H, W) in [0, 1], cut at a half; 1 where both are empty."""
    a, b = seen >= 0.5, true >= 0.5
    union = (a | b).sum((1, 2))
    return np.where(union > 0, (a & b).sum((1, 2)) / np.maximum(union, 1), 1.0)


def held_out(count: int, side: int, face_type: str) -> tuple[np.ndarray, np.ndarray]:
    """Faces (N, 3, S, S) float32 BGR [0, 1] and their masks (N, S, S): each of another person, in another scene."""
    from samplelib.synthetic import aligned, identity, scenes
    from samplelib.synthetic_faceset import with_occluders

    faces = [
        with_occluders(aligned(identity(HELD_OUT_PEOPLE + n), scene, side, face_type), HELD_OUT_SEED, n)
        for n, scene in enumerate(scenes(HELD_OUT_SEED, count))
    ]
    images = np.ascontiguousarray(np.stack([face.image for face in faces]).transpose(0, 3, 1, 2))
    masks = np.stack([face.mask for face in faces])
    return images.astype(np.float32) / 255, masks.astype(np.float32) / 255


def run(args: argparse.Namespace) -> int:
    from facelib.facetype import SHORT
    from models import MODELS
    from models.running import faces_per_iteration
    from samplelib import labelled
    from samplelib.faceset import Faceset
    from samplelib.loader import Loader
    from samplelib.synthetic_faceset import write_people

    spec = MODELS["XSeg"]
    try:
        values = spec.resolve(parse_sets(args.sets))
    except OptionError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    request = spec.requests(values)["face"]
    face_type = SHORT[values["face_type"]]
    images, masks = held_out(args.held_out, request.resolution, face_type)
    task: Any = spec.build(values, device=args.device, seed=args.seed)
    base = {"bench": "xseg", "batch_size": values["batch_size"], "device": args.device}

    def see() -> np.ndarray:
        parts = [images[at : at + AT_A_TIME] for at in range(0, len(images), AT_A_TIME)]
        return np.concatenate([task.mask(part)[:, 0].cpu().numpy() for part in parts])

    with tempfile.TemporaryDirectory(prefix="facesmith-") as folder:
        write_people(Path(folder), range(args.people), args.faces, request.resolution, face_type, masks=True,
                     occluders=True)  # fmt: skip
        faces = labelled.choose([Faceset.open(Path(folder), print)], print)
        with Loader(
            {"face": faces}, {"face": request}, faces_per_iteration(values), seed=args.seed, workers=args.workers,
            warn=print, cache_bytes=1 << 30,
        ) as batches:  # fmt: skip
            spent = 0.0
            while task.iteration < args.iterations and spent < args.minutes * 60:
                started = time.perf_counter()
                loss = float(task.step(next(batches))["loss"])
                spent += time.perf_counter() - started
                last = task.iteration == args.iterations or spent >= args.minutes * 60
                if task.iteration % args.every == 0 or last:
                    each = np.sort(overlaps(see(), masks))
                    recent = task.data.loss_history.array()[-args.every :].mean()
                    row = {
                        **base, "iteration": task.iteration, "seconds": round(spent, 1),
                        "iou": round(float(each.mean()), 4),
                        "worst": round(float(each[: max(1, len(each) // 10)].mean()), 4),
                        "loss": round(float(recent if np.isfinite(recent) else loss), 4),
                    }  # fmt: skip
                    _report(args, row)
    if args.pictures is not None:
        write_pictures(args.pictures, images, masks, see())
    return 0


def write_pictures(path: Path, images: np.ndarray, true: np.ndarray, seen: np.ndarray, count: int = 16) -> None:
    """The first faces, in rows of four: picture, true mask, mask seen."""
    import cv2

    tiles = [
        np.hstack([image.transpose(1, 2, 0), *(np.repeat(mask[..., None], 3, 2) for mask in masks)])
        for image, *masks in zip(images[:count], true, seen, strict=False)
    ]
    while len(tiles) % 4:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.hstack(tiles[at : at + 4]) for at in range(0, len(tiles), 4)]
    cv2.imwrite(str(path), (np.clip(np.vstack(rows), 0, 1) * 255).astype(np.uint8))


def _report(args: argparse.Namespace, row: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(row), flush=True)
    else:
        print("  ".join(f"{key} {value}" for key, value in row.items() if key != "bench"), flush=True)
