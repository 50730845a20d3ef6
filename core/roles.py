"""What the loop asks of others: a model, a saver, help for a model that has collapsed or does not fit into memory."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Protocol

from core.batch import Batch, Captions, Page
from core.modeldata import ModelData


class Trainable(Protocol):
    """What the loop knows of a model. torn, repeats and let_go: see `models.spec.Task`."""

    data: ModelData
    loss_names: tuple[str, ...]
    health: dict[str, Any]

    @property
    def torn(self) -> bool: ...

    @property
    def repeats(self) -> bool: ...

    def let_go(self) -> None: ...

    def step(self, batch: Batch) -> dict[str, Any]: ...

    def preview(self, batch: Batch) -> list[Page]: ...

    def captions(self, batch: Batch) -> Captions: ...


class Saver(Protocol):
    """Where saves go. `save` and `backup` return at once and report through events; `wait` returns when all is done;
    `failed` says whether the newest save that has ended did not reach the disk."""

    def save(self, losses: dict[str, float] | None, position: int) -> None: ...

    def backup(self) -> None: ...

    def wait(self) -> None: ...

    def failed(self) -> bool: ...


class Rescue(Protocol):
    """What can be done for a model that is no good any more."""

    def reload(self) -> list[str]:
        """The model as last saved; returns lines for the user. Raises OSError or ModelError."""

    def roll_back(self) -> list[str]:
        """The model as last saved, with milder settings; returns lines for the user. Raises OSError or ModelError."""

    def keep_suspect(self) -> str:
        """Writes the model as it is beside the good files; returns where."""


class Relief(Protocol):
    """What can be done about an iteration that does not fit into memory."""

    def seen(self, error: BaseException) -> None:
        """Takes the figures while the failed step still holds its memory."""

    def explain(self, iteration: int) -> str:
        """What the user should know: memory, and the changes that would help."""

    def halve(self, position: Fraction) -> tuple[Fraction, Fraction] | None:
        """Goes on with half the batch, if that is wanted and possible: where, and how much of a batch of the start each
        batch is from now on. position: batches trained on, counted in those of the start, and so is the answer."""
