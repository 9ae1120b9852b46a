"""Decimals as they are written: exact fractions, and the floats next to them on either side."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import reduce
from math import gcd, inf, lcm, nextafter
from typing import NamedTuple

_NUMBER = re.compile(r"([+-]?)(\d*)\.?(\d*)(?:[eE]([+-]?\d{1,9}))?")
_LARGEST_EXPONENT = 400  # beyond float64 either way, and 10**400 is still a small integer
_MOST_DIGITS = 1000


class Bound(NamedTuple):
    """An exact number; compares exactly, since rounding to nearest is monotone and ``exact`` settles ties.

    Args:
        near, exact, down, up: the nearest float64, the number itself, the float64 at or below, at or above it.
    """

    near: float
    exact: Fraction
    down: float
    up: float


def parse_number(text: str) -> Fraction | None:
    """The exact value of a decimal such as ``-1.5e-3``; None where the text is not one or is out of range."""
    match = _NUMBER.fullmatch(text)
    if match is None or len(text) > _MOST_DIGITS:
        return None
    sign, whole, part, exponent = match.groups()
    if not whole and not part:
        return None
    power = int(exponent or 0) - len(part)
    if abs(power) > _LARGEST_EXPONENT:
        return None
    digits = int(sign + whole + part)
    return Fraction(digits * 10**power) if power >= 0 else Fraction(digits, 10**-power)


def to_bound(value: Fraction) -> Bound:
    """The floats around a number.

    Raises:
        OverflowError: it is beyond the range of float64.
    """
    near = float(value)
    numerator, denominator = near.as_integer_ratio()
    below, above = numerator * value.denominator, value.numerator * denominator
    if below == above:
        return Bound(near, value, near, near)
    if below < above:
        return Bound(near, value, near, nextafter(near, inf))
    return Bound(near, value, nextafter(near, -inf), near)


def float_row(coefficients: list[Fraction]) -> tuple[list[float], Fraction] | None:
    """A positive multiple of a row that is exact in float64.

    Args:
        coefficients: not all zero.

    Returns:
        The multiple and its factor, or None where no factor was found: the row as it is, the row divided by one of
        its coefficients, and the smallest multiple in integers are tried.
    """
    if all(c.denominator == 1 and -1 <= c.numerator <= 1 for c in coefficients):
        return [float(c) for c in coefficients], Fraction(1)
    sizes = [abs(c) for c in coefficients if c]
    if len(sizes) == 1:
        factors = [1 / sizes[0]]
    else:
        whole = lcm(*(c.denominator for c in sizes))
        shared = reduce(gcd, ((c * whole).numerator for c in sizes))
        factors = [Fraction(1), *(1 / size for size in dict.fromkeys(sizes)), Fraction(whole, shared)]
    for factor in factors:
        scaled = [c * factor for c in coefficients]
        if all(_is_float(c) for c in scaled):
            return [float(c) for c in scaled], factor
    return None


def _is_float(value: Fraction) -> bool:
    try:
        return Fraction(float(value)) == value
    except OverflowError:
        return False
