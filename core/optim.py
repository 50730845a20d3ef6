"""AdaBelief and RMSprop as DeepFaceLab steps them, with clipping, cosine and learning rate dropout.

Notable choices:
- The update is memory traffic. On the CPU each tensor is walked in chunks that stay in the cache while all operations
  of the update pass over them; elsewhere weights, gradients and moments are views of one flat buffer each, so an
  update is a handful of kernels whatever the number of tensors. With `offload` the moments stay in main memory and
  weights and gradients visit them there chunk by chunk (`core.ferry`): slower, but the device holds weights and
  gradients alone.
- Moments share the memory layout of their weight (channels_last); `state` and `load_state` speak DFL's.
- Weight decay is decoupled (Loshchilov and Hutter 2019): before an update weights shrink by learning rate times decay,
  which no moment sees. Kernels of convolutions and dense layers alone, not biases, norms and thresholds. With learning
  rate dropout, where 77 of 256 weights move in a step, it is weaker by as much.
- On the CPU an update is PyTorch's fused steps. The first moment of AdaBelief is a step of SGD: its weight is the
  moment, its weight decay takes the moment off the gradient, and its momentum is where that difference is found after.
  The rest (second moment, root, quotient, weight) is a step of Adam: it is told a rate of nearly 0 for the first
  moment, which it then leaves as it is given, and so many steps that it corrects no bias. Clipping is a factor of both.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from core.autoclip import NormHistory
from core.ferry import Ferry
from core.lrdropout import BLOCK, KEPT
from core.lrdropout import LrDropout as LrDropout
from core.nn import Array, Copy, from_dfl, misfit, to_dfl

CHUNK = BLOCK  # elements: all that is read of a chunk twice is 4 MB; smaller ones mean more thread barriers
EPSILON = 1e-6
SMALL = 1e-20  # clipping by less is a pass of its own: moments divided by it could be infinite
STILL, LATE = 1 - 2**-53, 1e18  # see above: the rate is 1 - STILL, and STILL**LATE is 0


class Optimizer(ABC):
    """Common part of AdaBelief and RMSprop over named weights.

    weights: `<part>/<DFL's weight name without :0>` -> parameter; all of them are in the file. trained: the names
    that are stepped (default: all). lr_cos: period in iterations, 0 = constant rate. offload: moments live and updates
    happen in main memory. weight_decay: see above. clip_history: gradients are clipped to a percentile of earlier norms
    instead of clip_norm (`core.autoclip`). `iterations` counts steps. `torn`: an error came in the midst of an update,
    so that some weights and moments are of the step before; until `load_state` or `forget`.
    """

    slots: tuple[str, ...]
    reduce: Callable[[Sequence[Tensor], Tensor | None], Tensor | None] | None = None
    """Joins the gradients of several processes before a step: `core.distributed.World.reduce`."""
    lr_share: float = 1.0
    """What of the learning rate the next step has."""

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        *,
        trained: Collection[str] | None = None,
        lr: float = 5e-5,
        clip_norm: float = 0.0,
        lr_cos: int = 0,
        dropout: LrDropout | None = None,
        flat: bool | None = None,
        offload: bool = False,
        weight_decay: float = 0.0,
        clip_history: bool = False,
    ) -> None:
        self.weights, self.weight_decay = dict(weights), weight_decay
        self.lr, self.clip_norm, self.lr_cos, self.dropout = lr, clip_norm, lr_cos, dropout
        self.iterations = 0
        self.torn = False
        self.trained = [name for name in self.weights if trained is None or name in trained]
        device = next(iter(self.weights.values())).device
        self.home = torch.device("cpu") if offload else device
        self.norms = NormHistory(device) if clip_history else None
        self.reads_are_free = device.type == "cpu"  # elsewhere reading a value back waits for the device
        flat = device.type != "cpu" and not offload if flat is None else flat
        self.moments = {
            slot: {name: torch.zeros_like(weight.detach(), device=self.home) for name, weight in self.weights.items()}
            for slot in self.slots
        }
        self.flat_gradient: Tensor | None = self._flatten() if flat else None
        self._spans = self._split(CHUNK)
        longest = max((span[0].numel() for spans in self._spans for span in spans), default=0)
        self._scratch = [torch.empty(longest, device=self.home) for _ in range(3)]
        self._ferry = Ferry(longest, device) if offload else None

    def _flatten(self) -> Tensor:
        """Moves trained weights, their gradients and moments into one buffer each; returns the gradients'."""
        count = sum(self.weights[name].numel() for name in self.trained)
        device = self.weights[self.trained[0]].device
        buffers = [torch.zeros(count, device=device) for _ in range(2 + len(self.slots))]
        start = 0
        for name in self.trained:
            weight = self.weights[name]
            views = [like(buffer[start : start + weight.numel()], weight) for buffer in buffers]
            views[0].copy_(weight.detach())
            weight.data, weight.grad = views[0], views[1]
            for slot, view in zip(self.slots, views[2:], strict=True):
                self.moments[slot][name] = view
            start += weight.numel()
        self._flat = [buffers[0], *buffers[2:]]
        return buffers[1]

    def _split(self, chunk: int) -> list[list[tuple[Tensor, ...]]]:
        """For every stepped tensor its chunks: (weight, moments...), 1-D views."""
        if self.flat_gradient is not None:
            return [[tuple(self._flat)]]
        result = []
        for name in self.trained:
            tensors = [self.weights[name].detach(), *(self.moments[slot][name] for slot in self.slots)]
            result.append(list(zip(*(in_memory_order(tensor).split(chunk) for tensor in tensors), strict=True)))
        return result

    def zero_grad(self) -> None:
        """Before a backward pass. Gradients are dropped where the next pass can hand over its own buffers."""
        if self.flat_gradient is not None:
            self.flat_gradient.zero_()
            return
        for name in self.trained:
            self.weights[name].grad = None

    def _gradients(self) -> list[Tensor]:
        if self.flat_gradient is not None:
            return [self.flat_gradient]
        gradients = []
        for name in self.trained:
            gradient = self.weights[name].grad
            if gradient is None:
                raise RuntimeError(f"{name} has no gradient: run a backward pass that reaches it before a step")
            gradients.append(in_memory_order(gradient))
        return gradients

    @torch.no_grad()
    def step(self, ok: Tensor | None = None, unscale: Tensor | None = None) -> Tensor | None:
        """One update from the gradients; they are left as they were.

        ok: a 0-d bool tensor, or None to update whatever comes. Where it is false, or a gradient is not finite, weights
        and moments stay as they are; elsewhere than on the CPU that is decided on the device, which nothing waits for.
        unscale: a 0-d tensor that makes true gradients of them, where clipping is on. Returns whether the update was
        made, on the device.
        """
        iteration = self.iterations + 1
        lr = self.lr * self.lr_share
        if self.lr_cos:
            lr *= (math.cos(2 * math.pi * iteration / self.lr_cos) + 1) / 2
        gradients = self._gradients()
        if self.reduce is not None:
            ok = self.reduce(gradients, ok)
        clips = self.clip_norm or self.norms is not None
        norm = self._norm(gradients) if clips or ok is not None else None
        if norm is not None and unscale is not None:
            norm = norm * unscale
        limit = self.clip_norm if norm is None or self.norms is None else self.norms.limit(norm, iteration)
        moving = None
        if ok is not None and norm is not None:
            ok = ok & norm.isfinite()
            if self.reads_are_free and not ok:
                self.iterations = iteration
                return ok
            moving = None if self.reads_are_free else ok.to(self.home, torch.float32)
        scale = self._clip_scale(norm, limit, unscale) if norm is not None and clips else None
        factor = 1.0
        if scale is not None and self.reads_are_free:
            factor, scale = scale.item(), None
        if self.dropout:
            self.dropout.begin(iteration, [gradient.numel() for gradient in gradients], self.home)
        fused = self.reads_are_free and self.flat_gradient is None
        # Whatever fails before this line has changed nothing.
        self.iterations, self.torn = iteration, True
        self._decay(lr, moving)
        visits = None if self._ferry is None else self._ferry.visit(self._pieces(gradients))
        for i, (spans, gradient) in enumerate(zip(self._spans, gradients, strict=True)):
            start = 0
            for span in spans:
                weight, count = span[0], span[0].numel()
                scratch, second, keep = (buffer[:count] for buffer in self._scratch)
                piece = gradient[start : start + count]
                if visits is not None:
                    weight, piece = next(visits)
                if scale is not None:
                    piece = torch.mul(piece, scale, out=second)
                if moving is not None:
                    piece = torch.nan_to_num(piece, 0.0, 0.0, 0.0, out=second)
                moves = self.dropout.moves(i, start, count, keep) if self.dropout else None
                if fused:
                    self.fused_update(weight, piece, factor, span[1:], scratch, second, moves, lr)
                else:
                    direction, left = self.update(piece, factor, span[1:], scratch, moving)
                    scratch.add_(EPSILON)
                    if moving is not None:
                        scratch.div_(moving)  # to infinity
                    if moves is not None:
                        direction = torch.mul(direction, moves, out=keep)
                    weight.addcdiv_(direction, scratch, value=-lr * left)
                start += count
        if visits is not None:
            next(visits, None)
        self.torn = False
        return ok

    def _pieces(self, gradients: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Weights and gradients of every chunk, in the order of the update."""
        return [
            (span[0], piece)
            for spans, gradient in zip(self._spans, gradients, strict=True)
            for span, piece in zip(spans, gradient.split(CHUNK), strict=True)
        ]

    @staticmethod
    def _norm(gradients: Sequence[Tensor]) -> Tensor:
        """The global L2 norm, a 0-d tensor on the device."""
        if gradients[0].is_cpu:  # quicker than _foreach_norm, and nearer to the sum in float64
            return torch.stack([torch.dot(gradient, gradient) for gradient in gradients]).sum().sqrt()
        return torch.stack(torch._foreach_norm(list(gradients))).norm()

    def _decay(self, lr: float, moving: Tensor | None) -> None:
        """Shrinks the kernels. moving: 1, or 0 where they must stay as they are."""
        if not self.weight_decay:
            return
        kernels = [w.detach() for name in self.trained if (w := self.weights[name]).dim() > 1]
        share = lr * self.weight_decay * (KEPT / 256 if self.dropout else 1.0)
        torch._foreach_mul_(kernels, 1 - share if moving is None else 1 - share * moving.to(kernels[0].device))

    def _clip_scale(self, norm: Tensor, limit: float | Tensor, unscale: Tensor | None = None) -> Tensor | None:
        """What brings the norm down to the limit, as a 0-d tensor on the device; None when not needed."""
        scale = (limit / norm).clamp(max=1.0)
        scale = scale if unscale is None else scale * unscale
        return None if self.reads_are_free and scale.item() == 1.0 else scale.to(self.home)

    @abstractmethod
    def update(
        self, gradient: Tensor, factor: float, moments: tuple[Tensor, ...], scratch: Tensor, moving: Tensor | None
    ) -> tuple[Tensor, float]:
        """Steps the moments of one chunk by `factor` times the gradient; returns the direction and what it is still to
        be multiplied with, and leaves its divisor, to which EPSILON comes, in `scratch`. moving: 1, or 0 for moments
        that must stay as they are."""

    @abstractmethod
    def fused_update(
        self, weight: Tensor, gradient: Tensor, factor: float, moments: tuple[Tensor, ...], scratch: Tensor,
        second: Tensor, moves: Tensor | None, lr: float,
    ) -> None:  # fmt: skip
        """The whole update of one chunk by `factor` times the gradient, of the weights that `moves` says."""

    def state(self, copy: Copy = to_dfl) -> dict[str, Array]:
        """DFL's optimizer file: `iters:0`, then `<slot>_<part>/<weight>_0:0` for every weight. Copies."""
        result: dict[str, Array] = {"iters:0": torch.tensor(self.iterations, dtype=torch.int64).numpy()[()]}
        for name, tensor in self._named_moments():
            result[name] = copy(tensor)
        return result

    def _named_moments(self) -> Iterator[tuple[str, Tensor]]:
        for slot, tensors in self.moments.items():
            for name, tensor in tensors.items():
                yield f"{slot}_{name}_0:0", tensor

    def foreign(self, found: Mapping[str, Array]) -> bool:
        """Whether a DFL optimizer file holds the moments of another kind of optimizer, or none."""
        return not any(name.startswith(tuple(f"{slot}_" for slot in self.slots)) for name in found)

    def misfit(self, found: Mapping[str, Array]) -> str:
        """Why a DFL optimizer file does not fit; empty when it does. A foreign one does: see `load_state`."""
        count = found.get("iters:0")
        if count is None or count.size != 1 or count.dtype.kind not in "iu":
            return "iters:0: expected one whole number, found " + (
                "nothing" if count is None else f"{tuple(count.shape)} {count.dtype}"
            )
        if not 0 <= int(count.item()) < 1 << 40:
            return f"iters:0: expected the number of steps done, found {count.item()}"
        moments = {name: array for name, array in found.items() if name != "iters:0"}
        return "" if self.foreign(moments) else misfit(dict(self._named_moments()), moments)

    def load_state(self, found: Mapping[str, Array]) -> str:
        """Takes a DFL optimizer file; returns a line for the user, or nothing.

        A file of another optimizer gives its iteration count only, the moments start anew. Raises ValueError,
        before any change, naming the tensor that does not fit, what was expected and what was found.
        """
        if reason := self.misfit(found):
            raise ValueError(reason)
        foreign = self.foreign(found)
        self.iterations = int(found["iters:0"].item())
        for name, tensor in self._named_moments():
            tensor.zero_() if foreign else tensor.copy_(from_dfl(found[name]))
        self.torn = False
        if not foreign:
            return ""
        return f"Another optimizer than {type(self).__name__} was in use: fresh moments, {self.iterations} steps kept."

    def forget(self) -> None:
        """Fresh moments; the steps stay counted."""
        for _, tensor in self._named_moments():
            tensor.zero_()
        if self.norms is not None:
            self.norms.forget()
        self.torn = False


class AdaBelief(Optimizer):
    """AdaBelief (Zhuang et al. 2020) in DFL's form: m = 0.9 m + 0.1 g; v = 0.999 v + 0.001 (g - m)^2;
    w -= lr * m / (sqrt(v) + 1e-6); no bias correction, no epsilon inside v."""

    slots = ("ms", "vs")

    def update(
        self, gradient: Tensor, factor: float, moments: tuple[Tensor, ...], scratch: Tensor, moving: Tensor | None
    ) -> tuple[Tensor, float]:
        m, v = moments
        torch.sub(m, gradient, alpha=factor, out=scratch)
        if moving is not None:
            scratch.mul_(moving)
        m.add_(scratch, alpha=-0.1)
        v.mul_(0.999 if moving is None else 1 - 0.001 * moving).addcmul_(
            scratch, scratch, value=0.001 * 0.9**2
        )  # g - m_new = 0.9 (g - m_old)
        torch.sqrt(v, out=scratch)
        return m, 1.0

    def fused_update(
        self, weight: Tensor, gradient: Tensor, factor: float, moments: tuple[Tensor, ...], scratch: Tensor,
        second: Tensor, moves: Tensor | None, lr: float,
    ) -> None:  # fmt: skip
        m, v = moments
        if factor < SMALL:
            gradient, factor = torch.mul(gradient, factor, out=second), 1.0
        _approach(m, gradient, factor, scratch)
        direction = m if moves is None else torch.mul(m, moves, out=second)
        _divide(weight, direction, scratch, v, 0.999, lr, divided=1 / (0.9 * factor))


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012) in DFL's form: a = 0.9 a + 0.1 g^2; w -= lr * g / (sqrt(a) + 1e-6)."""

    slots = ("acc",)

    def update(
        self, gradient: Tensor, factor: float, moments: tuple[Tensor, ...], scratch: Tensor, moving: Tensor | None
    ) -> tuple[Tensor, float]:
        (accumulator,) = moments
        if moving is not None:
            gradient.mul_(moving)
        accumulator.mul_(0.9 if moving is None else 1 - 0.1 * moving)
        accumulator.addcmul_(gradient, gradient, value=0.1 * factor**2)
        torch.sqrt(accumulator, out=scratch)
        return gradient, factor

    def fused_update(
        self, weight: Tensor, gradient: Tensor, factor: float, moments: tuple[Tensor, ...], scratch: Tensor,
        second: Tensor, moves: Tensor | None, lr: float,
    ) -> None:  # fmt: skip
        gradient = gradient if factor == 1.0 else torch.mul(gradient, factor, out=scratch)
        direction = second.copy_(gradient) if moves is None else torch.mul(gradient, moves, out=second)
        _divide(weight, direction, gradient, moments[0], 0.9, lr)


