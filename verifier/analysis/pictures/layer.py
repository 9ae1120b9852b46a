"""One activation of a network with its boxes, lines and octagons, as numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from verifier.analysis.pictures.plane import from_support, rectangle
from verifier.analysis.pictures.subject import Subject, sampled
from verifier.bounding.dual import Relaxation
from verifier.bounding.octahedra import OctahedraOptions, octahedra
from verifier.graph.ir import Node
from verifier.operators.table import OPERATORS
from verifier.relaxations.envelope import Family
from verifier.relaxations.octahedra import directions
from verifier.specs.box import flat, flat_rows

#: lines of a family, weights 0 and 1 among them, whose hull is taken
LINES = 65
#: letters of a name in a title
LONGEST = 24

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Layer:
    """An activation, relaxed; its neurons are counted flat."""

    about: Subject
    relaxation: Relaxation
    node: Node

    @property
    def source(self) -> str:
        """Name of the node whose value it takes."""
        return self.node.inputs[0]

    @property
    def title(self) -> str:
        """Its name, cut to what a title has room for."""
        name = self.node.name
        return name if len(name) <= LONGEST else "..." + name[3 - LONGEST :]

    @cached_property
    def kinks(self) -> tuple[float, ...]:
        """Inputs at which a piecewise linear activation bends."""
        kinks = OPERATORS[self.node.op].kinks
        return () if kinks is None else kinks(self.node)

    @property
    def joinable(self) -> bool:
        """Whether its neurons can be relaxed together: it is piecewise linear."""
        return OPERATORS[self.node.op].kinks is not None

    @property
    def size(self) -> int:
        """How many neurons it has."""
        return flat(self.relaxation.boxes[self.source].lower).shape[1]

    @cached_property
    def undecided(self) -> Tensor:
        """(n,) bool: neurons whose envelope depends on their box."""
        splits, box = OPERATORS[self.node.op].splits, self.relaxation.boxes[self.source]
        return flat(box.upper > box.lower if splits is None else splits(self.node, box))[0]

    def ranking(self) -> list[int]:
        """All neurons, the undecided ones first, in order of the triangle's area ``-l u``."""
        box = self.relaxation.boxes[self.source]
        area = torch.where(self.undecided, flat(-box.lower * box.upper)[0], -torch.inf)
        return area.argsort(descending=True, stable=True).tolist()

    def inputs(self, index: int) -> tuple[float, float]:
        """Bounds of a neuron's input."""
        return self._interval(self.source, index)

    def outputs(self, index: int) -> tuple[float, float]:
        """Bounds of a neuron's output."""
        return self._interval(self.node.name, index)

    def _interval(self, name: str, index: int) -> tuple[float, float]:
        box = self.relaxation.boxes[name]
        return float(flat(box.lower)[0, index]), float(flat(box.upper)[0, index])

    def forward(self, x: np.ndarray, entries: tuple[int, ...]) -> np.ndarray:
        """The activation of k entries at x (N, k)."""
        shape = self.about.graph.shapes[self.node.name]
        constants = {
            name: value.expand(shape).reshape(-1)[list(entries)].double().cpu()
            for name, value in self.node.constants.items()
        }
        node = replace(self.node, constants=constants)
        return OPERATORS[node.op].forward(node, torch.from_numpy(np.ascontiguousarray(x))).numpy()

    def sampled(self, entries: tuple[int, ...]) -> np.ndarray:
        """Inputs (N, k) of neurons that inputs of the network give."""
        return sampled(self.about, self.source, entries)

    def default_lines(self, index: int) -> np.ndarray:
        """Slope and intercept (2, 2) of the lines that DeepPoly and CROWN take below and above a neuron."""
        envelope = self.relaxation.envelopes[self.node.name]
        return np.concatenate([_lines(side, index, None) for side in (envelope.lower, envelope.upper)])

    def hull(self, index: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end (N,) of what all lines of a neuron leave at x (N,)."""
        envelope = self.relaxation.envelopes[self.node.name]
        return _values(envelope.lower, index, x).max(0), _values(envelope.upper, index, x).min(0)

    def octagon(self, pair: Pair) -> tuple[np.ndarray, Tensor]:
        """The octagon of two neurons' inputs, and its limits (1, D) as `verifier.relaxations.octahedra` has them."""
        groups = torch.tensor([[pair]], device=self.relaxation.boxes[self.source].lower.device)
        about = self.about
        with torch.no_grad():
            found, _ = octahedra(about.placed, about.region, self.relaxation, self.source, groups, OctahedraOptions())
        return from_support(directions(2).numpy(), found[0, 0].cpu().numpy()), found[0]

    def box(self, pair: Pair) -> np.ndarray:
        """The box of two neurons' inputs."""
        ends = np.array([self.inputs(index) for index in pair])
        return rectangle(ends[:, 0], ends[:, 1])


def _lines(family: Family, index: int, weights: Tensor | None) -> np.ndarray:
    """Slope and intercept (S, 2) of one neuron's lines."""
    slope, intercept = family.line(weights)
    chosen = flat_rows(slope)[0, :, index]
    constant = torch.zeros_like(chosen) if intercept is None else flat_rows(intercept)[0, :, index]
    return torch.stack([chosen, constant], 1).detach().cpu().numpy()


def _values(family: Family, index: int, x: np.ndarray) -> np.ndarray:
    """Values (S, N) of one neuron's lines at x (N,)."""
    weights = None
    if family.default is not None:
        steps = torch.linspace(0, 1, LINES).to(family.default)
        weights = steps.reshape(1, -1, *[1] * (family.default.dim() - 1)).expand(1, -1, *family.default.shape[1:])
    lines = _lines(family, index, weights)
    return lines[:, :1] * x + lines[:, 1:]
