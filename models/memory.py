"""What a training holds of its device's memory, and which changes of options would save how much.

Weights, gradients, moments and work space are added up. What a step keeps for its backward pass is counted by one
forward of a single face with the option in question on and off: so any option counts for what it truly costs. What a
backward pass and the libraries hold in between is left out: every number is an "about".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.batch import Batch, SampleRequest, Side, array_channels
from core.memory import out_of_memory, size
from core.options import Values
from core.shortage import FAILURES
from models.spec import ModelSpec, Task
from models.swap import SIDES, SwapTask

WORTH = 0.03  # of the whole: what saves less is no help
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Need:
    """Bytes on the device: weights, gradients, moments and work space of the optimizers, and what a step keeps for its
    backward pass (None: unknown)."""

    weights: int
    gradients: int
    moments: int
    scratch: int
    kept: int | None

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.scratch + (self.kept or 0)


@dataclass(frozen=True)
class Change:
    """Something the user can type, the bytes it saves (None: unknown) and what it costs, in words."""

    text: str
    saves: int | None
    cost: str

    def words(self) -> str:
        """`--set batch_size=4 saves about 380 MB: quicker iterations, but more of them.`"""
        saves = "an unknown amount" if self.saves is None else f"about {size(self.saves)}"
        return f"{self.text} saves {saves}: {self.cost}."


def need(task: SwapTask, batch_size: int, card: bool | None = None) -> Need:
    """What training holds. Draws one face to count it; the task stays as it is. A task on the meta device, which draws
    nothing, is counted too. card: whether it would be on a card (default: where the task is)."""
    weights = FLOAT * sum(weight.numel() for module in task.modules.values() for weight in module.parameters())
    trained = FLOAT * sum(o.weights[name].numel() for o in task.optimizers.values() for name in o.trained)
    moments = FLOAT * sum(w.numel() * len(o.slots) for o in task.optimizers.values() for w in o.weights.values())
    kept = _kept_by_a_face(task)
    card = task.device.type != "cpu" if card is None else card
    return _held(task.values, weights, trained, moments, card, None if kept is None else kept * batch_size)


def _held(values: Values, weights: int, trained: int, moments: int, card: bool, kept: int | None) -> Need:
    here = not card or bool(values["models_opt_on_gpu"])
    # On a card an optimizer's update walks all its weights at once: three buffers, and for the draw of learning rate
    # dropout three bytes a weight.
    scratch = 3 * trained if card and here else 0
    if card and here and values["lr_dropout"] == "y":
        scratch += trained * 3 // FLOAT
    return Need(weights, trained, moments if here else 0, scratch, kept)


def changes(task: Task, batch_size: int, count: int = 3) -> list[Change]:
    """The changes that save memory, those first that cost the user least; at most `count`. batch_size: the one that did
    not fit."""
    if not isinstance(task, SwapTask):
        row = next(row for row in task.spec.rows if row.key == "batch_size")
        fewer = batch_size // 2
        cost = "quicker iterations, but more of them"
        return [_change(task.spec, row.key, fewer, None, cost)] if fewer >= (row.low or 1) else []
    holds, card = need(task, batch_size), task.device.type != "cpu"
    found: list[Change] = []
    for key, value, cost in _candidates(task.spec, task.values, batch_size, card):
        saves = _saves(task, holds, batch_size, key)
        if saves is None or saves >= WORTH * holds.total:
            found.append(_change(task.spec, key, value, saves, cost))
        if len(found) == count:
            break
    return found


def changes_before(spec: ModelSpec, values: Values, device: str) -> list[Change]:
    """The same where not even the network could be made: what makes the optimizers smaller."""
    with torch.device("meta"):  # shapes without memory
        task = spec.build(values, device="meta", training=False)
    if not isinstance(task, SwapTask):
        return []
    card = not device.startswith("cpu")
    weights = FLOAT * sum(weight.numel() for weight in task.net.parameters())
    moving = task.net.trained(values)
    trained = FLOAT * sum(weight.numel() for part in moving for weight in task.modules[part].parameters())
    holds = _held(values, weights, trained, trained * (2 if values["adabelief"] else 1), card, None)
    keys = ("lr_dropout", "models_opt_on_gpu", "adabelief")
    return [
        _change(spec, key, value, _saves_of_optimizer(values, holds, key), cost)
        for key, value, cost in _candidates(spec, values, 1, card)
        if key in keys
    ]


def _change(spec: ModelSpec, key: str, value: Any, saves: int | None, cost: str) -> Change:
    row = next(row for row in spec.rows if row.key == key)
    return Change(f"--set {key}={row.show(value)}", saves, cost)


def _candidates(spec: ModelSpec, values: Values, batch_size: int, card: bool) -> Iterator[tuple[str, Any, str]]:
    """(key, value, cost) of every change of this model's options that may save memory."""
    changeable = {row.key for row in spec.rows if row.ask != "fixed"}
    return (idea for idea in _ideas(values, batch_size, card) if idea[0] in changeable)


