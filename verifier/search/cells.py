"""Cells: the first splits of a search, made for all polytopes of a property alike.

A subproblem inherits the boxes of its root, and the splits of early layers say more than they hold: within a cell the
later pre-activations have tighter bounds. Finding them costs many rows, but all polytopes and all subproblems of the
cell share them. They are bounded as at the root (`verifier.search.root`): each end is a row of an objective over the
network below it, here under the splits of the cell, and what counts is its dual point's value in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.dual import DualPoint
from verifier.bounding.ladder import Problem
from verifier.operators.table import OPERATORS
from verifier.search.result import RootOptions
from verifier.search.root import Trees
from verifier.search.subproblem import EMPTY_BEYOND, Batch, Frame, select
from verifier.specs.box import flat
from verifier.specs.region import Box
from verifier.specs.rounding import narrow


@dataclass(frozen=True)
class Layer:
    """The rows of one pre-activation.

    Args:
        trees: both ends of its R open entries, one tree each.
        start: the root of every tree, after some ascent.
        columns: where the entries that the trees split lie among those of the search.
    """

    trees: Trees
    start: Batch
    columns: Tensor

    def within(self, cells: Batch, cell: Tensor, entry: Tensor) -> Batch:
        """Both ends of entries (M,) under the splits of cells (M,): 2M subproblems, the lower ends first."""
        count = len(self.trees.piece.index)
        both, rows = cell.repeat(2), torch.cat([entry, entry + count])
        batch = select(self.start, cells["owner"][both] * 2 * count + rows)
        for name in ("low", "high", "sign", "point"):
            batch[name] = cells[name][both][:, self.columns]
        return {**batch, "bound": torch.full_like(batch["bound"], -torch.inf)}


@dataclass(frozen=True)
class Cells:
    """Bounds the pre-activations of cells.

    Args:
        frame: of the search.
        layers: those of its pre-activations that depend on others.
        size: subproblems that a batch takes.
    """

    frame: Frame
    layers: tuple[Layer, ...]
    size: int
    options: RootOptions

    @classmethod
    def of(
        cls,
        problems: tuple[Problem, Problem],
        boxes: Mapping[str, Box],
        frame: Frame,
        size: int,
        options: RootOptions,
        until: float,
    ) -> Cells:
        """
        Args:
            problems: in working precision and in float64.
            boxes: of all nodes, in float64, over which `frame` was made.
        """
        layers = []
        for piece in frame.pieces:
            trees = Trees.of(*problems, boxes, piece)
            if trees is not None:
                start = trees.bounded(trees.frame.roots(DualPoint()), size, options.ascent, until)
                layers.append(Layer(trees, start, _columns(frame, trees.frame)))
        return cls(frame, tuple(layers), size, options)

    def divided(self, batch: Batch, until: float) -> Batch:
        """Subproblems (N,) with a ``cell`` each, all of one with the same splits; those of empty cells are left out."""
        cell = batch["cell"].unique(return_inverse=True)[1]
        first = torch.full((int(cell.max()) + 1,), len(cell), device=cell.device)
        first = first.scatter_reduce(0, cell, torch.arange(len(cell), device=cell.device), "amin")
        low, high, empty = self.tighten(select(batch, first), until)
        return select({**batch, "low": low[cell], "high": high[cell]}, (~empty[cell]).nonzero()[:, 0])

    def tighten(self, cells: Batch, until: float) -> tuple[Tensor, Tensor, Tensor]:
        """Ends (N, K) of the open entries of N cells, within those that they have, and (N,) which cells are empty."""
        low, high = cells["low"].clone(), cells["high"].clone()
        empty = torch.zeros(len(low), dtype=torch.bool, device=low.device)
        for layer in self.layers:
            now = {**cells, "low": low, "high": high}
            cell, entry = self._open(layer, now).nonzero().unbind(1)
            rows = layer.within(now, cell, entry)
            found = layer.trees.proofs(
                layer.trees.bounded(rows, self.size, self.options.ascent, until), self.size, until
            )
            if found is None:
                break
            column = layer.trees.piece.columns.start + entry
            below, above = narrow(found, low.dtype, low.device, -torch.inf).chunk(2)
            below, above = torch.maximum(below, low[cell, column]), torch.minimum(-above, high[cell, column])
            low[cell, column], high[cell, column] = torch.minimum(below, above), torch.maximum(below, above)
            crossed = below - above > EMPTY_BEYOND * self._sizes(layer, cells)[cell, entry]
            empty[cell[crossed]] = True
        return low, high, empty

    def _open(self, layer: Layer, cells: Batch) -> Tensor:
        """(N, R) the entries of a pre-activation that are open in each cell."""
        piece = layer.trees.piece
        box = self.frame.box(piece, cells)
        masks = [OPERATORS[node.op].splits(node, box) for node in piece.activations]  # type: ignore[misc]
        return flat(torch.stack(masks).any(0))[:, piece.index]

    def _sizes(self, layer: Layer, cells: Batch) -> Tensor:
        """(N, R) the largest values of a pre-activation's entries at the root."""
        root, piece = self.frame.boxes[layer.trees.piece.source], layer.trees.piece
        size = flat(torch.maximum(root.lower.abs(), root.upper.abs()))[:, piece.index]
        return size[cells["owner"]]


def _columns(frame: Frame, below: Frame) -> Tensor:
    """Where the open entries of a frame lie among those of another one, which has all of them."""
    whole = {piece.source: piece for piece in frame.pieces}
    parts = [
        whole[piece.source].columns.start + torch.searchsorted(whole[piece.source].index, piece.index)
        for piece in below.pieces
    ]
    return torch.cat(parts)
