"""No unsafe default: every entry has examples, and what has no bound rule is refused before any work."""

from __future__ import annotations

import pytest
import torch

from tests.operators.build import Builder
from tests.operators.examples import EXAMPLES, output_node
from verifier.errors import InputError
from verifier.graph.ir import OPS
from verifier.operators import OPERATORS, Operator, place, require_bound_rules
from verifier.operators.registry import registry
from verifier.specs.region import Box


def test_every_operator_has_examples_of_itself():
    assert set(EXAMPLES) == set(OPERATORS)
    for name, graphs in EXAMPLES.items():
        assert len(graphs) >= 2, name
        assert all(output_node(graph).op == name for graph in graphs), name


def test_every_name_of_the_vocabulary_is_registered():
    assert set(OPERATORS) | {"input"} == set(OPS)


def test_an_operator_is_either_affine_or_an_activation():
    for name, operator in OPERATORS.items():
        assert operator.adjoint is None or operator.envelope is None, name
        assert (operator.envelope is None) == (operator.splits is None), name
    assert {name for name, operator in OPERATORS.items() if not operator.bounded} == {"softmax", "log_softmax"}


def test_duplicates_and_unknown_names_are_refused():
    relu = OPERATORS["relu"]
    with pytest.raises(ValueError, match="'relu' is registered twice"):
        registry((relu,), (relu,))
    with pytest.raises(ValueError, match="'gelu'"):
        registry((Operator("gelu", relu.forward, relu.interval),))


def test_nodes_without_a_bound_rule_are_named_all_at_once():
    builder = Builder(1, 3)
    first = builder.add("softmax", "x", attributes={"axis": 1})
    builder.add("log_softmax", builder.relu(first), attributes={"axis": 1})
    with pytest.raises(InputError, match=r"no bound rule for softmax 'softmax_1', log_softmax 'log_softmax_3'"):
        require_bound_rules(builder.graph())


def test_a_relu_of_slope_one_is_a_line_and_is_never_split():
    builder = Builder(3)
    builder.relu("x", [0.0, 1.0, -1.0])
    node = place(builder.graph()).nodes[-1]
    around = Box(-torch.ones(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64))
    splits, envelope = OPERATORS["relu"].splits, OPERATORS["relu"].envelope
    assert splits is not None and envelope is not None
    assert splits(node, around).tolist() == [[True, False, True]]
    for line in (envelope(node, around).lower.line(None), envelope(node, around).upper.line(None)):
        assert float(line[0].flatten()[1]) == 1 and (line[1] is None or float(line[1].flatten()[1]) == 0)
