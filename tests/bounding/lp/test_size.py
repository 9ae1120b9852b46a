"""Sizes of programs: known before the work, and a network that is too large gets a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bounding.lp.test_triangle_lp import _relaxed
from tests.laws.networks import NETWORKS, case
from tests.operators.build import Builder
from verifier.bounding.lp.network import relaxed_network
from verifier.bounding.lp.program import program
from verifier.bounding.lp.size import estimate, require_size
from verifier.errors import InputError
from verifier.operators import place
from verifier.specs.region import Box


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_no_program_is_larger_than_its_estimate_says(name: str):
    problem = case(name, "box", seed=1, batch=1, radius=5.0)
    assert isinstance(problem.region, Box)
    made = program(relaxed_network(problem.graph, _relaxed(problem), problem.graph.output), problem.region)
    size = estimate(problem.graph)
    assert len(made.row_lower) <= size.rows and len(made.lower) <= size.columns
    assert made.A.nnz <= 1.5 * size.nonzeros


def test_a_network_that_is_too_large_is_named_before_any_work():
    builder = Builder(1, 1 << 16)
    layer = builder.add("linear", "x", weight=np.ones((64, 1 << 16)))
    builder.add("linear", builder.relu(layer), weight=np.ones((1, 64)))
    graph = place(builder.graph())
    require_size(graph)
    with pytest.raises(InputError, match="4,194,304|nonzeros") as error:
        require_size(graph, most=1 << 20)
    text = str(error.value)
    assert "65,664 columns" in text and "320 rows" in text and "GiB" in text and "\n" not in text
