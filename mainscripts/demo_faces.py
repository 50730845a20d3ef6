"""`main.py demo-faces`: writes faces of made-up people as DFL aligned JPGs, to try training without anybody's pictures.

    python main.py demo-faces --workspace --output-dir workspace --count 200 --size 256
    python main.py demo-faces --people 100 --count 20 --output-dir pretrain_faces
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from facelib.facetype import FACE_TYPES, SHORT

if TYPE_CHECKING:
    from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for the faces; made if missing")
    parser.add_argument("--identity", type=int, default=0, metavar="N",
                        help="which made-up person: 0 and 1 are the demo pair, higher numbers are further people")
    parser.add_argument("--count", type=int, default=200, metavar="K", help="how many faces of each person")
    parser.add_argument("--size", type=int, default=256, metavar="S",
                        help="side of the pictures in pixels, 64 to 1024")
    parser.add_argument("--face-type", choices=[*SHORT, *FACE_TYPES], default="wf",
                        help="how much of the head is shown")
    parser.add_argument("--seed", type=int, default=0,
                        help="which poses, expressions and lights; same for every person")
    parser.add_argument("--masks", action="store_true", help="embed the exact face masks (as DFL's applied XSeg masks)")
    parser.add_argument("--occluders", action="store_true",
                        help="hands, microphones or hair in front of most faces, left out of their masks (embedded as "
                        "with --masks): to try XSeg")
    parser.add_argument("--frames", action="store_true", help="write the full frames too (folder frames)")
    parser.add_argument("--people", type=int, default=1, metavar="N",
                        help="that many different people in one faceset, from --identity on: for pretraining")
    parser.add_argument("--workspace", action="store_true",
                        help="lay out a whole DFL workspace: person N as data_src, person N+1 as data_dst, and model")


def run(args: argparse.Namespace, console: Console | None = None) -> int:
    """Writes the faces; 0 when done, 2 with one line when a value is out of range or the folder cannot be written."""
    import cv2  # here, as all that draws: --help is to answer at once
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from samplelib.synthetic_faceset import write_demo_workspace, write_faceset, write_people
    from samplelib.synthetic_person import identity

    console = console or Console()
    cv2.setNumThreads(1)  # pictures are small: OpenCV's threads cost more than they bring
    face_type = SHORT.get(args.face_type, args.face_type)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    crowd, masks = args.people != 1, args.masks or args.occluders
    if crowd and (args.people < 1 or args.workspace or args.frames):
        problem = "give 1 or more" if args.people < 1 else "it goes with neither --workspace nor --frames"
        console.print(f"demo-faces: --people {args.people}: {problem}", style="red", highlight=False, markup=False)
        return 2
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("Drawing faces", total=args.count * args.people)

            def progress(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            if args.workspace:
                write_demo_workspace(args.output_dir, args.count, args.size, args.seed, face_type=face_type,
                                     people=(args.identity, args.identity + 1), masks=masks, occluders=args.occluders,
                                     frames=args.frames,
                                     progress=progress)
            elif crowd:
                write_people(args.output_dir, range(args.identity, args.identity + args.people), args.count, args.size,
                             face_type, args.seed, masks=masks, occluders=args.occluders, progress=progress)
            else:
                write_faceset(args.output_dir, identity(args.identity), args.count, args.size, face_type, args.seed,
                              masks=masks, occluders=args.occluders,
                              frames=args.output_dir / "frames" if args.frames else None,
                              progress=progress)
    except (ValueError, OSError) as error:
        console.print(f"demo-faces: {error}", style="red", highlight=False, markup=False)
        return 2
    people = f"a made-up person ({identity(args.identity).name})"
    if args.workspace or crowd:
        people = f"each of {'two' if args.workspace else args.people} made-up people"
    console.print(f"Wrote {args.count} faces of {people} to {args.output_dir}", highlight=False, markup=False)
    return 0
