"""A network as an ONNX graph: torch.fx lists the operations it calls, each is written as one ONNX node or two.

Notable choices:
- Not torch.onnx: of df-ud its TorchScript exporter makes 621 nodes (52 of them ask for shapes) and is deprecated, its
  other exporter makes 132, logs to the terminal and cannot come down to opset 12. Here they are 80: depth-to-space is
  one node, since ONNX has DFL's channel order (DCR).
- What depends on weights alone is computed here: the four heads of flag `d` become one kernel. A convolution that sees
  the same tensor twice (liae's swap code) sees it once, with the sum of its kernels.
- In half precision convolutions and what lies between them are float16; norms, dense layers and sigmoids compute in
  float32. Dense matrices are kept as float16 and widened when the file is loaded.
- An operation without a writer here is refused by name. That the graph computes what the network does is for the caller
  to check.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from core.frn import blur_kernel, blur_pool, norm_threshold
from core.nn import conv_transposed, depth_to_space

OPSET, IR_VERSION = 12, 7
MAX_BYTES = (1 << 31) - (1 << 20)  # protobuf's limit of a message, less what is no weight
BATCH = "N"
PROBE_BATCH = 2  # of the shapes that are followed while writing

Shape = tuple[int | str, ...]


class OnnxError(Exception):
    """A network that cannot be written as an ONNX file. Says why."""


@dataclass(frozen=True)
class Value:
    """A tensor of the graph. like: its shape, as a meta tensor; pieces: what it was joined of along the channels."""

    name: str
    like: Tensor
    half: bool = False
    pieces: tuple[Value, ...] = ()


class _Tracer(fx.Tracer):
    """Looks into every module; what has a writer of its own here stays one operation."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(depth_to_space, conv_transposed, norm_threshold, blur_pool))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return False


