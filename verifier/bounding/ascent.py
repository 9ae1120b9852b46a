"""Projected gradient ascent on the dual function: alpha-CROWN (Xu et al. 2021, arXiv 2011.13824)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.dual import DualPoint, Objective, Relaxation, lower_bound
from verifier.graph.ir import Graph
from verifier.specs.region import Region

#: what is left of a gradient in the average after a step; the bounds hardly depend on it between 0 and 0.5
_MEAN_DECAY = 0.3


@dataclass(frozen=True)
class AscentOptions:
    """How the ascent climbs.

    Args:
        iterations: steps at most.
        step: first step size in units of the weights, which live in [0, 1].
        decay: factor on the step size after every step.
        shared: one set of weights for all rows of a batch element instead of one for each row: less memory, looser.
        patience: stop when no row has gained over this many steps.
        multiplier_step: first step size of the multipliers of splits, in units of the objective's coefficients.
    """

    iterations: int = 20
    step: float = 0.4
    decay: float = 0.85
    shared: bool = False
    patience: int = 10
    multiplier_step: float = 0.1


def ascend(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    objective: Objective,
    options: AscentOptions,
    done: Callable[[Tensor], bool] | None = None,
    deadline: float | None = None,
    start: DualPoint | None = None,
) -> tuple[Tensor, DualPoint]:
    """The best bounds (B, S) found and the dual point that gives them.

    Args:
        start: where to begin: weights (B, S, *X) instead of CROWN's, multipliers instead of zero.
        done: called with the best bounds so far; True ends the ascent early.
        deadline: `time.monotonic` value after which no further step is started.
    """
    begin = _start(graph, relaxation, objective, options.shared, start or DualPoint())
    return climb(lambda dual: lower_bound(graph, region, relaxation, objective, dual), begin, options, done, deadline)


def climb(
    evaluate: Callable[[DualPoint], Tensor],
    begin: DualPoint,
    options: AscentOptions,
    done: Callable[[Tensor], bool] | None = None,
    deadline: float | None = None,
) -> tuple[Tensor, DualPoint]:
    """The best values (B, S) of a dual function found from a point, and the points that give them.

    Args:
        evaluate: the function; each of its rows depends on the arguments of that row alone, unless they are shared.
        begin: where the ascent begins; its tensors (B, S, *X) are changed.
        done, deadline: as in `ascend`.
    """
    weights = [w for pair in begin.weights.values() for w in pair if w is not None]
    multipliers = list(begin.multipliers.values())
    free = weights + multipliers
    if not free:
        return evaluate(begin), begin
    kept = [w.clone() for w in free]
    climbers = [Signum(w, options.step, 1.0) for w in weights]
    climbers += [Signum(w, options.multiplier_step, math.inf) for w in multipliers]
    best, idle = None, 0
    for iteration in range(options.iterations + 1):
        last = iteration == options.iterations or (deadline is not None and monotonic() > deadline)
        for w in free:
            w.requires_grad_(not last)
        with torch.set_grad_enabled(not last):
            bound = evaluate(begin)
        best, gained = _keep(best, bound.detach(), kept, free, options.shared)
        idle = 0 if gained else idle + 1
        if last or idle >= options.patience or (done is not None and done(best)):
            break
        # of the sum with respect to what each climber moves; one that no row depends on has none
        gradients = torch.autograd.grad(bound, free, torch.ones_like(bound), allow_unused=True)
        for climber, gradient in zip(climbers, gradients, strict=True):
            if gradient is not None:
                climber.step(gradient, options.decay**iteration)
    assert best is not None
    return best, _named(begin, kept)


class Signum:
    """Ascent steps on one tensor by the sign of an averaged gradient (Bernstein et al. 2018, arXiv 1802.04434).

    The best weights mostly lie at the ends of their range and a dual function is piecewise smooth, so the size of a
    gradient says little. Half as many steps as Adam's give the same bounds here, in fewer passes over memory each.
    """

    def __init__(self, value: Tensor, size: float, most: float):
        """Steps on `value`, in place, which stays in [0, most]."""
        self.value, self.size, self.most = value, size, most
        self.mean = torch.zeros_like(value)

    @torch.no_grad()
    def step(self, gradient: Tensor, shrink: float) -> None:
        """Move along a gradient by `size * shrink`."""
        self.mean.lerp_(gradient, 1 - _MEAN_DECAY)
        self.value.add_(self.mean.sign(), alpha=self.size * shrink).clamp_(0.0, self.most)


def _start(graph: Graph, relaxation: Relaxation, objective: Objective, shared: bool, start: DualPoint) -> DualPoint:
    """Free copies of the start: weights of every family with a choice below the objective, multipliers of all splits.

    One set a row, or one for all rows; where the start has none, CROWN's own weights and multipliers of zero.
    """
    rows = 1 if shared else objective.C.shape[1]
    below = ancestors(graph, objective.node)

    def spread(given: Tensor | None, default: Tensor | None) -> Tensor | None:
        if given is not None:
            return given.detach().clone()
        return None if default is None else default.unsqueeze(1).repeat(1, rows, *(1,) * (default.dim() - 1))

    weights = {}
    for name, envelope in relaxation.envelopes.items():
        given = start.weights.get(name, (None, None))
        pair = (spread(given[0], envelope.lower.default), spread(given[1], envelope.upper.default))
        if name in below and pair != (None, None):
            weights[name] = pair
    multipliers = {}
    for name, split in relaxation.splits.items():
        if name in below:
            multipliers[name] = spread(start.multipliers.get(name), torch.zeros_like(split.sign))
    return DualPoint(weights, multipliers)


def _named(like: DualPoint, values: list[Tensor]) -> DualPoint:
    """Values in the order of the free arguments, under their names."""
    rest = iter(values)

    def following(old: Tensor | None) -> Tensor | None:
        return None if old is None else next(rest)

    weights = {name: (following(low), following(high)) for name, (low, high) in like.weights.items()}
    return DualPoint(weights, {name: next(rest) for name in like.multipliers})


def ancestors(graph: Graph, name: str) -> set[str]:
    """Names of the nodes that a node depends on, itself included."""
    found = {name}
    for node in reversed(graph.nodes):
        if node.name in found:
            found.update(node.inputs)
    return found


def _keep(
    best: Tensor | None, bound: Tensor, kept: list[Tensor], free: list[Tensor], shared: bool
) -> tuple[Tensor, bool]:
    """The best bounds so far, with the arguments that give them copied into `kept`; and whether any row gained.

    Rows that share weights stand or fall together, judged by their sum: one dual point has to give all of them.
    """
    if best is None:
        return bound, True
    improved = (bound.sum(1, keepdim=True) > best.sum(1, keepdim=True)) if shared else bound > best
    for old, new in zip(kept, free, strict=True):
        mask = improved.reshape(*improved.shape, *(1,) * (old.dim() - 2))
        torch.where(mask, new.detach(), old, out=old)
    return torch.where(improved, bound, best), bool(improved.any())
