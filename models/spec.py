"""ModelSpec, what a model is before it is built; Task, what the trainer knows of a model once it is.

A variant is arguments: a new model is a ModelSpec with other rows and another net, never a copied file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.batch import Batch, Page, SampleRequest, Swap
from core.modeldir import ModelData, ModelDir, ModelError, Part
from core.options import Kind, Option, OptionError, Values, resolve

PRECISIONS = ("full",)


class PartError(ModelError):
    """A part of a model file does not fit the network. Says which tensor, what was expected, what was found."""


class Task(ABC):
    """A built model: network, losses and optimizers on one device.

    Subclasses name their files in `network_parts` (refused when missing) and `optional_parts` (the optimizer:
    fresh when missing) and give the five methods below. `data` is the model's record: iteration, options, losses.
    """

    network_parts: tuple[str, ...]
    optional_parts: tuple[str, ...]
    loss_names: tuple[str, ...]

    def __init__(self, spec: ModelSpec, values: Values) -> None:
        self.spec = spec
        self.values = values
        self.data = ModelData(options=dict(values.chosen))

    @property
    def iteration(self) -> int:
        return self.data.iter

    def step(self, batch: Batch) -> dict[str, Any]:
        """One training step; returns each loss as a 0-d tensor on the device (mean over the batch).

        batch: sides of float32 arrays or tensors, NCHW, BGR, [0, 1].
        """
        losses = self.train_step(batch)
        self.data.iter += 1
        self.data.loss_history.append([losses[name] for name in self.loss_names])
        return losses

    @abstractmethod
    def train_step(self, batch: Batch) -> dict[str, Any]:
        """Forward, backward, update; losses by name, in the order of `loss_names`."""

    @abstractmethod
    def preview(self, batch: Batch) -> list[Page]:
        """Preview pages of a batch, drawn with the current weights."""

    @abstractmethod
    def swap(self, images: Any) -> Swap:
        """dst images (N, C, H, W) float32 BGR [0, 1] -> the src face with dst's expression, and its masks."""

    @abstractmethod
    def parts(self) -> dict[str, Part]:
        """Every file of the model: stem -> {DFL's weight name: array in DFL's layout}. Copies, safe to keep."""

    @abstractmethod
    def load_parts(self, parts: Mapping[str, Part]) -> list[str]:
        """Takes the weights of `parts`; a stem that is absent stays as it is. Returns lines for the user.

        Raises PartError before anything is changed when a tensor has another shape or type.
        """

    def load(self, folder: str | Path, name: str, reinit: Collection[str] = ()) -> list[str]:
        """Reads model `name` (DFL's files) from `folder`; returns lines the user should see.

        reinit: network parts to start anew, there or not. Raises ModelError for another missing or an unreadable
        part, PartError for one that does not fit; nothing on disk is changed.
        """
        directory = ModelDir(folder, name, self.spec.name)
        missing = directory.missing(self.network_parts)
        # Weights are sometimes passed on without their record: they start at iteration 0.
        recorded = directory.data_path.exists() or len(missing) == len(self.network_parts)
        data = directory.read_data() if recorded else ModelData()
        unwanted = sorted(set(missing) - set(reinit))
        if unwanted:
            raise ModelError(
                f"{', '.join(directory.part_path(stem).name for stem in unwanted)} missing in {directory.folder}. "
                f"Restore from a backup, or start it anew with --reinit {' --reinit '.join(unwanted)}."
            )
        parts: dict[str, Part] = {}
        for stem in (*self.network_parts, *self.optional_parts):
            part = None if stem in reinit else directory.read_part(stem)
            if part is not None:
                parts[stem] = part
        notes = [f"{stem} starts anew; the next save writes {directory.part_path(stem).name}." for stem in reinit]
        if not recorded:
            notes.append(f"{directory.data_path.name} is missing: weights only, counting from iteration 0.")
        notes += self.load_parts(parts)
        self.data = data
        self.data.options = {**data.options, **self.values.chosen}
        return notes + self.spec.not_active(self.data.options)

    def save(self, folder: str | Path, name: str) -> None:
        """Writes model `name` as DFL's files into `folder`: parts, optimizer, data.dat, summary."""
        ModelDir(folder, name, self.spec.name).write(self.parts(), self.data, self.values)


@dataclass(frozen=True)
class ModelSpec:
    """A model by name: its option rows, the samples it wants and how it is built.

    inactive: options DFL knows and this version does not act on, with the value that means "off" (None: any value
    changes nothing here). They are kept in the files, and named when a stored model uses them.
    """

    name: str
    rows: tuple[Option, ...]
    requests: Callable[[Values], dict[str, SampleRequest]]
    task: Callable[..., Task]
    inactive: Mapping[str, Any] = field(default_factory=dict)

    def resolve(
        self,
        given: Mapping[str, Any],
        stored: Mapping[str, Any] | None = None,
        preferred: Mapping[str, Any] | None = None,
    ) -> Values:
        """Complete, validated options. given: what the user asks for; stored: options of an existing model (what
        shaped its weights is believed even outside the prompt's range); preferred: defaults that replace the
        rows' own. Raises OptionError."""
        own = {key: value for key, value in given.items() if key not in self.inactive}
        off = {key: self._off(key, value) for key, value in given.items() if key in self.inactive}
        stored, preferred = upgrade(stored or {}), upgrade(preferred or {})
        values = resolve(self.rows, own, stored, preferred)
        values.chosen.update(off)
        return values

    def _off(self, key: str, value: Any) -> Any:
        """The value of an option this version does not act on, given by text or typed; raises unless it is off."""
        off = self.inactive[key]
        if off is None:
            return value
        kind: Kind = "bool" if isinstance(off, bool) else "float" if isinstance(off, float) else "text"
        if Option(key, kind, key, "", off).parse(value) != off:
            raise OptionError(f"{key}: got {value!r}; this version can only leave it at {off!r}.")
        return off

    def with_defaults(self, **defaults: Any) -> ModelSpec:
        """The same model with other defaults, such as a batch size that suits the device."""
        rows = tuple(replace(row, default=defaults[row.key]) if row.key in defaults else row for row in self.rows)
        return replace(self, rows=rows)

    def build(self, values: Values, device: Any = "cpu", precision: str = "full", seed: int = 0) -> Task:
        """The network on `device` with fresh weights drawn from `seed`."""
        if precision not in PRECISIONS:
            raise OptionError(f"precision: got {precision!r}, allowed is {' / '.join(PRECISIONS)}.")
        return self.task(self, values, device=device, precision=precision, seed=seed)

    def not_active(self, options: Mapping[str, Any]) -> list[str]:
        """One line naming the stored options that this version does not act on, or nothing."""
        used = [
            f"{key} {options[key]}"
            for key, off in self.inactive.items()
            if off is not None and key in options and options[key] != off
        ]
        if not used:
            return []
        return [f"Not yet active in this version, kept in the model's files untouched: {', '.join(used)}."]


def upgrade(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of older DFL versions in today's spelling. numpy scalars become plain numbers; `random_flip` meant
    both sides; everything else is the rows' own `spellings`."""
    result = {key: value.item() if isinstance(value, np.generic) else value for key, value in options.items()}
    if "random_flip" in result:
        result.setdefault("random_src_flip", result["random_flip"])
        result.setdefault("random_dst_flip", result["random_flip"])
    return result
