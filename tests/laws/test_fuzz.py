"""Tens of thousands of boxes for every operator, and thousands of regions for every network: no violation.

Each test says how many boxes it looked at (``pytest -m slow -rP``).
"""

from __future__ import annotations

from math import prod

import pytest
import torch

from tests.laws.attacked import attacked_minimum
from tests.laws.networks import NETWORKS, case
from tests.operators.boxes import KINDS, boxes, points
from tests.operators.examples import EXAMPLES, output_node
from tests.operators.test_enclosure import assert_encloses
from tests.relaxations.lines import violations
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import Objective, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, interval_only, relax_network
from verifier.bounding.interval import interval_relaxation
from verifier.operators import OPERATORS, place

pytestmark = pytest.mark.slow

BOXES = 30_000  # for each operator, precision and kind of law
ROUNDING = 1e-10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("op", EXAMPLES)
def test_intervals_of_operators(op: str, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(sum(map(ord, op)))
    seen = 0
    while seen < BOXES:
        for graph in EXAMPLES[op]:
            for kind in ("", *KINDS):
                box = boxes(graph.input_shape, 256, generator, dtype, kind)
                assert_encloses(graph, box, points(box, 12, generator))
                seen += box.batch
    print(f"{op}: {seen} boxes")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("op", [name for name, operator in OPERATORS.items() if operator.envelope is not None])
def test_lines_of_activations(op: str, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(sum(map(ord, op)))
    seen = 0
    while seen < 10 * BOXES:
        for graph in EXAMPLES[op]:
            node = output_node(place(graph, dtype))
            for kind in ("", *KINDS):
                box = boxes(graph.input_shape, 512, generator, dtype, kind)
                assert violations(node, box, generator, count=32) == 0, (op, kind)
                seen += box.lower.numel()
    print(f"{op}: {seen} boxes")


@pytest.mark.parametrize("kind", ["box", "l2", "l1"])
@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_of_networks(name: str, kind: str):
    """Methods x regions x networks against sampled, attacked points."""
    seen = 0
    for seed in range(6):
        problem = case(name, kind, seed, batch=32, rows=4)
        graph, region = problem.graph, problem.region
        objective = Objective(graph.output, problem.C)
        best = attacked_minimum(graph, region, problem.C, problem.generator, count=64, steps=10) + ROUNDING
        assert bool((lower_bound(graph, region, interval_relaxation(graph, region), objective) <= best).all())
        ascent = AscentOptions(iterations=3)
        for tighten in (interval_only, by_dual(graph, region, IntermediateOptions(ascent=ascent))):
            relaxation = relax_network(graph, region, tighten)
            assert bool((lower_bound(graph, region, relaxation, objective) <= best).all())
            bound, _ = ascend(graph, region, relaxation, objective, AscentOptions(iterations=5))
            assert bool((bound <= best).all())
            seen += prod(bound.shape)
    print(f"{name} over {kind}: {seen} bounds")
