"""Arithmetic entry by entry, with numpy's broadcasting."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np

from verifier.graph.builder import Builder
from verifier.graph.calls import Activation, Call
from verifier.graph.faults import Invalid, Unsupported
from verifier.graph.importers.registry import Importer


def _add(call: Call, build: Builder) -> Activation:
    """The sum of any number of inputs, so that it serves Sum as well."""
    moving, fixed = _operands(call)
    total = reduce(lambda x, y: build.binary("add", x, y), moving)
    return build.scale(total, shift=reduce(np.add, fixed)) if fixed else total


def _sub(call: Call, build: Builder) -> Activation:
    left, right = call.value(0), call.value(1)
    if not isinstance(left, Activation):
        return build.scale(call.activation(1), -1.0, call.weight(0))
    if not isinstance(right, Activation):
        return build.scale(left, shift=-call.weight(1))
    return build.binary("sub", left, right)


def _mul(call: Call, build: Builder) -> Activation:
    left, right = call.value(0), call.value(1)
    if isinstance(left, Activation) and isinstance(right, Activation):
        raise Unsupported("the product of two activations is not linear")
    if isinstance(left, Activation):
        return build.scale(left, call.weight(1))
    return build.scale(call.activation(1), call.weight(0))


def _div(call: Call, build: Builder) -> Activation:
    if isinstance(call.value(1), Activation):
        raise Unsupported("division by an activation is not linear")
    divisor = call.weight(1)
    if not divisor.all():
        raise Invalid(f"its divisor '{call.input_names[1]}' holds zeros", "mend the weights")
    return build.scale(call.activation(), 1 / divisor)


def _neg(call: Call, build: Builder) -> Activation:
    return build.scale(call.activation(), -1.0)


def _max(call: Call, build: Builder) -> Activation:
    """The maximum of any number of inputs; ``max(x, c) = c + relu(x - c)`` for a constant c."""
    moving, fixed = _operands(call)
    y = reduce(lambda x, y: build.extremum("maximum", x, y), moving)
    return above(y, reduce(np.maximum, fixed), build) if fixed else y


def _min(call: Call, build: Builder) -> Activation:
    """The minimum of any number of inputs; ``min(x, c) = c - relu(c - x)`` for a constant c."""
    moving, fixed = _operands(call)
    y = reduce(lambda x, y: build.extremum("minimum", x, y), moving)
    return below(y, reduce(np.minimum, fixed), build) if fixed else y


def _operands(call: Call) -> tuple[list[Activation], list[np.ndarray]]:
    moving = [value for value in call.inputs if isinstance(value, Activation)]
    return moving, [call.weight(i) for i, value in enumerate(call.inputs) if not isinstance(value, Activation)]


def above(x: Activation, bound: np.ndarray, build: Builder) -> Activation:
    """``max(x, bound)``."""
    return build.scale(build.relu(build.scale(x, shift=-bound)), shift=bound)


def below(x: Activation, bound: np.ndarray, build: Builder) -> Activation:
    """``min(x, bound)``."""
    return build.scale(build.relu(build.scale(x, -1.0, bound)), -1.0, bound)


IMPORTERS: Mapping[str, Importer] = {
    "Add": _add,
    "Div": _div,
    "Max": _max,
    "Min": _min,
    "Mul": _mul,
    "Neg": _neg,
    "Sub": _sub,
    "Sum": _add,
}
