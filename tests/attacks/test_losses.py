"""The derivatives that are written down, beside automatic ones of the formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.attacks.test_ensemble import batch, network
from verifier.attacks.batch import Batch
from verifier.attacks.dense import Dense
from verifier.attacks.goal import Classes, Polytopes
from verifier.attacks.losses import descent
from verifier.attacks.objective import Objective
from verifier.graph.ir import Node
from verifier.operators import evaluate
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box


def formula(name: str, task: Batch, y: Tensor) -> Tensor:
    """The loss (A,) of outputs y (A, Y), written plainly."""
    goal = task.classes
    assert goal is not None
    score, rivals = y.gather(1, goal.label).squeeze(1), y.gather(1, goal.rivals)
    aimed = rivals.amax(1) if task.aim is None else rivals.gather(1, task.aim.unsqueeze(1)).squeeze(1)
    if name == "ce":
        return score - rivals.logsumexp(1)
    if name == "margin":
        return score - aimed
    best = y.sort(descending=True).values
    spread = best[:, 0] - (best[:, 2] if task.aim is None else best[:, 2:4].mean(1))
    return (score - aimed) / (spread + 1e-12)


@pytest.mark.parametrize(
    ("name", "ranks"), [("ce", ()), ("dlr", ()), ("dlr", (0, 2)), ("margin", ()), ("margin", (1,))]
)
@pytest.mark.parametrize("written", [True, False], ids=["written down", "automatic"])
def test_losses_and_their_gradients(name, ranks, written, monkeypatch):
    if not written:
        monkeypatch.setattr(Dense, "of", staticmethod(lambda graph: None))
    task = batch(network(3, classes=5), "inf").aimed(ranks)
    x = task.center.clone().requires_grad_()
    y = evaluate(task.graph, x).flatten(1)
    expected = formula(name, task, y)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    assert (task.dense is not None) == written
    value, found, margin = descent(name, task, task.center)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(found, gradient)
    torch.testing.assert_close(margin, task.margins(y.detach()))


def test_only_plain_fully_connected_networks_have_their_derivatives_written_down():
    graph = network(3)
    assert Dense.of(graph) is not None
    leaky = [replace(n, constants={"slope": torch.tensor(0.1)}) if n.op == "relu" else n for n in graph.nodes]
    branched = [*graph.nodes, Node("twice", "add", (graph.output, graph.output))]
    shapes = {**graph.shapes, "twice": graph.output_shape}
    assert Dense.of(replace(graph, nodes=tuple(leaky))) is None
    assert Dense.of(replace(graph, nodes=tuple(branched), output="twice", shapes=shapes)) is None
    assert Dense.of(replace(graph, output="r")) is None, "a value in the middle"


def test_polytopes_and_classes_agree():
    objective = Objective.of([_compared(i) for i in range(3)])
    classes, polytopes = Classes.of(objective), Polytopes(objective)
    assert classes is not None
    y = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 4)))
    torch.testing.assert_close(classes.values(y), polytopes.values(y))
    for k in range(int(classes.count.min())):
        chosen = torch.full((3,), k)
        torch.testing.assert_close(classes.slope(y, chosen), polytopes.slope(y, chosen))


def _compared(label: int) -> Property:
    """Label against the classes after it: fewer and fewer polytopes."""
    scores = np.eye(4)
    rows = [scores[label] - scores[other] for other in range(label + 1, 4)]
    box = Box(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))
    return Property(box, tuple(Polytope(row[None], np.zeros(1)) for row in rows))
