"""How trees of cases grow: what their rounds gain, which of them grow on, and which leaves are split.

Axes: N trees, L leaves of all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Growth:
    """What trees gain, all (N,).

    Args:
        bound: of each tree.
        gain: of the last round or the one before it, whichever is more; at first what lacks to zero, the most there is.
        last: gain of the last round.
        count: leaves.
    """

    bound: Tensor
    gain: Tensor
    last: Tensor
    count: Tensor

    @classmethod
    def of(cls, bound: Tensor) -> Growth:
        """Of the roots."""
        return cls(bound, -bound, -bound, torch.ones_like(bound, dtype=torch.int64))

    def after(self, bound: Tensor, tree: Tensor) -> Growth:
        """A round later, of leaves with their bounds and the numbers of their trees (L,)."""
        least = least_of(bound, tree, len(self.bound))
        last = least - self.bound
        return Growth(least, torch.maximum(last, self.last), last, torch.bincount(tree, minlength=len(least)))


#: which trees grow on, (N,)
Pays = Callable[[Growth], Tensor]


def by_gain(rate: Tensor) -> Pays:
    """Trees whose next round, which bounds as many leaves as there are, can be expected to pay.

    Args:
        rate: (B, S) leaves that pay where a row's bound gains a unit.
    """
    return lambda growth: growth.gain * rate.flatten() >= growth.count


def within(leaves: int) -> Pays:
    """Trees that reach zero with so many leaves if they go on as in their last rounds; each adds half as many again."""

    def pays(growth: Growth) -> Tensor:
        rounds = -growth.bound / growth.gain.clamp(min=0)  # of which none gains anything: infinite
        return growth.count * 1.5**rounds <= leaves

    return pays


def worse_half(bound: Tensor, tree: Tensor, worth: Tensor) -> Tensor:
    """Of each tree the worse half of the leaves that are worth splitting: indices by trees, the worst of each first.

    Args:
        bound, tree, worth: of each leaf its bound, the number of its tree, and whether it counts, (L,).
    """
    index = worth.nonzero()[:, 0]
    index = index[bound[index].argsort(stable=True)]
    index = index[tree[index].argsort(stable=True)]
    owner = tree[index]
    count = torch.bincount(owner)
    begin = count.cumsum(0) - count
    rank = torch.arange(len(index), device=index.device) - begin[owner]
    return index[2 * rank < count[owner]]


def least_of(bound: Tensor, tree: Tensor, count: int) -> Tensor:
    """The least bound of each tree's leaves, (N,)."""
    return bound.new_full((count,), torch.inf).scatter_reduce(0, tree, bound, "amin")
