"""A graph under construction: importers emit nodes here, one helper per operator of the vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from verifier.graph.calls import Activation, Call, Value
from verifier.graph.faults import Invalid, require_size
from verifier.graph.ir import Node
from verifier.graph.shapes import Shape, broadcast, shape_of

Number = np.ndarray | float


class Builder:
    """Collects nodes with their shapes.

    Nodes get names derived from the ONNX tensor under construction; `finish` then gives the last one that tensor's
    own name.

    Args:
        reserved: names of all tensors in the file, which no derived name may take.
    """

    def __init__(self, reserved: Iterable[str] = ()):
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {}
        self._taken = set(reserved)
        self._source, self._stem, self._first = "", "", 0

    def start(self, call: Call) -> None:
        """From here to `finish`, nodes belong to this call."""
        self._source = call.source
        self._stem = next((name for name in call.outputs if name), call.name)
        self._first = len(self.nodes)

    def abandon(self) -> None:
        """Forget the nodes of the call in progress."""
        for node in self.nodes[self._first :]:
            del self.shapes[node.name]
        del self.nodes[self._first :]

    def finish(self, results: Mapping[str, Value]) -> dict[str, Value]:
        """Give the results of the call in progress their names in the file.

        Args:
            results: ONNX tensor name -> what the importer returned for it.
        """
        own = {node.name for node in self.nodes[self._first :]}
        names: dict[str, str] = {}
        values: dict[str, Value] = {}
        for name, value in results.items():
            if isinstance(value, Activation):
                if value.name not in own or value.name in names:  # the importer passed an older node on
                    value = self.reshape(value, value.shape)
                names[value.name] = name
                value = Activation(name, value.shape)
            values[name] = value
        for i in range(self._first, len(self.nodes)):
            node = self.nodes[i]
            inputs = tuple(names.get(x, x) for x in node.inputs)
            self.nodes[i] = replace(node, name=names.get(node.name, node.name), inputs=inputs)
        for old, new in names.items():
            self.shapes[new] = self.shapes.pop(old)
        return values

    def source(self, name: str, shape: Shape) -> Activation:
        """The network's input, or a stand-in for the output of a node that cannot be read."""
        require_size(shape)
        self.nodes.append(Node(name, "input", source=self._source))
        self.shapes[name] = shape
        return Activation(name, shape)

    def emit(
        self,
        op: str,
        *inputs: Activation,
        attributes: Mapping[str, Any] | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
    ) -> Activation:
        """Append one node.

        Raises:
            Invalid: a constant is not finite, or the output too large.
            ValueError: constants or attributes do not fit the inputs.
        """
        owned = {name: np.require(value, requirements=["C", "W"]) for name, value in (constants or {}).items()}
        if not all(np.isfinite(value).all() for value in owned.values()):
            raise Invalid("its constants lead to NaN or infinite values", "mend the weights")
        node = Node(
            self.unused(f"{self._stem}/{op}"), op, tuple(x.name for x in inputs), attributes or {}, owned, self._source
        )
        shape = shape_of(node, [x.shape for x in inputs])
        require_size(shape, "its output")
        self.nodes.append(node)
        self.shapes[node.name] = shape
        return Activation(node.name, shape)

    def unused(self, wish: str) -> str:
        """A name that no tensor has, the wish where it is free."""
        name, number = wish, 1
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._taken.add(name)
        return name

    def constant(self, value: np.ndarray) -> Activation:
        return self.emit("constant", constants={"value": value.astype(np.float64)})

    def activation(self, value: Value) -> Activation:
        """The value as a node, whether it is constant or not."""
        return value if isinstance(value, Activation) else self.constant(value)

    def linear(self, x: Activation, weight: np.ndarray, bias: np.ndarray | None = None) -> Activation:
        """``x @ weight.T + bias``; weight (out, in)."""
        return self.emit("linear", x, constants=_present(weight=weight, bias=bias))

    def scale(self, x: Activation, scale: Number = 1.0, shift: Number = 0.0) -> Activation:
        """``x * scale + shift``, where x is first broadcast if the constants need it."""
        scale, shift = np.asarray(scale, np.float64), np.asarray(shift, np.float64)
        x = self.expand(x, broadcast(x.shape, scale.shape, shift.shape))
        return self.emit("scale", x, constants={"scale": scale, "shift": shift})

    def expand(self, x: Activation, shape: Shape) -> Activation:
        require_size(shape, "its output")
        return x if x.shape == tuple(shape) else self.emit("expand", x, attributes={"shape": tuple(shape)})

    def binary(self, op: str, x: Activation, y: Activation) -> Activation:
        """``add`` or ``sub``, where both are first broadcast to a common shape."""
        shape = broadcast(x.shape, y.shape)
        return self.emit(op, self.expand(x, shape), self.expand(y, shape))

    def reshape(self, x: Activation, shape: Sequence[int]) -> Activation:
        return self.emit("reshape", x, attributes={"shape": tuple(int(size) for size in shape)})

    def transpose(self, x: Activation, perm: Sequence[int]) -> Activation:
        return self.emit("transpose", x, attributes={"perm": tuple(int(axis) for axis in perm)})

    def take(self, x: Activation, axis: int, indices: np.ndarray) -> Activation:
        return self.emit("take", x, attributes={"axis": axis}, constants={"indices": indices.astype(np.int64)})

    def pad(self, x: Activation, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Activation:
        pads = tuple((int(before), int(after)) for before, after in pads)
        return self.emit("pad", x, attributes={"pads": pads, "value": float(value)})

    def total(self, x: Activation, axes: Sequence[int], keep: bool) -> Activation:
        """Sum over axes, which stay with size 1 or go."""
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        y = self.emit("sum", x, attributes={"axes": tuple(axes)})
        return self.reshape(y, kept) if keep else y

    def relu(self, x: Activation, slope: Number = 0.0) -> Activation:
        return self.emit("relu", x, constants={"slope": np.asarray(slope, np.float64)})

    def extremum(self, op: str, x: Activation, y: Activation) -> Activation:
        """``maximum`` or ``minimum`` of two activations, through the ReLU of their difference."""
        shape = broadcast(x.shape, y.shape)
        x, y = self.expand(x, shape), self.expand(y, shape)
        return self.emit(op, x, y, self.relu(self.emit("sub", x, y)))

    def conv(
        self,
        op: str,
        x: Activation,
        weight: np.ndarray,
        bias: np.ndarray | None,
        *,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        output_padding: Sequence[int] | None = None,
    ) -> Activation:
        """``conv`` or ``conv_transpose`` with equal padding at both ends; only the latter has `output_padding`."""
        attributes: dict[str, Any] = {
            "stride": tuple(stride),
            "padding": tuple(padding),
            "dilation": tuple(dilation),
            "groups": groups,
        }
        if output_padding is not None:
            attributes["output_padding"] = tuple(output_padding)
        return self.emit(op, x, attributes=attributes, constants=_present(weight=weight, bias=bias))


def _present(**constants: np.ndarray | None) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float64) for name, value in constants.items() if value is not None}
