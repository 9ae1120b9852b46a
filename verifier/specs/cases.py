"""From what a VNN-LIB file asserts to a query: cases that share an input box become one property."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import numpy as np
import torch

from verifier.errors import InputError
from verifier.specs.exact import Bound, float_row, to_bound
from verifier.specs.formula import Atoms, Case, Fault, Formula, Row, all_of
from verifier.specs.property import Polytope, Property, Query
from verifier.specs.region import Box

_MOST_BOUNDS = 200_000_000  # numbers in the boxes of one query

#: the bounds of a box that differ from the common ones, by slot (see `Atoms`)
Changes = dict[int, Bound]


@dataclass(frozen=True)
class Assertions:
    """What a file asserts.

    Args:
        inputs, outputs: number of declared variables.
        atoms: the table that the formulas refer to.
        asserted: formulas that hold together.
    """

    inputs: int
    outputs: int
    atoms: Atoms
    asserted: list[Formula]

    def query(self, name: str) -> Query:
        """The union of properties that is violated exactly where all assertions hold.

        Cases that no input can meet are dropped. A case that leaves the output free has the polytope ``0 y <= 0``,
        which every output meets and no bound can exclude.

        Raises:
            InputError: an input lacks a bound, no case can be met, or the query is too large.
        """
        try:
            boxes = _Boxes(self)
            grouped = _group(self, boxes)
            if not grouped:
                low, high, i = boxes.contradiction or (None, None, 0)
                if low is None or high is None:
                    raise Fault("the assertions contradict each other", "remove one")
                raise Fault(f"contradictory bounds: {low.near!r} <= X_{i} <= {high.near!r}", "correct one of the two")
            polytopes = _Polytopes(self)
            unsafe = [tuple(map(polytopes.get, outputs)) for _, outputs in grouped]
            regions = boxes.regions([changes for changes, _ in grouped])
        except Fault as fault:
            raise InputError(name, fault.what, fault.mend) from None
        return Query(tuple(map(Property, regions, unsafe)), name)


def _group(assertions: Assertions, boxes: _Boxes) -> list[tuple[Changes, list[Case]]]:
    """For each distinct box its changes and the output rows of each of its cases, in order of appearance."""
    common, cases = _split(assertions.asserted)
    slot = assertions.atoms.slot
    boxes.start(atom for atom in common if slot[atom] >= 0)
    shared = tuple(atom for atom in common if slot[atom] < 0)
    groups: dict[tuple, tuple[Changes, dict[Case, None]]] = {}
    for case in cases:
        changes = boxes.changes(case)
        if changes is None:
            continue
        outputs = shared + tuple(atom for atom in case if slot[atom] < 0)
        key = tuple(sorted((place, id(bound)) for place, bound in changes.items()))  # equal bounds are one object
        groups.setdefault(key, (changes, {}))[1][tuple(dict.fromkeys(outputs))] = None
    if len(groups) * assertions.inputs > _MOST_BOUNDS:
        raise Fault(f"{len(groups)} boxes of {assertions.inputs} inputs are too many to hold", "split the file")
    return [(changes, list(outputs)) for changes, outputs in groups.values()]


def _split(asserted: list[Formula]) -> tuple[Case, Formula]:
    """What every case shares, kept apart because it is usually most of a file, and the cases."""
    common = tuple(atom for formula in asserted if len(formula) == 1 for atom in formula[0])
    return common, all_of([formula for formula in asserted if len(formula) != 1])


class _Boxes:
    """Input boxes: the common bounds, and each case as its difference from them."""

    def __init__(self, assertions: Assertions):
        self.atoms = assertions.atoms
        self.common: list[Bound | None] = [None] * (2 * assertions.inputs)
        self.missing: list[int] = []
        self.impossible = False  # no input meets the common bounds
        self.contradiction: tuple[Bound, Bound, int] | None = None  # the first that was met

    def start(self, atoms: Iterable[int]) -> None:
        """Take the bounds that all cases share."""
        for slot, bound in self._tightest(atoms).items():
            self.common[slot] = bound
        self.missing = [slot for slot, bound in enumerate(self.common) if bound is None]
        sides = zip(self.common[::2], self.common[1::2], strict=True)
        self.impossible = any([self._empty(2 * i, low, high) for i, (low, high) in enumerate(sides)])

    def changes(self, case: Case) -> Changes | None:
        """The bounds of a case that differ from the common ones; None for an empty box.

        Raises:
            Fault: an input lacks a bound.
        """
        if self.impossible:
            return None
        changes = self._tightest(case)
        for slot in changes:
            low, high = slot & ~1, slot | 1
            if self._empty(low, changes.get(low, self.common[low]), changes.get(high, self.common[high])):
                return None
        for slot in self.missing:
            if slot not in changes:
                side = "upper" if slot % 2 else "lower"
                raise Fault(f"X_{slot // 2} has no {side} bound", "give every input a lower and an upper bound")
        return changes

    def _tightest(self, atoms: Iterable[int]) -> Changes:
        slots, values, common = self.atoms.slot, self.atoms.value, self.common
        found: Changes = {}
        for atom in atoms:
            slot = slots[atom]
            if slot >= 0:
                bound = cast(Bound, values[atom])
                other = found.get(slot) or common[slot]
                if other is None or (bound < other if slot % 2 else bound > other):
                    found[slot] = bound
        return found

    def _empty(self, slot: int, low: Bound | None, high: Bound | None) -> bool:
        if low is None or high is None or low <= high:
            return False
        self.contradiction = self.contradiction or (low, high, slot // 2)
        return True

    def regions(self, boxes: list[Changes]) -> list[Box]:
        """The boxes as tensors (1, n), with inner bounds if any number had to be rounded."""
        outer = np.empty((len(boxes), len(self.common)))
        inner = np.empty_like(outer)
        common = [bound or to_bound(Fraction(0)) for bound in self.common]  # missing ones are in every `changes`
        outer[:] = [bound.up if slot % 2 else bound.down for slot, bound in enumerate(common)]
        inner[:] = [bound.down if slot % 2 else bound.up for slot, bound in enumerate(common)]
        for row, changes in enumerate(boxes):
            slots = list(changes)
            outer[row, slots] = [b.up if slot % 2 else b.down for slot, b in changes.items()]
            inner[row, slots] = [b.down if slot % 2 else b.up for slot, b in changes.items()]
        for row, i in np.argwhere(inner[:, ::2] > inner[:, 1::2]):  # no float64 lies between the two bounds
            inner[row, 2 * i : 2 * i + 2] = boxes[row].get(2 * i, common[2 * i]).near
        lower, upper = (torch.from_numpy(outer[:, side::2].copy()) for side in (0, 1))
        if np.array_equal(outer, inner):
            return [Box(lower[k : k + 1], upper[k : k + 1]) for k in range(len(boxes))]
        low, high = (torch.from_numpy(inner[:, side::2].copy()) for side in (0, 1))
        return [Box(*(bound[k : k + 1] for bound in (lower, upper, low, high))) for k in range(len(boxes))]


class _Polytopes:
    """Polytopes over the outputs, one for each distinct set of rows."""

    def __init__(self, assertions: Assertions):
        self.outputs, self.values = assertions.outputs, assertions.atoms.value
        self.known: dict[Case, Polytope] = {}
        self.rows: dict[int, tuple[np.ndarray, Bound]] = {}

    def get(self, atoms: Case) -> Polytope:
        if atoms not in self.known:
            self.known[atoms] = self._build([self._row(atom) for atom in atoms])
        return self.known[atoms]

    def _build(self, rows: list[tuple[np.ndarray, Bound]]) -> Polytope:
        if not rows:
            return Polytope(np.zeros((1, self.outputs)), np.zeros(1))
        bounds = [bound for _, bound in rows]
        d, d_inner = np.array([bound.up for bound in bounds]), np.array([bound.down for bound in bounds])
        C = np.array([row for row, _ in rows])
        return Polytope(C, d) if np.array_equal(d, d_inner) else Polytope(C, d, d_inner)

    def _row(self, atom: int) -> tuple[np.ndarray, Bound]:
        """The row in float64, scaled so that its coefficients are exact.

        Raises:
            Fault: no scale does that.
        """
        if atom not in self.rows:
            terms, bound = cast(Row, self.values[atom])
            scaled = float_row([c for _, c in terms])
            if scaled is None:
                raise Fault("the coefficients of an output constraint have too many digits for float64", "round them")
            coefficients, factor = scaled
            row = np.zeros(self.outputs)
            row[[j for j, _ in terms]] = coefficients
            try:
                self.rows[atom] = row, to_bound(bound if factor == 1 else bound * factor)
            except OverflowError:
                raise Fault("an output bound is beyond the range of float64", "use a smaller number") from None
        return self.rows[atom]
