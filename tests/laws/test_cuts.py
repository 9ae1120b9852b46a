"""Law 4 for cuts: no multipliers of valid cuts exceed the least value that can be found."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.attacked import attacked_minimum
from tests.laws.networks import Case, case
from tests.operators.build import Builder
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import DualPoint, Objective, Relaxation, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, Join, by_dual, interval_only, relax_network
from verifier.bounding.krelu import KReluOptions, join_again, join_groups
from verifier.bounding.rounding import rounding_scale
from verifier.operators import OPERATORS, evaluate_all, place
from verifier.relaxations.cuts import Cuts, Hulls, JointBound
from verifier.relaxations.groups import GroupOptions
from verifier.specs.box import flat
from verifier.specs.region import Box

SLACK = 1e-9
BENT = ("mlp", "leaky", "abs", "prelu", "clip", "cnn", "residual", "maxpool", "tangle")
SMOOTH = ("sigmoid", "tanh")
PROBLEMS = {
    "name": st.sampled_from(BENT),
    "kind": st.sampled_from(("box", "l2", "l1")),
    "seed": st.integers(0, 2**32),
}


def _relaxed(problem: Case, join: Join | None = None) -> Relaxation:
    graph, region = problem.graph, problem.region
    return relax_network(graph, region, by_dual(graph, region, IntermediateOptions()), join)


def _handmade(problem: Case, relaxation: Relaxation, kind: str, generator: torch.Generator) -> dict[str, JointBound]:
    """Random directions on random pairs; their limits, or the pairs' points, by the corners and kinks of boxes."""
    found: dict[str, JointBound] = {}
    for node in problem.graph.nodes:
        kinks = OPERATORS[node.op].kinks if node.name in relaxation.envelopes else None
        size = torch.Size(problem.graph.shapes[node.name]).numel()
        if kinks is None or size < 2:
            continue
        index = torch.stack([torch.randperm(size, generator=generator)[:2] for _ in range(3)])
        box = relaxation.boxes[node.inputs[0]]
        ends = [box.lower, box.upper, *(torch.full_like(box.lower, kink).clamp(box.lower, box.upper)
                                        for kink in kinks(node))]  # fmt: skip
        x = torch.stack([flat(end) for end in ends])[:, :, index]  # (E, B, G, 2)
        z = torch.stack([flat(OPERATORS[node.op].forward(node, end)) for end in ends])[:, :, index]
        pairs = list(product(range(len(ends)), repeat=2))
        points = torch.stack([torch.stack([z[a, ..., 0], z[b, ..., 1], x[a, ..., 0], x[b, ..., 1]], -1)
                              for a, b in pairs], 2)  # fmt: skip
        if kind == "hulls":
            found[node.name] = Hulls(index, points)
        else:
            normals = torch.randn(*points.shape[:2], 4, 4, generator=generator, dtype=torch.float64)
            p = (normals @ points.transpose(2, 3)).amax(-1)
            found[node.name] = Cuts(index, normals[..., :2], normals[..., 2:], p)
    return found


def _drawn(cuts: dict[str, JointBound], rows: int, size: float, generator: torch.Generator) -> dict[str, torch.Tensor]:
    found = {}
    for name, cut in cuts.items():
        drawn = size * torch.randn(cut.zero(rows).shape, generator=generator, dtype=torch.float64)
        found[name] = drawn.clamp(min=cut.least)
    return found


def _weights(relaxation: Relaxation, rows: int, generator: torch.Generator) -> dict:
    def draw(default: torch.Tensor | None) -> torch.Tensor | None:
        if default is None:
            return None
        return torch.rand(len(default), rows, *default.shape[1:], generator=generator, dtype=torch.float64)

    return {name: (draw(e.lower.default), draw(e.upper.default)) for name, e in relaxation.envelopes.items()}


@settings(max_examples=40)
@given(**PROBLEMS, form=st.sampled_from(("cuts", "hulls")), size=st.sampled_from((0.01, 0.3, 10.0)))
def test_no_multipliers_exceed_the_attacked_minimum(name: str, kind: str, seed: int, form: str, size: float):
    problem = case(name, kind, seed)
    generator = problem.generator
    relaxation = _relaxed(problem)
    relaxation = replace(relaxation, cuts=_handmade(problem, relaxation, form, generator))
    attacked = attacked_minimum(problem.graph, problem.region, problem.C, problem.generator)
    objective = Objective(problem.graph.output, problem.C)
    for _ in range(3):
        dual = DualPoint(
            _weights(relaxation, 3, generator), cut_multipliers=_drawn(dict(relaxation.cuts), 3, size, generator)
        )
        bound = lower_bound(problem.graph, problem.region, relaxation, objective, dual)
        scale = rounding_scale(problem.graph, relaxation, objective, dual)
        assert bool((bound <= attacked + SLACK * scale).all())
        assert bool((scale >= bound.abs() * (1 - SLACK)).all())


