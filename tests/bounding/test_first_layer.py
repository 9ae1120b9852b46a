"""The step through the first layer gives what the plain push to the input gives, values and gradients alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.operators.build import Builder
from verifier.bounding import first_layer
from verifier.bounding.dual import DualPoint, Objective, Relaxation, Split, linear_bound, lower_bound
from verifier.bounding.intermediate import interval_only, relax_network
from verifier.graph.ir import Graph
from verifier.operators import place
from verifier.specs.box import Box

Random = np.random.Generator
#: rows of the objectives
ROWS = 3


def _front(b: Builder, random: Random) -> tuple[str, tuple[int, ...]]:
    """Up to three affine nodes that mix nothing, from the input on."""
    x, shape = "x", b.shape
    for kind in random.permutation(["scale", "transpose", "pad", "take"])[: random.integers(4)]:
        if kind == "scale":
            x = b.add("scale", x, scale=random.normal(size=shape), shift=random.normal())
        elif kind == "transpose":
            x = b.add("transpose", x, attributes={"perm": (0, *(int(i) for i in random.permutation([1, 2, 3])))})
        elif kind == "pad":
            pads = ((0, 0), *((int(low), int(high)) for low, high in random.integers(0, 2, (3, 2))))
            x = b.add("pad", x, attributes={"pads": pads, "value": random.normal()})
        else:
            x = b.add("take", x, attributes={"axis": 3}, indices=random.integers(0, shape[3], 3))
        shape = b.graph().shapes[x]
    return x, shape


def _network(random: Random) -> tuple[Graph, str]:
    """A first layer with one or two consumers, and two more layers; and the name of the first one."""
    b = Builder(1, *(int(n) for n in random.integers(2, 5, 3)))
    x, shape = _front(b, random)
    if random.random() < 0.4:
        attributes = {"stride": (2, 2), "padding": (0, 1), "dilation": (1, 1), "groups": 1}
        first = b.add("conv", x, attributes=attributes, weight=random.normal(size=(3, shape[1], 2, 2)), bias=[3, -1, 0])
    else:
        size, out = int(np.prod(shape)), int(random.integers(1, 14))
        flat = b.add("reshape", x, attributes={"shape": (1, size)})
        first = b.add("linear", flat, weight=random.normal(size=(out, size)), bias=4 * random.normal(size=out))
    entries = b.graph().shapes[first]
    size = int(np.prod(entries))
    users = [
        lambda: b.relu(first),
        lambda: b.relu(first, slope=random.choice([0.0, 0.0, 0.2, 2.0, -1.0], size=entries)),
        lambda: b.add("sigmoid", first),
        lambda: b.add("clip", first, attributes={"low": -0.4, "high": 0.3}),
        lambda: b.add("scale", first, scale=-2.0, shift=1.0),
        lambda: b.add("expand", b.add("sum", x, attributes={"axes": (1, 2, 3)}), attributes={"shape": entries}),
    ]
    made = [users[i]() for i in random.integers(0, 6 if random.random() < 0.5 else 1, random.integers(1, 3))]
    hidden = b.add("reshape", b.add("add", made[0], made[-1]), attributes={"shape": (1, size)})
    hidden = b.relu(b.add("linear", hidden, weight=random.normal(size=(5, size)), bias=random.normal(size=5)))
    b.add("linear", hidden, weight=random.normal(size=(4, 5)))
    return b.graph(), first


def _plain(graph: Graph, box: Box, relaxation: Relaxation, objective: Objective, dual: DualPoint) -> Tensor:
    linear = linear_bound(graph, relaxation.envelopes, objective, dual, relaxation.splits)
    return linear.constant + sum((box.minimum(A) for A in linear.A.values()), torch.zeros(()))


def _free(dual: DualPoint) -> list[Tensor]:
    return [w for pair in dual.weights.values() for w in pair if w is not None] + list(dual.multipliers.values())


def _dual(relaxation: Relaxation, graph: Graph, batch: int, random: Random) -> DualPoint:
    def weight(name: str) -> Tensor:
        return torch.rand(batch, int(random.choice([1, ROWS])), *graph.shapes[name]).double().requires_grad_()

    return DualPoint(
        {
            name: tuple(None if f.default is None else weight(name) for f in (e.lower, e.upper))  # type: ignore[misc]
            for name, e in relaxation.envelopes.items()
        },
        {
            name: torch.rand(batch, ROWS, *graph.shapes[name]).double().requires_grad_()
            for name in relaxation.splits
            if random.random() < 0.8
        },
    )


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.sampled_from([1, 1 << 9, 1 << 19]))
def test_it_gives_the_plain_bounds_and_gradients(seed: int, cache: int):
    """Any batches, splits, multipliers, consumers and nodes of the objective, in groups of any size."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    graph, first = _network(random)
    graph = place(graph)
    of_C, batch = (int(n) for n in random.permutation([random.choice([1, 4]), 4]))
    centre = torch.randn(batch, *graph.input_shape, dtype=torch.float64)
    box = Box(centre - random.random(), centre + random.random())
    relaxation = relax_network(graph, box, interval_only)
    if random.random() < 0.4:
        sign = torch.randint(-1, 2, (batch, *graph.shapes[first])).double()
        relaxation = replace(relaxation, splits={first: Split(sign, torch.randn_like(sign))})
    node = str(random.choice([graph.output, graph.output, first, str(random.choice([n.name for n in graph.nodes]))]))
    objective = Objective(node, torch.randn(of_C, ROWS, *graph.shapes[node]).double())
    dual = _dual(relaxation, graph, batch, random)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first_layer, "CACHE_BYTES", cache)
        found = lower_bound(graph, box, relaxation, objective, dual)
        with torch.no_grad():
            without = lower_bound(graph, box, relaxation, objective, dual)
    expected = _plain(graph, box, relaxation, objective, dual)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(without, found.detach(), rtol=1e-9, atol=1e-9)
    weight = torch.linspace(1, 2, found.numel()).reshape(found.shape).double()
    if expected.requires_grad:
        ours, plain = (
            torch.autograd.grad(value, _free(dual), weight, allow_unused=True, materialize_grads=True)
            for value in (found, expected)
        )
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("of_A, of_box", [(1, 3), (3, 1), (3, 3)])
def test_shared_coefficients_get_the_gradients_of_the_whole_batch(of_A: int, of_box: int):
    graph, first = _network(np.random.default_rng(3))
    graph = place(graph)
    centre = torch.randn(of_box, *graph.input_shape, dtype=torch.float64)
    box = Box(centre - 0.5, centre + 0.25)
    A = torch.randn(of_A, 2, *graph.shapes[first], dtype=torch.float64, requires_grad=True)
    found = first_layer.minimum_through(graph, first_layer.first_layer(graph), box, A)
    expected = _plain(graph, box, Relaxation({}, {}), Objective(first, A), DualPoint())
    torch.testing.assert_close(found, expected)
    weight = torch.rand_like(found)
    ours, plain = (torch.autograd.grad(value, A, weight)[0] for value in (found, expected))
    torch.testing.assert_close(ours, plain)


def test_gradients_of_the_network_and_of_the_box_are_torchs():
    """Where more than the dual point is to be learned, every step is left to autograd."""
    graph, _ = _network(np.random.default_rng(3))
    graph = place(graph)
    assert first_layer.first_layer(graph)
    lower = torch.zeros(1, *graph.input_shape, dtype=torch.float64, requires_grad=True)
    box = Box(lower, lower.detach() + 1)
    relaxation = relax_network(graph, Box(lower.detach(), box.upper), interval_only)
    objective = Objective(graph.output, torch.ones(1, 1, *graph.output_shape, dtype=torch.float64))
    ours, plain = (
        torch.autograd.grad(f(graph, box, relaxation, objective, DualPoint()).sum(), lower)[0]
        for f in (lower_bound, _plain)
    )
    assert bool(plain.any())
    torch.testing.assert_close(ours, plain)
