"""Losses and preview pictures for TensorBoard (extra `tensorboard`); look at them with `tensorboard --logdir DIR`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from core.events import Event, Previewed, Started, Stepped
from core.history import COMMENT
from core.modeldata import ModelError
from core.preview import grid
from core.sinks import Every

REFRESH_S = 600.0
"""Seconds between pictures that nobody asked for: TensorBoard's files keep all of them."""


class TensorBoard:
    """Sink: the losses of every iteration, milliseconds and waiting every hundred, each preview page as a picture, in
    `folder`/<model>. Raises ModelError where the package is missing or the folder cannot be written."""

    def __init__(self, folder: Path, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ModelError(
                f'--tensorboard needs a package that is not installed ({error}): pip install -e ".[tensorboard]"'
            ) from error
        self._due = Every(REFRESH_S, clock)
        try:
            self._writer = SummaryWriter(str(folder / name))
            self._writer.add_text("about", COMMENT)
        except OSError as error:
            raise ModelError(f"--tensorboard {folder}: cannot be written ({error.strerror or error}).") from error

    def __call__(self, event: Event) -> None:
        writer = self._writer
        if isinstance(event, Stepped):
            for name, loss in event.losses.items():
                writer.add_scalar(f"loss/{name}", float(loss), event.iteration)
            if event.iteration % 100 == 0:
                for name, ms in (("iteration", event.ms), ("waiting for samples", event.data_ms)):
                    writer.add_scalar(f"ms/{name}", ms, event.iteration)
        elif isinstance(event, Previewed) and not event.history and (self._due() or not event.refreshed):
            for title, rows in event.pages:
                picture = grid(rows)[..., ::-1].copy()  # RGB
                writer.add_image(title, picture, event.iteration, dataformats="HWC")
        elif isinstance(event, Started):
            writer.flush()

    def close(self) -> None:
        self._writer.close()
