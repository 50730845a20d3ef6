"""XSeg as an ONNX file: DFL's input and output, what the network sees, all or nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from labelled_faces import SIDE, SMALL, use_small_xseg
from training import here

from models import maskonnx
from models.dfm import DfmError
from models.xseg import XSegTask


@pytest.fixture
def task() -> XSegTask:
    """A network whose norms and thresholds are not those of a new one."""
    built = SMALL.build(SMALL.resolve({}), seed=2, training=False)
    assert isinstance(built, XSegTask)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in built.net.named_parameters():
            if "frn" in name or "tlu" in name:
                weight.add_(torch.rand(weight.shape, generator=generator) * 0.2)
    return built


def test_the_file_sees_what_the_network_sees(task: XSegTask, tmp_path: Path) -> None:
    path = tmp_path / "XSeg_model.onnx"
    assert maskonnx.export(task, path)["out_mask:0"] < 1e-4
    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import] == [13]
    assert [value.name for value in model.graph.input] == ["in_face:0"]
    assert [value.name for value in model.graph.output] == ["out_mask:0"]
    image = np.random.default_rng(0).random((2, SIDE, SIDE, 3), np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (seen,) = session.run(None, {"in_face:0": image})
    wanted = task.mask(np.ascontiguousarray(np.moveaxis(image, -1, 1))).numpy()
    np.testing.assert_allclose(seen, np.moveaxis(wanted, 1, -1), atol=1e-4)


def test_a_file_that_sees_something_else_is_not_kept(
    task: XSegTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maskonnx, "LIMIT", 0.0)
    path = tmp_path / "a.onnx"
    path.write_bytes(b"before")
    with pytest.raises(DfmError, match="off what the network sees"):
        maskonnx.export(task, path)
    assert path.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


def test_exportdfm(task: XSegTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a question: DFL has none here."""
    use_small_xseg(monkeypatch)
    task.data.iter = 7
    task.save(tmp_path, "XSeg")
    done = here(["", "", "exportdfm", "--model-dir", str(tmp_path), "--model", "XSeg", "--ask"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "iteration 7" in done.stdout and (tmp_path / "XSeg_model.onnx").is_file()
    assert "quantized" not in done.stdout
