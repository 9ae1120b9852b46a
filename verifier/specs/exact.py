"""Decimals as they are written: exact fractions, and the floats next to them on either side."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import reduce
from math import gcd, inf, lcm, nextafter
from typing import NamedTuple

from verifier.errors import InputError

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


def parse_epsilon(text: str, where: str = "--epsilon") -> float:
    """The float64 nearest to a decimal or a fraction of two decimals, such as ``8/255``.

    Raises:
        InputError: it is neither, negative, or too large for float64.
    """
    parts = [parse_number(part.strip()) for part in text.split("/")]
    if len(parts) > 2 or any(part is None for part in parts) or (len(parts) == 2 and parts[1] == 0):
        raise InputError(where, f"{text!r} is not a number", "write it like 0.03 or 8/255")
    value = parts[0] if len(parts) == 1 else Fraction(parts[0] or 0) / Fraction(parts[1] or 1)
    assert value is not None
    if value < 0:
        raise InputError(where, f"{text} is negative", "give a number >= 0")
    return to_float(value, text, where)


def to_float(value: Fraction, text: str, where: str) -> float:
    """The float64 nearest to a number that was written as ``text``.

    Raises:
        InputError: it is beyond the range of float64.
    """
    try:
        return float(value)
    except OverflowError:
        raise InputError(where, f"{text} is too large", "give a smaller number") from None


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
