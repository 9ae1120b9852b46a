"""A network's undecided neurons alone are the same function on the region, and every subproblem has the same bound."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import numpy as np
import pytest
import torch

from tests.laws.networks import NETWORKS
from tests.operators.build import Builder
from tests.search.cases import (
    first_output_below,
    least_first_output,
    network,
    one_step,
    outcome,
    problem,
    sampled_least,
    start,
)
from verifier.bounding.dual import DualPoint
from verifier.bounding.interval import interval_relaxation
from verifier.bounding.ladder import LadderOptions, Problem, crown
from verifier.bounding.rounding import rounding_scale
from verifier.bounding.rows import stack_rows
from verifier.operators import evaluate, place
from verifier.search import activation_split as search_module
from verifier.search import condensed as module
from verifier.search.activation_split import ActivationSplit
from verifier.search.condensed import condensed
from verifier.search.result import JointOptions, SearchOptions
from verifier.search.subproblem import Frame, in_precision
from verifier.specs.property import Property
from verifier.specs.region import Box, stack

ALWAYS = float("inf")
OPTIONS = SearchOptions(root=None, narrowing=None, joint=JointOptions(after=0.0))
#: networks of ReLUs and their kin, each with an input of its own
RELUS = ("mlp", "leaky", "abs", "prelu", "cnn", "grouped", "residual", "maxpool", "average pool", "upsampling")


def _frame(name: str, seed: int, radius: float, batch: int = 1) -> Frame:
    """The frame of some properties that differ in their regions."""
    graph, box = network(name, seed, radius)
    boxes = [replace(box, lower=box.lower + 0.3 * i, upper=box.upper + 0.3 * i) for i in range(batch)]
    properties = [Property(one, first_output_below(graph, 0.0)) for one in boxes]
    posed = Problem(place(graph), stack(boxes), stack_rows(graph, properties, torch.float64, "cpu"))
    return Frame.of(posed, crown(posed, LadderOptions()).relaxation.boxes)


def _search(name: str, seed: int, condense: float | None, dtype: torch.dtype = torch.float64) -> ActivationSplit:
    graph, box = network(name, seed)
    level, _ = sampled_least(graph, box, seed)
    options = replace(OPTIONS, condense=condense)
    search = start("activation", graph, box, first_output_below(graph, level), options, dtype=dtype)
    assert isinstance(search, ActivationSplit)
    return search


@pytest.mark.parametrize("radius", [0.02, 0.2, 0.8])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", RELUS)
def test_nothing_changes_on_the_region(name: str, batch: int, radius: float):
    for seed in range(3):
        frame = _frame(name, seed, radius, batch)
        small = condensed(frame, ALWAYS)
        if small is None:
            assert not any(len(piece.index) for piece in frame.pieces)
            continue
        for region in range(batch):
            box = frame.problem.region.select(torch.tensor([region]))
            x = box.sample(50, torch.Generator().manual_seed(seed)).flatten(0, 1)
            values = [evaluate(one.problem.graph, x) for one in (small, frame)]
            torch.testing.assert_close(*values, rtol=1e-9, atol=1e-9)


def test_small_chunks_give_the_same_network(monkeypatch: pytest.MonkeyPatch):
    frame = _frame("residual", 0, 0.4, batch=2)
    found = []
    for size in (module.CHUNK_BYTES, 1):
        monkeypatch.setattr(module, "CHUNK_BYTES", size)
        found.append(condensed(frame, ALWAYS))
    one, other = (small.problem.graph.nodes for small in found if small is not None)
    for node, same in zip(one, other, strict=True):
        for name, value in node.constants.items():
            torch.testing.assert_close(same.constants[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", RELUS)
def test_columns_are_those_of_the_network(name: str):
    for seed in range(3):
        frame = _frame(name, seed, 0.2, batch=2)
        small = condensed(frame, ALWAYS)
        if small is None:
            assert not any(len(piece.index) for piece in frame.pieces)
            continue
        open_ = [piece for piece in frame.pieces if len(piece.index)]
        assert [(p.source, p.columns) for p in small.pieces] == [(p.source, p.columns) for p in open_]
        for one, other in zip(small.pieces, open_, strict=True):
            for end in ("lower", "upper"):
                sides = (
                    getattr(f.boxes[p.source], end).flatten(1)[:, p.index] for f, p in ((small, one), (frame, other))
                )
                torch.testing.assert_close(*sides, rtol=0, atol=0)


@pytest.mark.parametrize("name", RELUS)
@pytest.mark.parametrize("cuts", [False, True])
def test_subproblems_have_the_same_bounds(name: str, cuts: bool):
    """With splits, with multipliers and weights of any size, and with cuts."""
    for seed in range(3):
        search = _search(name, seed, None)
        if cuts:
            search._refine(None)
        for _ in range(3):
            if not search.ledger.stuck:
                one_step(search)
        if not len(search.ledger.store):
            continue
        batch = in_precision(search.ledger.store.pop(16), torch.float64)
        generator = torch.Generator().manual_seed(seed)
        for field in ("weight_low", "multiplier", "cut"):
            batch[field] = torch.rand(batch[field].shape, generator=generator, dtype=torch.float64)
        small = condensed(search.exact, ALWAYS)
        assert small is not None
        bounds = [frame.bound(frame.view(batch))[1] for frame in (small, search.exact)]
        torch.testing.assert_close(*bounds, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", RELUS)
def test_what_rounding_may_add_counts_the_way_back_to_the_input(name: str):
    """No less than what the condensed network itself adds up, and what is certain is below the bound."""
    for seed in range(3):
        search = _search(name, seed, None)
        one_step(search)
        if not len(search.ledger.store):
            continue
        batch = in_precision(search.ledger.store.pop(8), torch.float64)
        small = condensed(search.exact, ALWAYS)
        assert small is not None
        view = small.view(batch)
        rows, sure = small.bound(view)[1], small.certain(view)
        own = replace(view.relaxation, boxes={**view.relaxation.boxes, **_all_boxes(small)})
        least = rounding_scale(small.problem.graph, own, view.objective, view.dual)
        unit = 1024 * torch.finfo(torch.float64).eps
        assert bool((rows - sure >= 0.5 * unit * least).all())  # half: the way back is counted once and not twice


def _all_boxes(frame: Frame):
    """Boxes of all nodes of a condensed network, by intervals."""
    return interval_relaxation(frame.problem.graph, frame.problem.region).boxes


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - set(RELUS)))
def test_other_activations_are_left_as_they_are(name: str):
    assert condensed(_frame(name, 0, 0.2), ALWAYS) is None


def test_without_undecided_neurons_nothing_is_condensed():
    assert condensed(_frame("cnn", 0, 1e-6), ALWAYS) is None


@pytest.mark.parametrize("name", ["leaky", "cnn", "average pool", "upsampling"])
def test_cuts_hold_where_boxes_have_decided_their_neurons_since(name: str):
    """Boxes of half of the region, as a search's root can get by refining them after the cuts were made."""
    for seed in range(8):
        search = _search(name, seed, None)
        search._refine(None)
        if not search.exact.cuts:
            continue
        graph, box = network(name, seed)
        half = replace(box, upper=(box.lower + box.upper) / 2)
        posed = problem(graph, half, first_output_below(graph, 0.0))
        frame = Frame.of(posed, crown(posed, LadderOptions()).relaxation.boxes, search.exact.cuts)
        small = condensed(frame, ALWAYS)
        if small is None:
            assert not any(len(piece.index) for piece in frame.pieces)
            continue
        batch, generator = frame.roots(DualPoint()), torch.Generator().manual_seed(seed)
        batch["cut"] = torch.rand(batch["cut"].shape, generator=generator, dtype=torch.float64)
        bounds = [one.bound(one.view(batch))[1] for one in (small, frame)]
        torch.testing.assert_close(*bounds, rtol=1e-9, atol=1e-9)


