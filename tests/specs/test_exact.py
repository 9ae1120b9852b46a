"""Exact decimals and the floats around them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import InputError
from verifier.specs.exact import float_row, parse_epsilon, parse_number, to_bound


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=25))
def test_bounds_are_the_neighbouring_floats(decimal):
    value = parse_number(str(decimal))
    assert value is not None and value == Fraction(decimal)
    bound = to_bound(value)
    assert Fraction(bound.down) <= value <= Fraction(bound.up)
    assert bound.near in (bound.down, bound.up)
    assert (bound.up == bound.down) == (Fraction(bound.near) == value)
    assert bound.up in (bound.down, np.nextafter(bound.down, np.inf))


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300))
def test_floats_are_read_as_python_reads_them(x):
    value = parse_number(repr(x))
    assert value is not None and to_bound(value).near == x


@pytest.mark.parametrize(
    "text", ["", "-", ".", "1e", "e5", "1.2.3", "0x10", "1_000", "nan", "inf", "1e999", "9" * 2000]
)
def test_malformed_and_enormous_numbers_are_refused(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    "text, value",
    [("1", 1), ("+1.", 1), (".5", Fraction(1, 2)), ("-1e-06", Fraction(-1, 10**6)), ("2E3", 2000), ("-0.0", 0)],
)
def test_number_forms(text, value):
    assert parse_number(text) == value


@given(st.lists(st.fractions(-10, 10, max_denominator=1000), min_size=1, max_size=4).filter(any))
def test_rows_are_exact_positive_multiples(coefficients):
    found = float_row(coefficients)
    assert found is not None
    row, factor = found
    assert factor > 0 and [Fraction(c) for c in row] == [c * factor for c in coefficients]


def test_rows_with_too_many_digits_are_refused():
    assert float_row([Fraction(1, 3**40), Fraction(1, 7**30)]) is None
    assert float_row([Fraction(1, 3)]) == ([1.0], 3)


@pytest.mark.parametrize(
    "text, value", [("8/255", 8 / 255), ("0.03", 0.03), ("1e-2", 0.01), (" 2 / 255 ", 2 / 255), ("0", 0.0)]
)
def test_epsilon_as_text(text, value):
    assert parse_epsilon(text) == value


@pytest.mark.parametrize(
    "text", ["", "a", "1/0", "1/2/3", "-0.1", "-1/255", "nan", "inf", "0.1x", "1e400", "1e300/1e-300"]
)
def test_bad_epsilon_text(text):
    with pytest.raises(InputError, match="--epsilon"):
        parse_epsilon(text)
