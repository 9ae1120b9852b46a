"""Projected gradient ascent on the dual function: alpha-CROWN (Xu et al. 2021, arXiv 2011.13824)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import monotonic
from types import MappingProxyType

import torch
from torch import Tensor

from verifier.bounding.dual import DualPoint, Objective, Relaxation, linear_bound, lower_bound
from verifier.graph.ir import Graph, Node
from verifier.specs.box import flat_rows
from verifier.specs.region import Region

#: what is left of a gradient in the average after a step; the bounds hardly depend on it between 0 and 0.5
_MEAN_DECAY = 0.3
#: of Adam, as in its paper
_ADAM_DECAYS, _ADAM_EPSILON = (0.9, 0.999), 1e-8


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
        cut_step: first step size of the multipliers of cuts, in units of the mean coefficient on their activation.
        whole: whether to go on where a property is proved already, for the tightest bound.
    """

    iterations: int = 20
    step: float = 0.4
    decay: float = 0.85
    shared: bool = False
    patience: int = 10
    multiplier_step: float = 0.1
    cut_step: float = 0.3
    whole: bool = False


def ascend(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    objective: Objective,
    options: AscentOptions,
    done: Callable[[Tensor], bool] | None = None,
    deadline: float | None = None,
    start: DualPoint | None = None,
    watch: Callable[[DualPoint], None] | None = None,
) -> tuple[Tensor, DualPoint]:
    """The best bounds (B, S) found and the dual point that gives them.

    Args:
        watch: called with the gradient of every step, in the shape of a dual point.
        start: where to begin: weights (B, S, *X), or (B, 1, *X) for all rows, instead of CROWN's, and multipliers
            instead of zero.
        done: called with the best bounds so far; True ends the ascent early.
        deadline: `time.monotonic` value after which no further step is started.
    """
    begin = _start(graph, relaxation, objective, options.shared, start or DualPoint())
    units = _coefficients(graph, relaxation, objective) if begin.cut_multipliers else {}
    cuts = {}
    for name in begin.cut_multipliers:
        cut, unit = relaxation.cuts[name], units.get(name)
        cuts[name] = (cut.least, None if unit is None else unit * cut.pace)

    def evaluate(dual: DualPoint) -> Tensor:
        return lower_bound(graph, region, relaxation, objective, dual)

    return climb(evaluate, begin, options, done, deadline, cuts, watch)


def climb(
    evaluate: Callable[[DualPoint], Tensor],
    begin: DualPoint,
    options: AscentOptions,
    done: Callable[[Tensor], bool] | None = None,
    deadline: float | None = None,
    cuts: Mapping[str, tuple[float, Tensor | None]] = MappingProxyType({}),
    watch: Callable[[DualPoint], None] | None = None,
) -> tuple[Tensor, DualPoint]:
    """The best values (B, S) of a dual function found from a point, and the points that give them.

    Args:
        evaluate: the function; each of its rows depends on the arguments of that row alone, unless they are shared.
        begin: where the ascent begins; its tensors (B, S, *X) are changed.
        done, deadline, watch: as in `ascend`.
        cuts: the least value of multipliers of cuts, and the unit of their steps (B, S), or None for plain numbers.
    """
    weights = [w for pair in begin.weights.values() for w in pair if w is not None]
    multipliers = list(begin.multipliers.values())
    free = weights + multipliers + list(begin.cut_multipliers.values())
    if not free:
        return evaluate(begin), begin
    kept = [w.clone() for w in free]
    climbers: list[Signum | Adam] = [Signum(w, options.step, 1.0) for w in weights]
    climbers += [Signum(w, options.multiplier_step, math.inf) for w in multipliers]
    climbers += [Adam(w, options.cut_step, *cuts[name]) for name, w in begin.cut_multipliers.items()]
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
        if watch is not None:
            watch(
                _named(begin, [torch.zeros_like(w) if g is None else g for w, g in zip(free, gradients, strict=True)])
            )
        for climber, gradient in zip(climbers, gradients, strict=True):
            if gradient is not None:
                climber.step(gradient, iteration, options.decay**iteration)
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
    def step(self, gradient: Tensor, iteration: int, shrink: float) -> None:
        """Move along a gradient by `size * shrink`; iterations count from 0."""
        self.mean.lerp_(gradient, 1 - _MEAN_DECAY)
        self.value.add_(self.mean.sign(), alpha=self.size * shrink).clamp_(0.0, self.most)


