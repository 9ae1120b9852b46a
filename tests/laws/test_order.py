"""Law 3, order on the same boxes: IBP <= CROWN joined with IBP <= alpha-CROWN <= what any attack finds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.laws.attacked import attacked_minimum, values_at
from tests.laws.networks import NETWORKS, Case, case, cases
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import DualPoint, Objective, Relaxation, fixed_point, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, interval_only, relax_network
from verifier.bounding.interval import interval_boxes, interval_relaxation
from verifier.operators import evaluate_all

#: rounding of sums of some hundred float64 terms of size about one
ROUNDING = 1e-11


def assert_below(bound: Tensor, value: Tensor, what: str) -> None:
    worst = float((bound - value).max())
    assert worst <= ROUNDING, f"{what}: above by {worst}"


def assert_boxes_hold(relaxation: Relaxation, case: Case, x: Tensor) -> None:
    """Every box of a relaxation holds the values of its node at x (R, B, *X)."""
    for name, value in evaluate_all(case.graph, x.flatten(0, 1)).items():
        value, box = value.unflatten(0, x.shape[:2]), relaxation.boxes[name]
        assert_below(box.lower.expand_as(value), value, f"lower end of {name}")
        assert_below(value, box.upper.expand_as(value), f"upper end of {name}")


def relaxations(case: Case) -> dict[str, Relaxation]:
    """The network relaxed by every kind of intermediate bounds."""
    ascent = AscentOptions(iterations=4)
    ways = {
        "intervals": interval_only,
        "adaptive": by_dual(case.graph, case.region, IntermediateOptions()),
        "zero": by_dual(case.graph, case.region, IntermediateOptions(slopes="zero")),
        "one": by_dual(case.graph, case.region, IntermediateOptions(slopes="one")),
        "ascent": by_dual(case.graph, case.region, IntermediateOptions(ascent=ascent)),
    }
    return {name: relax_network(case.graph, case.region, tighten) for name, tighten in ways.items()}


@settings(max_examples=30)
@given(case=cases())
def test_bounds_are_in_order(case: Case):
    graph, region = case.graph, case.region
    objective = Objective(graph.output, case.C)
    attacked = attacked_minimum(graph, region, case.C, case.generator)
    x = region.sample(64, case.generator)
    intervals = interval_relaxation(graph, region)
    ibp = lower_bound(graph, region, intervals, objective)
    for name, relaxation in relaxations(case).items():
        assert_boxes_hold(relaxation, case, x)
        flat = lower_bound(graph, region, Relaxation(relaxation.boxes, {}), objective)
        crown = lower_bound(graph, region, relaxation, objective)
        alpha, _ = ascend(graph, region, relaxation, objective, AscentOptions(iterations=10))
        assert_below(ibp, flat, f"{name}: tighter boxes loosened IBP")
        assert_below(crown, alpha, f"{name}: ascent lost CROWN's bound")
        for slopes in ("zero", "one"):
            fixed = lower_bound(graph, region, relaxation, objective, fixed_point(relaxation.envelopes, slopes))
            assert_below(fixed, attacked, f"{name}: slopes {slopes}")
        assert_below(flat, attacked, f"{name}: IBP")
        assert_below(alpha, attacked, f"{name}: alpha-CROWN")


@settings(max_examples=25)
@given(case=cases())
def test_tightened_boxes_lie_in_the_intervals(case: Case):
    intervals = interval_boxes(case.graph, case.region)
    for name, relaxation in relaxations(case).items():
        for node, box in relaxation.boxes.items():
            assert_below(intervals[node].lower, box.lower, f"{name}: {node}")
            assert_below(box.upper, intervals[node].upper, f"{name}: {node}")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["box", "l2", "l1"])
def test_every_network_over_every_region(name: str, kind: str):
    """The same order once for each pair, so that none depends on being drawn; CROWN gains over IBP somewhere."""
    network = case(name, kind, seed=len(name), radius=0.3)
    objective = Objective(network.graph.output, network.C)
    tighten = by_dual(network.graph, network.region, IntermediateOptions())
    relaxation = relax_network(network.graph, network.region, tighten)
    attacked = attacked_minimum(network.graph, network.region, network.C, network.generator)
    crown = lower_bound(network.graph, network.region, relaxation, objective)
    alpha, dual = ascend(network.graph, network.region, relaxation, objective, AscentOptions(iterations=15))
    ibp = lower_bound(network.graph, network.region, interval_relaxation(network.graph, network.region), objective)
    assert_below(crown, alpha, "crown")
    assert_below(alpha, attacked, "alpha-CROWN")
    assert float((alpha - ibp).max()) > 0
    again = lower_bound(network.graph, network.region, relaxation, objective, dual)
    torch.testing.assert_close(again, alpha, rtol=0, atol=ROUNDING)


@settings(max_examples=30)
@given(case=cases(), seed=st.integers(0, 2**32), shared=st.booleans())
def test_no_random_dual_point_exceeds_a_sampled_minimum(case: Case, seed: int, shared: bool):
    """Law 4, weak duality: any weights give a bound, of the output and of every node on the way."""
    generator = torch.Generator().manual_seed(seed)
    relaxation = relaxations(case)["adaptive"]
    x = case.region.sample(48, case.generator)
    for node in case.graph.nodes:
        shape = case.graph.shapes[node.name]
        C = torch.randn(2, 3, *shape, generator=generator, dtype=torch.float64)

        def draw(default: Tensor | None) -> Tensor | None:
            if default is None:
                return None
            rows = 1 if shared else 3
            weight = torch.rand(2, rows, *default.shape[1:], generator=generator, dtype=torch.float64)
            return weight.round() if seed % 3 == 0 else weight

        envelopes = relaxation.envelopes
        dual = DualPoint({name: (draw(e.lower.default), draw(e.upper.default)) for name, e in envelopes.items()})
        bound = lower_bound(case.graph, case.region, relaxation, Objective(node.name, C), dual)
        assert_below(bound, values_at(case.graph, node.name, C, x).amin(0), node.name)
