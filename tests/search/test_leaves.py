"""The end of activation splitting: complete up to rounding, and no solver's word is taken."""

from __future__ import annotations

from time import monotonic

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bounding.lp.test_liars import LIES
from tests.laws.networks import PIECEWISE
from tests.search.cases import first_output_below, least_first_output, network, start
from tests.search.test_milp import Liar
from verifier.bounding.dual import DualPoint
from verifier.operators import evaluate, place
from verifier.search.activation_split import ActivationSplit
from verifier.search.leaves import Leaves
from verifier.search.result import NarrowingOptions, RootOptions, SearchOptions
from verifier.search.subproblem import Batch

#: far more than these problems need, so that only an endless search meets it
ENOUGH = 30.0


@pytest.mark.parametrize("narrowing", [None, NarrowingOptions(levels=1)])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", PIECEWISE)
def test_activation_splitting_is_complete(name: str, seed: int, narrowing: NarrowingOptions | None):
    """Proved just below the integer program's minimum, refuted just above it, and nothing is given up."""
    graph, box = network(name, seed)
    level = least_first_output(graph, box)
    options = SearchOptions(root=RootOptions(after=0.0, rounds=1) if narrowing else None, narrowing=narrowing)
    search = start("activation", graph, box, first_output_below(graph, level - 1e-7), options)
    assert isinstance(search, ActivationSplit)
    search.run(monotonic() + ENOUGH)
    assert bool(search.ledger.result().proved[0])
    margin = float(search.ledger.result().margins[0])
    assert margin <= 1e-7 + 1e-9 and margin >= 0 and (narrowing or margin > 0)
    tried: list[torch.Tensor] = []

    def confirm(number: int, point: torch.Tensor) -> bool:
        tried.append(point)
        return True

    search = start("activation", graph, box, first_output_below(graph, level + 1e-7), options, confirm)
    search.run(monotonic() + ENOUGH)
    assert not isinstance(search, ActivationSplit) or search.ledger.falsified
    assert float(evaluate(place(graph), tried[0].unsqueeze(0)).flatten()[0]) <= level + 1e-7
    assert bool(box.contains(tried[0].reshape(1, *box.lower.shape))[0, 0])


def _decided(search: ActivationSplit) -> Batch:
    """The search's root with every open activation decided as at a point of the region, which lies in it."""
    box = search.frame.problem.region.enclosing_box()
    leaf = search.frame.roots(DualPoint())
    values, _ = search.frame.evaluate_within(leaf, (box.lower + box.upper) / 2)
    at = torch.cat([values[piece.source].flatten(1)[:, piece.index] for piece in search.frame.pieces], 1)
    sign = torch.where(at > 0, 1, -1).to(leaf["sign"].dtype)
    low, high = torch.where(at > 0, 0.0, leaf["low"]), torch.where(at > 0, leaf["high"], 0.0)
    return {**leaf, "sign": sign, "low": low, "high": high}


@settings(max_examples=30)
@given(
    name=st.sampled_from(["mlp", "leaky"]), lie=st.sampled_from(["empty", *sorted(LIES)]), seed=st.integers(0, 2**32)
)
def test_no_lie_of_a_solver_closes_a_leaf(name: str, lie: str, seed: int):
    """The middle of the box is unsafe, and it lies in the leaf."""
    graph, box = network(name, seed)
    middle = (box.lower + box.upper) / 2
    level = float(evaluate(place(graph), middle).flatten()[0])
    search = start("activation", graph, box, first_output_below(graph, level + 1e-9))
    assert isinstance(search, ActivationSplit)
    leaf = _decided(search)
    Leaves(search.exact, search.ledger, make=lambda program: Liar(program, lie, seed)).finish(leaf, None)
    assert bool(search.ledger.failed[0]) and not bool(search.ledger.result().proved[0])


def test_leaves_for_which_there_is_no_time_come_back():
    graph, box = network("mlp", seed=3)
    search = start("activation", graph, box, first_output_below(graph, least_first_output(graph, box) - 0.1))
    assert isinstance(search, ActivationSplit)
    leaf, leaves = _decided(search), Leaves(search.exact, search.ledger)
    assert len(leaves.finish(leaf, monotonic() - 1)["bound"]) == 1
    assert not bool(search.ledger.failed[0])
    assert len(leaves.finish(leaf, None)["bound"]) == 0


def test_a_program_that_would_not_fit_leaves_its_leaf_open(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("verifier.search.leaves.MOST_BYTES", 1)
    graph, box = network("mlp", seed=3)
    search = start("activation", graph, box, first_output_below(graph, least_first_output(graph, box) - 0.1))
    assert isinstance(search, ActivationSplit)
    Leaves(search.exact, search.ledger).finish(_decided(search), None)
    assert bool(search.ledger.failed[0])
