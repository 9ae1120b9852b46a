"""Case distinctions for the rows of a property, from the dual point that an ascent has found."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounding.cases import CaseOptions, distinguish
from verifier.bounding.dual import CasePoint, DualPoint, Objective, Relaxation
from verifier.bounding.growth import within
from verifier.bounding.rounding import rounding_scale, roundings
from verifier.bounding.rows import Rows
from verifier.graph.ir import Graph
from verifier.specs.region import Region

#: leaves are closed where their bounds exceed this share of the allowance for rounding in working precision: enough to
#: stay above zero in float64
_SPARE = 1 / 16


@torch.no_grad()
def by_row_cases(
    graph: Graph,
    region: Region,
    relaxation: Relaxation,
    rows: Rows,
    known: tuple[Tensor, DualPoint],
    options: CaseOptions,
    deadline: float | None = None,
) -> tuple[Tensor, CasePoint]:
    """Bounds (B, S) of a property's rows by trees, and the trees.

    They grow on the polytopes that are not missed yet, each on the row that is nearest to missing it, and are best
    without cuts: these close the same gap, and while they do they hide which neurons are worth a split.

    Args:
        relaxation: without cuts.
        known: bounds (B, S) of the rows and the dual point of their ascent.
        deadline: as of `distinguish`.
    """
    lower, dual = known
    objective, owner = rows.objective, rows.owner.clamp(min=0)
    nearest = (rows.owner >= 0) & (lower <= 0) & (lower >= rows.margins(lower).gather(1, owner))
    spare = _SPARE * roundings(rounding_scale(graph, relaxation, objective, dual))
    offset = -spare if objective.offset is None else objective.offset - spare
    roots = torch.where(nearest, lower - spare, torch.inf), dual
    aim = Objective(objective.node, objective.C, offset)
    bound, trees = distinguish(graph, region, relaxation, aim, roots, options, deadline, within(options.leaves))
    return torch.where(bound > roots[0], bound + spare, lower), trees
