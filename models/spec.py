"""ModelSpec, what a model is before it is built; Task, what the trainer knows of a model once it is.

A variant is arguments: a new model is a ModelSpec with other rows and another net, never a copied file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core import dflfile
from core.batch import Batch, Captions, Page, SampleRequest, Swap, array_channels
from core.compiling import Compiler
from core.distributed import ALONE, World
from core.modelcheck import not_finite, refuse_damaged
from core.modeldir import LossHistory, ModelData, ModelDir, ModelError, Part
from core.nn import Copy, to_dfl
from core.optim import Optimizer
from core.options import Option, Values, resolve
from core.precision import Precision
from core.profiling import Timed, untimed
from core.readback import late
from core.runstate import RunState
from models.knobs import lr_share


class PartError(ModelError):
    """A part of a model file does not fit the network. Says which tensor, what was expected, what was found."""


class Task(ABC):
    """A built model: network, losses and optimizers on one device.

    Subclasses name their files in `network_parts` (refused when missing) and `optional_parts` (optimizers and
    adversaries: fresh when missing), put their networks into `modules` and their optimizers into `optimizers`, by file,
    work on `device` and give the methods below. `data` is
    the model's record: iteration, options and losses. `seed`: of its start weights. `health`: of the last step,
    `updated` (whether it moved the weights) and `contrast` (standard deviation of the drawn faces over that of their
    targets), as far as measured; told as the losses are (`step`). `precision`: what steps compute in; everything else
    that is drawn is drawn in full. `timed`: a context for a named part of a step, which `core.profiling` measures.
    `compiler`: how a step runs the network's functions.
    """

    network_parts: tuple[str, ...]
    optional_parts: tuple[str, ...]
    loss_names: tuple[str, ...]
    precision: Precision
    world: World = ALONE
    device: torch.device

    def __init__(self, spec: ModelSpec, values: Values) -> None:
        self.spec = spec
        self.values = values
        self.seed = 0
        self.health: dict[str, Any] = {}
        self.timed: Timed = untimed
        self.modules: dict[str, nn.Module] = {}
        self.compiler = Compiler("off", torch.device("cpu"))
        self.optimizers: dict[str, Optimizer] = {}
        self.data = ModelData(options=dict(values.chosen))

    @property
    def iteration(self) -> int:
        return self.data.iter

    @property
    def torn(self) -> bool:
        """Whether an error cut an update short, so that the weights are of two iterations: to be loaded, not saved."""
        return False

    @property
    def moved(self) -> object:
        """What changes once a step has begun to move weights: until then it can be done again."""
        return self.iteration

    @property
    def repeats(self) -> bool:
        """Whether the next step trains once more on the batch of the step before."""
        return False

    @abstractmethod
    def rebuild(self, values: Values) -> None:
        """The model with other options, its weights fresh ones until `load`."""

    @abstractmethod
    def let_go(self) -> None:
        """Gives back memory after a step or a preview that failed. The model stays as it is."""

    def step(self, batch: Batch) -> dict[str, Any]:
        """One training step; returns each loss (mean over the batch) as what float() takes: on a card it arrives later
        (`core.readback`), elsewhere it is a 0-d tensor.

        batch: sides of float32 arrays or tensors, NCHW, BGR, [0, 1].
        """
        share = lr_share(self.values, self.data.iter)
        for optimizer in self.optimizers.values():
            optimizer.lr_share = share
        with self.world.step(self.data.iter):
            faces = len(next(array for _, side in batch.items() for _, array in side.items()))
            losses = self.compiler.step(lambda: self.train_step(batch), lambda: self.moved)
            losses = self._told(self.world.mean(losses, faces))
        self.data.iter += 1
        self.data.loss_history.append([losses[name] for name in self.loss_names])
        return losses

    def _told(self, losses: Mapping[str, Any]) -> dict[str, Any]:
        """The losses as they are handed on; so are the signs of health, in the same copy."""
        told = late({**{("loss", name): x for name, x in losses.items()}, **self.health})
        self.health = {name: told[name] for name in self.health}
        return {name: told["loss", name] for name in losses}

    def join(self, world: World) -> None:
        """From now on every step is one of all processes, each with its rows of the batch, and with the state that the
        first has now: weights, optimizers, iteration. Raises Lost."""
        self.world = world
        tensors: list[Tensor] = []
        for module in self.modules.values():
            tensors += [*module.parameters(), *module.buffers()]
        counts = [self.data.iter, *(optimizer.iterations for optimizer in self.optimizers.values())]
        for optimizer in self.optimizers.values():
            optimizer.reduce = world.reduce if world.size > 1 else None
            tensors += [moment for moments in optimizer.moments.values() for moment in moments.values()]
            tensors += [optimizer.norms.ring] if optimizer.norms is not None else []
        told = torch.tensor(counts, dtype=torch.int64)
        world.spread([told, *tensors])
        self.data.iter, *steps = told.tolist()
        for optimizer, count in zip(self.optimizers.values(), steps, strict=True):
            optimizer.iterations = count

    def soften(self) -> list[str]:
        """Milder settings after a collapse; returns lines saying which, or nothing where there are none."""
        return []

    @abstractmethod
    def train_step(self, batch: Batch) -> dict[str, Any]:
        """Forward, backward, update; losses by name, in the order of `loss_names`."""

    @abstractmethod
    def preview(self, batch: Batch) -> list[Page]:
        """Preview pages of a batch, drawn with the current weights."""

    def captions(self, batch: Batch) -> Captions:
        """Names of the tiles of its pages: none, unless a model tells which tile shows which face."""
        return {}

    @abstractmethod
    def swap(self, images: Any) -> Swap:
        """dst images (N, C, H, W) float32 BGR [0, 1] -> the src face with dst's expression, and its masks."""

    @abstractmethod
    def parts(self, copy: Copy = to_dfl) -> dict[str, Part]:
        """Every file of the model: stem -> {DFL's weight name: array in DFL's layout}. Copies, safe to keep; with
        another `copy`, as long as it says."""

    @abstractmethod
    def load_parts(self, parts: Mapping[str, Part]) -> list[str]:
        """Takes the weights of `parts`; a stem that is absent stays as it is. Returns lines for the user.

        Raises PartError before anything is changed when a tensor has another shape or type.
        """

    def companions(self, stem: str) -> tuple[str, ...]:
        """The parts that are worth nothing without part `stem`, and start anew with it."""
        return ()

    def renewed(self, stored: Mapping[str, Any]) -> dict[str, str]:
        """Parts that start anew because an option was changed from what is `stored`: stem -> the reason."""
        return {}

    def load(
        self, folder: str | Path, name: str, reinit: Collection[str] = (),
        report: Callable[[int, int], object] = lambda done, total: None,
    ) -> list[str]:  # fmt: skip
        """Reads model `name` (DFL's files) from `folder`; returns lines the user should see.

        reinit: parts to start anew, there or not. report: told how much is read, of how much. Raises ModelError for
        another missing, unreadable or damaged part, PartError for one that does not fit or is not finite; nothing on
        disk is changed. Where the stored model was pretraining and this one is not, it counts from 0 again (DFL).
        """
        directory = ModelDir(folder, name, self.spec.name)
        missing = directory.missing(self.network_parts)
        # Weights are sometimes passed on without their record: they start at iteration 0.
        recorded = directory.data_path.exists() or len(missing) == len(self.network_parts)
        data = directory.read_data() if recorded else ModelData()
        fresh = {part: f"{stem} starts anew" for stem in reinit for part in (stem, *self.companions(stem))} | {
            stem: reason
            for stem, reason in self.renewed(upgrade(data.options)).items()
            if stem in self.network_parts or directory.part_path(stem).is_file()
        }
        unwanted = sorted(set(missing) - set(fresh))
        if unwanted:
            raise ModelError(
                f"{', '.join(directory.part_path(stem).name for stem in unwanted)} missing in {directory.folder}. "
                f"Restore from a backup, or start it anew with --reinit {' --reinit '.join(unwanted)}."
            )
        wanted = [stem for stem in (*self.network_parts, *self.optional_parts) if stem not in fresh]
        # Each is read twice: its bytes, then its numbers.
        told = _told([*wanted, *wanted], report)
        refuse_damaged(directory, chain(["data.dat"], (f"{stem}.npy" for stem in islice(told, len(wanted)))))
        parts: dict[str, Part] = {}
        for stem in told:
            part = directory.read_part(stem)
            if part is not None and (bad := not_finite(part)):
                raise PartError(
                    f"{directory.part_path(stem).name}: NaN or infinite numbers in {', '.join(bad)}: whatever saved it "
                    f"had collapsed. Restore a backup (main.py model restore), or start it anew with --reinit {stem}."
                )
            if part is not None:
                parts[stem] = part
        absent = [stem for stem in self.optional_parts if stem not in parts and stem not in fresh]
        notes = []
        for reason in dict.fromkeys(fresh.values()):
            files = [directory.part_path(stem).name for stem in fresh if fresh[stem] == reason]
            notes.append(f"{reason}; the next save writes {', '.join(files)}.")
        if not recorded:
            notes.append(f"{directory.data_path.name} is missing: weights only, counting from iteration 0.")
        if absent:
            notes.append(f"{', '.join(absent)}: not saved with the model yet, so fresh.")
        try:
            notes += self.load_parts(parts)
        except PartError as error:  # which begins with the part's own name
            raise PartError(f"{directory.path(str(error))}") from error
        if data.options.get("pretrain") and not self.values.get("pretrain"):
            data = replace(data, iter=0, loss_history=LossHistory(), sample_for_preview=None)
            notes.append("Pretraining is over: iterations and losses count from 0 again.")
        self.data = replace(data, options={**data.options, **self.values.chosen})
        return notes

    def start_from(self, folder: str | Path) -> list[str]:
        """Takes network parts from the start files of `folder` (`encoder.npy` and so on, without a model's name), as
        far as they are there; returns lines for the user. Raises PartError for one that cannot be read, is not finite
        or does not fit; nothing has changed then."""
        parts = {}
        for stem in self.network_parts:
            path = Path(folder) / f"{stem}.npy"
            if not path.is_file():
                continue
            try:
                parts[stem] = dflfile.load(path)
            except (dflfile.DflFileError, OSError) as error:
                raise PartError(f"{error} Take it out of the folder, or start without these files.") from error
            if bad := not_finite(parts[stem]):
                raise PartError(f"{path}: NaN or infinite numbers in {', '.join(bad)}. Take it out of the folder.")
        notes = self.load_parts(parts) if parts else []
        absent = [stem for stem in self.network_parts if stem not in parts]
        if absent:
            there = f"; from there come {', '.join(parts)}" if parts else ""
            notes.append(f"{folder} has no {', '.join(f'{stem}.npy' for stem in absent)}: fresh weights{there}.")
        else:
            notes.append(f"The network starts from {folder}.")
        return notes

    def save(self, folder: str | Path, name: str) -> None:
        """Writes model `name` as DFL's files into `folder`: parts, optimizer, data.dat, summary.

        Raises ModelError for a model that would lose its record: at iteration 0 every program takes it for a new one.
        """
        directory = ModelDir(folder, name, self.spec.name)
        if self.iteration == 0 and directory.data_path.exists() and directory.read_data().iter:
            raise ModelError(f"{directory.full_name}: nothing is trained yet. Train one iteration, then save.")
        kept = {**directory.read_kept(), **self.values.kept}
        # Whoever trains on from there does so as after a model of DFL's, but with this seed.
        state = RunState(self.iteration, self.seed, self.iteration, kept) if kept else None
        directory.write(self.parts(), self.data, self.values, state=state)