def _ideas(values: Values, batch_size: int, card: bool) -> Iterator[tuple[str, Any, str]]:
    """First what gives the same faces, then what only takes longer, then what the faces lose by."""
    if card and values["lr_dropout"] == "y" and values["models_opt_on_gpu"]:
        yield "lr_dropout", "cpu", "the same faces, a little slower"
    if card and values["models_opt_on_gpu"]:
        yield "models_opt_on_gpu", False, "the same faces, every iteration takes longer"
    if batch_size > 1:
        yield "batch_size", batch_size // 2, "quicker iterations, but more of them"
    if values["gan_power"] and values["gan_dims"] >= 8:
        yield "gan_dims", values["gan_dims"] // 2, "the GAN starts anew and tells less finely"
    if values["adabelief"] and (not card or values["models_opt_on_gpu"]):
        yield "adabelief", False, "the optimizer's memory starts anew, and it learns more slowly"
    for key, what in (
        ("eyes_mouth_prio", "eyes and mouth count as the rest of the face"),
        ("bg_style_power", "surroundings no longer follow dst's"),
        ("face_style_power", "colours no longer follow dst's"),
        ("true_face_power", "the result is less like src"),
        ("gan_power", "no fine skin detail from a GAN"),
    ):
        if values.get(key):
            yield key, type(values[key])(0), what


def _saves(task: SwapTask, holds: Need, batch_size: int, key: str) -> int | None:
    if key in ("lr_dropout", "models_opt_on_gpu", "adabelief"):
        return _saves_of_optimizer(task.values, holds, key)
    if key == "batch_size":
        return None if holds.kept is None else holds.kept - holds.kept * (batch_size // 2) // batch_size
    with _without(task, "gan_power" if key == "gan_dims" else key):
        less = need(task, batch_size)
    if holds.kept is None or less.kept is None:
        return None
    saved = holds.total - less.total
    return saved // 2 if key == "gan_dims" else saved  # at least: weights fall with the square of their width


def _saves_of_optimizer(values: Values, holds: Need, key: str) -> int:
    if key == "lr_dropout":
        return holds.gradients * 3 // FLOAT
    return holds.moments + holds.scratch if key == "models_opt_on_gpu" else holds.moments // 2


@contextlib.contextmanager
def _without(task: SwapTask, key: str) -> Iterator[None]:
    """The task with an option off. It gets others' values meanwhile, as a save may be reading its own."""
    values, adversaries, modules, optimizers = task.values, task.adversaries, task.modules, task.optimizers
    gone = {"gan_power": "GAN", "true_face_power": "code_discriminator"}.get(key, "")
    absent = (gone, adversaries[gone].optimizer_stem) if gone in adversaries else ()
    task.values = Values({**values, key: type(values[key])(0)}, values.chosen)
    task.adversaries = {stem: judge for stem, judge in adversaries.items() if stem not in absent}
    task.modules = {stem: module for stem, module in modules.items() if stem not in absent}
    task.optimizers = {stem: optimizer for stem, optimizer in optimizers.items() if stem not in absent}
    try:
        yield
    finally:
        task.values, task.adversaries, task.modules, task.optimizers = values, adversaries, modules, optimizers


def _kept_by_a_face(task: SwapTask) -> int | None:
    """The bytes that a forward of one face of each side keeps for its backward pass, the samples included; None where
    not even that fits."""
    side = task.values["resolution"]
    weights = {_storage(weight) for module in task.modules.values() for weight in module.parameters()}
    kept: dict[int, Tensor] = {}  # one of each buffer; holding it keeps its number from being used again

    def keep(tensor: Tensor) -> Tensor:
        if (number := _storage(tensor)) not in weights:
            kept[number] = tensor
        return tensor

    try:
        where = "meta" if task.device.type == "meta" else "cpu"
        arrays = {
            name: torch.zeros(1, array_channels(name, task.net.channels), side, side, device=where)
            for name in SampleRequest.names
        }
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            task.losses(Batch(**{name: Side(**arrays) for name in SIDES}))
    except FAILURES as error:
        if not out_of_memory(error):
            raise
        return None
    samples = 2 * sum(array.nbytes for array in arrays.values())
    return samples + sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _storage(tensor: Tensor) -> int:
    """What tells one buffer from another; on the meta device all addresses are 0."""
    return int(tensor.untyped_storage()._cdata)
