"""Cuts that all subproblems share: they hold everywhere, they raise bounds, and the answers stay true."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.networks import NETWORKS
from tests.search.cases import first_output_below, least_first_output, network, one_step, sampled_least, start
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.dual import DualPoint
from verifier.operators import evaluate_all, place
from verifier.search.activation_split import ActivationSplit
from verifier.search.result import JointOptions, SearchOptions
from verifier.search.subproblem import in_precision
from verifier.specs.box import flat

ROUNDING = 1e-9
OPTIONS = replace(SearchOptions(), root=None, narrowing=None, joint=JointOptions(after=0.0))


def _with_cuts(name: str, seed: int, dtype: torch.dtype, radius: float = 0.8) -> tuple[ActivationSplit, torch.Tensor]:
    """A search that cannot be decided at once, begun again with cuts; and points of its region."""
    graph, box = network(name, seed, radius)
    level, _ = sampled_least(graph, box, seed)
    search = start("activation", graph, box, first_output_below(graph, level), OPTIONS, dtype=dtype)
    assert isinstance(search, ActivationSplit)
    search._refine(None)
    return search, box.sample(300, torch.Generator().manual_seed(seed % 2**31)).flatten(0, 1)


@settings(max_examples=12)
@given(
    name=st.sampled_from(sorted(NETWORKS)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**32),
)
def test_no_multiplier_of_cuts_and_splits_exceeds_a_sampled_value(name: str, dtype: torch.dtype, seed: int):
    """The float64 bounds of subproblems hold at every point that meets their splits, whatever the multipliers."""
    search, x = _with_cuts(name, seed, dtype)
    for _ in range(2):
        if not search.ledger.stuck:
            one_step(search)
    if not len(search.ledger.store):
        return
    batch = in_precision(search.ledger.store.pop(8), torch.float64)
    generator = torch.Generator().manual_seed(seed % 2**31)
    batch["cut"] = torch.rand(batch["cut"].shape, generator=generator, dtype=torch.float64)
    _, rows = search.exact.bound(search.exact.view(batch))
    values = evaluate_all(place(search.exact.problem.graph), x)
    inner = torch.cat([flat(values[p.source])[:, p.index] for p in search.exact.pieces], 1)
    meets = (batch["sign"].unsqueeze(1) * (inner - batch["point"].unsqueeze(1)) >= 0).all(2)
    objective = search.exact.problem.rows.objective
    margin = flat(values[objective.node]) @ objective.C[0, 0].flatten() + objective.offset[0, 0]  # type: ignore[index]
    assert bool((rows[:, 0] <= margin.expand_as(meets).masked_fill(~meets, torch.inf).amin(1) + ROUNDING).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuts_raise_the_bound_of_the_root(dtype: torch.dtype):
    graph, box = network("mlp", seed=3)
    level = least_first_output(graph, box)
    search = start("activation", graph, box, first_output_below(graph, level), OPTIONS, dtype=dtype)
    assert isinstance(search, ActivationSplit)
    view = search.frame.view(search.frame.roots(DualPoint()))
    best, _ = ascend(search.frame.problem.graph, view.region, view.relaxation, view.objective, AscentOptions(60))
    search._refine(None)
    assert search._joint is not None and search.frame.cuts and search.exact.cuts.keys() == search.frame.cuts.keys()
    roots = search.ledger.store.pop(1)
    _, after = search.frame.bound(search.frame.view(roots))
    assert float(after) > float(best) + 1e-3
    none = {**roots, "cut": torch.zeros_like(roots["cut"])}
    assert float(search.frame.bound(search.frame.view(none))[1]) < float(after)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["mlp", "leaky"])
def test_a_search_with_cuts_answers_the_truth(name: str, dtype: torch.dtype):
    graph, box = network(name, seed=3)
    level = least_first_output(graph, box)
    for gap, proved in ((-0.01, True), (1e-3, False)):
        search = start("activation", graph, box, first_output_below(graph, level + gap), OPTIONS, dtype=dtype)
        search.run(monotonic() + (60 if proved else 0.5))
        result = search.ledger.result()  # type: ignore[union-attr]
        assert bool(result.proved[0]) == proved
        assert float(result.margins[0]) <= -gap + 1e-6
