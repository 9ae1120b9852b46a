"""Cuts on pairs of late neurons, which all subproblems of a search share (k-ReLU inside branch and bound).

Behind convolutions the layers are too wide to cut all of them. Before the last activation pairs close some of the gap
at the root, and what holds there holds in every subproblem. On the last one they close most, but there a search splits
the neurons themselves, which makes their cuts worthless and, until then, hides which splits are good. Multi-neuron
constraints in a branch and bound by dual ascent: Ferrari et al. 2022 (arXiv 2205.00263).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import monotonic

import torch
from torch import Tensor

from verifier.bounding.ascent import ascend
from verifier.bounding.dual import DualPoint, Relaxation
from verifier.bounding.krelu import KReluOptions, join_again, join_groups
from verifier.bounding.ladder import Problem
from verifier.bounding.octahedra import OctahedraOptions
from verifier.operators.cost import multiply_adds
from verifier.operators.table import OPERATORS
from verifier.relaxations.cuts import Cuts
from verifier.search.result import JointOptions
from verifier.workers import Workers


@dataclass(frozen=True)
class Joint:
    """Cuts by activation.

    Args:
        working, exact: the same cuts in working precision, and in float64 in which their limits were computed.
        dual: line weights and multipliers (B, S, *X) of the problem's rows.
    """

    working: Mapping[str, Cuts]
    exact: Mapping[str, Cuts]
    dual: DualPoint


def find_cuts(
    problems: tuple[Problem, Problem],
    relaxations: tuple[Relaxation, Relaxation],
    dual: DualPoint,
    options: JointOptions,
    until: float,
) -> Joint | None:
    """Those cuts on late activations that raise some row most; None where there are none.

    Args:
        problems, relaxations: in working precision, and in float64.
        dual: line weights of the problem's rows, to begin with.
        until: `time.monotonic` value after which no further activation gets cuts.
    """
    (problem, exact), (relaxation, wide) = problems, relaxations
    nodes = [node for node in problem.graph.nodes if node.op in OPERATORS and OPERATORS[node.op].kinks is not None]
    most = min(options.groups.most, options.work // multiply_adds(problem.graph))
    how = KReluOptions(replace(options.groups, most=most), octahedra=OctahedraOptions())
    join = join_groups(problem.graph, problem.region, how, until)
    late, workers = nodes[-1 - options.layers : -1][::-1], Workers.on(problem.rows.objective.C.device)
    found = zip(late, workers.map(lambda node: join(node, relaxation), late), strict=True)
    cuts = {node.name: cut for node, cut in found if isinstance(cut, Cuts) and cut.p.shape[-1]}
    if not cuts:
        return None
    now, rows = replace(relaxation, cuts=cuts), problem.rows.objective
    _, point = ascend(problem.graph, problem.region, now, rows, options.ascent, deadline=until, start=dual)
    kept = {name: _strongest(point.cut_multipliers[name], options.kept) for name in cuts}
    few = {name: _pick(cut, kept[name]) for name, cut in cuts.items()}
    again = join_again(exact.graph, exact.region, few)
    by_name = {node.name: node for node in exact.graph.nodes}
    names = list(few) if monotonic() < until else []
    proved = zip(names, workers.map(lambda name: again(by_name[name], wide), names), strict=True)
    stand = {name: cut for name, cut in proved if isinstance(cut, Cuts)}
    if not stand:
        return None
    near = {name: cut.to(rows.C.dtype) for name, cut in stand.items()}
    multipliers = {name: _gather(point.cut_multipliers[name].transpose(1, 2), kept[name]) for name in stand}
    multipliers = {name: value.transpose(1, 2) for name, value in multipliers.items()}
    return Joint(near, stand, DualPoint(point.weights, cut_multipliers=multipliers))


def _strongest(multipliers: Tensor, most: int) -> Tensor:
    """The groups (B, G') that push most on some row, in order, for multipliers (B, S, G, F)."""
    push = multipliers.amax((1, 3))
    return push.topk(min(most, push.shape[1]), dim=1).indices.sort(1).values


def _pick(cut: Cuts, groups: Tensor) -> Cuts:
    """The cuts of some groups (B, G')."""
    index = cut.index.expand(len(groups), *cut.index.shape[-2:])
    P, R, p = (_gather(x, groups) for x in (cut.P, cut.R, cut.p))
    return Cuts(_gather(index, groups), P, R, p)


def _gather(x: Tensor, groups: Tensor) -> Tensor:
    """Entries (B, G', ...) of (B, G, ...)."""
    return x[torch.arange(len(groups), device=x.device).unsqueeze(1), groups]
