"""The .dfm: what is in it, that it draws what the network draws, and what happens when it cannot be written."""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnxruntime") is None:
    pytest.skip('needs onnx and onnxruntime: pip install -e ".[dfm]"', allow_module_level=True)

import onnx
import onnxruntime

from core import dflfile
from core.batch import Swap
from core.onnxgraph import MAX_BYTES, OnnxError, to_onnx
from core.version import VERSION
from models import MODELS, dfm
from models.swap import SwapTask

ARCHIS = [
    kind + ("-" + "".join(flags) if flags else "")
    for kind in ("df", "liae")
    for count in range(5)
    for flags in itertools.combinations("udtc", count)
]
SMALL = {"resolution": 64, "ae_dims": 8, "e_dims": 4, "d_dims": 6, "d_mask_dims": 4, "face_type": "wf"}


def build(archi: str, **sizes: int) -> SwapTask:
    """A model with random weights, biases too: a fresh one has none."""
    spec = MODELS["SAEHD"]
    task = spec.build(spec.resolve({}, {**SMALL, "archi": archi, **sizes}), seed=3, training=False)
    assert isinstance(task, SwapTask)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in task.net.parameters():
            if weight.dim() == 1:
                weight.uniform_(-0.2, 0.2, generator=generator)
    return task


def draw(path: Path, faces: np.ndarray) -> list[np.ndarray]:
    """What a program without any of ours gets for faces (N, r, r, 3)."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"in_face:0": faces}))


def swap(task: SwapTask, faces: np.ndarray) -> list[np.ndarray]:
    """The same from the network, in the order of the file."""
    drawn = task.swap(torch.from_numpy(faces).permute(0, 3, 1, 2))
    return [image.permute(0, 2, 3, 1).numpy() for image in (drawn.dst_mask, drawn.face, drawn.src_mask)]


def some_faces(count: int, side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, side, side, 3), dtype=np.float32)


# The file


@pytest.mark.parametrize("archi", ARCHIS)
def test_every_architecture_draws_the_same(archi: str, tmp_path: Path) -> None:
    task, path, faces = build(archi), tmp_path / "a_SAEHD_model.dfm", some_faces(2)
    expected = swap(task, faces)
    for quantize, limit in ((False, 1e-5), (True, 5e-3)):
        told = dfm.export(task, path, name="a", quantize=quantize)
        assert list(told) == ["out_face_mask:0", "out_celeb_face:0", "out_celeb_face_mask:0"]
        assert max(told.values()) < limit
        for ours, wanted in zip(draw(path, faces), expected, strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, wanted, atol=limit)
        kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
        assert not {"Shape", "Gather", "Slice", "Split", "Pad", "Identity", "Constant"} & set(kinds)
        assert kinds["Transpose"] == 4 and quantize == ("Cast" in kinds)
        assert kinds["Concat"] == archi.startswith("liae")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_inputs_outputs_and_what_the_file_says_of_itself(tmp_path: Path) -> None:
    task, path = build("df-ud"), tmp_path / "bo b_SAEHD_model.dfm"
    dfm.export(task, path, name="bo b", iteration=1234)
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 12)] and model.ir_version == 7

    def shapes(values: Any) -> dict[str, list[int | str]]:
        return {
            value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in values
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        }

    assert shapes(model.graph.input) == {"in_face:0": ["N", 64, 64, 3]}
    masks = ["N", 64, 64, 1]
    outputs = {"out_face_mask:0": masks, "out_celeb_face:0": ["N", 64, 64, 3], "out_celeb_face_mask:0": masks}
    assert list(shapes(model.graph.output).items()) == list(outputs.items())
    assert not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    told = {entry.key: entry.value for entry in model.metadata_props}
    facts = {"made_by": f"facesmith {VERSION}", "model_name": "bo b", "model_class": "SAEHD", "iteration": "1234"}
    facts |= {"resolution": "64", "face_type": "wf", "archi": "df-ud", "weights": "float32"}
    assert facts.items() <= told.items()
    assert told["digital_source_type"].startswith("http://cv.iptc.org/newscodes/digitalsourcetype/composite")
    assert (
        re.search("synthetic.*consent.*label", told["synthetic_media"]) and model.doc_string == told["synthetic_media"]
    )
    assert (model.producer_name, model.producer_version, model.model_version) == ("facesmith", VERSION, 1234)


def test_any_number_of_faces(tmp_path: Path) -> None:
    task, path = build("liae-udt"), tmp_path / "a.dfm"
    dfm.export(task, path, name="a")
    for count in (1, 2, 5):
        faces = some_faces(count, seed=count)
        for ours, wanted in zip(draw(path, faces), swap(task, faces), strict=True):
            np.testing.assert_allclose(ours, wanted, atol=1e-5)


def test_quantized_is_half_as_large_and_norms_stay_exact(tmp_path: Path) -> None:
    task, full, half = build("df-ud", ae_dims=64, e_dims=16, d_dims=16), tmp_path / "full.dfm", tmp_path / "half.dfm"
    dfm.export(task, full, name="a")
    dfm.export(task, half, name="a", quantize=True)
    assert 0.48 < half.stat().st_size / full.stat().st_size < 0.53
    graph = onnx.shape_inference.infer_shapes(onnx.load(half)).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Conv", "LeakyRelu", "DepthToSpace"):
            assert {types[name] for name in node.input} == {onnx.TensorProto.FLOAT16}, node.name
        elif node.op_type in ("Gemm", "ReduceMean", "Sqrt", "Reciprocal", "Sigmoid"):
            assert {types[name] for name in node.input} == {onnx.TensorProto.FLOAT}, node.name
    assert onnx.load(half).metadata_props[-3].value == "float16"


def test_what_weights_alone_decide_is_computed_before(tmp_path: Path) -> None:
    """The four heads of `d` are one convolution, and liae's swap code, twice the same tensor, is looked at once."""
    path = tmp_path / "a.dfm"
    dfm.export(build("liae-d"), path, name="a")
    graph = onnx.load(path).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    kernels = [weights[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    assert (12, 12, 3, 3) in kernels and not any(kernel[0] == 3 for kernel in kernels)
    first = [kernel for kernel in kernels if kernel[1] in (16, 32) and kernel[2] == 3]
    assert sorted(kernel[1] for kernel in first if kernel[0] in (4 * 48, 4 * 32)) == [16, 16, 32]


def test_a_genuine_dfl_model(shared: Path, tmp_path: Path) -> None:
    folder = shared / "golden" / "genuine_saehd_df"
    name = "saehd-df-64-rmsprop"
    spec = MODELS["SAEHD"]
    stored = dflfile.load(folder / f"{name}_SAEHD_data.dat")["options"]
    task = spec.build(spec.resolve({}, stored), training=False)
    task.load(folder, name)
    assert isinstance(task, SwapTask)
    recorded = np.load(folder / "_io.npz")
    for quantize, limit in ((False, 1e-5), (True, 5e-3)):
        dfm.export(task, tmp_path / "a.dfm", name=name, quantize=quantize)
        drawn = draw(tmp_path / "a.dfm", recorded["in_gen1_1"])
        for ours, key in zip(drawn, ("dst_dstm", "src_dst", "src_dstm"), strict=True):
            np.testing.assert_allclose(ours, recorded[key], atol=limit)


# When it cannot be


def spoil(task: SwapTask, value: float) -> None:
    with torch.no_grad():
        task.net.get_parameter("decoder_src.upscale0.conv1.bias")[0] = value


@pytest.mark.parametrize(
    ("quantize", "value", "message"),
    [(False, float("nan"), "would draw up to nan off"), (True, 1e6, "export it without quantizing")],
)
def test_a_file_that_draws_something_else_is_not_kept(
    quantize: bool, value: float, message: str, tmp_path: Path
) -> None:
    task, path = build("df"), tmp_path / "a_SAEHD_model.dfm"
    path.write_bytes(b"the old one")
    spoil(task, value)
    with pytest.raises(dfm.DfmError, match=message):
        dfm.export(task, path, name="a", quantize=quantize)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {path.name: b"the old one"}


def test_a_graph_that_draws_something_else_is_not_kept(tmp_path: Path) -> None:
    """The comparison is with the task's own swap, whatever was written."""

    class Mistaken(dfm.Drawing):
        def forward(self, in_face: Tensor) -> tuple[Tensor, ...]:
            mask, face, other = super().forward(in_face)
            return mask, face * 0.99, other

    task = build("df")
    with pytest.raises(dfm.DfmError, match=r"would draw up to 0\.00\d+ off what the network draws, allowed is 0\.001"):
        dfm.export(task, tmp_path / "a.dfm", name="a", drawing=Mistaken(task.net))
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_load_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = dfm.write_bytes
    monkeypatch.setattr(dfm, "write_bytes", lambda path, content: write(path, content[:-1000]))
    with pytest.raises(dfm.DfmError, match=r"onnxruntime cannot run a\.dfm\.new: .*"):
        dfm.export(build("df"), tmp_path / "a.dfm", name="a")
    assert not list(tmp_path.iterdir())


class Layers(nn.Module):
    """A few operations, no network."""

    def __init__(self, forward: Any, **weights: Tensor) -> None:
        super().__init__()
        self.function = forward
        for name, weight in weights.items():
            self.register_buffer(name, weight)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.function(self, x),)


def test_what_cannot_be_written_is_refused_by_name() -> None:
    with pytest.raises(OnnxError, match="calls tanh"):
        to_onnx(Layers(lambda own, x: torch.tanh(x)), {"x": ("N", 4)}, ["y"])
    wide = torch.zeros(1, 1).expand(30_000, MAX_BYTES // 100_000)
    with pytest.raises(OnnxError, match=r"2\.6 GB, an ONNX file holds 2\.1 GB"):
        to_onnx(Layers(lambda own, x: torch.addmm(own.b, x, own.w), w=wide, b=wide[0]), {"x": ("N", 30_000)}, ["y"])


@pytest.mark.parametrize("half", [False, True])
def test_operations_no_architecture_needs_all_at_once(half: bool) -> None:
    def forward(own: Layers, x: Tensor) -> Tensor:
        first, second = torch.conv2d(x, own.w, own.b, 1, 1).chunk(2, 1)  # of no Concat: a Split
        views = [x.view(-1, 32).view(-1, 4, 8).view(-1, 2, 4, 4) * 0.5 for _ in range(2)]
        return torch.cat((second, first + 1, *views), 1)  # of float16 and float32

    generator = torch.Generator().manual_seed(0)
    layers = Layers(forward, w=torch.rand(4, 2, 3, 3, generator=generator), b=torch.rand(4, generator=generator))
    model = to_onnx(layers, {"x": ("N", 2, 4, 4)}, ["y"], half)
    x = torch.rand(3, 2, 4, 4, generator=generator)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], layers(x)[0], atol=1e-2 if half else 1e-6)


