"""XSeg: learns which pixels of a face are face, from faces that the user labelled.

One network for src and dst together, 256 px, RMSprop with learning rate dropout; nothing of it can be chosen but the
face type and the batch. In pretraining it draws the grey picture of any face through its bottleneck instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core import autoclip, checkpointing, losses, memory
from core.batch import Batch, Captions, Page, SampleRequest, Swap
from core.compiling import Compiler
from core.modeldir import ModelError, Part
from core.nn import CHANNELS_LAST, Copy, load_state, misfit, named_tensors, state, to_dfl
from core.optim import LrDropout, Optimizer, RMSprop
from core.options import RESTART, Answers, Option, Values
from core.precision import Precision, Scaler
from core.torchcolor import in_channels
from models.common import LONG_NAMES, altered, fixed, pick, unasked
from models.knobs import OF_ANY
from models.pages import rows_of
from models.running import RUNNING, preview_rows
from models.spec import ModelSpec, PartError, Task, as_input, pieces
from models.terms import sparse
from models.xsegnet import XSegNet, init

RESOLUTION, BASE = 256, 32
RATE = 1e-4
GREEN = (0.0, 1.0, 0.0)


class XSegTask(Task):
    """The network with its loss and optimizer on one device. base: width of its first level."""

    loss_names = ("loss",)

    def __init__(
        self,
        spec: ModelSpec,
        values: Values,
        base: int = BASE,
        device: Any = "cpu",
        precision: str | None = None,
        seed: int = 0,
        training: bool = True,
    ) -> None:
        super().__init__(spec, values)
        self.seed = seed
        self._where: dict[str, Any] = {
            "base": base, "device": device, "precision": precision, "seed": seed, "training": training,
        }  # fmt: skip
        self.device = torch.device(device)
        self.precision = Precision(precision or values["mp_mode"], self.device)
        self.scaler = Scaler(self.precision)
        self.compiler = Compiler(values["compile"], self.device)
        self.resolution = int(values["resolution"])
        self.net = XSegNet(base, self.resolution)
        if self.device.type != "meta":
            init(self.net, torch.Generator().manual_seed(seed))
        self.net.to(self.device)
        if training and values["checkpointing"]:
            checkpointing.enable(self.net)
        self.stem = str(self.resolution)
        self.network_parts, self.modules = (self.stem,), {self.stem: self.net}
        weights = {f"XSeg/{name.replace('.', '/')}": weight for name, weight in self.net.named_parameters()}
        self.optimizers = {f"{self.stem}_opt": self._make_optimizer(weights)} if training else {}
        self.optional_parts = tuple(self.optimizers)
        if any(optimizer.norms is not None for optimizer in self.optimizers.values()):
            self.optional_parts += (autoclip.PART,)

    def _make_optimizer(self, weights: Mapping[str, torch.nn.Parameter]) -> Optimizer:
        values = self.values
        return RMSprop(
            weights,
            lr=values["lr"],
            weight_decay=values["weight_decay"],
            clip_norm=1.0 if values["clipgrad"] or self.precision.scales else 0.0,
            clip_history=values["clipgrad"] and values["clipgrad_mode"] == "history",
            dropout=LrDropout(self.seed),
        )

    @property
    def torn(self) -> bool:
        return any(optimizer.torn for optimizer in self.optimizers.values())

    @property
    def moved(self) -> object:
        return self.torn, *(optimizer.iterations for optimizer in self.optimizers.values())

    @property
    def pretraining(self) -> bool:
        return bool(self.values.get("pretrain"))

    def rebuild(self, values: Values) -> None:
        where = self._where
        self.compiler.let_go()
        self.optimizers, self.modules = {}, {}
        del self.net
        memory.give_back(str(self.device))
        self.__init__(self.spec, values, **where)  # type: ignore[misc]

    def let_go(self) -> None:
        self.compiler.let_go()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        memory.give_back(str(self.device))

    def upload(self, array: Any, name: str) -> Tensor:
        """See `models.spec.as_input`; channels_last."""
        tensor = as_input(array, name, self.resolution, self.device)
        return tensor.contiguous(memory_format=CHANNELS_LAST)

    def train_step(self, batch: Batch) -> dict[str, Any]:
        if not self.optimizers:
            raise RuntimeError("this task was built with training=False: it draws, it cannot be trained")
        optimizer = self.optimizers[f"{self.stem}_opt"]
        optimizer.zero_grad()
        told, seen = [], []
        for part in pieces(batch, self.values["accumulate"]):
            with self.timed("losses"):
                per_sample, drawn, wanted = self._losses(part)
            with self.timed("backward"):
                self.scaler.backward(per_sample.sum())
            told.append(per_sample.detach())
            seen.append((sparse(drawn.detach()).sigmoid(), sparse(wanted)))
            del per_sample, drawn  # with them the graph goes
        shown = torch.cat(told)
        ok = shown.sum().isfinite() if self.values.get("collapse_guard") or self.scaler.active else None
        with self.timed("optimizer"):
            updated, well = self.scaler.step((optimizer,), ok)
        if updated is not None:
            face, target = (torch.cat(pictures) for pictures in zip(*seen, strict=True))
            self.health = {"updated": well, "contrast": face.std() / (target.std() + 1e-6)}
        return {"loss": shown.mean()}

    def losses(self, batch: Batch) -> Tensor:
        """(N,) as displayed, with their graph: the gradient is of their sum."""
        return self._losses(batch)[0]

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(N,) losses, the logits (N, 1, R, R) and what they should be after the sigmoid."""
        if self.pretraining:
            image = self.upload(batch.face.warped, "warped")
            wanted, logits = in_channels(image, 1), self._logits(image, skips=False)
            drawn = logits.sigmoid()
            total = 10 * losses.mean_square(wanted, drawn)
            for share in (11.6, 23.2):
                total = total + 5 * losses.dssim(wanted, drawn, int(self.resolution / share)).mean(1)
            return total, logits, wanted
        wanted = self.upload(batch.face.label, "label")
        logits = self._logits(self.upload(batch.face.image, "image"))
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return entropy.mean((1, 2, 3)), logits, wanted

    def _logits(self, image: Tensor, skips: bool = True) -> Tensor:
        """In what the network is trained in; float32."""
        with self.timed("forward"), self.precision.step(), self.precision.autocast():
            logits: Tensor = self.compiler(self.net.forward)(image, skips)
            return logits.float()

    def soften(self) -> list[str]:
        """Gradient clipping, kept with the model."""
        if self.values["clipgrad"]:
            return []
        for optimizer in self.optimizers.values():
            optimizer.clip_norm = 1.0
        self.values["clipgrad"] = self.values.kept["clipgrad"] = True
        self.values["clipgrad_mode"] = "norm"  # no norms were gathered
        self.values.kept.pop("clipgrad_mode", None)
        return ["clipgrad: False -> True"]

    @torch.inference_mode()
    def mask(self, images: Any) -> Tensor:
        """(N, 1, R, R) [0, 1], on the task's device: how sure the network is that a pixel is face. images: (N, 3, R, R)
        float, BGR, [0, 1]."""
        return torch.sigmoid(self.net(self.upload(images, "plain"), not self.pretraining))

    def swap(self, images: Any) -> Swap:
        """Raises ModelError: this model masks faces."""
        raise ModelError(f"A model of class {self.spec.name} masks faces, it does not swap them: use `mask`.")

    @torch.inference_mode()
    def preview(self, batch: Batch) -> list[Page]:
        """DFL's pages: training faces with their labels, src faces, dst faces; cells: the face over green where it is
        no face, the mask, the face that the mask shows over green. In pretraining: the face, what is drawn of it."""
        if self.pretraining:
            image = self._first(batch.face.warped, "warped")
            drawn = torch.sigmoid(self.net(image, skips=False))
            return [("XSeg training faces", rows_of([image, drawn.expand_as(image)]))]
        image, label = self._first(batch.face.image, "image"), self._first(batch.face.label, "label")
        pages = [("XSeg training faces", self._rows(image, _over_green(image, label)))]
        for side in ("src", "dst"):
            if side in batch:
                plain = self._first(batch[side].plain, "plain")
                pages.append((f"XSeg {side} faces", self._rows(plain, plain)))
        return pages

    def _first(self, array: Any, name: str) -> Tensor:
        """The faces of a batch that fit onto a page."""
        return self.upload(array[: preview_rows(self.values, len(array))], name)

    def captions(self, batch: Batch) -> Captions:
        """The names of the faces, in the first column."""
        sides = {"face": "training"} if self.pretraining else {"face": "training", "src": "src", "dst": "dst"}
        blank = [""] if self.pretraining else ["", ""]
        found = {}
        for side, title in sides.items():
            if side in batch:
                count = preview_rows(self.values, len(next(array for _, array in batch[side].items())))
                found[f"XSeg {title} faces"] = [[batch[side].name_of(row), *blank] for row in range(count)]
        return found

    def _rows(self, image: Tensor, shown: Tensor) -> list[list[Any]]:
        mask = torch.sigmoid(self.net(image))
        return rows_of([shown, mask.expand_as(image), _over_green(image, mask)])

    def parts(self, copy: Copy = to_dfl) -> dict[str, Part]:
        optimizers = {stem: optimizer.state(copy) for stem, optimizer in self.optimizers.items()}
        norms = autoclip.part(self.optimizers, copy)
        return {self.stem: state(self.net, copy), **optimizers, **({autoclip.PART: norms} if norms else {})}

    def companions(self, stem: str) -> tuple[str, ...]:
        """The optimizer's memory is of weights that are gone."""
        return self.optional_parts if stem == self.stem else ()

    def load_parts(self, parts: Mapping[str, Part]) -> list[str]:
        """Raises PartError naming file, tensor, expected and found, before anything is changed."""
        parts = dict(parts)
        norms = parts.pop(autoclip.PART, {})
        for stem, part in parts.items():
            own = stem == self.stem
            reason = misfit(named_tensors(self.net), part) if own else self.optimizers[stem].misfit(part)
            if reason:
                raise PartError(f"{stem}.npy: {reason}. Is it a file of another model? Put the right one in its place.")
        if self.stem in parts:
            load_state(self.net, parts[self.stem])
        notes = [optimizer.load_state(parts[stem]) for stem, optimizer in self.optimizers.items() if stem in parts]
        for stem, optimizer in self.optimizers.items():
            if stem not in parts and optimizer.torn:
                optimizer.forget()
        autoclip.take(self.optimizers, norms)
        return [note for note in notes if note]