def test_a_name_that_the_condensed_network_needs_leaves_it_as_it_is():
    frame = _frame("mlp", 0, 0.8)
    graph = frame.problem.graph
    first = graph.nodes[1].name
    called = {first: "condensed affine part"}
    nodes = tuple(
        replace(node, name=called.get(node.name, node.name), inputs=tuple(called.get(n, n) for n in node.inputs))
        for node in graph.nodes
    )
    renamed = replace(graph, nodes=nodes, shapes={called.get(n, n): shape for n, shape in graph.shapes.items()})
    boxes = {called.get(n, n): box for n, box in frame.boxes.items()}
    assert condensed(frame, ALWAYS) is not None
    assert condensed(Frame.of(replace(frame.problem, graph=renamed), boxes), ALWAYS) is None


def test_an_activation_of_an_activation_is_left_as_it_is():
    b = Builder(1, 3)
    first = b.relu(b.add("linear", "x", weight=np.eye(3), bias=np.zeros(3)), slope=[-1.0, 0.1, -1.0])
    b.add("linear", b.relu(first, slope=0.3), weight=np.ones((2, 3)), bias=np.zeros(2))
    graph, one = b.graph(), torch.ones(1, 1, 3, dtype=torch.float64)
    posed = problem(graph, Box(-one, one), first_output_below(graph, 0.0))
    assert condensed(Frame.of(posed, crown(posed, LadderOptions()).relaxation.boxes), ALWAYS) is None