_LATE = torch.tensor(LATE)


def _approach(mean: Tensor, target: Tensor, factor: float, difference: Tensor) -> None:
    """difference = target - mean / factor; mean += 0.1 * factor * difference, in one pass on the CPU."""
    torch._fused_sgd_(
        [mean], [target], [difference],
        lr=-0.1 * factor, weight_decay=-1 / factor, momentum=1.0, dampening=0.0, nesterov=False, maximize=False,
        is_first_step=True,
    )  # fmt: skip


def _divide(
    weight: Tensor, direction: Tensor, difference: Tensor, square: Tensor, rate: float, lr: float,
    divided: float | None = None,
) -> None:  # fmt: skip
    """square = rate * square + (1 - rate) * difference^2; weight -= lr * direction / (sqrt(square) + EPSILON), in one
    pass on the CPU. divided: what the difference is divided by before (and left so)."""
    torch._fused_adam_(
        [weight], [difference], [direction], [square], [], [_LATE],
        lr=lr, beta1=STILL, beta2=rate, weight_decay=0.0, eps=EPSILON, amsgrad=False, maximize=False,
        grad_scale=None if divided is None else torch.tensor(divided), found_inf=None,
    )  # fmt: skip


def in_memory_order(tensor: Tensor) -> Tensor:
    """The elements as a 1-D view, in the order a channels_last kernel or any other contiguous tensor holds them."""
    return (tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor).reshape(-1)


def like(flat: Tensor, weight: Tensor) -> Tensor:
    """A 1-D buffer seen in the shape of `weight` and its memory order: the inverse of `in_memory_order`."""
    if weight.dim() != 4:
        return flat.view(weight.shape)
    o, i, h, w = weight.shape
    return flat.view(o, h, w, i).permute(0, 3, 1, 2)
