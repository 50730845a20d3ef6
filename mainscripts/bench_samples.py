"""How many samples a second the sample generator makes:

    python main.py bench samples --src workspace/data_src/aligned --dst workspace/data_dst/aligned --workers 2

A sample is one face with its four arrays (warped, target, mask, mask_em). With `--ct-mode` and `--hsv` those of src,
half of all, get other colours, as in training. Figures are medians over rounds, after the ring of batches was emptied
once; per core divides by the processors the workers can use. The parent does nothing but take batches, so this is the
most a trainer could be fed. With `--cache-mb` faces are kept as in training and all of them have come once before it
counts. `--stages` tells instead what a sample's time goes into, and the floor. Without folders two made-up people are
drawn first. With `--augment-on device` samples are made with PyTorch from faces that lie on the device, which is waited
for. `--labelled` times what XSeg learns from: a face and its mask of both facesets together.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from facelib.facetype import SHORT
from mainscripts.bench_common import json_flag
from mainscripts.flags import number, whole

MODES = ("none", "rct", "lct", "mkl", "idt", "sot")
"""Of `core.imagelib.color_transfer`, which takes a while to import: --help is to answer at once."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, megabytes, made_on = parser.add_argument, whole(0, 10_000_000), ("cpu", "device")
    add("--src", type=Path, metavar="DIR", help="aligned faces of src (made-up ones)")
    add("--dst", type=Path, metavar="DIR", help="aligned faces of dst (made-up ones)")
    add("--resolution", type=whole(16, 1024), nargs="+", default=[128], metavar="N", help="pixels; several allowed")
    add("--ct-mode", choices=MODES, nargs="+", default=["none"], help="of src; several allowed")
    add("--hsv", type=number(0, 1), default=0.0, metavar="P", help="power of src's HSV shift (%(default)s)")
    add("--face-type", choices=tuple(SHORT), default="wf", help="of the model (%(default)s)")
    add("--batch-size", type=whole(1, 1024), default=8, metavar="N", help="samples a side (%(default)s)")
    processes = "worker processes (one for each processor core, at most 8); 0 works in this one"
    add("--workers", type=whole(0, 64), metavar="N", help=processes)
    memory = "memory for prepared faces (%(default)s: each is decoded every time; a training keeps them)"
    add("--cache-mb", type=megabytes, default=0, metavar="MB", help=memory)
    add("--disk-cache", type=Path, metavar="DIR", help="keep faces there too, as use_cache does")
    add("--image-type", choices=("raw", "png", "jpg"), default="raw", help="of those (%(default)s)")
    add("--stages", action="store_true", help="tell what a sample's time goes into, on one core")
    add("--augment-on", choices=made_on, nargs="+", default=["cpu"], help="who makes them; or both")
    add("--device", default="", metavar="NAME", help="with --augment-on device: PyTorch's name (best)")
    add("--device-cache-mb", type=megabytes, metavar="MB", help="its memory for faces (a quarter)")
    add("--labelled", action="store_true", help="as XSeg learns from: faces with polygons or masks, worn in every way")
    add("--rounds", type=whole(1, 1000), default=5, metavar="N", help="take the median of so many (%(default)s)")
    add("--seconds", type=number(0.1, 3600), default=2.0, metavar="S", help="length of a round (%(default)s)")
    json_flag(parser)


def run(args: argparse.Namespace) -> int:
    from mainscripts import bench_feed

    return bench_feed.run(args)
