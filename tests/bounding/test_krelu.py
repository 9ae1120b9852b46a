"""k-ReLU: octahedra hold and profit from ascent, evidence is not trusted, the budget bounds the work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.networks import case, mlp
from tests.operators.build import Builder
from verifier.bounding import intermediate, krelu
from verifier.bounding.ascent import AscentOptions
from verifier.bounding.dual import DualPoint, Relaxation
from verifier.bounding.intermediate import IntermediateOptions, relax_network
from verifier.bounding.krelu import KReluOptions, by_dual_with_cuts, join_again, join_groups
from verifier.bounding.ladder import METHODS, LadderOptions, Problem, reevaluate
from verifier.bounding.octahedra import OctahedraOptions, octahedra
from verifier.bounding.rows import stack_rows
from verifier.graph.ir import Graph
from verifier.operators import evaluate_all, place
from verifier.relaxations.cuts import Cuts, Hulls
from verifier.relaxations.groups import GroupOptions
from verifier.relaxations.octahedra import directions
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box, Region

ASCENT = IntermediateOptions(ascent=AscentOptions(iterations=8))
SMALL = OctahedraOptions(chunk_bytes=1 << 15)
SLACK = 1e-9


def _relaxed(graph: Graph, region: Region, options: KReluOptions, intermediate: IntermediateOptions) -> Relaxation:
    tighten = by_dual_with_cuts(graph, region, intermediate, options)
    return relax_network(graph, region, tighten, join_groups(graph, region, options))


def _options(k: int, budget: int = 1 << 25) -> KReluOptions:
    return KReluOptions(GroupOptions(k, 6, k - 1, least_area=0.0), chunk_bytes=1 << 15, budget=budget, cases=None)


@settings(max_examples=6)
@given(
    name=st.sampled_from(("mlp", "prelu", "cnn", "residual", "tangle")),
    kind=st.sampled_from(("box", "l2")),
    seed=st.integers(0, 2**32),
    k=st.sampled_from((2, 3)),
)
def test_octahedra_hold_and_ascent_makes_them_no_looser(name: str, kind: str, seed: int, k: int):
    problem = case(name, kind, seed, radius=0.5)
    graph, region = problem.graph, problem.region
    relaxation = _relaxed(graph, region, _options(k), ASCENT)
    values = evaluate_all(graph, region.sample(64, problem.generator).flatten(0, 1))
    for node in graph.nodes:
        if node.name not in relaxation.cuts:
            continue
        source, cut = node.inputs[0], relaxation.cuts[node.name]
        assert isinstance(cut, Cuts)
        limits = octahedra(graph, region, relaxation, source, cut.index, SMALL)[0]
        plain = octahedra(graph, region, replace(relaxation, steps={}), source, cut.index, SMALL)[0]
        assert bool((limits <= plain + SLACK).all())
        x = values[source].unflatten(0, (64, -1)).flatten(2)
        index = cut.index.flatten(1).expand(64, -1, -1)
        sums = x.gather(2, index).unflatten(2, cut.index.shape[1:]) @ directions(k).T
        assert bool((sums <= limits + SLACK).all())


def _wide() -> tuple[Graph, Region]:
    graph = place(mlp(np.random.default_rng(0), lambda b, x: b.relu(x), (4, 12, 12, 12, 2)))
    return graph, Box(-torch.ones(1, 1, 4).double(), torch.ones(1, 1, 4).double())


def test_the_dual_points_of_entries_add_up_to_tighter_octahedra():
    graph, region = _wide()
    relaxation = _relaxed(graph, region, _options(2), ASCENT)
    last = [node for node in graph.nodes if node.name in relaxation.cuts][-1]
    cut = relaxation.cuts[last.name]
    assert isinstance(cut, Cuts)
    limits, plain = (
        octahedra(graph, region, r, last.inputs[0], cut.index, SMALL)[0][..., 4:]
        for r in (relaxation, replace(relaxation, steps={}))
    )
    assert float((plain - limits).mean()) > 0.01 * float(plain.abs().mean())


@pytest.mark.parametrize("slopes", ["zero", "one"])
def test_a_fixed_choice_of_lines_without_ascent_serves_as_well(slopes):
    graph, region = _wide()
    relaxation = _relaxed(graph, region, _options(2), IntermediateOptions(slopes=slopes))
    last = next(node for node in reversed(graph.nodes) if node.name in relaxation.cuts)
    cut = relaxation.cuts[last.name]
    assert isinstance(cut, Cuts)
    limits = octahedra(graph, region, relaxation, last.inputs[0], cut.index, SMALL)[0]
    values = evaluate_all(graph, region.sample(256, torch.Generator()).flatten(0, 1))[last.inputs[0]].flatten(0, 1)
    sums = values[:, cut.index[0]] @ directions(2).T
    assert bool((sums <= limits + SLACK).all())


def test_known_weights_give_the_same_limits():
    graph, region = _wide()
    relaxation = _relaxed(graph, region, _options(2), ASCENT)
    last = [node for node in graph.nodes if node.name in relaxation.cuts][-1]
    groups = relaxation.cuts[last.name].index  # type: ignore[attr-defined]
    climb = replace(SMALL, ascent=AscentOptions(iterations=4))
    limits, weights = octahedra(graph, region, relaxation, last.inputs[0], groups, climb)
    again, _ = octahedra(graph, region, relaxation, last.inputs[0], groups, OctahedraOptions(), weights)
    none, nothing = octahedra(graph, region, relaxation, last.inputs[0], groups, replace(climb, budget=0))
    assert weights and not nothing
    torch.testing.assert_close(again, limits, rtol=0, atol=1e-11)
    assert bool((limits <= none + SLACK).all()) and bool((limits < none - 1e-6).any())


def _problem(dtype: torch.dtype = torch.float64) -> Problem:
    random = np.random.default_rng(3)
    graph = mlp(random, lambda b, x: b.relu(x), (4, 10, 10, 2))
    region = Box(-torch.ones(1, 1, 4).double(), torch.ones(1, 1, 4).double())
    prop = Property(region, (Polytope(np.array([[1.0, -1.0]]), np.zeros(1)),))
    return Problem(place(graph, dtype), region.to(dtype, "cpu"), stack_rows(graph, [prop], dtype, "cpu"))


@pytest.mark.parametrize("facets", [True, False])
def test_nothing_of_the_evidence_is_trusted(facets: bool):
    """Limits and points that were tampered with are computed anew; only groups and normals are taken."""
    problem = _problem()
    joint = KReluOptions(facets=facets, cases=None)  # cases do without cuts
    found = METHODS["k-relu"](problem, LadderOptions(joint=joint), None)
    cuts = {}
    for name, cut in found.relaxation.cuts.items():
        if isinstance(cut, Cuts):
            cuts[name] = replace(cut, p=cut.p - 10)
        else:
            assert isinstance(cut, Hulls)
            cuts[name] = replace(cut, points=torch.zeros_like(cut.points))
    assert cuts
    tampered = replace(found, relaxation=replace(found.relaxation, cuts=cuts))
    torch.testing.assert_close(reevaluate(problem, tampered).lower, found.lower, rtol=0, atol=1e-9)


def test_cuts_beat_single_neurons():
    problem = _problem()
    alone, together = (METHODS[m](problem, LadderOptions(), None).lower.item() for m in ("alpha-crown", "k-relu"))
    assert together > alone + 0.01 * abs(alone)


def test_beyond_the_budget_boxes_are_tightened_without_cuts():
    problem = _problem()
    none, some = (
        _relaxed(problem.graph, problem.region, _options(2, budget), ASCENT).steps for budget in (0, 10 * 1000)
    )

    def with_cuts(steps) -> int:
        duals = [dual for taken in steps.values() for _, dual in taken]
        return sum(len(rows) for rows in (d.cut_multipliers for d in duals if isinstance(d, DualPoint)))

    assert with_cuts(none) == 0 and with_cuts(some) > 0
    assert sum(bool(d.weights) for taken in none.values() for _, d in taken if isinstance(d, DualPoint)) > 0


def test_every_box_and_the_rows_have_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch):
    """Of two activations side by side, both pre-activations are known before either is tightened."""
    b, random = Builder(1, 4), np.random.default_rng(0)

    def dense(x: str, size: int, out: int) -> str:
        return b.add("linear", x, weight=random.normal(size=(out, size)), bias=random.normal(size=out) / 2)

    h = b.relu(dense("x", 4, 6))
    one, other = dense(h, 6, 6), dense(h, 6, 6)
    dense(b.add("add", b.relu(one), b.relu(other)), 6, 2)
    graph = place(b.graph())
    region = Box(-torch.ones(1, 1, 4).double(), torch.ones(1, 1, 4).double())
    monkeypatch.setattr(intermediate, "monotonic", lambda: 0.0)
    shares: list[float | None] = []
    first = krelu.share_until

    def watched(*args):
        shares.append(first(*args))
        return shares[-1]

    monkeypatch.setattr(krelu, "share_until", watched)
    tighten = by_dual_with_cuts(graph, region, ASCENT, _options(2), deadline=12.0)
    relax_network(graph, region, tighten)
    kept = KReluOptions().kept
    assert shares == pytest.approx([12 / (3 + kept), 12 / (2 + kept), 12 / (1 + kept)])


def test_cuts_in_single_precision_become_valid_in_double():
    single, double = _problem(torch.float32), _problem()
    found = METHODS["k-relu"](single, LadderOptions(), None)
    again = reevaluate(double, found)
    torch.testing.assert_close(again.lower, found.lower.double(), rtol=1e-3, atol=1e-3)
    join = join_again(double.graph, double.region, found.relaxation.cuts)
    values = evaluate_all(double.graph, double.region.sample(256, torch.Generator().manual_seed(0)).flatten(0, 1))
    for node in double.graph.nodes:
        cut = join(node, again.relaxation) if node.name in found.relaxation.cuts else None
        if isinstance(cut, Cuts):
            z, x = (values[name].flatten(1)[:, cut.index[0]] for name in (node.name, node.inputs[0]))  # (256, G, k)
            left = torch.einsum("rgk,gfk->rgf", z, cut.P[0]) + torch.einsum("rgk,gfk->rgf", x, cut.R[0])
            assert bool((left <= cut.p[0]).all())
