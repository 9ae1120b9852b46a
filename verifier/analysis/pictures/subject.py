"""What the pictures are of: a network over an input set, its boxes and envelopes, and points that it reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.attacks.steps import normalised, steepest
from verifier.bounding.dual import Relaxation
from verifier.bounding.intermediate import IntermediateOptions, by_dual, relax_network
from verifier.graph.ir import Graph
from verifier.operators import find_device, place, require_bound_rules
from verifier.operators.evaluate import evaluate_all
from verifier.operators.tail import to_logits
from verifier.specs.box import flat
from verifier.specs.property import Property
from verifier.specs.region import Box, LpBall, Region
from verifier.specs.robustness import Spec, resolve

#: random points of the input set whose values are drawn
SAMPLES = 600
#: directions and steps of the search for extreme points, and the first and last size of a step as shares of half the
#: set's extent
AIMS, STEPS, FIRST, LAST = 64, 24, 0.6, 0.05


@dataclass(frozen=True, eq=False)
class Subject:
    """A network without a final softmax, and one property of it.

    Args:
        graph: as read.
        placed: the same in float64 on a device.
        prop: what is to hold.
        device: where to compute.
        seed: of samples and attacks.
    """

    graph: Graph
    placed: Graph
    prop: Property
    device: str
    seed: int

    @property
    def region(self) -> Region:
        """The input set on the device."""
        return self.prop.region.to(torch.float64, find_device(self.device))


def subject(graph: Graph, spec: Spec, device: str = "auto", seed: int = 0) -> Subject:
    """The network with the first property of a specification.

    Raises:
        InputError: they do not fit, or the network has an operator without a bound rule.
    """
    graph, query = to_logits(graph, resolve(spec, graph))
    require_bound_rules(graph)
    placed = place(graph, torch.float64, find_device(device))
    return Subject(graph, placed, query.properties[0], device, seed)


def relaxed(about: Subject) -> Relaxation:
    """Boxes and envelopes by CROWN: what the pictures of neurons stand on."""
    tighten = by_dual(about.placed, about.region, IntermediateOptions())
    with torch.no_grad():
        return relax_network(about.placed, about.region, tighten)


def scaled(prop: Property, share: float) -> Property:
    """The same property over a set that is smaller by a factor, around the same centre."""
    region = prop.region
    if isinstance(region, LpBall):
        return Property(LpBall(region.center, region.radius * share, region.box, region.norm), prop.unsafe)
    box = region.enclosing_box()
    middle, half = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
    return Property(Box(middle - share * half, middle + share * half), prop.unsafe)


def sampled(about: Subject, name: str, entries: tuple[int, ...]) -> np.ndarray:
    """Values (N, k) of entries of a node at random points, and at points where pairs of them are extreme."""
    generator = torch.Generator().manual_seed(about.seed)
    index = torch.tensor(entries, device=about.region.enclosing_box().lower.device)

    def values(x: Tensor) -> Tensor:
        return flat(evaluate_all(about.placed, x)[name])[:, index]

    points = about.region.sample(SAMPLES, generator)
    with torch.no_grad():
        cloud = [values(points[:, 0])]
    cloud += _extremes(about.region, values, points, len(entries))
    return torch.cat(cloud).cpu().numpy()


def _extremes(region: Region, values: Callable[[Tensor], Tensor], points: Tensor, count: int) -> list[Tensor]:
    """What gradient steps reach that push values in all directions, some of the way and the end of it."""
    angle = torch.arange(AIMS, dtype=points.dtype, device=points.device) * (2 * torch.pi / AIMS)
    aims = torch.stack([angle.cos(), angle.sin()], 1)[:, :count]
    x = points[: len(aims)]
    seen = []
    for step in range(STEPS):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            reached = values(x[:, 0])
            (gradient,) = torch.autograd.grad(-(aims * reached).sum(), x)
        size = FIRST * (LAST / FIRST) ** (step / (STEPS - 1))
        x = region.project(x.detach() + size * steepest(region, normalised(gradient)))
        if step % 3 == 0:
            seen.append(reached.detach())
    with torch.no_grad():
        return [*seen, values(x[:, 0])]
