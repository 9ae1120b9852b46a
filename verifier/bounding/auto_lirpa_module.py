"""A graph as a plain `torch.nn.Module`, of the layers that auto_LiRPA bounds soundly.

auto_LiRPA takes axis 0 of every tensor for the batch. A node of shape (1, C, H, W) therefore travels as (B, C, H, W),
and one of shape (n,) as (B, n): see `layout`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from verifier.errors import InputError
from verifier.graph.ir import Graph, Node
from verifier.operators import place

Shape = tuple[int, ...]


class Unsupported(Exception):
    """Why the reference engine does not take a node, in words."""


def layout(shape: Shape) -> Shape:
    """The shape of a node behind the batch axis: without the file's own batch axis where that is 1."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


class Network(nn.Module):
    """The network of a graph in float32, from inputs (B, *layout) to flat outputs (B, Y).

    Args:
        graph: any graph, placed or not.
        pooling: whether means over windows become average pooling (0.7), or stay grouped convolutions (0.3, whose own
            rule fails on some memory layouts).

    Attributes:
        matrix_mode: whether auto_LiRPA has to push dense coefficients through convolutions. Its patches bound grouped
            convolutions wrongly, and fail on the branches of a selection.

    Raises:
        InputError: an operator, or a use of one, is not on the allow-list; all such nodes are named.
    """

    def __init__(self, graph: Graph, pooling: bool):
        super().__init__()
        graph = place(graph, torch.float32, "cpu")
        layers, refused = {}, []
        for node in graph.nodes[1:]:
            try:
                pooled = pooling and node.op == "conv" and _is_mean(node, graph.shapes[node.inputs[0]])
                layers[node.name] = _average(node) if pooled else _layer(node, graph.shapes)
            except Unsupported as error:
                refused.append(f"{node.source or node.op} '{node.name}' ({error})")
        if refused:
            raise InputError(
                str(graph.file.path) if graph.file else "network",
                f"auto_LiRPA is not trusted with {', '.join(refused)}",
                "choose another --method",
            )
        self.input, self.output = graph.input, graph.output
        self.flat = len(layout(graph.output_shape)) == 1  # a last layer that is linear merges with the objective
        self.sources = tuple((node.name, node.inputs) for node in graph.nodes[1:])
        self.layers = nn.ModuleList(layers.values())
        grouped = any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in layers.values())
        self.matrix_mode = grouped or any(node.op == "take" for node in graph.nodes)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        values = {self.input: x}
        for layer, (name, inputs) in zip(self.layers, self.sources, strict=True):
            values[name] = layer(*(values[i] for i in inputs))
        y = values[self.output]
        return y if self.flat else y.flatten(1)


class _Function(nn.Module):
    """A layer without parameters."""

    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def _layer(node: Node, shapes: Mapping[str, Shape]) -> nn.Module:
    """The layer of one node of a graph placed in float32."""
    if node.op not in _LAYERS:
        raise Unsupported("not on the list of operators that it bounds soundly")
    return _LAYERS[node.op](node, shapes[node.inputs[0]], shapes[node.name])


def _linear(node: Node, source: Shape, shape: Shape) -> nn.Module:
    if len(layout(source)) != 1:
        raise Unsupported("a matrix product of more than one axis")
    return _affine(nn.Linear(source[-1], shape[-1]), node.constants["weight"], node.constants.get("bias"))


def _conv(node: Node, source: Shape, shape: Shape) -> nn.Module:
    weight: Tensor = node.constants["weight"]
    if len(source) != 4 or source[0] != 1:
        raise Unsupported("a convolution that is not two-dimensional")
    a = node.attributes
    geometry = (a["stride"], a["padding"], a["dilation"], a["groups"])
    layer = nn.Conv2d(source[1], shape[1], (weight.shape[2], weight.shape[3]), *geometry)
    return _affine(layer, weight, node.constants.get("bias"))


def _is_mean(node: Node, source: Shape) -> bool:
    """Whether a convolution is average pooling without padding (with padding auto_LiRPA's rule is unsound)."""
    weight, a = node.constants["weight"], node.attributes
    if weight.dim() != 4 or source[0] != 1 or "bias" in node.constants:
        return False
    alone = a["groups"] == source[1] == weight.shape[0]
    plain = not any(a["padding"]) and all(step == 1 for step in a["dilation"])
    return alone and plain and bool((weight == weight.new_tensor(1 / weight[0].numel())).all())


def _average(node: Node) -> nn.Module:
    return nn.AvgPool2d(tuple(node.constants["weight"].shape[2:]), tuple(node.attributes["stride"]))


