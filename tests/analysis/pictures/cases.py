"""What the tests draw: the toy of the documentation, and random networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import verifier
from verifier.graph.ir import Graph, Node
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box

TOY = Path(__file__).resolve().parents[3] / "docs" / "one-framework"


def toy() -> tuple[Graph, verifier.Query]:
    """relu(x1 + x2) plus and minus relu(x1 - x2) on a square, and whether the first stays below 2.5."""
    return verifier.load(TOY / "toy.onnx"), verifier.read_vnnlib(TOY / "toy.vnnlib")


def chain(activation: str = "relu", seed: int = 0, width: int = 5, outputs: int = 3) -> tuple[Graph, Property]:
    """A random network of two hidden layers on a box, and whether its first output stays the largest."""
    draw = np.random.default_rng(seed)
    settings: dict = {
        "relu": {"constants": {"slope": np.zeros(())}},
        "clip": {"attributes": {"low": -0.5, "high": 1.0}},
    }
    sizes, nodes, last = (3, width, width, outputs), [Node("x", "input")], "x"
    for number, (before, after) in enumerate(zip(sizes, sizes[1:], strict=False)):
        weight = {"weight": draw.normal(size=(after, before)), "bias": 0.3 * draw.normal(size=after)}
        nodes.append(Node(f"linear{number}", "linear", (last,), constants=weight))
        last = nodes[-1].name
        if number < 2:
            nodes.append(Node(f"act{number}", activation, (last,), **settings.get(activation, {})))
            last = nodes[-1].name
    shapes = dict(zip((node.name for node in nodes), ((3,), *[(s,) for s in (width,) * 4], (outputs,)), strict=True))
    rows = np.eye(outputs)[0] - np.eye(outputs)[1:]
    region = Box(torch.full((1, 3), -0.4, dtype=torch.float64), torch.full((1, 3), 0.6, dtype=torch.float64))
    unsafe = tuple(Polytope(row[None], np.zeros(1)) for row in rows)
    return Graph(tuple(nodes), "x", last, shapes), Property(region, unsafe)
