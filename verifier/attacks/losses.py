"""What gradient attacks descend: losses of a batch's outputs, each smaller the nearer an unsafe polytope is.

Axes: A inputs, K unsafe polytopes, Y outputs (classes).
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.attacks.batch import Batch, classes_of
from verifier.errors import InputError

#: loss -> classes that it needs, untargeted and targeted; None where there is no such loss
CLASSES: dict[str, tuple[int, int | None]] = {"margin": (1, 1), "ce": (2, None), "dlr": (3, 4)}
_NEVER = -1e30  # a score that is no score
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
    if batch.labels is None:
        what = f"{title} compares a class with others, which this specification does not"
        raise InputError("--loss", what, "choose margin, which any specification has")
    classes = batch.objective.C.shape[-1]
    if classes < needed:
        what = f"has {classes} classes, {title} needs {needed}"
        raise InputError("network", what, "choose --loss margin, or --attack pgd, fab or square")


def loss(name: str, batch: Batch, y: Tensor, polytope: Tensor | None) -> Tensor:
    """(A,): the loss of outputs y (A, Y); differentiable.

    ``margin`` is the largest row of a polytope. ``ce`` is ``z_y - log sum_{i != y} exp z_i``: a monotone function of
    the cross-entropy, so its gradient has the same direction, but does not vanish where the label's probability rounds
    to one. ``dlr`` is the difference of logits ratio (Croce and Hein 2020, "Reliable evaluation of adversarial
    robustness", equations 6 and 7), which does not change with the scale of the logits.

    Args:
        polytope: (A,) int64, what to aim at; None for any.
    """
    if name == "margin" or batch.labels is None:
        values = batch.values(y)
        return values.amin(-1) if polytope is None else values.gather(1, polytope.unsqueeze(1)).squeeze(1)
    label = batch.labels.unsqueeze(1)
    score = y.gather(1, label).squeeze(1)
    others = y.scatter(1, label, _NEVER)
    if name == "ce":
        return score - others.logsumexp(-1)
    best = y.topk(3 if polytope is None else 4, dim=-1).values
    if polytope is None:
        return (score - others.amax(-1)) / (best[:, 0] - best[:, 2] + _TINY)
    target = classes_of(batch.objective).gather(1, polytope.unsqueeze(1))
    return (score - y.gather(1, target).squeeze(1)) / (best[:, 0] - best[:, 2:].mean(-1) + _TINY)


def descent(name: str, batch: Batch, x: Tensor, polytope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Loss (A,), its gradient (A, *X) and the margin (A,) at inputs x (A, *X); what is not finite counts as zero."""
    x = x.detach().requires_grad_()
    y = batch.outputs(x)
    value = loss(name, batch, y, polytope)
    return value.detach(), gradient(value, x), batch.margins(y)


def gradient(value: Tensor, x: Tensor, again: bool = False) -> Tensor:
    """Derivative of values (A,) by x (A, *X); zero where the network does not use its input or it is not finite.

    Args:
        again: whether another derivative of the same outputs will be asked for.
    """
    if not value.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(value.sum(), x, allow_unused=True, materialize_grads=True, retain_graph=again)
    return torch.nan_to_num(found, posinf=0, neginf=0)
