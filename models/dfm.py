"""A swap network as a .dfm: one ONNX file that DeepFaceLive and others load, with DFL's input and outputs.

    from models import dfm
    dfm.export(task, "anna_SAEHD_model.dfm", name="anna")

`in_face:0` (N, r, r, 3) BGR [0, 1], of AMP `morph_value:0` (1,) [0, 1] too -> `out_face_mask:0` (dst's mask),
`out_celeb_face:0` (src's face with dst's expression), `out_celeb_face_mask:0` (src's mask); float32, any N. The file
takes its name only after onnxruntime has drawn from it what the network draws. Needs the extra `dfm`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnxruntime.capi import onnxruntime_pybind11_state as runtime
from torch import Tensor, nn

from core.dflfile import write_bytes
from core.modeldir import ModelError
from core.nn import Conv
from core.onnxgraph import BATCH, OnnxError, Shape, to_onnx
from core.torchcolor import GREY
from core.version import VERSION
from models.swap import SwapNet, SwapTask

INPUT = "in_face:0"
OUTPUTS = {"out_face_mask:0": "dst_mask", "out_celeb_face:0": "face", "out_celeb_face_mask:0": "src_mask"}
"""The outputs in DFL's order, and which field of Swap each is."""

LIMITS = {False: 1e-3, True: 5e-3}
"""How far an output may be from the network's, by `quantize`."""

ERRORS_ONLY = 3  # of onnxruntime's log: it warns of a dense matrix too large to be widened when the file is loaded
PROBES = (1, 3)  # batch sizes of the comparison
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
NOTICE = (
    "The faces this network draws are synthetic media: people seem to do what they never did. Use it only with the "
    "consent of everybody shown, and label every picture and video made with it as synthetic."
)
RUNTIME_ERRORS = (
    runtime.Fail, runtime.InvalidArgument, runtime.InvalidGraph, runtime.InvalidProtobuf, runtime.NoSuchFile,
    runtime.NotImplemented, runtime.RuntimeException,
)  # fmt: skip


class DfmError(ModelError):
    """A .dfm that cannot be made or does not draw what the network draws. What was at its place is untouched."""


class Drawing(nn.Module):
    """What the file computes of a swap network: `SwapNet.swap` in DFL's axes and order. A grey network too takes and
    gives three channels, as programs expect them."""

    def __init__(self, net: SwapNet) -> None:
        super().__init__()
        self.net = net
        self.grey = Conv(3, 1, 1)
        with torch.no_grad():
            self.grey.weight.copy_(torch.tensor(GREY)[None, :, None, None])
            self.grey.bias.zero_()

    def forward(self, in_face: Tensor) -> tuple[Tensor, ...]:
        return self.draw(in_face)

    def draw(self, in_face: Tensor, *knobs: Tensor) -> tuple[Tensor, ...]:
        x = in_face.permute(0, 3, 1, 2)  # (N, 3, r, r)
        face, src_mask, dst_mask = self.net.swap(self.grey(x) if self.net.channels == 1 else x, *knobs)
        if self.net.channels == 1:
            face = torch.cat((face, face, face), 1)
        drawn = {"face": face, "src_mask": src_mask, "dst_mask": dst_mask}
        return tuple(drawn[field].permute(0, 2, 3, 1) for field in OUTPUTS.values())  # (N, r, r, C)


