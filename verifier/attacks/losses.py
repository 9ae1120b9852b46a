"""What gradient attacks descend: losses of a batch's outputs, each smaller the nearer an unsafe polytope is.

Axes: A inputs, K unsafe polytopes, Y outputs (classes).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from verifier.attacks.batch import Batch, finite
from verifier.attacks.goal import Classes
from verifier.errors import InputError
from verifier.operators import evaluate

#: loss -> classes that it needs, untargeted and targeted; None where there is no such loss
CLASSES: dict[str, tuple[int, int | None]] = {"margin": (1, 1), "ce": (2, None), "dlr": (3, 4)}
_TINY = 1e-12


def check_loss(name: str, targeted: bool, batch: Batch) -> None:
    """Refuse a loss that is not defined for a batch.

    Raises:
        InputError: it is not known, has no targeted form, is about classes where the property is not, or needs more
            classes than there are.
    """
    if name not in CLASSES:
        raise InputError("--loss", f"{name!r} is not known", f"choose one of {', '.join(CLASSES)}")
    needed = CLASSES[name][targeted]
    title = f"the {'targeted ' if targeted else ''}loss {name}"
    if needed is None:
        raise InputError("--loss", f"{title} is not defined", "choose dlr or margin")
    if name == "margin":
        return
    if batch.classes is None:
        what = f"{title} compares a class with others, which this specification does not"
        raise InputError("--loss", what, "choose margin, which any specification has")
    if batch.goal.outputs < needed:
        what = f"has {batch.goal.outputs} classes, {title} needs {needed}"
        raise InputError("network", what, "choose --loss margin, or --attack pgd, fab or square")


def descent(name: str, batch: Batch, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss (A,), its gradient (A, *X) and the margin (A,) at inputs x (A, *X).

    The derivative by the outputs is written down, so that nothing but the network is differentiated. Losses and margins
    that are not finite count as infinite; a gradient is zero where it is not, or where the network ignores its input.

    Args:
        name: one of `CLASSES`; ``margin`` is what stands for the others where the goal is not about classes.
    """
    y, pull = _forward(batch, x.detach())
    flat = y.detach().flatten(1)
    if name == "margin" or batch.classes is None:
        value, slope, margin = _margin(batch, flat)
    elif name == "ce":
        value, slope, margin = _cross_entropy(batch.classes, flat)
    else:
        value, slope, margin = _dlr(batch, batch.classes, flat)
    return finite(value), pull(slope), finite(margin)


def _forward(batch: Batch, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Outputs (A, *Y), and what turns slopes (A, Y) into derivatives (A, *X)."""
    dense = batch.dense
    if dense is not None:
        with torch.no_grad():
            y, active = dense.forward(x)
        return y, lambda slope: _numbers(dense.backward(slope, active).reshape(x.shape))
    with torch.enable_grad():
        y = evaluate(batch.graph, x.requires_grad_())
    return y, lambda slope: derivative(y, x, slope)


def derivative(y: Tensor, x: Tensor, slope: Tensor, again: bool = False) -> Tensor:
    """Derivative of ``<slope, y>`` by x (A, *X); zero where y does not depend on x, or where it is not finite.

    Args:
        y: (A, *Y), slope: (A, Y).
        again: whether another derivative of the same outputs will be asked for.
    """
    if not y.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(y, x, slope.reshape(y.shape), retain_graph=again)
    return _numbers(found)


def _numbers(gradient: Tensor) -> Tensor:
    """A gradient with zero in place of what is not finite."""
    return torch.nan_to_num(gradient, posinf=0, neginf=0)


def _margin(batch: Batch, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The value of the polytope that is aimed at, or else of the nearest."""
    values = batch.goal.values(y)
    margin, nearest = values.min(-1)
    if batch.aim is None:
        return margin, batch.goal.slope(y, nearest), margin
    return values.gather(1, batch.aim.unsqueeze(1)).squeeze(1), batch.goal.slope(y, batch.aim), margin


def _cross_entropy(goal: Classes, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``z_y - log sum_i exp z_i`` over the rivals i.

    A monotone function of the cross-entropy, so its gradient has the same direction, but does not vanish where the
    label's probability rounds to one.
    """
    rivals, score = y + goal.others, y.gather(1, goal.label).squeeze(1)
    logs = rivals.log_softmax(-1)
    margin = score - rivals.amax(-1)
    return margin + logs.amax(-1), goal.one - logs.exp(), margin


def _dlr(batch: Batch, goal: Classes, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The difference of logits ratio, which does not change with the scale of the logits.

    Croce and Hein 2020, "Reliable evaluation of adversarial robustness", equations 6 and 7.
    """
    values = goal.values(y)
    margin, polytope = values.min(-1)
    best, order = y.topk(3 if batch.aim is None else 4, dim=-1)
    if batch.aim is not None:
        polytope = batch.aim
    spread = best[:, :1] - best[:, 2:].mean(-1, keepdim=True) + _TINY
    value = values.gather(1, polytope.unsqueeze(1)) / spread
    slope = goal.slope(y, polytope)
    slope = slope.scatter_add(1, order[:, :1], -value)
    slope = slope.scatter_add(1, order[:, 2:], (value / (best.shape[1] - 2)).expand(-1, best.shape[1] - 2))
    return value.squeeze(1), slope / spread, margin
