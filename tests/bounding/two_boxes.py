"""A small network over two boxes, whose properties alpha-CROWN leaves open."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tests.laws.networks import mlp
from verifier.bounding.ladder import Problem
from verifier.bounding.rows import stack_rows
from verifier.operators import place
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box


def two_boxes(dtype: torch.dtype = torch.float64, thresholds: Sequence[float] = (0.0,)) -> Problem:
    """Both with one polytope for each threshold: the first output is above the second by at most so much."""
    graph = mlp(np.random.default_rng(3), lambda b, x: b.relu(x), (4, 10, 10, 2))
    region = Box(-torch.ones(2, 1, 4).double(), torch.tensor([1.0, 0.5]).reshape(2, 1, 1).expand(2, 1, 4).double())
    polytopes = tuple(Polytope(np.array([[1.0, -1.0]]), np.array([t])) for t in thresholds)
    props = [Property(region.select(torch.tensor([b])), polytopes) for b in (0, 1)]
    return Problem(place(graph, dtype), region.to(dtype, "cpu"), stack_rows(graph, props, dtype, "cpu"))
