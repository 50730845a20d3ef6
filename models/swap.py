"""SwapTask: trains any network that draws two persons from codes, with DFL's losses and optimizers.

One step is one forward of both sides through the shared parts, one loss over both, one backward, one update. The swap
itself is drawn only for the style terms, a second forward without gradients only for adversaries
(`_train_adversaries`). Losses are means over the batch for display, the gradient is of their sum over the batch (DFL),
so a larger batch takes larger steps into the same optimizer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core import autoclip, losses, memory, msssim
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
from models.spec import ModelSpec, PartError, Task, as_input
from models.terms import Inputs, background_style, contrast, face_style, of_src

SIDES = ("src", "dst")
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
        inputs = self.inputs(batch)
        with self.timed("losses"), self.precision.step():
            per_sample, hidden, face = self._losses(batch, inputs)
        total = per_sample.sum()
        for term in hidden:
            total = total + term.sum()
        with self.timed("backward"):
            self.scaler.backward(total)
        ok = total.detach().isfinite() if self.values.get("collapse_guard") or self.scaler.active else None
        with self.timed("optimizer"):
            updated, well = self.scaler.step(self.net_optimizers, ok)
        if self.adversaries and not self.values.get("pretrain"):
            with self.timed("adversaries"):
                self._train_adversaries(inputs, updated)
        if updated is not None:
            self.health = {"updated": well, "contrast": contrast(face.detach(), inputs.target)}
        src, dst = per_sample.detach().chunk(2)
        return {"src_loss": src.mean(), "dst_loss": dst.mean()}

    def draws(self) -> torch.Generator:
        """For what is random in this iteration's codes: of seed and iteration alone, and on the CPU, so that it is the
        same on every device, after a resumed run and at a second asking."""
        mixed = (self.seed * 0x9E3779B1 + self.iteration) ^ CODES
        generator = torch.Generator().manual_seed(mixed & 0x7FFFFFFFFFFFFFFF)
        if self.net.randoms:  # those of the faces before this process's own
            first = self.world.rows(self.values["batch_size"]).start
            torch.rand(first * self.net.randoms, generator=generator)
        return generator

    def losses(self, batch: Batch) -> Tensor:
        """(2N,) losses as they are displayed, src then dst, with their graph."""
        with self.precision.step():
            return self._losses(batch, self.inputs(batch))[0]

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
        return Inputs(warped, target, mask, self.recipe.soft_mask(mask, resolution))

    def _losses(self, batch: Batch, inputs: Inputs) -> tuple[Tensor, list[Tensor], Tensor]:
        """(2N,) displayed losses, src then dst; terms that the gradient follows besides, adversaries and what DFL sets
        against their artefacts; and the faces drawn."""
        values, resolution = self.values, self.values["resolution"]
        with self.timed("forward"), self.precision.autocast():
            codes = self._codes(inputs)
            face, drawn_mask = self.compiler(self.net.decode_both)(codes)
        face, shown, compared = face.contiguous(), inputs.target, face
        if values["masked_training"]:
            shown, compared = inputs.target * inputs.soft, face * inputs.soft
        total = msssim.image_loss(values["loss_function"], shown, compared, resolution, self.recipe.both_scales)
        total = total + losses.mask_loss(inputs.mask, drawn_mask)
        if values["eyes_mouth_prio"]:
            total = total + losses.eyes_mouth_loss(inputs.target, face, self.both(batch, "mask_em"))
        src_code, dst_code = codes.chunk(2)
        if power := values.get("face_style_power"):
            total = total + of_src(power * face_style(self.net, dst_code, face, drawn_mask, self.precision))
        if power := values.get("bg_style_power"):
            total = total + of_src(power * background_style(self.net, dst_code, inputs, self.precision))
        hidden = []
        if judge := self.adversaries.get("code_discriminator"):
            hidden.append(judge.fool(src_code))
        if judge := self.adversaries.get("GAN"):
            hidden.append(judge.fool(compared if self.recipe.judges_dst else compared.chunk(2)[0]))
        return total, hidden + self.recipe.beside(values, inputs, face), face

    def _codes(self, inputs: Inputs) -> Tensor:
        """The codes of both sides in training."""
        drawn = self.net.drawn(len(inputs.warped) // 2, self.draws())
        codes: Tensor = self.compiler(self.net.codes)(inputs.warped, drawn)
        return codes

    def _train_adversaries(self, inputs: Inputs, ok: Tensor | None) -> None:
        """DFL shows the adversaries what the network draws after its update: one fresh forward without gradients, of
        what they need."""
        both = self.recipe.judges_dst
        with torch.no_grad(), self.precision.autocast():
            if both or "code_discriminator" in self.adversaries:
                codes = self._codes(inputs)
            else:
                src = inputs.warped.chunk(2)[0]
                codes = self.compiler(self.net.code)(src, "src", self.net.drawn(len(src), self.draws()))
        if judge := self.adversaries.get("code_discriminator"):
            src_code, dst_code = codes.chunk(2)
            judge.step(real=dst_code, fake=src_code, ok=ok)
        if judge := self.adversaries.get("GAN"):
            real, soft = (array if both else array.chunk(2)[0] for array in (inputs.target, inputs.soft))
            with torch.no_grad():
                decoder = self.net.decoder_of("src")
                draw = self.compiler(self.net.faces_of_both if both else decoder.face)
                with self.precision.autocast():
                    fake = draw(codes[: len(real)])
                if self.values["masked_training"]:
                    real, fake = real * soft, fake * soft
            judge.step(real=real, fake=fake, ok=ok)

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
