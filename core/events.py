"""What the trainer says and what it can be told: plain data, so any front end can listen or drive.

A sink is any callable taking one event. Commands go into a queue that the trainer empties between two iterations.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.batch import Captions, Page


@dataclass(frozen=True)
class Started:
    """Training begins (or, when `iteration` is at the target, only previews do)."""

    name: str
    iteration: int
    target: int
    loss_names: tuple[str, ...]
    history: Any  # (n, losses) float32: every iteration so far


@dataclass(frozen=True)
class Stepped:
    """One iteration done. ms covers the iteration, data_ms the part of it spent waiting for samples."""

    iteration: int
    losses: dict[str, float]
    ms: float
    data_ms: float = 0.0


@dataclass(frozen=True)
class Previewed:
    """Preview pages, rendered with the weights of `iteration`. `history` marks pages of the fixed preview
    sample, made for the history folder rather than for the window; `refreshed` those that nobody asked for, drawn every
    few seconds."""

    iteration: int
    pages: list[Page]
    history: bool = False
    captions: Captions = field(default_factory=dict)
    refreshed: bool = False


@dataclass(frozen=True)
class Saving:
    """A save begins."""

    iteration: int


@dataclass(frozen=True)
class Saved:
    """A save is on disk. `losses`: mean of each loss since the save before (None when there was no step)."""

    iteration: int
    losses: dict[str, float] | None
    ms: float
    folder: Path


@dataclass(frozen=True)
class BackedUp:
    """The last saved files were copied to `folder`."""

    iteration: int
    folder: Path


@dataclass(frozen=True)
class TargetReached:
    """The target iteration is reached; the model is saved and training pauses (or ends)."""

    iteration: int


@dataclass(frozen=True)
class Noted:
    """A line for the user that is no warning. aside: for the log alone."""

    text: str
    aside: bool = False


@dataclass(frozen=True)
class Waits:
    """Training stands still until somebody answers: what is asked, and where. Empty: it goes on."""

    text: str


@dataclass(frozen=True)
class Staged:
    """A stage of the start begins or, with its `seconds`, has ended, well or failed."""

    name: str
    seconds: float | None = None
    failed: bool = False


@dataclass(frozen=True)
class Advanced:
    """Of the stage of that name, or of a save (no name), `done` of `total` parts are over."""

    done: int
    total: int
    name: str = ""


@dataclass(frozen=True)
class Warned:
    """Something the user should know; training goes on. trace: what only the log shows."""

    text: str
    trace: str = ""


@dataclass(frozen=True)
class Failed:
    """Training cannot go on. trace: what only the log shows."""

    text: str
    trace: str = ""


@dataclass(frozen=True)
class Stopped:
    """The last event of a run. reason: `command`, `options` (it goes on with others), `target`, `collapse`,
    `memory` or `error`."""

    iteration: int
    reason: str


Progress = Started | Stepped | Previewed | Saving | Saved | BackedUp | TargetReached | Stopped
Event = Progress | Noted | Waits | Staged | Advanced | Warned | Failed


CommandName = Literal["save", "backup", "preview", "options", "stop"]


@dataclass(frozen=True)
class Command:
    """What a front end asks of the trainer: save, backup, preview (render again), options (change them; with the
    argument given={key: value} without asking), stop (save and leave; with quick=True without a last preview)."""

    name: CommandName
    arguments: dict[str, Any] = field(default_factory=dict)


Commands = queue.Queue[Command]
"""The way to the trainer: anybody may put, the trainer gets between two iterations."""
