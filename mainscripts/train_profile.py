"""--profile: its flags, and the profile of a training."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.options import OptionError
from mainscripts.flags import whole

if TYPE_CHECKING:
    from core.batch import Batch
    from core.events import Event
    from core.roles import Saver
    from mainscripts.train_setup import Setup
    from models import Task

MOST = 1000  # iterations: the profiler keeps some thousand events of each in memory


def add_arguments(ours: argparse._ArgumentGroup) -> None:
    ours.add_argument(
        "--profile", type=whole(1, MOST), metavar="N",
        help="tell where the time of N iterations goes, such as 20, once the first few are done; then training goes on",
    )  # fmt: skip
    ours.add_argument(
        "--profile-trace", type=Path, metavar="FILE",
        help="with --profile, write every operator of these iterations to FILE for chrome://tracing, compressed where "
        "its name ends with .gz; some MB an iteration",
    )  # fmt: skip


def check(args: argparse.Namespace) -> None:
    """Raises OptionError where no profile can be made as asked for."""
    if args.profile_trace is None:
        return
    if args.profile is None:
        raise OptionError("--profile-trace without --profile: give both, or neither.")
    if not args.profile_trace.parent.is_dir():
        raise OptionError(
            f"--profile-trace {args.profile_trace}: there is no folder {args.profile_trace.parent}. Make it, or name "
            "another."
        )


@contextlib.contextmanager
def profiled(
    args: argparse.Namespace, setup: Setup, task: Task, batches: Iterator[Batch], saver: Saver,
    emit: Callable[[Event], None],
) -> Iterator[tuple[Any, Any, Any]]:  # fmt: skip
    """Task, batches and saver for the loop: as they are or, where asked for, watched."""
    if args.profile is None:
        yield task, batches, saver
        return
    from core.events import Noted
    from core.profiling import Profile

    values = setup.values
    title = " ".join(str(x) for x in (setup.spec.name, values.get("archi"), values["resolution"]) if x is not None)
    title += f", batch {values['batch_size']}, on {setup.device.key}"
    profile = Profile(
        args.profile, title, setup.device.torch_name, time.perf_counter, lambda text: emit(Noted(text)),
        args.profile_trace,
    )  # fmt: skip
    try:
        yield profile.watch(task, batches, saver)
    finally:
        profile.finish()