def test_a_further_input(tmp_path: Path) -> None:
    """As AMP's morph value: the file takes it, and the task's swap is asked with the same one."""
    net = build("df").net

    class Morphing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, in_face: Tensor, morph: Tensor) -> tuple[Tensor, ...]:
            face, mask = self.net.decode(self.net.code(in_face.permute(0, 3, 1, 2), "dst"), "src")
            return tuple(image.permute(0, 2, 3, 1) for image in (mask, face * morph, mask))

    def morphed(images: Tensor, morph: Tensor) -> Swap:
        with torch.no_grad():
            face, mask = net.decode(net.code(images, "dst"), "src")
        return Swap(face * morph, mask, mask)

    task: Any = SimpleNamespace(values=SMALL, spec=MODELS["SAEHD"], iteration=5, net=net, swap=morphed)
    path = tmp_path / "a.dfm"
    knobs = {"morph_value:0": np.array([0.25], np.float32)}
    assert max(dfm.export(task, path, name="a", drawing=Morphing(), knobs=knobs).values()) < 1e-5
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape) for value in session.get_inputs()][1] == ("morph_value:0", [1])
    dark = session.run(["out_celeb_face:0"], {"in_face:0": some_faces(1), "morph_value:0": np.zeros(1, np.float32)})
    assert float(np.abs(dark[0]).max()) == 0
