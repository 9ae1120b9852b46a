"""Small random networks of every family, and regions for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.operators.build import Builder
from verifier.graph.ir import Graph
from verifier.operators import place
from verifier.specs.region import Box, LpBall, Region

Random = np.random.Generator


def _dense(b: Builder, x: str, size: int, out: int, random: Random) -> str:
    weight = random.normal(size=(out, size)) / np.sqrt(size)
    return b.add("linear", x, weight=weight, bias=random.normal(size=out) / 2)


def _conv(b: Builder, x: str, ins: int, out: int, random: Random, groups: int = 1, stride: int = 1) -> str:
    attributes = {"stride": (stride, stride), "padding": (1, 1), "dilation": (1, 1), "groups": groups}
    weight = random.normal(size=(out, ins // groups, 3, 3)) / np.sqrt(9 * ins / groups)
    return b.add("conv", x, attributes=attributes, weight=weight, bias=random.normal(size=out) / 2)


def _norm(b: Builder, x: str, channels: int, random: Random) -> str:
    """A batch normalisation as the reader folds it, with gains of both signs."""
    shape = (1, channels, 1, 1)
    return b.add("scale", x, scale=random.normal(size=shape), shift=random.normal(size=shape) / 2)


def _flat(b: Builder, x: str, size: int) -> str:
    return b.add("reshape", x, attributes={"shape": (1, size)})


def mlp(random: Random, activation: Callable[[Builder, str], str], widths: tuple[int, ...] = (3, 6, 5, 4)) -> Graph:
    b, x = Builder(1, widths[0]), "x"
    for i, (size, out) in enumerate(zip(widths, widths[1:], strict=False)):
        x = _dense(b, activation(b, x) if i else x, size, out, random)
    return b.graph()


def cnn(random: Random, groups: int = 1) -> Graph:
    b = Builder(1, 2, 4, 4)
    x = b.relu(_conv(b, "x", 2, 4, random, groups))
    x = b.relu(_conv(b, x, 4, 4, random, groups, stride=2))
    _dense(b, _flat(b, x, 16), 16, 3, random)
    return b.graph()


def residual(random: Random) -> Graph:
    """Two residual blocks with batch normalisation; the second has its skip scaled."""
    b = Builder(1, 2, 3, 3)
    x = b.relu(_norm(b, _conv(b, "x", 2, 2, random), 2, random))
    for _ in range(2):
        inner = b.relu(_norm(b, _conv(b, x, 2, 2, random), 2, random))
        x = b.relu(b.add("add", _conv(b, inner, 2, 2, random), _norm(b, x, 2, random)))
    pooled = b.add("sum", x, attributes={"axes": (2, 3)})
    _dense(b, pooled, 2, 3, random)
    return b.graph()


def maxpool(random: Random) -> Graph:
    """A convolution, 2 x 2 max pooling as a tournament over strided entries, and a dense layer."""
    b = Builder(1, 1, 4, 4)
    x = _conv(b, "x", 1, 2, random)
    for axis in (2, 3):
        even = b.add("take", x, attributes={"axis": axis}, indices=[0, 2])
        odd = b.add("take", x, attributes={"axis": axis}, indices=[1, 3])
        x = b.extremum("maximum", even, odd)
    x = b.relu(_dense(b, _flat(b, x, 8), 8, 5, random))
    _dense(b, x, 5, 2, random)
    return b.graph()


def average_pool(random: Random) -> Graph:
    """Average pooling with padding that does not count the padding: a grouped convolution and a scale by 1/count."""
    b = Builder(1, 2, 3, 3)
    x = b.relu(_conv(b, "x", 2, 2, random))
    attributes = {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 2}
    x = b.add("conv", x, attributes=attributes, weight=np.ones((2, 1, 2, 2)))
    x = b.add("scale", x, scale=1 / np.array([[1.0, 2.0], [2.0, 4.0]]), shift=0.0)
    _dense(b, b.relu(_dense(b, _flat(b, x, 8), 8, 4, random)), 4, 2, random)
    return b.graph()


def upsampling(random: Random) -> Graph:
    """A decoder: dense, reshape, transposed convolutions with overlap and output padding."""
    b = Builder(1, 3)
    x = b.relu(b.add("reshape", _dense(b, "x", 3, 8, random), attributes={"shape": (1, 2, 2, 2)}))
    shared = {"padding": (1, 1), "dilation": (1, 1)}
    first = shared | {"stride": (2, 2), "groups": 2, "output_padding": (1, 0)}
    x = b.relu(b.add("conv_transpose", x, attributes=first, weight=random.normal(size=(2, 1, 3, 3)), bias=[0.1, -0.2]))
    last = shared | {"stride": (1, 1), "groups": 1, "output_padding": (0, 0)}
    b.add("conv_transpose", x, attributes=last, weight=random.normal(size=(2, 1, 2, 2)), bias=[0.3])
    return b.graph()


def tangle(random: Random) -> Graph:
    """Every way for values to meet: shared inputs, constants, extrema, concatenation, padding, expansion, a scalar."""
    b = Builder(1, 4)
    first = _dense(b, "x", 4, 4, random)
    bent = b.relu(first, slope=-1.0)
    smooth = b.add("tanh", first)
    constant = b.add("constant", value=random.normal(size=(1, 4)))
    low = b.extremum("minimum", b.add("sub", bent, smooth), constant)
    high = b.extremum("maximum", low, "x")
    joined = b.add("concat", high, constant, smooth, attributes={"axis": 1})
    padded = b.add("pad", joined, attributes={"pads": ((0, 0), (1, 0)), "value": 0.7})
    clipped = b.add("clip", _dense(b, padded, 13, 5, random), attributes={"low": -0.5, "high": 0.5})
    scalar = b.add("relu", b.add("sum", clipped, attributes={"axes": (0, 1)}), slope=0.2)
    spread = b.add("expand", scalar, attributes={"shape": (1, 5)})
    both = b.add("add", spread, b.add("transpose", b.add("transpose", clipped, attributes={"perm": (1, 0)}),
                                      attributes={"perm": (1, 0)}))  # fmt: skip
    _dense(b, b.add("sigmoid", both), 5, 3, random)
    return b.graph()


def _prelu(b: Builder, x: str) -> str:
    """Slopes on both sides of 1, one for each entry of the layer before."""
    return b.relu(x, slope=[0.25, 2.0, -0.5, 1.0, 1.5, 0.0][: b.nodes[-1].constants["bias"].size])


#: name -> network from random numbers
NETWORKS: dict[str, Callable[[Random], Graph]] = {
    "mlp": lambda r: mlp(r, lambda b, x: b.relu(x)),
    "leaky": lambda r: mlp(r, lambda b, x: b.relu(x, slope=0.1)),
    "abs": lambda r: mlp(r, lambda b, x: b.relu(x, slope=-1.0)),
    "prelu": lambda r: mlp(r, _prelu),
    "clip": lambda r: mlp(r, lambda b, x: b.add("clip", x, attributes={"low": -0.3, "high": 0.8})),
    "sigmoid": lambda r: mlp(r, lambda b, x: b.add("sigmoid", b.add("scale", x, scale=3.0, shift=0.0))),
    "tanh": lambda r: mlp(r, lambda b, x: b.add("tanh", b.add("scale", x, scale=2.0, shift=0.0))),
    "cnn": cnn,
    "grouped": lambda r: cnn(r, groups=2),
    "residual": residual,
    "maxpool": maxpool,
    "average pool": average_pool,
    "upsampling": upsampling,
    "tangle": tangle,
}
#: those whose only activations are relus of any slope (and extrema made of them): a MILP is exact for them
PIECEWISE = ("mlp", "leaky", "abs", "prelu")


def region(kind: str, shape: tuple[int, ...], batch: int, random: Random, radius: float = 0.0) -> Region:
    """A region around random points: ``box``, or the ball ``l2`` / ``l1`` (inside [0, 1] half of the time)."""
    centre = torch.as_tensor(random.uniform(0, 1, size=(batch, *shape)))
    radius = radius or float(random.uniform(0.02, 0.5))
    spread = torch.full((batch,), radius, dtype=torch.float64)
    around = spread.reshape(-1, *[1] * len(shape)).expand_as(centre)
    if kind == "box":
        ends = torch.as_tensor(random.uniform(0, 1, size=(2, batch, *shape))) * around
        return Box(centre - ends[0], centre + ends[1])
    spread = spread * (2.0 if kind == "l1" else 1.0)
    limits = Box(torch.zeros_like(centre), torch.ones_like(centre)) if random.integers(2) else None
    return LpBall.checked(centre, spread, limits, 1 if kind == "l1" else 2)


@dataclass(frozen=True)
class Case:
    """A placed network, a region (batch B) and rows (B, S, *Y) on its output."""

    name: str
    graph: Graph
    region: Region
    C: Tensor
    seed: int

    @property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def case(name: str, kind: str, seed: int, batch: int = 2, rows: int = 3, radius: float = 0.0) -> Case:
    random = np.random.default_rng(seed)
    graph = NETWORKS[name](random)
    C = torch.as_tensor(random.normal(size=(batch, rows, prod(graph.output_shape))))
    C = C.reshape(batch, rows, *graph.output_shape)
    return Case(name, place(graph), region(kind, graph.input_shape, batch, random, radius), C, seed)


def cases() -> st.SearchStrategy[Case]:
    """Any network over any kind of region."""
    return st.builds(
        case, st.sampled_from(tuple(NETWORKS)), st.sampled_from(("box", "l2", "l1")), st.integers(0, 2**32)
    )