@settings(max_examples=25)
@given(
    name=st.sampled_from((*BENT, *SMOOTH)),
    kind=PROBLEMS["kind"],
    seed=PROBLEMS["seed"],
    k=st.sampled_from((2, 3)),
    facets=st.booleans(),
    size=st.sampled_from((0.0, 0.1, 3.0)),
)
def test_k_relu_holds_at_every_point(name: str, kind: str, seed: int, k: int, facets: bool, size: float):
    """Values of sampled points satisfy every cut, and no multipliers exceed what was attacked."""
    problem = case(name, kind, seed)
    graph, region, generator = problem.graph, problem.region, problem.generator
    groups = GroupOptions(size=k, partition=4, overlap=k - 1, least_area=0.0)
    smooth = k == 2 or not facets  # of three smooth neurons the hulls have thousands of facets
    relaxation = _relaxed(problem, join_groups(graph, region, KReluOptions(groups, facets=facets, smooth=smooth)))
    cuts = dict(relaxation.cuts)
    assert cuts or not smooth or name not in SMOOTH
    values = evaluate_all(graph, region.sample(64, generator).flatten(0, 1))
    for node in graph.nodes:
        cut = cuts.get(node.name)
        if cut is None:
            continue
        z, x = (values[v].unflatten(0, (64, -1)).flatten(2) for v in (node.name, node.inputs[0]))
        directions = _drawn({node.name: cut}, 4, 1.0, generator)[node.name]
        on_output, on_input, constant = cut.push(directions, z.shape[2])
        total = torch.einsum("rbn,bsn->rbs", z, on_output) + torch.einsum("rbn,bsn->rbs", x, on_input) + constant
        assert bool((total <= SLACK).all()), (node.name, float(total.max()))
    attacked = attacked_minimum(graph, region, problem.C, problem.generator)
    objective = Objective(graph.output, problem.C)
    dual = DualPoint(_weights(relaxation, 3, generator), cut_multipliers=_drawn(cuts, 3, size, generator))
    assert bool((lower_bound(graph, region, relaxation, objective, dual) <= attacked + SLACK).all())
    climbed, _ = ascend(graph, region, relaxation, objective, AscentOptions(iterations=8, cut_step=0.5))
    assert bool((climbed <= attacked + SLACK).all())
    again = _relaxed(problem, join_again(graph, region, cuts))
    assert bool((lower_bound(graph, region, again, objective, dual) <= attacked + SLACK).all())


@pytest.mark.parametrize("facets", [True, False])
def test_two_relus_pass_the_convex_barrier(facets: bool):
    """max relu(x + y) + relu(x - y) over [-1, 1]^2 is 2; no relaxation of single neurons goes below 3."""
    b = Builder(1, 2)
    hidden = b.relu(b.add("linear", "x", weight=[[1.0, 1.0], [1.0, -1.0]]))
    b.add("linear", hidden, weight=[[1.0, 1.0]])
    graph = place(b.graph())
    region = Box(-torch.ones(1, 1, 2).double(), torch.ones(1, 1, 2).double())
    relaxation = relax_network(graph, region, interval_only)
    objective = Objective(graph.output, -torch.ones(1, 1, 1, 1).double())
    options = AscentOptions(iterations=300, cut_step=0.2, decay=0.98, patience=300)
    alone, _ = ascend(graph, region, relaxation, objective, options)
    assert alone.item() == pytest.approx(-3.0)
    together = relax_network(graph, region, interval_only, join_groups(graph, region, KReluOptions(facets=facets)))
    found, _ = ascend(graph, region, together, objective, options)
    assert found.item() == pytest.approx(-2.0, abs=1e-3) and found.item() <= -2.0


def test_cuts_put_coefficients_on_inactive_neurons():
    """z_0 + x_1 <= 5 where x_0 = 5 - t is active and x_1 = t is not, for t in [-4, -2]: -z_0 has minimum -9.

    Adding the cut once leaves x_1 - 5 of the objective, on a neuron whose lines are all zero.
    """
    b = Builder(1, 1)
    weight, bias = [[-1.0]] + [[1.0]] * 15, [5.0] + [0.0] * 15
    hidden = b.relu(b.add("linear", "x", weight=weight, bias=bias))
    b.add("linear", hidden, weight=[[-1.0] + [0.0] * 15])
    graph = place(b.graph())
    region = Box(torch.full((1, 1, 1), -4.0).double(), torch.full((1, 1, 1), -2.0).double())
    relaxation = relax_network(graph, region, interval_only)
    one = torch.ones(1, 1, 1, 1).double()
    row = torch.eye(2).double().reshape(2, 1, 1, 1, 2)
    cut = Cuts(torch.tensor([[0, 1]]), P=row[0], R=row[1], p=5 * one[0])
    relaxation = replace(relaxation, cuts={hidden: cut})
    dual = DualPoint(cut_multipliers={hidden: one})
    assert lower_bound(graph, region, relaxation, Objective(graph.output, one), dual).item() == pytest.approx(-9.0)
