"""The derivatives that are written down, beside automatic ones of the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.attacks.test_ensemble import batch, network
from verifier.attacks.batch import Batch
from verifier.attacks.goal import Classes, Polytopes
from verifier.attacks.losses import descent
from verifier.attacks.objective import Objective
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
def test_losses_and_their_gradients(name, ranks):
    task = batch(network(3, classes=5), "inf").aimed(ranks)
    x = task.center.clone().requires_grad_()
    y = evaluate(task.graph, x).flatten(1)
    expected = formula(name, task, y)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    value, found, margin = descent(name, task, task.center)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(found, gradient)
    torch.testing.assert_close(margin, task.margins(y.detach()))


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
