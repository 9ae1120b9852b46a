"""Projected gradient ascent on the dual function: alpha-CROWN (Xu et al. 2021, arXiv 2011.13824)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.dual import DualPoint, Objective, Relaxation, lower_bound
from verifier.graph.ir import Graph
from verifier.relaxations.envelope import Envelope
from verifier.specs.region import Region

#: line weights of the lower and the upper family of each activation
Weights = dict[str, tuple[Tensor | None, Tensor | None]]


@dataclass(frozen=True)
class AscentOptions:
    """How the ascent climbs.

    Args:
        iterations: steps at most.
        step: first step size (Adam) in units of the weights, which live in [0, 1].
        decay: factor on the step size after every step.
        shared: one set of weights for all rows of a batch element instead of one for each row: less memory, looser.
        patience: stop when no row has gained over this many steps.
    """

    iterations: int = 20
    step: float = 0.25
    decay: float = 0.95
    shared: bool = False
    patience: int = 10


def ascend(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    objective: Objective,
    options: AscentOptions,
    done: Callable[[Tensor], bool] | None = None,
    deadline: float | None = None,
) -> tuple[Tensor, DualPoint]:
    """The best bounds (B, S) found and the dual point that gives them.

    Args:
        done: called with the best bounds so far; True ends the ascent early.
        deadline: `time.monotonic` value after which no further step is started.
    """
    weights = _start(graph, relaxation.envelopes, objective, options.shared)
    free = [w for pair in weights.values() for w in pair if w is not None]
    if not free:
        return lower_bound(graph, region, relaxation, objective), DualPoint()
    kept: Weights = {name: (_copy(low), _copy(high)) for name, (low, high) in weights.items()}
    optimiser = torch.optim.Adam([w.requires_grad_() for w in free], lr=options.step, fused=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, options.decay)
    best, idle = None, 0
    for iteration in range(options.iterations + 1):
        last = iteration == options.iterations or (deadline is not None and monotonic() > deadline)
        with torch.set_grad_enabled(not last):
            bound = lower_bound(graph, region, relaxation, objective, DualPoint(weights))
        best, gained = _keep(best, bound.detach(), kept, weights, options.shared)
        idle = 0 if gained else idle + 1
        if last or idle >= options.patience or (done is not None and done(best)):
            break
        optimiser.zero_grad(set_to_none=True)
        (-bound.sum()).backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for w in free:
                w.clamp_(0, 1)
    assert best is not None
    return best, DualPoint({name: pair for name, pair in kept.items() if any(w is not None for w in pair)})


def _start(graph: Graph, envelopes: Mapping[str, Envelope], objective: Objective, shared: bool) -> Weights:
    """CROWN's own weights for every family with a choice below the objective, one set a row (or one for all)."""
    rows = 1 if shared else objective.C.shape[1]

    def spread(default: Tensor | None) -> Tensor | None:
        return None if default is None else default.unsqueeze(1).repeat(1, rows, *(1,) * (default.dim() - 1))

    below = ancestors(graph, objective.node)
    return {n: (spread(e.lower.default), spread(e.upper.default)) for n, e in envelopes.items() if n in below}


def ancestors(graph: Graph, name: str) -> set[str]:
    """Names of the nodes that a node depends on, itself included."""
    found = {name}
    for node in reversed(graph.nodes):
        if node.name in found:
            found.update(node.inputs)
    return found


def _copy(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.clone()


def _keep(best: Tensor | None, bound: Tensor, kept: Weights, weights: Weights, shared: bool) -> tuple[Tensor, bool]:
    """The best bounds so far, with the weights that give them copied into `kept`; and whether any row gained.

    Rows that share weights stand or fall together, judged by their sum: one dual point has to give all of them.
    """
    if best is None:
        return bound, True
    improved = (bound.sum(1, keepdim=True) > best.sum(1, keepdim=True)) if shared else bound > best
    for name, pair in weights.items():
        for old, new in zip(kept[name], pair, strict=True):
            if old is not None and new is not None:
                mask = improved.reshape(*improved.shape, *(1,) * (old.dim() - 2))
                torch.where(mask, new.detach(), old, out=old)
    return torch.where(improved, bound, best), bool(improved.any())
