"""Law 4: ascent reaches the optimum of the triangle LP, and nothing exceeds the exact minimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.networks import PIECEWISE, Case, case, mlp
from tests.laws.oracle import exact_minimum, triangle_minimum
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import DualPoint, Objective, Relaxation, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, interval_only, relax_network
from verifier.bounding.interval import interval_relaxation
from verifier.operators import evaluate, place
from verifier.specs.region import Box

#: HiGHS meets constraints to 1e-7
SOLVER = 1e-6


def _first(relaxation: Relaxation) -> dict[str, Box]:
    return {name: Box(box.lower[:1], box.upper[:1]) for name, box in relaxation.boxes.items()}


def _lp_values(problem: Case, relaxation: Relaxation, rows: int) -> torch.Tensor:
    boxes, C = _first(relaxation), problem.C[0].reshape(rows, -1).numpy()
    assert isinstance(problem.region, Box)
    return torch.tensor([triangle_minimum(problem.graph, problem.region, boxes, c) for c in C], dtype=torch.float64)


@pytest.mark.parametrize("intermediate", ["intervals", "crown"])
@pytest.mark.parametrize("name", [*PIECEWISE, "grouped", "maxpool", "average pool", "residual"])
def test_ascent_reaches_the_triangle_lp(name: str, intermediate: str):
    problem = case(name, "box", seed=7, batch=1, rows=2, radius=0.3)
    graph, region = problem.graph, problem.region
    tighten = interval_only if intermediate == "intervals" else by_dual(graph, region, IntermediateOptions())
    relaxation = relax_network(graph, region, tighten)
    best = _lp_values(problem, relaxation, 2)
    options = AscentOptions(iterations=200, step=0.1, decay=0.97, patience=200)
    bound, dual = ascend(graph, region, relaxation, Objective(graph.output, problem.C), options)
    assert bool((bound[0] <= best + SOLVER).all()), (bound, best)
    assert bool((bound[0] >= best - 1e-4 * (1 + best.abs())).all()), (bound, best)
    torch.testing.assert_close(
        lower_bound(graph, region, relaxation, Objective(graph.output, problem.C), dual), bound, rtol=0, atol=1e-11
    )


@settings(max_examples=15)
@given(name=st.sampled_from([*PIECEWISE, "maxpool"]), seed=st.integers(0, 2**32))
def test_no_weights_exceed_the_triangle_lp(name: str, seed: int):
    problem = case(name, "box", seed, batch=1, rows=2)
    graph, region = problem.graph, problem.region
    relaxation = relax_network(graph, region, by_dual(graph, region, IntermediateOptions()))
    best = _lp_values(problem, relaxation, 2)
    objective = Objective(graph.output, problem.C)
    generator = torch.Generator().manual_seed(seed)

    def draw(default: torch.Tensor | None) -> torch.Tensor | None:
        return None if default is None else torch.rand(1, 2, *default.shape[1:], generator=generator).double()

    points = [DualPoint()]
    for _ in range(4):
        drawn = {name: (draw(e.lower.default), draw(e.upper.default)) for name, e in relaxation.envelopes.items()}
        points.append(DualPoint(drawn))
    for point in points:
        assert bool((lower_bound(graph, region, relaxation, objective, point)[0] <= best + SOLVER).all())
    assert bool((ascend(graph, region, relaxation, objective, AscentOptions())[0][0] <= best + SOLVER).all())


@settings(max_examples=40)
@given(
    slope=st.sampled_from([0.0, 0.1, -1.0, 1.7]),
    seed=st.integers(0, 2**32),
    radius=st.sampled_from([0.05, 0.3, 1.0, 5.0]),
)
def test_no_bound_exceeds_the_exact_minimum(slope: float, seed: int, radius: float):
    random = np.random.default_rng(seed)
    graph = place(mlp(random, lambda b, x: b.relu(x, slope=slope), (2, 4, 4, 2)))
    centre = torch.as_tensor(random.normal(size=(1, *graph.input_shape)))
    region = Box(centre - radius, centre + radius)
    C = torch.as_tensor(random.normal(size=(1, 2, *graph.output_shape)))
    objective = Objective(graph.output, C)
    exact = torch.tensor([exact_minimum(graph, region, c.reshape(-1).numpy()) for c in C[0]], dtype=torch.float64)
    found = {"ibp": lower_bound(graph, region, interval_relaxation(graph, region), objective)}
    for ascent in (None, AscentOptions(iterations=5)):
        tighten = by_dual(graph, region, IntermediateOptions(ascent=ascent))
        relaxation = relax_network(graph, region, tighten)
        found[f"crown {ascent}"] = lower_bound(graph, region, relaxation, objective)
        found[f"alpha-crown {ascent}"], _ = ascend(graph, region, relaxation, objective, AscentOptions())
    for method, bound in found.items():
        assert bool((bound[0] <= exact + SOLVER * (1 + exact.abs())).all()), (method, bound, exact)


def test_the_oracle_knows_a_minimum_that_is_known():
    """|x0| + |x1| over [-1, 2] x [1, 3] is 1 at (0, 1); and at most 5; here the triangle relaxation is exact."""
    random = np.random.default_rng(0)
    problem = mlp(random, lambda b, x: b.relu(x, slope=-1.0), (2, 2, 1))
    nodes = list(problem.nodes)
    for index, weight in ((1, np.eye(2)), (3, np.ones((1, 2)))):
        constants = {"weight": weight, "bias": np.zeros(len(weight))}
        nodes[index] = type(nodes[index])(nodes[index].name, "linear", nodes[index].inputs, {}, constants)
    graph = place(type(problem)(tuple(nodes), problem.input, problem.output, problem.shapes))
    box = Box(torch.tensor([[[-1.0, 1.0]]]).double(), torch.tensor([[[2.0, 3.0]]]).double())
    relaxation = relax_network(graph, box, interval_only)
    assert exact_minimum(graph, box, np.array([1.0])) == pytest.approx(1.0)
    assert exact_minimum(graph, box, np.array([-1.0])) == pytest.approx(-5.0)
    assert triangle_minimum(graph, box, _first(relaxation), np.array([1.0])) == pytest.approx(1.0)
    assert triangle_minimum(graph, box, _first(relaxation), np.array([-1.0])) == pytest.approx(-5.0)


@pytest.mark.parametrize("name", ["mlp", "sigmoid", "tanh", "clip", "prelu", "residual", "tangle", "maxpool"])
def test_over_a_point_every_bound_is_the_value(name: str):
    problem = case(name, "box", seed=3, batch=2)
    point = (problem.region.enclosing_box().lower + problem.region.enclosing_box().upper) / 2
    region = Box(point, point)
    value = evaluate(problem.graph, point)
    expected = (problem.C * value.unsqueeze(1)).flatten(2).sum(2)
    for relaxation in (
        interval_relaxation(problem.graph, region),
        relax_network(problem.graph, region, by_dual(problem.graph, region, IntermediateOptions())),
    ):
        bound = lower_bound(problem.graph, region, relaxation, Objective(problem.graph.output, problem.C))
        torch.testing.assert_close(bound, expected, rtol=1e-10, atol=1e-10)