def _over_green(image: Tensor, mask: Tensor) -> Tensor:
    """The image, half green where the mask (N, 1, H, W) is 0."""
    green = image.new_tensor(GREEN).view(1, 3, 1, 1)
    return image * mask + (image + green) / 2 * (1 - mask)


def requests(values: Values) -> dict[str, SampleRequest]:
    """The labelled faces of both sides that are trained on, and faces of each side to look at; in pretraining bent
    faces of anybody."""
    plain = SampleRequest(values["resolution"], LONG_NAMES[values["face_type"]], names=("plain",))
    if values["pretrain"]:
        return {"face": replace(plain, names=("warped",), flip=True)}
    labelled = replace(plain, names=("image", "label"), flip=True, scale=0.05)
    return {
        "face": replace(labelled, plain_share=values["plain_share"] / 100),
        "src": plain,
        "dst": plain,
    }


def of_labels(answers: Answers) -> bool:
    return not answers["pretrain"]


ROWS = (
    Option(
        RESTART, "bool", "Restart training?",
        "Throws away what this model has learned: its weights begin anew, at iteration 0. The files are replaced by "
        "the first save.",
        advice="To learn another face type, or from labels that were made anew.",
        default=False, ask="again", stored=False, once=True, group="session",
    ),
    altered(
        "face_type", default="wf",
        help="How much of the head the masks are for. Your facesets must show at least as much.",
        advice="The type that you will train your faces with; wf masks serve f and mf too.",
    ),
    altered(
        "batch_size", default=4, low=2, high=16, default_text="4",
        help="How many labelled faces the network sees per iteration. More is steadier and needs more memory.",
        advice="4 to 8 are usual. It can be changed at any time.",
    ),
    altered(
        "pretrain",
        help="Draws grey faces of many people (--pretraining-data-dir) instead of masks, so that a new model knows "
        "faces before it sees your labels. Switched off again, iterations count from 0; the weights stay.",
        advice="For a new model that will see few labels.",
    ),
    # DFL's record of an XSeg has three options, so these are kept beside it.
    Option(
        "plain_share", "int", "Plain samples in percent",
        "How many labelled faces are shown as they are, flipped at most: the others are bent, blurred, recoloured and "
        "put before other surroundings, as DeepFaceLab does with all of them.",
        advice="75 to learn the outline of your faces several times as fast. Less makes masks that bear bad light, "
        "motion and strong compression better; it can be changed at any time.",
        default=0, low=0, high=100, when=of_labels, condition="not in pretraining", ask="advance", stored=False,
        group="training",
    ),
    *(
        replace(row, stored=False)
        for row in unasked(
            *pick("autobackup_hour", "write_preview_history", "choose_preview_history", "target_iter"),
            *pick("clipgrad", *OF_ANY, lr=RATE),
            *RUNNING,
        )
        if row.key not in ("augment_on", "keep_graph")
    ),
)  # fmt: skip


def make_spec(base: int = BASE, resolution: int = RESOLUTION) -> ModelSpec:
    """The model with another width or size: DFL's is 32 and 256."""
    return ModelSpec(
        name="XSeg",
        rows=ROWS + fixed(resolution=resolution, augment_on="cpu"),
        requests=requests,
        task=partial(XSegTask, base=base),
    )


XSEG = make_spec()