class Writer(fx.Interpreter):
    """Runs a traced network on `Value`s; a method `op_<name>` writes the operation of that name.

    Each is given the shape of its result (`like`) and the operation's own arguments. An operation in place is written
    as its plain twin: what it overwrites must not be used again.
    """

    def __init__(self, module: nn.Module, inputs: Mapping[str, Shape], half: bool) -> None:
        tracer = _Tracer()
        graph = tracer.trace(module)
        super().__init__(fx.GraphModule(tracer.root, graph))
        self.inputs, self.half = inputs, half
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, tuple[Tensor, bool]] = {}  # name -> value, stored as float16
        self._given = iter(inputs.items())
        self._names: dict[int, tuple[str, Tensor]] = {}  # id -> name; holding the tensor keeps the id its own
        self._casts: dict[tuple[str, bool], Value] = {}
        self._label, self._count = "", 0

    # What fx.Interpreter calls

    def run_node(self, n: fx.Node) -> Any:
        self._label, self._count = n.name, 0
        return super().run_node(n)

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        name, shape = next(self._given)
        sizes = [PROBE_BATCH if isinstance(size, str) else size for size in shape]
        return Value(name, torch.empty(sizes, device="meta"))

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        weight = super().get_attr(target, args, kwargs)
        self._names[id(weight)] = (str(target), weight)
        return weight

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._call(target.__name__, target, args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._call(target, getattr(torch.Tensor, target), args, kwargs)

    def _call(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        followed: list[Value] = []
        shapes = map_aggregate((args, kwargs), lambda leaf: self._shape(leaf, followed))
        if not followed or (function is operator.getitem and isinstance(args[0], tuple)):
            return function(*args, **kwargs)  # weights alone, or one of several results
        write = getattr(self, f"op_{name.rstrip('_')}", None)
        if write is None:
            raise OnnxError(f"the network calls {name}, which core/onnxgraph.py cannot write yet")
        return write(function(*shapes[0], **shapes[1]), *args, **kwargs)

    @staticmethod
    def _shape(leaf: Any, followed: list[Value]) -> Any:
        if isinstance(leaf, Value):
            followed.append(leaf)
            return leaf.like
        return leaf.to("meta") if isinstance(leaf, Tensor) else leaf

    # Nodes and constants

    def node(self, kind: str, like: Tensor, *inputs: Any, full: bool = False, **attributes: Any) -> Value:
        """Writes one node: in float16 where all its inputs are, unless `full`. inputs: Values, weights or numbers."""
        half = not full and all(value.half for value in inputs if isinstance(value, Value))
        names = [self.cast(x, half).name if isinstance(x, Value) else self.constant(x, half) for x in inputs]
        name = self._fresh()
        self.nodes.append(helper.make_node(kind, names, [name], name, **attributes))
        return Value(name, like, half)

    def cast(self, value: Value, half: bool) -> Value:
        """The value as float16 or float32."""
        if value.half == half:
            return value
        key = (value.name, half)
        if key not in self._casts:
            name = f"{value.name}.{'half' if half else 'full'}"
            to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            self.nodes.append(helper.make_node("Cast", [value.name], [name], name, to=to))
            self._casts[key] = Value(name, value.like, half)
        return self._casts[key]

    def constant(self, given: Any, half: bool) -> str:
        """The name of a constant. Matrices wanted in float32 are kept in float16 and widened where `self.half`."""
        tensor = given if isinstance(given, Tensor) else torch.tensor(given, dtype=torch.float32)
        name, _ = self._names.setdefault(id(tensor), (self._fresh(), tensor))
        widen = self.half and not half and tensor.dim() > 1
        name += ".half" if half or widen else ""
        self.constants[name] = (tensor, half or widen)
        return self.cast(Value(name, tensor, True), False).name if widen else name

    def shape(self, sizes: Sequence[int]) -> str:
        """The name of a constant shape."""
        tensor = torch.tensor(list(sizes), dtype=torch.int64)
        self.constants[name := self._fresh()] = (tensor, False)
        return name

    def _fresh(self) -> str:
        self._count += 1
        return self._label if self._count == 1 else f"{self._label}.{self._count}"  # fx numbers with _

    # Operations

    def op_conv2d(
        self, like: Tensor, x: Value, weight: Tensor, bias: Tensor, stride: Any = 1, padding: Any = 0
    ) -> Value:
        if x.pieces and len({piece.name for piece in x.pieces}) == 1:
            weight = torch.stack(weight.chunk(len(x.pieces), 1)).sum(0)
            x = x.pieces[0]
        strides, pads = _pair(stride), _pair(padding) * 2
        x = self.cast(x, self.half)
        return self.node("Conv", like, x, weight, bias, kernel_shape=weight.shape[2:], strides=strides, pads=pads)

    def op_addmm(self, like: Tensor, bias: Tensor, x: Value, weight: Tensor) -> Value:
        return self.node("Gemm", like, x, weight, bias, full=True)

    def op_leaky_relu(self, like: Tensor, x: Value, negative_slope: float = 0.01, inplace: bool = False) -> Value:
        return self.node("LeakyRelu", like, x, alpha=negative_slope)

    def op_sigmoid(self, like: Tensor, x: Value) -> Value:
        return self.node("Sigmoid", like, x, full=True)

    def op_cos(self, like: Tensor, x: Value) -> Value:
        return self.node("Cos", like, x)

    def op_add(self, like: Tensor, a: Any, b: Any) -> Value:
        return self.node("Add", like, a, b)

    def op_mul(self, like: Tensor, a: Any, b: Any) -> Value:
        return self.node("Mul", like, a, b)

    def op_sub(self, like: Tensor, a: Any, b: Any) -> Value:
        return self.node("Sub", like, a, b)

    def op_floor(self, like: Tensor, x: Value) -> Value:
        return self.node("Floor", like, x, full=True)

    def op_clamp(self, like: Tensor, x: Value, low: float, high: float) -> Value:
        return self.node("Clip", like, x, low, high)

    def op_square(self, like: Tensor, x: Value) -> Value:
        return self.node("Mul", like, x, x, full=True)

    def op_mean(self, like: Tensor, x: Value, dim: int, keepdim: bool = False) -> Value:
        return self.node("ReduceMean", like, x, full=True, axes=[dim % x.like.dim()], keepdims=int(keepdim))

    def op_rsqrt(self, like: Tensor, x: Value) -> Value:
        return self.node("Reciprocal", like, self.node("Sqrt", like, x, full=True), full=True)

    def op_cat(self, like: Tensor, values: Sequence[Value], dim: int = 0) -> Value:
        joined = self.node("Concat", like, *values, axis=dim)
        pieces = tuple(self.cast(value, joined.half) for value in values) if dim == 1 else ()
        return Value(joined.name, like, joined.half, pieces)

    def op_chunk(self, like: tuple[Tensor, ...], x: Value, chunks: int, dim: int = 0) -> tuple[Value, ...]:
        if dim == 1 and [piece.like.shape for piece in x.pieces] == [part.shape for part in like]:
            return x.pieces
        names = [self._fresh() for _ in like]
        sizes = [part.shape[dim] for part in like]
        self.nodes.append(helper.make_node("Split", [x.name], names, names[0], axis=dim, split=sizes))
        return tuple(Value(name, part, x.half) for name, part in zip(names, like, strict=True))

    def op_permute(self, like: Tensor, x: Value, *dims: int) -> Value:
        return self.node("Transpose", like, x, perm=dims)

    def op_contiguous(self, like: Tensor, x: Value, memory_format: Any = None) -> Value:
        return x

    def op_view(self, like: Tensor, x: Value, *sizes: int) -> Value:
        name = self._fresh()
        self.nodes.append(helper.make_node("Reshape", [x.name, self.shape(sizes)], [name], name))
        return Value(name, like, x.half)

    def op_flatten(self, like: Tensor, x: Value, start_dim: int = 0) -> Value:
        return self.node("Flatten", like, x, axis=start_dim)

    def op_depth_to_space(self, like: Tensor, x: Value, factor: int = 2) -> Value:
        return self.node("DepthToSpace", like, x, blocksize=factor, mode="DCR")

    def op_conv_transposed(self, like: Tensor, x: Value, weight: Tensor, bias: Tensor, stride: int) -> Value:
        pads = [1, 1, 1, 1] if stride == 1 else [0, 0, 1, 1]
        x, sides = self.cast(x, self.half), weight.shape[2:]
        return self.node(
            "ConvTranspose", like, x, weight, bias, kernel_shape=sides, strides=_pair(stride), pads=pads
        )

    def op_norm_threshold(
        self, like: Tensor, x: Value, weight: Tensor, bias: Tensor, eps: Tensor, tau: Tensor
    ) -> Value:
        one = like.new_empty(like.shape[0], like.shape[1], 1, 1)
        weight, bias, tau = (each.detach().view(1, -1, 1, 1) for each in (weight, bias, tau))
        power = self.node("ReduceMean", one, self.node("Mul", like, x, x, full=True), full=True, axes=[2, 3])
        root = self.node("Sqrt", one, self.node("Add", one, power, eps.detach().abs().view(1, 1, 1, 1), full=True))
        normed = self.node("Div", like, x, root, full=True)
        bent = self.node("Add", like, self.node("Mul", like, normed, weight, full=True), bias, full=True)
        return self.node("Max", like, bent, tau, full=True)

    def op_blur_pool(self, like: Tensor, x: Value, size: int) -> Value:
        channels, before, after = x.like.shape[1], (size - 1) // 2, size // 2
        weight = blur_kernel(size).repeat(channels, 1, 1, 1)
        pads = [before, before, after, after]
        return self.node(
            "Conv", like, x, weight, kernel_shape=[size, size], strides=[2, 2], pads=pads, group=channels
        )


def _pair(size: Any) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


@torch.no_grad()
def to_onnx(
    module: nn.Module, inputs: Mapping[str, Shape], outputs: Sequence[str], half: bool = False, opset: int = OPSET
) -> ModelProto:
    """The ONNX model of `module(*inputs) -> outputs`; opset: 12, or 13 where no tensor is split.

    inputs: name -> shape; a text for a size is a symbolic one, and the first axis of every output is `N`. half:
    convolutions in float16; inputs and outputs stay float32. Raises OnnxError.
    """
    writer = Writer(module, inputs, half)
    drawn = [writer.cast(value, False) for value in writer.run()]
    names = dict(zip((value.name for value in drawn), outputs, strict=True))
    nodes = _needed(writer.nodes, names)
    for node in nodes:
        for place in (node.input, node.output):
            place[:] = [names.get(name, name) for name in place]
    used = {name for node in nodes for name in node.input}
    constants = {name: value for name, value in writer.constants.items() if name in used}
    size = sum(tensor.numel() * (2 if short else tensor.element_size()) for tensor, short in constants.values())
    if size > MAX_BYTES:
        advice = "" if half else " (in float16 they take half)"
        raise OnnxError(f"its weights take {size / 1e9:.1f} GB, an ONNX file holds 2.1 GB{advice}")
    graph = helper.make_graph(
        nodes,
        "swap",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *value.like.shape[1:]])
            for name, value in zip(outputs, drawn, strict=True)
        ],
        [
            numpy_helper.from_array((tensor.half() if short else tensor).cpu().contiguous().numpy(), name)
            for name, (tensor, short) in constants.items()
        ],
    )
    version = helper.make_opsetid("", opset)
    return helper.make_model(graph, opset_imports=[version], ir_version=IR_VERSION)


def _needed(nodes: Sequence[NodeProto], outputs: Mapping[str, str]) -> list[NodeProto]:
    """The nodes that the outputs depend on, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]
