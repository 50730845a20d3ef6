"""An XSeg network as an ONNX file, with DFL's input and output: `in_face:0` (N, r, r, 3) BGR [0, 1] -> `out_mask:0`
(N, r, r, 1) [0, 1]; float32, any N, opset 13. The file takes its name only after onnxruntime has seen in it what the
network sees. Needs the extra `dfm`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from core.dflfile import write_bytes
from core.onnxgraph import BATCH, OnnxError, to_onnx
from core.version import VERSION
from models.dfm import ERRORS_ONLY, INPUT, PROBES, RUNTIME_ERRORS, DfmError, noise
from models.xseg import XSegTask
from models.xsegnet import XSegNet

OUTPUT = "out_mask:0"
OPSET = 13
LIMIT = 1e-3


class Seeing(nn.Module):
    """What the file computes: `XSegTask.mask` in DFL's axes."""

    def __init__(self, net: XSegNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, in_face: Tensor) -> tuple[Tensor]:
        logits = self.net(in_face.permute(0, 3, 1, 2))
        return (torch.sigmoid(logits).permute(0, 2, 3, 1),)


def export(task: XSegTask, path: str | Path) -> dict[str, float]:
    """Writes the network of `task` to `path`; returns how far the output is from the network's at most. Raises DfmError
    or OSError; then a file that was at `path` is still there, and nothing else."""
    path, side = Path(path), task.resolution
    try:
        model = to_onnx(Seeing(task.net), {INPUT: (BATCH, side, side, 3)}, [OUTPUT], opset=OPSET)
        model.producer_name, model.producer_version, model.model_version = "facesmith", VERSION, task.iteration
        facts = {"model_class": task.spec.name, "iteration": task.iteration, "face_type": task.values["face_type"]}
        onnx.helper.set_model_props(model, {key: str(fact) for key, fact in facts.items()})
        content = model.SerializeToString()
        onnx.checker.check_model(content, full_check=True)
    except (OnnxError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise DfmError(f"{task.spec.name} cannot become an ONNX file: {error}.") from error
    fresh = path.with_name(path.name + ".new")
    try:
        write_bytes(fresh, content)
        worst = compare(task, fresh)
        if not worst <= LIMIT:  # also for a NaN
            raise DfmError(
                f"{path.name} would see up to {worst:.2g} off what the network sees, allowed is {LIMIT:g}: tell the "
                "makers of facesmith."
            )
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return {OUTPUT: worst}


def compare(task: XSegTask, path: Path) -> float:
    """The largest difference between the file, run by onnxruntime, and the network."""
    generator = torch.Generator().manual_seed(0)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = ERRORS_ONLY
    apart = []
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        for count in PROBES:
            images = noise(count, task.resolution, generator)
            (seen,) = session.run([OUTPUT], {INPUT: images.permute(0, 2, 3, 1).contiguous().numpy()})
            wanted = task.mask(images).permute(0, 2, 3, 1).cpu().numpy()
            apart.append(float(np.abs(seen - wanted).max()))
    except RUNTIME_ERRORS as error:
        raise DfmError(f"onnxruntime cannot run {path.name}: {str(error).splitlines()[0]}") from error
    return float(np.max(apart))