class Adam:
    """Ascent steps on multipliers of cuts (Kingma and Ba 2015, arXiv 1412.6980).

    Here the size of a gradient matters: many cuts share a few neurons, and most of them are hardly violated.
    """

    def __init__(self, value: Tensor, size: float, least: float, unit: Tensor | None):
        """Steps on `value` (B, S, ...), in place, of `size` times a unit (B, S) (None for 1); no less than `least`."""
        self.value, self.size, self.least = value, size, least
        self.unit = None if unit is None else unit.reshape(*unit.shape, *[1] * (value.dim() - 2))
        self.mean, self.square = torch.zeros_like(value), torch.zeros_like(value)

    @torch.no_grad()
    def step(self, gradient: Tensor, iteration: int, shrink: float) -> None:
        """Move along a gradient by `size * shrink`; iterations count from 0."""
        first, second = _ADAM_DECAYS
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        spread = self.square.sqrt().div_(math.sqrt(1 - second ** (iteration + 1))).add_(_ADAM_EPSILON)
        spread = spread if self.unit is None else spread.div_(self.unit)
        size = self.size * shrink / (1 - first ** (iteration + 1))
        self.value.addcdiv_(self.mean, spread, value=size).clamp_(min=self.least)


def _start(graph: Graph, relaxation: Relaxation, objective: Objective, shared: bool, start: DualPoint) -> DualPoint:
    """Free copies of the start: weights of every family with a choice below the objective, multipliers of all splits
    and cuts.

    One set a row, or one for all rows; where the start has none, CROWN's own weights and multipliers of zero.
    """
    rows = 1 if shared else objective.C.shape[1]
    below = ancestors(graph, objective.node).union(*(ancestors(graph, name) for name in relaxation.splits))

    def spread(given: Tensor | None, default: Tensor | None) -> Tensor | None:
        if given is not None:
            return given.detach().expand(-1, max(rows, given.shape[1]), *given.shape[2:]).clone()
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
    cuts = {
        name: start.cut_multipliers[name].detach().clone() if name in start.cut_multipliers else cut.zero(rows)
        for name, cut in relaxation.cuts.items()
        if name in below and name in relaxation.envelopes
    }
    return DualPoint(weights, multipliers, cuts)


def _coefficients(graph: Graph, relaxation: Relaxation, objective: Objective) -> dict[str, Tensor]:
    """Mean absolute coefficient (B, S) of the objective on every node that it reaches, at CROWN's dual point."""
    found: dict[str, Tensor] = {}

    def watch(node: Node, A: Tensor) -> None:
        found[node.name] = flat_rows(A).abs().mean(2)

    with torch.no_grad():
        linear_bound(graph, relaxation.envelopes, objective, watch=watch)
    return found


def _named(like: DualPoint, values: list[Tensor]) -> DualPoint:
    """Values in the order of the free arguments, under their names."""
    rest = iter(values)

    def following(old: Tensor | None) -> Tensor | None:
        return None if old is None else next(rest)

    weights = {name: (following(low), following(high)) for name, (low, high) in like.weights.items()}
    multipliers = {name: next(rest) for name in like.multipliers}
    return DualPoint(weights, multipliers, {name: next(rest) for name in like.cut_multipliers})


def ancestors(graph: Graph, name: str) -> set[str]:
    """Names of the nodes that a node depends on, itself included."""
    found = {name}
    for node in reversed(graph.nodes):
        if node.name in found:
            found.update(node.inputs)
    return found


def below(graph: Graph, name: str) -> Graph:
    """The part of a network that a node depends on, which is its output."""
    names = ancestors(graph, name)
    return replace(graph, nodes=tuple(node for node in graph.nodes if node.name in names), output=name)


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
