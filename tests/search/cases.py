"""Small problems whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tests.laws.networks import NETWORKS
from tests.laws.oracle import exact_minimum
from verifier.bounding.ladder import LadderOptions, Problem, crown
from verifier.bounding.rows import stack_rows
from verifier.graph.ir import Graph
from verifier.operators import evaluate, place
from verifier.search.activation_split import ActivationSplit
from verifier.search.branch_and_bound import Search
from verifier.search.input_split import InputSplit
from verifier.search.result import Replay, SearchOptions
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box

#: ``forms`` is the input with affine forms
WAYS = ("input", "forms", "activation", "both")


def never(number: int, point: torch.Tensor) -> bool:
    """A replay that confirms nothing, so that only proofs end a search."""
    return False


def network(name: str, seed: int, radius: float = 0.8) -> tuple[Graph, Box]:
    random = np.random.default_rng(seed)
    graph = NETWORKS[name](random)
    centre = torch.as_tensor(random.normal(size=(1, *graph.input_shape)))
    return graph, Box(centre - radius, centre + radius)


def problem(graph: Graph, box: Box, unsafe: tuple[Polytope, ...], dtype: torch.dtype = torch.float64) -> Problem:
    prop = Property(box, unsafe)
    return Problem(place(graph, dtype), box.to(dtype, "cpu"), stack_rows(graph, [prop], dtype, "cpu"))


def first_output_below(graph: Graph, level: float) -> tuple[Polytope, ...]:
    row = np.zeros((1, int(np.prod(graph.output_shape))))
    row[0, 0] = 1.0
    return (Polytope(row, np.array([level])),)


def least_first_output(graph: Graph, box: Box) -> float:
    row = np.zeros(int(np.prod(graph.output_shape)))
    row[0] = 1.0
    return exact_minimum(place(graph), box, row)


def sampled_least(graph: Graph, box: Box, seed: int) -> tuple[float, torch.Tensor]:
    """The least first output of many samples, and the point."""
    points = box.sample(400, torch.Generator().manual_seed(seed)).flatten(0, 1)
    values = evaluate(place(graph), points).flatten(1)[:, 0]
    return float(values.min()), points[values.argmin()]


def start(
    way: str,
    graph: Graph,
    box: Box,
    unsafe: tuple[Polytope, ...],
    options: SearchOptions | None = None,
    replay: Replay = never,
    dtype: torch.dtype = torch.float64,
) -> InputSplit | ActivationSplit | Search:
    options = options or SearchOptions()
    exact, wanted = problem(graph, box, unsafe), torch.ones(1, dtype=torch.bool)
    if way in ("input", "forms"):
        return InputSplit(exact, wanted, replace(options, forms=way == "forms"), replay)
    working = problem(graph, box, unsafe, dtype)
    root = crown(working, LadderOptions())
    kind = ActivationSplit if way == "activation" else Search
    return kind(working, exact, root, wanted, options, replay)


def one_step(search: InputSplit | ActivationSplit | Search) -> None:
    assert not isinstance(search, Search)
    way = search
    way.ledger.advance(lambda batch: way.step(batch, None))


def outcome(search: InputSplit | ActivationSplit | Search):
    return search.result() if isinstance(search, Search) else search.ledger.result()
