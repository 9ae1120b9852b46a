"""The registry: what the engine knows about each operator of the graph, in one record.

Axes: B batch, S objective rows, ``*X`` / ``*Y`` the shapes of an operator's input and output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from verifier.graph.ir import OPS, Node
from verifier.relaxations.envelope import Envelope
from verifier.relaxations.pieces import Pieces
from verifier.specs.region import Box

Shape = tuple[int, ...]
#: coefficients on each input (None for none) and the constant term (B, S) (None for zero)
Adjoint = tuple[tuple[Tensor | None, ...], Tensor | None]


@dataclass(frozen=True)
class Operator:
    """What every rule of the engine needs of one operator.

    Args:
        name: its key in `verifier.graph.ir.OPS`.
        forward: ``(node, *inputs (B, *X)) -> (B, *Y)``, differentiable.
        interval: ``(node, *boxes) -> Box``: an enclosure of the image of the boxes.
        adjoint: for affine operators, ``(node, A (B, S, *Y), input shapes)``: rewrites ``<A, y>`` exactly as
            ``sum_i <A_i, x_i> + constant``.
        envelope: for activations, ``(node, box) -> Envelope`` of the elementwise function over its input's box.
        splits: for activations, ``(node, box) -> bool (B, *X)``: neurons whose envelope depends on the box, so
            that tighter bounds of their input pay.
        kinks: for piecewise linear activations, ``(node) -> inputs at which they bend``: these can be relaxed several
            neurons at a time.
        pieces: for other activations that can, ``(node, box (*X)) -> Pieces`` that bound the function over the box.

    An operator with neither adjoint nor envelope has no bound rule: it can be evaluated but not certified.
    """

    name: str
    forward: Callable[..., Tensor]
    interval: Callable[..., Box]
    adjoint: Callable[[Node, Tensor, tuple[Shape, ...]], Adjoint] | None = None
    envelope: Callable[[Node, Box], Envelope] | None = None
    splits: Callable[[Node, Box], Tensor] | None = None
    kinks: Callable[[Node], tuple[float, ...]] | None = None
    pieces: Callable[[Node, Box], Pieces] | None = None

    @property
    def bounded(self) -> bool:
        return self.adjoint is not None or self.envelope is not None


def registry(*families: tuple[Operator, ...]) -> Mapping[str, Operator]:
    """All families in one table; a duplicate or an unknown name is a programming error."""
    table: dict[str, Operator] = {}
    for operator in (operator for family in families for operator in family):
        if operator.name in table or operator.name not in OPS:
            raise ValueError(f"operator {operator.name!r} is registered twice or not part of the graph's vocabulary")
        table[operator.name] = operator
    return MappingProxyType(table)