@dataclass(frozen=True)
class ModelSpec:
    """A model by name: its option rows, the samples it wants and how it is built. roomy: defaults for a new model on a
    large graphics card."""

    name: str
    rows: tuple[Option, ...]
    requests: Callable[[Values], dict[str, SampleRequest]]
    task: Callable[..., Task]
    roomy: Mapping[str, Any] = field(default_factory=dict)

    def takes(self, key: str) -> bool:
        """Whether the model has this option, with more than one value."""
        return any(row.key == key and row.ask != "fixed" for row in self.rows)

    @property
    def asks(self) -> bool:
        """Whether an existing model has questions to override its options."""
        return any(row.ask == "always" for row in self.rows)

    def resolve(
        self,
        given: Mapping[str, Any],
        stored: Mapping[str, Any] | None = None,
        preferred: Mapping[str, Any] | None = None,
        kept: Mapping[str, Any] | None = None,
    ) -> Values:
        """Complete, validated options. given: what the user asks for; stored: options of an existing model (what
        shaped its weights is believed even outside the prompt's range; other values that are not allowed are brought to
        the nearest that is, see `Values.notes`); preferred: defaults that replace the rows' own; kept: what an existing
        model has beside DFL's record (`ModelDir.read_kept`). Raises OptionError."""
        return resolve(self.rows, given, upgrade(stored or {}), upgrade(preferred or {}), kept)

    def with_defaults(self, **defaults: Any) -> ModelSpec:
        """The same model with other defaults, such as a batch size that suits the device."""
        rows = tuple(replace(row, default=defaults[row.key]) if row.key in defaults else row for row in self.rows)
        return replace(self, rows=rows)

    def build(
        self, values: Values, device: Any = "cpu", precision: str | None = None, seed: int = 0, training: bool = True
    ) -> Task:
        """The network on `device` with fresh weights drawn from `seed`. precision: another than `mp_mode` of the
        values. Without `training` it can only draw: no optimizers, no adversaries, and `load` reads the network alone.
        Raises OptionError for a precision that the device does not have."""
        return self.task(self, values, device=device, precision=precision, seed=seed, training=training)


