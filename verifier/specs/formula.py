"""Formulas in disjunctive normal form, built from the inside out.

A formula is a list of cases, each a tuple of atom numbers that hold together: ``[()]`` is true, ``[]`` is false.
Formulas are normalised as they are built, so nothing here recurses however deep a file nests.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from math import prod
from typing import NamedTuple

from verifier.specs.exact import Bound, to_bound

Case = tuple[int, ...]
Formula = list[Case]

MOST_CASES = 1_000_000
MOST_ATOMS = 50_000_000  # over all cases


_ONE = Fraction(1)


class Fault(Exception):
    """Something that a specification may not say; the reader adds the place.

    Args:
        what: what is wrong.
        mend: what its author can do about it.
    """

    def __init__(self, what: str, mend: str):
        super().__init__(what)
        self.what, self.mend = what, mend


class Row(NamedTuple):
    """An output constraint ``sum of c * Y_j <= bound``, exact; terms are pairs (j, c), c non-zero."""

    terms: tuple[tuple[int, Fraction], ...]
    bound: Fraction


class Linear(NamedTuple):
    """``constant + sum of c * variable``; variable X_i is numbered i, variable Y_j is numbered -1 - j."""

    terms: dict[int, Fraction]
    constant: Fraction


class Atoms:
    """The table of atoms: each bounds one input, or is a row over the outputs.

    Attributes:
        slot: for each atom 2 i if it is a lower bound of X_i, 2 i + 1 for an upper bound, -1 for an output row.
        value: the atom's `Bound` or `Row`.
    """

    def __init__(self):
        self.slot: list[int] = []
        self.value: list[Bound | Row] = []
        self._bounds: dict[tuple[int, int], Bound] = {}  # one object per number, so equal bounds are identical

    def at_most_zero(self, left: Linear, right: Linear) -> Formula:
        """``left - right <= 0`` as a formula.

        Raises:
            Fault: it is neither a bound of one input nor a row over outputs.
        """
        terms = dict(left.terms)
        for variable, c in right.terms.items():
            terms[variable] = terms.get(variable, Fraction(0)) - c
        terms = {variable: c for variable, c in terms.items() if c}
        bound = right.constant - left.constant
        if not terms:
            return [()] if bound >= 0 else []
        if len(terms) == 1:
            (variable, c), *_ = terms.items()
            return [(self.at_most(variable, bound / c) if c > 0 else self.at_least(variable, bound / c),)]
        if max(terms) < 0:
            return [(self._add(-1, Row(tuple((-1 - v, c) for v, c in terms.items()), bound)),)]
        if min(terms) < 0:
            raise Fault("a constraint mixes inputs and outputs", "only constraints on one of them are supported")
        raise Fault(
            "a linear constraint between several inputs", "only a lower and an upper bound per input are supported"
        )

    def at_most(self, variable: int, bound: Fraction) -> int:
        """The atom ``variable <= bound``; raises `Fault` where float64 does not reach that far."""
        if variable < 0:
            return self._add(-1, Row(((-1 - variable, _ONE),), bound))
        return self._add(2 * variable + 1, self._bound(bound))

    def at_least(self, variable: int, bound: Fraction) -> int:
        """The atom ``variable >= bound``; raises `Fault` where float64 does not reach that far."""
        if variable < 0:
            return self._add(-1, Row(((-1 - variable, -_ONE),), -bound))
        return self._add(2 * variable, self._bound(bound))

    def _add(self, slot: int, value: Bound | Row) -> int:
        self.slot.append(slot)
        self.value.append(value)
        return len(self.slot) - 1

    def _bound(self, value: Fraction) -> Bound:
        key = value.numerator, value.denominator  # hashes faster than the fraction
        if key not in self._bounds:
            try:
                self._bounds[key] = to_bound(value)
            except OverflowError:
                raise Fault("a bound is beyond the range of float64", "use a smaller number") from None
        return self._bounds[key]


def combine(operator: str, terms: Sequence[Linear]) -> Linear:
    """The sum (``+``), difference (``-``, negation of a single term) or product (``*``) of terms.

    Raises:
        Fault: there is no term, or a product of variables.
    """
    if not terms:
        raise Fault(f"'{operator}' of nothing", "give it a term")
    if operator == "*":
        return _multiply(terms)
    signs = [1] + [1 if operator == "+" else -1] * (len(terms) - 1)
    if operator == "-" and len(terms) == 1:
        signs = [-1]
    total: dict[int, Fraction] = {}
    for sign, term in zip(signs, terms, strict=True):
        for variable, c in term.terms.items():
            total[variable] = total.get(variable, Fraction(0)) + sign * c
    return Linear(total, sum((s * t.constant for s, t in zip(signs, terms, strict=True)), Fraction(0)))


def _multiply(terms: Sequence[Linear]) -> Linear:
    factor, linear = Fraction(1), Linear({}, Fraction(1))
    for term in terms:
        if not term.terms:
            factor *= term.constant
        elif linear.terms:
            raise Fault("a non-linear term multiplies variables", "only products with a number are supported")
        else:
            linear = term
    return Linear({variable: factor * c for variable, c in linear.terms.items()}, factor * linear.constant)


def any_of(parts: Sequence[Formula]) -> Formula:
    """The disjunction; raises `Fault` where it has more cases than can be handled."""
    if len(parts) == 1:
        return parts[0]
    _guard(sum(map(len, parts)), 0)
    return [case for part in parts for case in part]


def all_of(parts: Sequence[Formula]) -> Formula:
    """The conjunction; raises `Fault` where it has more cases than can be handled."""
    if any(not part for part in parts):
        return []
    common = tuple(atom for part in parts if len(part) == 1 for atom in part[0])
    choices = [part for part in parts if len(part) > 1]
    count = prod(map(len, choices))
    atoms = len(common) * count + sum(sum(map(len, part)) * (count // len(part)) for part in choices)
    _guard(count, atoms)
    if len(choices) == 1:
        return [common + case for case in choices[0]] if common else choices[0]
    return [common + tuple(atom for case in cases for atom in case) for cases in product(*choices)]


def _guard(cases: int, atoms: int) -> None:
    if cases > MOST_CASES or atoms > MOST_ATOMS:
        size = f"{cases} cases" if cases > MOST_CASES else f"{atoms} constraints in all its cases"
        raise Fault(f"the formula unfolds into {size}", f"split the file; {MOST_CASES} cases are the limit")
