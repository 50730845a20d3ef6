"""SwapTask: trains any network that draws two persons from codes, with DFL's losses and optimizers.

One step is one forward of both sides through the shared parts, one loss over both, one backward, one update. The swap
itself is drawn only for the style terms, a second forward without gradients only for adversaries
(`_train_adversaries`). Losses are means over the batch for display, the gradient is of their sum over the batch (DFL),
so a larger batch takes larger steps into the same optimizer. As sums add up, a batch may go through in pieces
(`accumulate`) and one side after the other (`keep_graph` off), for less memory and the same step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core import autoclip, checkpointing, losses, memory, msssim
from core.batch import Batch, Captions, Page, Swap
from core.compiling import Compiler
from core.modeldir import Part
from core.nn import CHANNELS_LAST, Copy, load_state, misfit, named_tensors, state, to_dfl
from core.optim import AdaBelief, LrDropout, Optimizer, RMSprop
from core.options import Values
from core.precision import Precision, Scaler
from models.net import OPTIMIZER
from models.net import SwapNet as SwapNet
from models.recipe import Recipe
from models.running import faces_per_iteration
from models.spec import ModelSpec, PartError, Task, as_input, pieces
from models.terms import SIDES, Drawn, Inputs, Losses, Told, background_style, face_style

CODES = 0x5EED_C0DE  # what is drawn for codes is drawn apart from what lr dropout draws of the same seed


class SwapTask(Task):
    """A swap network with its losses, adversaries and optimizers on one device. recipe: what this kind of model does
    its own way."""

    loss_names = ("src_loss", "dst_loss")

    def __init__(
        self,
        spec: ModelSpec,
        values: Values,
        recipe: Recipe,
        device: Any = "cpu",
        precision: str | None = None,
        seed: int = 0,
        training: bool = True,
    ) -> None:
        super().__init__(spec, values)
        self._where: dict[str, Any] = {
            "recipe": recipe, "device": device, "precision": precision, "seed": seed, "training": training
        }  # fmt: skip
        self.recipe, self.seed = recipe, seed
        self.device = torch.device(device)
        self.precision = Precision(precision or values["mp_mode"], self.device)
        self.scaler = Scaler(self.precision)
        self.compiler = Compiler(values["compile"], self.device)
        generator = torch.Generator().manual_seed(seed)
        self.net = recipe.make_net(values, generator).to(self.device)
        self.adversaries = recipe.make_adversaries(values, self.net, generator) if training else {}
        self.network_parts = self.net.parts
        self.modules = {part: self.net.get_submodule(part) for part in self.net.parts}
        self.optimizers: dict[str, Optimizer] = {}
        if training:
            if values["checkpointing"]:
                checkpointing.enable(self.net)
            trained = self.net.trained(values)
            for part, module in self.modules.items():
                module.requires_grad_(part in trained)
            for number, (stem, parts) in enumerate(self.net.optimized(values).items()):
                named = {name: w for name, w in self.net.named_parameters() if name.partition(".")[0] in parts}
                self.optimizers[stem] = self._make_optimizer(named, trained, seed + number, values["weight_decay"])
        self.net_optimizers = tuple(self.optimizers.values())
        for number, adversary in enumerate(self.adversaries.values(), len(self.optimizers)):
            adversary.net.to(self.device)
            self.modules[adversary.stem] = adversary.net
            named = {f"{adversary.scope}.{name}": weight for name, weight in adversary.net.named_parameters()}
            adversary.optimizer = self._make_optimizer(named, (adversary.scope,), seed + number)
            adversary.compute_in(self.precision)
            self.optimizers[adversary.optimizer_stem] = adversary.optimizer
        self.optional_parts = tuple(stem for stem in (*self.modules, *self.optimizers) if stem not in self.net.parts)
        if any(optimizer.norms is not None for optimizer in self.optimizers.values()):
            self.optional_parts += (autoclip.PART,)

    def rebuild(self, values: Values) -> None:
        """Anew with other options: the network is a fresh one until `load`. What was held is given back first."""
        where = self._where
        self.compiler.let_go()
        self.adversaries, self.modules, self.optimizers, self.net_optimizers = {}, {}, {}, ()
        del self.net
        memory.give_back(str(self.device))
        self.__init__(self.spec, values, **where)  # type: ignore[misc]

    def _make_optimizer(
        self, named: Mapping[str, nn.Parameter], trained: Collection[str], seed: int, weight_decay: float = 0.0
    ) -> Optimizer:
        """The optimizer of weights named `<part>.<weight>`, of which those of `trained` parts move."""
        values = self.values
        weights = {name.replace(".", "/"): weight for name, weight in named.items()}
        slow = values["lr_dropout"] != "n"
        return (AdaBelief if values["adabelief"] else RMSprop)(
            weights,
            trained=[name for name in weights if name.partition("/")[0] in trained],
            lr=values["lr"],
            weight_decay=weight_decay,
            clip_norm=1.0 if values["clipgrad"] or self.precision.scales else 0.0,
            clip_history=values["clipgrad"] and values["clipgrad_mode"] == "history",
            lr_cos=self.recipe.lr_cos if slow else 0,
            dropout=LrDropout(seed, on_cpu=values["lr_dropout"] == "cpu") if slow else None,
            offload=self.device.type != "cpu" and not values["models_opt_on_gpu"],
        )

    @property
    def optimizer(self) -> Optimizer:
        """The network's own, of those DFL's. Raises RuntimeError in a task that only draws."""
        self._must_train()
        return self.optimizers[OPTIMIZER]

    def _must_train(self) -> None:
        if not self.optimizers:
            raise RuntimeError("this task was built with training=False: it draws, it cannot be trained")

    @property
    def torn(self) -> bool:
        """Every optimizer knows of its own update. Between two of them all weights are whole: the network may then be
        a step ahead of an adversary, which does no harm."""
        return any(optimizer.torn for optimizer in self.optimizers.values())

    @property
    def moved(self) -> object:
        return self.torn, *(optimizer.iterations for optimizer in self.optimizers.values())

    @property
    def repeats(self) -> bool:
        every = self.recipe.unwarped_every
        return bool(every and self.iteration and self.iteration % every == 0)

    def let_go(self) -> None:
        self.compiler.let_go()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        memory.give_back(str(self.device))

    def upload(self, array: Any, name: str) -> Tensor:
        """See `models.spec.as_input`."""
        return as_input(array, name, self.values["resolution"], self.device, self.net.channels)

    def both(self, batch: Batch, name: str) -> Tensor:
        """(2N, C, H, W): the arrays `name` of src, then of dst. Raises ValueError for sides of unequal size."""
        src, dst = (self.upload(batch[side][name], name) for side in SIDES)
        if len(src) != len(dst):
            raise ValueError(f"{name}: got {len(src)} faces of src and {len(dst)} of dst, both sides must be alike.")
        return torch.cat((src, dst))

    def train_step(self, batch: Batch) -> dict[str, Any]:
        self._must_train()
        for optimizer in self.net_optimizers:
            optimizer.zero_grad()
        parts = pieces(batch, self.values["accumulate"])
        kept = [self.inputs(batch)] if len(parts) == 1 else None  # of several pieces they would be too much to keep
        total, told = self._gradients(kept or map(self.inputs, parts))
        ok = total.isfinite() if self.values.get("collapse_guard") or self.scaler.active else None
        with self.timed("optimizer"):
            updated, well = self.scaler.step(self.net_optimizers, ok)
        if self.adversaries and not self.values.get("pretrain"):
            with self.timed("adversaries"):
                self._train_adversaries(kept or map(self.inputs, parts), updated)
        if updated is not None:
            self.health = {"updated": well, "contrast": told.contrast()}
        return {f"{side}_loss": torch.cat(told.losses[side]).mean() for side in SIDES}

    def _gradients(self, each_piece: Iterable[Inputs]) -> tuple[Tensor, Told]:
        """Adds up the gradients of all pieces of a batch; returns the sum of what they are of, 0-d, and what is told of
        the step."""
        draws, told = self.draws(), Told()
        total = torch.zeros((), device=self.device)
        for inputs in each_piece:
            for sides in [SIDES] if self.values["keep_graph"] else [(side,) for side in SIDES]:
                loss = self._loss(inputs, sides, draws, told)
                with self.timed("backward"):
                    self.scaler.backward(loss)
                total = total + loss.detach()
        return total, told

    def _loss(self, inputs: Inputs, sides: tuple[str, ...], draws: torch.Generator, told: Told) -> Tensor:
        """What the gradient follows, 0-d, of a pass over `sides`. Nothing else holds its graph."""
        with self.timed("losses"), self.precision.step():
            found = self._losses(inputs, sides, draws)
        total = found.shown.sum()
        for term in (*found.of_src, *found.hidden):
            total = total + term.sum()
        told.hear(found, inputs.of(sides), sides)
        return total

    def draws(self) -> torch.Generator:
        """For what is random in this iteration's codes: of seed and iteration alone, and on the CPU, so that it is the
        same on every device, after a resumed run and at a second asking."""
        mixed = (self.seed * 0x9E3779B1 + self.iteration) ^ CODES
        generator = torch.Generator().manual_seed(mixed & 0x7FFFFFFFFFFFFFFF)
        if self.net.randoms:  # those of the faces before this process's own
            first = self.world.rows(faces_per_iteration(self.values)).start
            torch.rand(first * self.net.randoms, generator=generator)
        return generator

    def losses(self, batch: Batch) -> Tensor:
        """(2N,) losses as they are displayed, src then dst, with their graph."""
        with self.precision.step():
            found = self._losses(self.inputs(batch), SIDES, self.draws())
        src, dst = found.shown.chunk(2)
        return torch.cat((sum(found.of_src, src), dst))

    def soften(self) -> list[str]:
        """Gradient clipping, and a tenth of what pulls at the network from outside; stored with the model."""
        lines, values = [], self.values
        changes: dict[str, Any] = {} if values["clipgrad"] else {"clipgrad": True}
        if changes:
            values["clipgrad_mode"] = "norm"  # no norms were gathered
            values.kept.pop("clipgrad_mode", None)
        powers = ("gan_power", "true_face_power", "face_style_power", "bg_style_power")
        changes |= {key: values[key] / 10 for key in powers if values.get(key)}
        for key, value in changes.items():
            lines.append(f"{key}: {values[key]} -> {value}")
            values[key] = values.chosen[key] = self.data.options[key] = value
        for optimizer in self.optimizers.values():
            optimizer.clip_norm = 1.0
        for adversary in self.adversaries.values():
            adversary.power /= 10
        return lines

    def inputs(self, batch: Batch) -> Inputs:
        values, resolution = self.values, self.values["resolution"]
        target, mask = self.both(batch, "target"), self.both(batch, "mask")
        if values["blur_out_mask"]:
            target = losses.blur_out_mask(target, mask, resolution)
        warped = target if self.repeats else self.both(batch, "warped")
        warped = warped.contiguous(memory_format=CHANNELS_LAST)
        mask_em = self.both(batch, "mask_em") if values["eyes_mouth_prio"] else None
        return Inputs(warped, target, mask, self.recipe.soft_mask(mask, resolution), mask_em)

    def _draw(self, inputs: Inputs, sides: tuple[str, ...], draws: torch.Generator) -> Drawn:
        with self.timed("forward"), self.precision.autocast():
            codes = self._codes(inputs.warped, sides, draws)
            if sides == SIDES:
                face, mask = self.compiler(self.net.decode_both)(codes)
            else:
                face, mask = self.compiler(self.net.decode)(codes, sides[0])
        return Drawn(sides, codes, face.contiguous(), mask)

    def _codes(self, warped: Tensor, sides: tuple[str, ...], draws: torch.Generator) -> Tensor:
        """The codes of `sides` in training."""
        codes: Tensor
        if sides == SIDES:
            codes = self.compiler(self.net.codes)(warped, self.net.drawn(len(warped) // 2, draws))
        else:
            drawn = self.net.drawn(len(warped), draws) if sides == ("src",) else None
            codes = self.compiler(self.net.code)(warped, sides[0], drawn)
        return codes

    def _losses(self, inputs: Inputs, sides: tuple[str, ...], draws: torch.Generator) -> Losses:
        """Those of a pass over `sides`. inputs: of both, as the style terms look at both."""
        values, resolution, own = self.values, self.values["resolution"], inputs.of(sides)
        drawn = self._draw(own, sides, draws)
        shown, compared = own.target, drawn.face
        if values["masked_training"]:
            shown, compared = own.target * own.soft, drawn.face * own.soft
        total = msssim.image_loss(values["loss_function"], shown, compared, resolution, self.recipe.both_scales)
        total = total + losses.mask_loss(own.mask, drawn.mask)
        if own.mask_em is not None:
            total = total + losses.eyes_mouth_loss(own.target, drawn.face, own.mask_em)
        of_src, hidden = [], []
        if (power := values.get("face_style_power")) and "dst" in sides:
            of_src.append(power * face_style(self.net, drawn.of("dst"), self.precision))
        if (power := values.get("bg_style_power")) and "dst" in sides:
            of_src.append(power * background_style(self.net, drawn.of("dst").code, inputs, self.precision))
        if (judge := self.adversaries.get("code_discriminator")) and "src" in sides:
            hidden.append(judge.fool(drawn.of("src").code))
        if judge := self.adversaries.get("GAN"):
            if self.recipe.judges_dst or sides == ("src",):
                hidden.append(judge.fool(compared))
            elif "src" in sides:
                hidden.append(judge.fool(compared.chunk(2)[0]))
        return Losses(total, of_src, hidden + self.recipe.beside(values, inputs, drawn), drawn.face)

    def _train_adversaries(self, each_piece: Iterable[Inputs], ok: Tensor | None) -> None:
        """DFL shows the adversaries what the network draws after its update: one fresh forward without gradients, of
        what they need."""
        draws = self.draws()
        for judge in self.adversaries.values():
            judge.begin()
        for inputs in each_piece:
            self._show_adversaries(inputs, draws)
        for judge in self.adversaries.values():
            judge.step(ok)

    def _show_adversaries(self, inputs: Inputs, draws: torch.Generator) -> None:
        both = self.recipe.judges_dst
        with torch.no_grad(), self.precision.autocast():
            if both or "code_discriminator" in self.adversaries:
                codes = self._codes(inputs.warped, SIDES, draws)
            else:
                codes = self._codes(inputs.warped.chunk(2)[0], ("src",), draws)
        if judge := self.adversaries.get("code_discriminator"):
            src_code, dst_code = codes.chunk(2)
            judge.learn(dst_code, src_code, self.values["keep_graph"])
        if judge := self.adversaries.get("GAN"):
            real, soft = (array if both else array.chunk(2)[0] for array in (inputs.target, inputs.soft))
            with torch.no_grad():
                decoder = self.net.decoder_of("src")
                draw = self.compiler(self.net.faces_of_both if both else decoder.face)
                with self.precision.autocast():
                    fake = draw(codes[: len(real)])
                if self.values["masked_training"]:
                    real, fake = real * soft, fake * soft
            judge.learn(real, fake, self.values["keep_graph"])

    @torch.inference_mode()
    def swap(self, images: Any, *knobs: Any, **named: Any) -> Swap:
        """The swap of dst images, on the task's device. knobs: what the network takes besides (AMP: `morph_value`)."""
        x = self.upload(images, "target").contiguous(memory_format=CHANNELS_LAST)

        def here(knob: Any) -> Any:
            return knob.to(self.device) if isinstance(knob, Tensor) else knob

        return Swap(*self.net.swap(x, *map(here, knobs), **{name: here(knob) for name, knob in named.items()}))

    @torch.inference_mode()
    def preview(self, batch: Batch) -> list[Page]:
        return self.recipe.pages(self, batch)

    def captions(self, batch: Batch) -> Captions:
        return self.recipe.captions(self, batch)

    def parts(self, copy: Copy = to_dfl) -> dict[str, Part]:
        networks = {stem: state(module, copy) for stem, module in self.modules.items()}
        optimizers = {stem: optimizer.state(copy) for stem, optimizer in self.optimizers.items()}
        norms = autoclip.part(self.optimizers, copy)
        return networks | optimizers | ({autoclip.PART: norms} if norms else {})

    def renewed(self, stored: Mapping[str, Any]) -> dict[str, str]:
        """DFL's two rules: a first pair after pretraining has new inters, a GAN of another size is a new GAN."""
        fresh: dict[str, str] = {}
        if stored.get("pretrain") and not self.values.get("pretrain"):
            for part in self.net.fresh_after_pretraining:
                fresh[part] = f"{part} starts anew after pretraining"
        if "GAN" in self.adversaries:
            for key in ("gan_patch_size", "gan_dims"):
                if stored.get(key, self.values[key]) != self.values[key]:
                    reason = f"{key} was {stored[key]}, is {self.values[key]}: the GAN starts anew"
                    fresh |= {"GAN": reason, "GAN_opt": reason}
        return fresh

    def _misfit(self, stem: str, part: Part) -> str:
        """Why a part does not fit; empty when it does."""
        if stem in self.modules:
            return misfit(named_tensors(self.modules[stem]), part)
        return self.optimizers[stem].misfit(part)

    def companions(self, stem: str) -> tuple[str, ...]:
        """An adversary's optimizer."""
        return (self.adversaries[stem].optimizer_stem,) if stem in self.adversaries else ()

    def load_parts(self, parts: Mapping[str, Part]) -> list[str]:
        """Raises PartError naming file, tensor, expected and found, before anything is changed. An adversary that does
        not fit starts anew: its size is an option that can change at any time, also while it is not in use."""
        notes, parts = [], dict(parts)
        for adversary in self.adversaries.values():
            for stem in (adversary.stem, adversary.optimizer_stem):
                if stem in parts and (reason := self._misfit(stem, parts[stem])):
                    both = f"the {adversary.stem} starts anew, {adversary.optimizer_stem} with it"
                    notes.append(f"{stem}.npy: {reason}. So {both}.")
                    parts.pop(adversary.stem, None)
                    parts.pop(adversary.optimizer_stem, None)
        norms = parts.pop(autoclip.PART, {})
        for stem, part in parts.items():
            if reason := self._misfit(stem, part):
                raise PartError(f"{stem}.npy: {reason}. Is it a file of another model? Put the right one in its place.")
        for stem, module in self.modules.items():
            if stem in parts:
                load_state(module, parts[stem])
        for stem, optimizer in self.optimizers.items():
            if stem in parts:
                if note := optimizer.load_state(parts[stem]):
                    notes.append(note)
            elif optimizer.torn:
                optimizer.forget()
        autoclip.take(self.optimizers, norms)
        return notes