def _told(stems: Sequence[str], report: Callable[[int, int], object]) -> Iterator[str]:
    """The stems, each after a report of how many came before it."""
    for number, stem in enumerate(stems):
        report(number, len(stems))
        yield stem


def as_input(array: Any, name: str, side: int, device: torch.device, channels: int = 3) -> Tensor:
    """The array `name` of a sample, (N, C, side, side), on the device in float32. channels: of pictures.

    Raises ValueError for another shape or for whole numbers, which would not be [0, 1]."""
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(np.require(array, requirements=["C", "W"]))
    wanted = (array_channels(name, channels), side, side)
    if tuple(tensor.shape[1:]) != wanted or not tensor.is_floating_point():
        sizes = ", ".join(map(str, wanted))
        raise ValueError(f"{name}: got {tuple(tensor.shape)} {tensor.dtype}, expected (N, {sizes}) float, [0, 1].")
    # From memory that is not locked CUDA has read all when the call returns; others (MPS) may still be reading.
    return tensor.to(device, torch.float32, non_blocking=device.type == "cuda")


def pieces(batch: Batch, count: int) -> list[Batch]:
    """The batch in at most `count` pieces of about equal size, views. Raises ValueError for sides of unequal size."""
    if count == 1:
        return [batch]
    sizes = {side: len(next(array for _, array in arrays.items())) for side, arrays in batch.items()}
    if len(set(sizes.values())) > 1:
        told = " and ".join(f"{size} faces of {side}" for side, size in sizes.items())
        raise ValueError(f"got {told}, all sides must be alike.")
    whole = max(sizes.values())
    step = max(1, -(-whole // count))
    return [batch.map(lambda array, at=at: array[at : at + step]) for at in range(0, whole, step)]  # type: ignore[misc]


def upgrade(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of older DFL versions in today's spelling. numpy scalars become plain numbers; `random_flip` meant
    both sides; everything else is the rows' own `spellings`."""
    result = {key: value.item() if isinstance(value, np.generic) else value for key, value in options.items()}
    if "random_flip" in result:
        result.setdefault("random_src_flip", result["random_flip"])
        result.setdefault("random_dst_flip", result["random_flip"])
    return result
