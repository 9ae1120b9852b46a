"""One ONNX node with its inputs resolved, as the importers see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from verifier.graph.faults import Invalid, Unsupported
from verifier.graph.shapes import Shape
from verifier.graph.tensors import to_array


@dataclass(frozen=True)
class Activation:
    """A tensor that depends on the network's input: the graph node that holds it, and its shape."""

    name: str
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)


#: a tensor of the file: a constant in its own type, or an activation
Value = np.ndarray | Activation


@dataclass(frozen=True)
class Call:
    """One ONNX node.

    Args:
        op: its operator.
        name: its name, or that of its first output where it has none.
        opset: version of the operator set.
        inputs: values of its inputs; None for an optional one left out.
        input_names: their names in the file.
        outputs: names of its outputs; empty for one left out.
        attributes: plain Python values; tensors as arrays.
        final: nothing but copies lies between its output and the network's.
    """

    op: str
    name: str
    opset: int
    inputs: tuple[Value | None, ...]
    input_names: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    final: bool = False

    @property
    def source(self) -> str:
        return f"{self.op} '{self.name}'"

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def value(self, index: int) -> Value:
        """An input that must be given."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise Invalid(f"its input {index} is missing")
        return value

    def activation(self, index: int = 0) -> Activation:
        """An input that must depend on the network's input."""
        value = self.value(index)
        if not isinstance(value, Activation):
            raise Unsupported(f"its input '{self.input_names[index]}' is constant where others are not")
        return value

    def constant(self, index: int) -> np.ndarray:
        """An input that must not depend on the network's input, in its own type."""
        value = self.value(index)
        if isinstance(value, Activation):
            raise Unsupported(f"its input '{self.input_names[index]}' is not a constant")
        return value

    def weight(self, index: int) -> np.ndarray:
        """A constant input of finite numbers, in float64."""
        return self.finite(self.numbers(index), index)

    def numbers(self, index: int) -> np.ndarray:
        """A constant input in float64."""
        value = self.constant(index)
        if value.dtype.kind not in "fiub" and value.dtype.name != "bfloat16":
            raise Unsupported(f"its input '{self.input_names[index]}' holds {value.dtype.name} values")
        return value.astype(np.float64)

    def finite(self, value: np.ndarray, index: int) -> np.ndarray:
        """The value itself, unless it holds NaN or an infinity."""
        if not np.isfinite(value).all():
            raise Invalid(f"tensor '{self.input_names[index]}' holds NaN or infinite values", "mend the weights")
        return value

    def integers(self, attribute: str, index: int, since: int) -> tuple[int, ...] | None:
        """A list of integers that is an attribute before operator set `since`, and an input from there on."""
        if self.opset < since:
            value = self.attributes.get(attribute)
            return None if value is None else tuple(int(v) for v in value)
        if not self.has(index):
            return None
        value = self.constant(index)
        if value.dtype.kind not in "iu":
            raise Invalid(f"its input '{self.input_names[index]}' holds no integers")
        return tuple(int(v) for v in value.reshape(-1))

    def text(self, attribute: str, default: str) -> str:
        """An attribute that is a string."""
        value = self.attributes.get(attribute, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def refuse_outputs_after(self, count: int) -> None:
        """Refuse optional outputs beyond the first `count`."""
        used = [name for name in self.outputs[count:] if name]
        if used:
            raise Unsupported(f"its optional output '{used[0]}' is not supported")


def attributes(node: onnx.NodeProto, folder: Path) -> dict[str, Any]:
    """The node's attributes as Python values; tensors as arrays.

    Raises:
        Unsupported: it holds a graph of its own (If, Loop, Scan), or a sparse tensor.
    """
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        kind = attribute.type
        if kind in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise Unsupported("it holds a graph of its own (control flow)")
        if kind in (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS):
            raise Unsupported("it holds a sparse tensor")
        if kind == onnx.AttributeProto.TENSOR:
            values[attribute.name] = to_array(attribute.t, folder)
        else:
            values[attribute.name] = onnx.helper.get_attribute_value(attribute)
    return values


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front, given one that may count from the back."""
    if not -rank <= axis < rank:
        raise Invalid(f"axis {axis} of a tensor with {rank} axes")
    return axis % rank


def axes_of(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in order."""
    result = sorted(axis_of(axis, rank) for axis in axes)
    if len(set(result)) != len(result):
        raise Invalid(f"axes {list(axes)} repeat one")
    return tuple(result)