def _affine(layer: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Module:
    assert layer.bias is not None
    layer.weight.data = weight.clone()
    layer.bias.data = torch.zeros_like(layer.bias) if bias is None else bias.clone()
    return layer.requires_grad_(False)


def _scale(node: Node, source: Shape, shape: Shape) -> nn.Module:
    """Batch normalisation with mean 0 and variance 1: a factor and a shift for each channel."""
    inner = layout(source)
    if len(inner) not in (1, 3):
        raise Unsupported("a factor for an array that is neither a vector nor an image")
    layer = nn.BatchNorm1d(inner[0], eps=0.0) if len(inner) == 1 else nn.BatchNorm2d(inner[0], eps=0.0)
    layer.weight.data, layer.bias.data = (_per_channel(node.constants[k], source) for k in ("scale", "shift"))
    return layer.requires_grad_(False)


def _per_channel(constant: Tensor, shape: Shape) -> Tensor:
    values = constant.expand(shape).reshape(layout(shape)[0], -1)
    if not bool((values == values[:, :1]).all()):
        raise Unsupported("a factor that differs within a channel")
    return values[:, 0].clone()


def _relu(node: Node, source: Shape, shape: Shape) -> nn.Module:
    slope: Tensor = node.constants["slope"]
    value = float(slope.flatten()[0])
    if not bool((slope == value).all()) or not 0 <= value < 1:
        raise Unsupported("a slope that differs between entries or lies outside [0, 1)")
    return nn.ReLU() if value == 0 else nn.LeakyReLU(value)


def _reshape(node: Node, source: Shape, shape: Shape) -> nn.Module:
    if layout(source) == layout(shape):
        return nn.Identity()
    if len(layout(shape)) != 1:
        raise Unsupported("a reshape to more than one axis")
    return nn.Flatten()


def _take(node: Node, source: Shape, shape: Shape) -> nn.Module:
    """A selection as a product with unit rows: of a vector, of the channels of an image, or of evenly spaced lines."""
    indices, axis = node.constants["indices"].tolist(), node.attributes["axis"]
    if axis == len(source) - 1 and len(layout(source)) == 1:
        return _affine(nn.Linear(source[-1], shape[-1]), _unit_rows(indices, source[-1]), None)
    if len(source) != 4 or source[0] != 1 or axis == 0:
        raise Unsupported("a selection along this axis")
    if axis == 1:
        weight = _unit_rows(indices, source[1]).reshape(shape[1], source[1], 1, 1)
        return _affine(nn.Conv2d(source[1], shape[1], 1), weight, None)
    return _every_nth(source, axis, indices)


def _every_nth(source: Shape, axis: int, indices: Sequence[int]) -> nn.Module:
    """Evenly spaced rows (axis 2) or columns (axis 3) of an image, as a strided convolution."""
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    if step < 1 or list(indices) != list(range(indices[0], indices[-1] + 1, step)):
        raise Unsupported("a selection that is not evenly spaced")
    size = max(indices[0] + 1, source[axis] - step * len(indices) + 1)  # so that as many positions fit
    kernel, stride, channels = [1, 1], [1, 1], source[1]
    kernel[axis - 2], stride[axis - 2] = size, step
    weight = torch.zeros(channels, channels, *kernel)
    weight.select(axis, indices[0]).copy_(torch.eye(channels).unsqueeze(2))
    return _affine(nn.Conv2d(channels, channels, (kernel[0], kernel[1]), (stride[0], stride[1])), weight, None)


def _unit_rows(indices: Sequence[int], size: int) -> Tensor:
    return torch.eye(size)[list(indices)]


def _plain(make: Callable[[], nn.Module]) -> Callable[[Node, Shape, Shape], nn.Module]:
    return lambda node, source, shape: make()


#: the allow-list: for each operator, (node, shape of its first input, its shape) -> layer
_LAYERS: Mapping[str, Callable[[Node, Shape, Shape], nn.Module]] = MappingProxyType(
    {
        "linear": _linear,
        "conv": _conv,
        "scale": _scale,
        "add": _plain(lambda: _Function(lambda x, y: x + y)),
        "sub": _plain(lambda: _Function(lambda x, y: x - y)),
        "reshape": _reshape,
        "take": _take,
        "relu": _relu,
        "maximum": _plain(lambda: _Function(lambda x, y, r: y + r)),
        "minimum": _plain(lambda: _Function(lambda x, y, r: x - r)),
        "sigmoid": _plain(nn.Sigmoid),
        "tanh": _plain(nn.Tanh),
    }
)