class TurnedDrawing(Drawing):
    """The same of a network with one knob: torch.fx wants to know the number of inputs."""

    def forward(self, in_face: Tensor, knob: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return self.draw(in_face, knob)


def export(
    task: SwapTask,
    path: str | Path,
    *,
    name: str,
    iteration: int | None = None,
    quantize: bool = False,
    drawing: nn.Module | None = None,
    knobs: Mapping[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """Writes the swap of `task` to `path`; returns how far each output is from the network's at most.

    name, iteration (the task's own by default): what the file says of itself. quantize: convolutions in float16, half
    the size. A knob of the network becomes an input. For another network: `drawing` is what is written,
    `forward(in_face, *knobs)`, and `knobs` its further inputs, ONNX name -> the float32 value to compare with;
    `task.swap(images, *knobs)` must take them too. Raises DfmError or OSError; then a file that was at `path` is still
    there, and nothing else.
    """
    path = Path(path)
    side = task.values["resolution"]
    turned = [knobs or {}]
    if drawing is None:
        drawing, turned = (TurnedDrawing if task.net.knobs else Drawing)(task.net), turns(task.net)
    inputs: dict[str, Shape] = {INPUT: (BATCH, side, side, 3), **{key: knob.shape for key, knob in turned[0].items()}}
    try:
        model = to_onnx(drawing, inputs, list(OUTPUTS), half=quantize)
        describe(model, task, name, task.iteration if iteration is None else iteration, quantize)
        content = model.SerializeToString()
        del model  # a large one is held often enough: by the task, here, and by onnxruntime
        onnx.checker.check_model(content, full_check=True)
    except (OnnxError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise DfmError(f"{name} cannot become a .dfm: {error}.") from error
    fresh = path.with_name(path.name + ".new")
    try:
        write_bytes(fresh, content)
        differences = compare(task, fresh, turned)
        worst, limit = float(np.max(list(differences.values()))), LIMITS[quantize]
        if not worst <= limit:  # also for a NaN
            advice = "export it without quantizing" if quantize else "tell the makers of facesmith"
            raise DfmError(
                f"{path.name} would draw up to {worst:.2g} off what the network draws, allowed is {limit:g}: {advice}."
            )
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return differences


def describe(model: onnx.ModelProto, task: SwapTask, name: str, iteration: int, quantize: bool) -> None:
    """Writes into the file who made it, of what, and what its pictures are."""
    model.producer_name, model.producer_version = "facesmith", VERSION
    model.model_version = iteration
    model.doc_string = NOTICE
    known = {key: task.values[key] for key in ("resolution", "face_type", "archi") if key in task.values}
    facts = {
        "made_by": f"facesmith {VERSION}",
        "model_name": name,
        "model_class": task.spec.name,
        "iteration": iteration,
        **known,
        "weights": "float16" if quantize else "float32",
        "synthetic_media": NOTICE,
        "digital_source_type": SOURCE_TYPE,
    }
    onnx.helper.set_model_props(model, {key: str(fact) for key, fact in facts.items()})


def turns(net: SwapNet) -> list[Mapping[str, np.ndarray]]:
    """What the file is compared at: the values of the network's knob, by ONNX name, (1,) float32 each."""
    if not net.knobs:
        return [{}]
    ((knob, values),) = net.knobs.items()
    return [{f"{knob}:0": np.array([value], np.float32)} for value in values]


def compare(task: SwapTask, path: Path, turned: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """The largest difference of every output between the file, run by onnxruntime, and the network, with the knobs
    turned one way after another."""
    generator = torch.Generator().manual_seed(0)
    apart: dict[str, list[float]] = {output: [] for output in OUTPUTS}
    try:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = ERRORS_ONLY
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        for count in PROBES:
            patches = noise(count, task.values["resolution"], generator)[:, : task.net.channels]
            for knobs in turned:
                further = [torch.from_numpy(knob) for knob in knobs.values()]
                # What the network draws of colourful noise is a face: the kind of picture it will be given.
                images = task.swap(patches, *further).face.cpu()
                shown = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
                given: dict[str, Any] = {INPUT: shown, **knobs}
                drawn = session.run(list(OUTPUTS), given)
                swap = task.swap(images, *further)
                for (output, field), array in zip(OUTPUTS.items(), drawn, strict=True):
                    wanted = getattr(swap, field).permute(0, 2, 3, 1).cpu().numpy()
                    apart[output].append(float(np.abs(array - wanted).max()))
    except RUNTIME_ERRORS as error:
        raise DfmError(f"onnxruntime cannot run {path.name}: {str(error).splitlines()[0]}") from error
    return {output: float(np.max(values)) for output, values in apart.items()}


def noise(count: int, side: int, generator: torch.Generator) -> Tensor:
    """(count, 3, side, side) [0, 1]: random patches of colour, with soft edges."""
    patches = torch.rand(count, 3, 8, 8, generator=generator)
    return F.interpolate(patches, size=(side, side), mode="bicubic", align_corners=False).clamp(0, 1)
