"""Random convolutional graphs of every kind that windows apply to."""

from __future__ import annotations

import numpy as np

from tests.operators.build import Builder
from verifier.graph.ir import Graph

Random = np.random.Generator


def convolutional(random: Random, layers: int = 6) -> Graph:
    """Convolutions (strides, uneven padding, dilation, groups), activations, scales, sums; any node may branch off."""
    b = Builder(1, *(int(n) for n in random.integers((1, 3, 3), (4, 10, 10))))
    shapes = {"x": b.shape}
    last = "x"
    while len(shapes) <= layers:
        source = last if random.random() < 0.75 else str(random.choice(list(shapes)))
        kinds = (_convolution, _activation, _activation, _scale, _sum)
        name = kinds[random.integers(len(kinds))](b, source, shapes, random)
        if name is not None:
            shapes[name], last = b.graph(name).shapes[name], name
    return b.graph(last)


def _convolution(b: Builder, source: str, shapes: dict[str, tuple[int, ...]], random: Random) -> str | None:
    _, channels, *extent = shapes[source]
    groups = channels if random.random() < 0.3 else 1
    kernel, stride, dilation = (tuple(int(n) for n in random.integers(1, most, 2)) for most in (4, 4, 3))
    padding = tuple(int(random.integers(0, k)) for k in kernel)
    span = zip(extent, padding, dilation, kernel, strict=True)
    if any(n + 2 * p <= d * (k - 1) for n, p, d, k in span):
        return None
    out = groups * int(random.integers(1, 3))
    weight = random.normal(size=(out, channels // groups, *kernel)) / np.sqrt(channels * np.prod(kernel) / groups)
    attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    constants = {"bias": random.normal(size=out)} if random.random() < 0.8 else {}
    return b.add("conv", source, attributes=attributes, weight=weight, **constants)


def _activation(b: Builder, source: str, shapes: dict[str, tuple[int, ...]], random: Random) -> str:
    kind = random.choice(["relu", "slopes", "sigmoid", "tanh", "clip"])
    if kind == "clip":
        return b.add("clip", source, attributes={"low": -0.5, "high": 0.6})
    if kind in ("sigmoid", "tanh"):
        return b.add(str(kind), source)
    slopes = random.choice([0.0, 0.3, 2.0, -0.5], size=(shapes[source][1], 1, 1))
    return b.relu(source, slope=slopes if kind == "slopes" else random.choice([0.0, 0.1, -1.0]))


def _scale(b: Builder, source: str, shapes: dict[str, tuple[int, ...]], random: Random) -> str:
    size = () if random.random() < 0.4 else (shapes[source][1], 1, 1)
    return b.add("scale", source, scale=random.normal(size=size), shift=random.normal(size=size))


def _sum(b: Builder, source: str, shapes: dict[str, tuple[int, ...]], random: Random) -> str:
    alike = [name for name, shape in shapes.items() if shape == shapes[source]]
    return b.add(str(random.choice(["add", "sub"])), source, str(random.choice(alike)))
