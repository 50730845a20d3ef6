"""A video of how a model learned, from its preview history:

    python main.py videoed timelapse --model-dir workspace/model --output-file workspace/preview_history.mp4

The pictures are those of the option write_preview_history; each shows its iteration. The file's comment says that it is
synthetic media. Needs PyAV (the extra `video`).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from core.options import OptionError
from core.prompts import Terminal, ask
from mainscripts.flags import folder, whole
from mainscripts.verb import EXIT_OK, find_terminal, guarded, refuse

if TYPE_CHECKING:
    import numpy.typing as npt

CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {}),
    "h265": ("libx265", {"x265-params": "log-level=error"}),
    "vp9": ("libvpx-vp9", {"b": "0", "cpu-used": "4", "row-mt": "1"}),  # b=0: the quality alone counts
    "av1": ("libsvtav1", {}),
}
"""Encoders by codec, and what they are told besides."""
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm")
PICTURE = re.compile(r"(\d{1,12})\.jpg")
STRIP = 28  # pixels below the picture, for the iteration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("which pictures")
    source.add_argument("--model-dir", type=folder, metavar="DIR", help="where models are kept")
    source.add_argument("--model", metavar="CLASS", help="the kind of model, such as SAEHD (default: any)")
    source.add_argument("--force-model-name", metavar="NAME", help="the model of that name (default: any)")
    source.add_argument("--input-dir", type=folder, metavar="DIR", help="instead of a model: a history folder")
    source.add_argument("--page", metavar="NAME", help="which page of the preview (default: asked, or the first)")
    video = parser.add_argument_group("the video")
    video.add_argument(
        "--output-file", type=folder, required=True, metavar="FILE",
        help=f"the video, {', '.join(SUFFIXES)}; one that is there is replaced",
    )  # fmt: skip
    video.add_argument("--fps", type=whole(1, 120), default=25, metavar="N", help="pictures a second (%(default)s)")
    video.add_argument("--codec", choices=tuple(CODECS), default="h264", help="%(default)s plays everywhere")
    video.add_argument(
        "--quality", type=whole(0, 51), default=20, metavar="N", help="0 is the best, 51 the smallest (%(default)s)"
    )
    video.add_argument(
        "--max-seconds", type=whole(0, 86400), default=60, metavar="N",
        help="where there are more pictures, some are left out evenly; 0 takes all (%(default)s)",
    )  # fmt: skip
    video.add_argument("--ask", action="store_true", help="read answers from standard input, when it is no terminal")


def run(args: argparse.Namespace) -> int:
    """Writes the video; see main.main for the exit codes."""
    if find_spec("av") is None:
        return refuse(
            "timelapse needs PyAV. To install: bash bat/linux/8_preview_history_to_mp4.sh (Windows: "
            r'"bat\windows\8) preview history to mp4.bat"), or: pip install av'
        )
    return guarded(lambda: _make(args, find_terminal(sys.stdin, sys.stdout, args.ask), sys.stdout))


def _make(args: argparse.Namespace, terminal: Terminal | None, stdout: TextIO) -> int:
    from rich.console import Console
    from rich.progress import track

    if args.output_file.suffix.lower() not in SUFFIXES:
        raise OptionError(f"--output-file: got {args.output_file.name!r}, allowed ends with {', '.join(SUFFIXES)}.")
    if not args.output_file.absolute().parent.is_dir():
        raise OptionError(f"--output-file: {args.output_file.absolute().parent} is no folder. Make it first.")
    page = find_page(find_history(args, terminal), args.page, terminal)
    found = pictures(page)
    if not found:
        return refuse(f"{page} holds no pictures with an iteration as their name, such as 0001000.jpg.")
    taken = spread(found, args.max_seconds * args.fps)
    left_out = f", of {len(found):,}" if len(taken) < len(found) else ""
    print(f"{page}: {len(taken):,} pictures{left_out}, {len(taken) / args.fps:.1f} s", file=stdout, flush=True)
    console = Console(file=stdout)
    shown = track(taken, "Drawing", console=console, disable=not stdout.isatty(), transient=True)
    unreadable = write(args.output_file, shown, fps=args.fps, codec=args.codec, quality=args.quality)
    if len(unreadable) == len(taken):
        return refuse(f"None of the pictures of {page} could be read.")
    if unreadable:
        print(f"Left out, as they cannot be read: {', '.join(path.name for path in unreadable)}", file=stdout)
    print(f"Written: {args.output_file} ({args.output_file.stat().st_size / 1e6:.1f} MB)", file=stdout, flush=True)
    return EXIT_OK


# ---- which pictures -----------------------------------------------------------------------------------------------


def find_history(args: argparse.Namespace, terminal: Terminal | None) -> Path:
    """The history folder that was asked for. Raises OptionError, ModelError."""
    if (args.input_dir is None) == (args.model_dir is None):
        raise OptionError("Give either --model-dir or --input-dir.")
    if args.input_dir is not None:
        if not args.input_dir.is_dir():
            raise OptionError(f"--input-dir: {args.input_dir} is no folder.")
        return Path(args.input_dir)
    from mainscripts.model import find_models

    models = find_models(args.model_dir, args.model, args.force_model_name)
    found = {each.full_name: each.history_folder for each in models if each.history_folder.is_dir()}
    if not found:
        raise OptionError(
            f"No model of that kind in {args.model_dir} has a preview history. Its option write_preview_history makes "
            "one: --set write_preview_history=y"
        )
    return found[_choose("--force-model-name", "Which model?", list(found), terminal)]


def find_page(history: Path, wanted: str | None, terminal: Terminal | None) -> Path:
    """The folder with the pictures of one page; `history` itself, where it is one. Raises OptionError."""
    if pictures(history) and wanted is None:
        return history
    pages = {path.name: path for path in sorted(history.iterdir()) if path.is_dir() and pictures(path)}
    if not pages:
        raise OptionError(f"{history} holds no preview history: no folder with pictures such as 0001000.jpg.")
    if wanted is not None and wanted not in pages:
        raise OptionError(f"--page: got {wanted!r}, allowed is one of {', '.join(pages)}.")
    names = sorted(pages, key=lambda name: (len(name), name))  # the plain page before the masked one
    if wanted is None and terminal is not None:
        wanted = _choose("--page", "Which page?", names, terminal)
    return pages[wanted or names[0]]


def _choose(flag: str, question: str, names: list[str], terminal: Terminal | None) -> str:
    """The only one, or the answer. Raises OptionError where nobody can be asked."""
    if len(names) == 1:
        return names[0]
    if terminal is None:
        raise OptionError(f"There are {', '.join(names)}. Say which by {flag}.")
    for number, name in enumerate(names):
        terminal.say(f"[{number}] : {name}")

    def parse(answer: str) -> str:
        if answer in names:
            return answer
        if re.fullmatch(r"\d{1,3}", answer or "0") and int(answer or "0") < len(names):
            return names[int(answer or "0")]
        raise OptionError(f"got {answer!r}, allowed is a number from 0 to {len(names) - 1}.")

    return ask(terminal, f"[0] {question} : ", parse)


def pictures(page: Path) -> list[tuple[int, Path]]:
    """The pictures of a page by iteration."""
    found = ((PICTURE.fullmatch(path.name), path) for path in page.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def spread(found: Sequence[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """At most that many (0: all), first and last among them, the others as evenly as they lie in the list."""
    if most == 0 or len(found) <= most:
        return list(found)
    if most == 1:
        return [found[-1]]
    return [found[i * (len(found) - 1) // (most - 1)] for i in range(most)]


# ---- the video ----------------------------------------------------------------------------------------------------


def write(
    path: Path, taken: Iterable[tuple[int, Path]], *, fps: int, codec: str, quality: int
) -> list[Path]:
    """Writes the video beside its place and moves it there; returns the pictures that could not be read. Where none
    could, nothing is written. Pictures of another size than the first are scaled to it. Raises OSError."""
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder otherwise prints its settings
    import av

    from core.history import COMMENT

    encoder, settings = CODECS[codec]
    beside = path.with_name(f"{path.stem}.tmp{path.suffix}")
    unreadable: list[Path] = []
    stream: Any = None
    try:
        with av.open(str(beside), "w") as video:
            video.metadata.update(comment=COMMENT, title="How a face-swap model learned")
            for iteration, each in taken:
                picture = read(each)
                if picture is None:
                    unreadable.append(each)
                    continue
                if stream is None:
                    stream = video.add_stream(encoder, rate=fps, options={**settings, "crf": str(quality)})
                    stream.pix_fmt = "yuv420p"
                    if codec == "h265" and path.suffix.lower() in (".mp4", ".mov"):
                        stream.codec_context.codec_tag = "hvc1"  # the name that Apple's players know
                    stream.width, stream.height = even(picture.shape[1]), even(picture.shape[0] + STRIP)
                drawn = frame(picture, iteration, stream.width, stream.height)
                video.mux(stream.encode(av.VideoFrame.from_ndarray(drawn, format="bgr24")))
            if stream is not None:
                video.mux(stream.encode())
        if stream is not None:
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return unreadable


def even(count: int) -> int:
    """The next even number: colours are stored at half the size."""
    return count + count % 2


def read(path: Path) -> npt.NDArray[Any] | None:
    """(H, W, 3) uint8 BGR; None where it is no picture."""
    import cv2
    import numpy as np

    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError:
        return None
    return cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None


def frame(picture: npt.NDArray[Any], iteration: int, width: int, height: int) -> npt.NDArray[Any]:
    """(height, width, 3) uint8 BGR: the picture, and its iteration on a strip below."""
    import cv2
    import numpy as np

    room = height - STRIP
    scale = min(width / picture.shape[1], room / picture.shape[0])
    if scale < 1 or (picture.shape[1] + 1 < width and picture.shape[0] + 1 < room):
        size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    drawn = np.zeros((height, width, 3), np.uint8)
    drawn[: picture.shape[0], : picture.shape[1]] = picture
    text = f"iteration {iteration:,}"
    cv2.putText(drawn, text, (8, height - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (220, 220, 220), 1, cv2.LINE_AA)
    return drawn


