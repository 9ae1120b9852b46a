"""The store of open subproblems: rows of tensors, handed out best first, under a memory budget."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

#: name -> (N, ...) one row for each subproblem
Fields = Mapping[str, Tensor]

#: share of the budget from which on the subproblems that are nearest to being closed go first
_NEARLY_FULL = 0.5
#: how much a step of depth counts against the bound, which decides
_DEPTH_WEIGHT = 1e-9


class OutOfBudget(MemoryError):
    """The open subproblems do not fit the memory budget; nothing was dropped."""


class Store:
    """Open subproblems, all with the same fields, among them ``bound`` and ``depth`` (N,).

    The least bound goes first, and the deeper of two equal ones. Where memory runs short the greatest bound goes
    first, which leaves few descendants.

    Args:
        budget: bytes that the fields may take.
    """

    def __init__(self, budget: int):
        self._budget = budget
        self._fields: dict[str, Tensor] = {}
        self._key = torch.empty(0, dtype=torch.float64)
        self._taken = torch.empty(0, dtype=torch.bool)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """Memory that the fields take, free rows included."""
        return sum(t.numel() * t.element_size() for t in self._fields.values())

    @property
    def room(self) -> int:
        """How many more subproblems fit the budget, if they are like those that were pushed; 0 before any was."""
        return len(self._key) - self._count + self._room(self._fields) if self._fields else 0

    @property
    def least(self) -> float:
        """The least bound of an open subproblem; plus infinity where there is none."""
        return float(self._fields["bound"][self._rows()].min()) if self._count else float("inf")

    def push(self, fields: Fields) -> None:
        """Add subproblems.

        Raises:
            OutOfBudget: they do not fit; nothing was added. The same holds when the machine's memory ends.
        """
        added = fields["bound"].shape[0]
        if added == 0:
            return
        free = self._free(fields, added)
        for name, value in fields.items():
            self._fields[name][free] = value
        key = fields["bound"].double() - _DEPTH_WEIGHT * fields["depth"].double()
        self._key[free] = key.nan_to_num(-torch.inf, torch.inf, -torch.inf)
        self._taken[free] = True
        self._count += added

    def pop(self, count: int) -> dict[str, Tensor]:
        """Take out up to `count` subproblems."""
        count = min(count, self._count)
        nearest = self.bytes * (self._count / max(1, len(self._key))) > _NEARLY_FULL * self._budget
        rows = self._rows()
        chosen = rows[self._key[rows].topk(count, largest=nearest, sorted=False).indices]
        taken = {name: value[chosen] for name, value in self._fields.items()}
        self._taken[chosen] = False
        self._count -= count
        return taken

    def numbers(self) -> dict[str, Tensor]:
        """All rows of the one-number fields (bound, depth, owner ...) of the open subproblems."""
        rows = self._rows()
        return {name: value[rows] for name, value in self._fields.items() if value.dim() == 1}

    def _rows(self) -> Tensor:
        return self._taken.nonzero()[:, 0]

    def _free(self, fields: Fields, added: int) -> Tensor:
        """Rows to write to, after growing where needed."""
        missing = self._count + added - len(self._key)
        if missing > 0:
            self._grow(fields, max(missing, min(len(self._key), self._room(fields))))
        return (~self._taken).nonzero()[:added, 0]

    def _room(self, fields: Fields) -> int:
        """How many more rows fit the budget."""
        row = sum(value[0].numel() * value.element_size() for value in fields.values())
        return (self._budget - self.bytes) // max(1, row)

    def _grow(self, fields: Fields, rows: int) -> None:
        if rows > self._room(fields):
            raise OutOfBudget("the open subproblems do not fit the memory budget")
        old, device = len(self._key), fields["bound"].device
        for name, value in fields.items():  # a field that was grown before memory ended is longer already
            if name not in self._fields or len(self._fields[name]) < old + rows:
                grown = value.new_empty(old + rows, *value.shape[1:])
                if name in self._fields:
                    grown[:old] = self._fields[name][:old]
                self._fields[name] = grown
        key, taken = (torch.zeros(old + rows, dtype=dtype, device=device) for dtype in (torch.float64, torch.bool))
        key[:old], taken[:old] = self._key, self._taken
        self._key, self._taken = key, taken
