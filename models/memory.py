"""What a training holds of its device's memory, and which changes of options would save how much.

Weights, moments and work space of the optimizers are added up. What a step takes besides is found by doing one on the
meta device, where tensors have shapes and no memory, and following what would be there at a time (`core.tensorpeak`):
forward, backward and adversaries, with every option as it is. What libraries and drivers take for themselves is not in
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.batch import Batch, Side
from core.lrdropout import BLOCK, POOL
from core.memory import size
from core.optim import CHUNK, AdaBelief, Optimizer, RMSprop
from core.options import Option, Values
from core.precision import pays
from core.shapes import stands_for
from core.tensorpeak import Peak
from models.running import faces_per_iteration
from models.spec import ModelSpec, Task

WORTH = 0.03  # of the whole: what saves less is no help
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Need:
    """Bytes on the device where a step holds most: weights, gradients, moments and work space of the optimizers, and
    what is there of a batch besides, its samples included."""

    weights: int
    gradients: int
    moments: int
    scratch: int
    batch: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.scratch + self.batch


@dataclass(frozen=True)
class Change:
    """Something the user can type, the bytes it saves (None: unknown) and what it costs, in words."""

    text: str
    saves: int | None
    cost: str

    def words(self) -> str:
        """`--set batch_size=4 saves about 380 MB: quicker iterations, but more of them.`"""
        saves = "" if self.saves is None else f" saves about {size(self.saves)}"
        return f"{self.text}{saves}: {self.cost}."


def need(spec: ModelSpec, values: Values, card: bool) -> Need:
    """What training with these options holds, on a graphics card or on the processor. Takes a second or two the first
    time, later less, and little memory."""
    task = _shapes(spec, values)
    here = not card or bool(values.get("models_opt_on_gpu", True))
    flat = card and here
    weights = FLOAT * sum(weight.numel() for module in task.modules.values() for weight in module.parameters())
    optimizers = _optimizers(task)
    gradients = FLOAT * sum(o.weights[name].numel() for o in optimizers for name in o.trained)
    moments = FLOAT * sum(w.numel() * len(o.slots) for o in optimizers for w in o.weights.values()) if here else 0
    scratch = sum(_scratch(o, card, here) for o in optimizers)
    return Need(weights, gradients, moments, scratch, _step(task, card, flat) - gradients)


def _before(spec: ModelSpec, values: Values, card: bool) -> Need:
    """The same of the network and its optimizers alone, and without making optimizers: on the meta device that loads so
    much of PyTorch that it does not fit where memory is short."""
    with torch.device("meta"):
        task = spec.build(values, device="meta", training=False)
    here = not card or bool(values.get("models_opt_on_gpu", True))
    sizes = [weight.numel() for module in task.modules.values() for weight in module.parameters()]
    weights = FLOAT * sum(sizes)
    slots = (AdaBelief if values.get("adabelief") else RMSprop).slots
    scratch = 3 * (weights if card else FLOAT * min(max(sizes), CHUNK)) if here else 0
    return Need(weights, weights, weights * len(slots) if here else 0, scratch, 0)


def _shapes(spec: ModelSpec, values: Values) -> Task:
    """The model without memory. On the meta device its optimizers are those of a card; what they hold is told by
    `need`."""
    with torch.device("meta"):
        return spec.build(Values({**values, "models_opt_on_gpu": True}, values.chosen), device="meta")


def _optimizers(task: Task) -> list[Optimizer]:
    return list(task.optimizers.values())


def _scratch(optimizer: Optimizer, card: bool, here: bool) -> int:
    """Three buffers, of all weights at once on a card, of a piece of them elsewhere; and what learning rate dropout
    draws in: seven bytes of each draw, four where the processor draws for a card."""
    sizes = [optimizer.weights[name].numel() for name in optimizer.trained]
    if not sizes or not here:
        return 0
    dropout = optimizer.dropout
    draws = 0 if dropout is None else (POOL + BLOCK) * (4 if card and dropout.on_cpu else 7)
    return (sum(sizes) if card else min(max(sizes), CHUNK)) * 3 * FLOAT + draws


def _step(task: Task, card: bool, flat: bool) -> int:
    """The most that a step holds besides weights, moments and work space. flat: gradients have a place of their own
    all the time; else they come in the backward pass."""
    batch = _samples(task)
    weights = [tensor for module in task.modules.values() for tensor in module.state_dict(keep_vars=True).values()]
    for optimizer in _optimizers(task):
        vars(optimizer)["step"] = _passed  # an instance's own method wins over its class's
        if not flat:
            optimizer.flat_gradient = None
            optimizer.zero_grad()
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    arrays = [array for _, side in batch.items() for _, array in side.items()]
    # On the processor samples lie in memory that is shared with those who make them.
    main = Peak("meta", gradients, [*weights, *arrays], _copies)
    with stands_for("cuda" if card else "cpu"), Peak("meta", [*gradients, *arrays], weights) if card else main as peak:
        task.step(batch)
    return peak.most


def _copies(operation: Any, arguments: tuple[Any, ...]) -> int:
    """What a convolution on the processor holds while it runs: oneDNN keeps its weights in a layout of its own, and
    their gradient in two. Measured."""
    name = operation.overloadpacket.__name__
    if name not in ("convolution", "convolution_backward"):
        return 0
    weight = arguments[1 if name == "convolution" else 2]
    return int(weight.nbytes) * (1 if name == "convolution" else 2)


def _passed(ok: Tensor | None = None, unscale: Tensor | None = None) -> Tensor | None:
    return ok


def _samples(task: Task) -> Batch:
    count, sides = faces_per_iteration(task.values), {}
    for side, request in task.spec.requests(task.values).items():
        arrays = {name: torch.empty(count, *request.shape(name), device="meta") for name in request.names}
        sides[side] = Side(**arrays)
    return Batch(**sides)


def changes(task: Task, batch_size: int, count: int = 4) -> list[Change]:
    """The changes that save memory, those first that cost the user least; at most `count`. batch_size: the one that did
    not fit."""
    values = Values({**task.values, "batch_size": batch_size}, task.values.chosen)
    return _changes(task.spec, values, task.device.type != "cpu", count, half=pays("bfloat", task.device))


def uncounted(task: Task, batch_size: int, count: int = 4) -> list[Change]:
    """The same without figures, where there is not even memory for those."""
    values = Values({**task.values, "batch_size": batch_size}, task.values.chosen)
    ideas = _ideas(values, task.device.type != "cpu", pays("bfloat", task.device))
    changeable = {row.key: row for row in task.spec.rows if row.ask != "fixed"}
    return [Change(_text(changeable[key], value), None, cost) for key, value, cost in ideas
            if _possible(changeable.get(key), value)][:count]  # fmt: skip


def changes_before(spec: ModelSpec, values: Values, device: str) -> list[Change]:
    """The same where not even the network could be made: what makes the optimizers smaller."""
    keys = ("models_opt_on_gpu", "adabelief")
    return _changes(spec, values, not device.startswith("cpu"), len(keys), keys, _before)


def _changes(
    spec: ModelSpec, values: Values, card: bool, count: int, keys: tuple[str, ...] | None = None,
    counted: Callable[[ModelSpec, Values, bool], Need] = need, half: bool = False,
) -> list[Change]:  # fmt: skip
    changeable = {row.key: row for row in spec.rows if row.ask != "fixed"}
    found: list[Change] = []
    holds = counted(spec, values, card).total
    for key, value, cost in _ideas(values, card, half):
        if not _possible(changeable.get(key), value) or (keys is not None and key not in keys):
            continue
        saves = holds - counted(spec, Values({**values, key: value}, values.chosen), card).total
        if saves >= WORTH * holds:
            found.append(Change(_text(changeable[key], value), saves, cost))
        if len(found) == count:
            break
    return found


def _possible(row: Option | None, value: Any) -> bool:
    return row is not None and (row.low is None or value >= row.low)


def _text(row: Option, value: Any) -> str:
    return f"--set {row.key}={row.show(value)}"


def _ideas(values: Values, card: bool, half: bool) -> Iterator[tuple[str, Any, str]]:
    """(key, value, cost) of what may save memory: first what gives the same faces, then what only takes longer, then
    what the faces lose by. half: whether bfloat is an idea."""
    batch_size, accumulate = values["batch_size"], values["accumulate"]
    if card and values.get("models_opt_on_gpu"):
        yield "models_opt_on_gpu", False, "the same faces, every iteration takes longer"
    if batch_size > 1:
        more = f"with --set accumulate={2 * accumulate} besides it learns as before"
        yield "batch_size", batch_size // 2, f"quicker iterations, but more of them; {more}"
    if half and values["mp_mode"] in ("full", "full_t"):
        yield "mp_mode", "bfloat", "quicker iterations, and faces as good; weights stay what they are"
    if values.get("keep_graph"):
        yield "keep_graph", False, "the same faces, iterations take a little longer"
    if not values["checkpointing"]:
        yield "checkpointing", True, "the same faces, iterations take a quarter to a third longer"
    if values.get("gan_power") and values["gan_dims"] >= 8:
        yield "gan_dims", values["gan_dims"] // 2, "the GAN starts anew and tells less finely"
    if values.get("adabelief") and (not card or values["models_opt_on_gpu"]):
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