def test_where_boxes_of_subproblems_are_narrowed_all_layers_stay():
    graph, box = network("cnn", 0)
    level, _ = sampled_least(graph, box, 0)
    options = SearchOptions(root=None, condense=ALWAYS)
    search = start("activation", graph, box, first_output_below(graph, level), options)
    assert isinstance(search, ActivationSplit)
    search.run(monotonic() + 1.0)
    assert search._certain is search.exact
    assert search.frame.problem.graph.output == graph.output


def test_steps_are_as_large_as_each_network_wants_and_stay_small_where_memory_ran_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search_module, "MANY", 5000)
    search = _search("cnn", 0, None)
    over_all_layers = search.ledger.size
    assert over_all_layers < 5000
    search.options = replace(search.options, condense=ALWAYS)
    search._begin()
    assert search.ledger.size == 5000
    search.options = replace(search.options, condense=None)
    search._begin()
    assert search.ledger.size == over_all_layers
    search.ledger.size = 3  # as after memory ended
    search.options = replace(search.options, condense=ALWAYS)
    search._begin()
    assert search.ledger.size == 3


def test_without_memory_for_it_all_layers_stay(monkeypatch: pytest.MonkeyPatch):
    def ended(frame: Frame, most: float) -> Frame:
        raise MemoryError

    monkeypatch.setattr(search_module, "condensed", ended)
    search = _search("cnn", 0, ALWAYS)
    assert search._certain is search.exact


def test_large_ones_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch):
    frame = _frame("cnn", 0, 0.8)
    assert condensed(frame, 1e-6) is None
    assert condensed(frame, ALWAYS) is not None
    monkeypatch.setattr(module, "MOST_WORK", 1)
    assert condensed(frame, ALWAYS) is None


def test_an_activation_on_the_input_or_beside_another_is_left_as_it_is():
    for shared in (False, True):
        b = Builder(1, 3)
        first = b.add("linear", "x", weight=np.eye(3), bias=np.zeros(3)) if shared else "x"
        pair = [b.relu(first), b.relu(first, slope=0.1)] if shared else [b.relu(first), first]
        b.add("linear", b.add("add", *pair), weight=np.ones((2, 3)), bias=np.zeros(2))
        graph, box = b.graph(), network("mlp", 0)[1]
        box = replace(box, lower=-torch.ones(1, 1, 3), upper=torch.ones(1, 1, 3))
        posed = Problem(
            place(graph),
            box.to(torch.float64, "cpu"),
            stack_rows(graph, [Property(box, first_output_below(graph, 0.0))], torch.float64, "cpu"),
        )
        assert condensed(Frame.of(posed, crown(posed, LadderOptions()).relaxation.boxes), ALWAYS) is None


@pytest.mark.parametrize("name", ["leaky", "cnn", "residual", "maxpool"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_search_proves_what_is_true_and_nothing_else(name: str, dtype: torch.dtype):
    graph, box = network(name, 1, radius=0.4)
    least = least_first_output(graph, box)
    for level, expected in ((least - 0.05, True), (least + 0.05, False)):
        options = replace(OPTIONS, condense=ALWAYS)
        search = start("activation", graph, box, first_output_below(graph, level), options, dtype=dtype)
        assert isinstance(search, ActivationSplit)
        search.run(monotonic() + (60 if expected else 2))
        assert bool(outcome(search).proved[0]) is expected
