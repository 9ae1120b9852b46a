"""VNN-LIB 2.0: the same meaning as version 1.0, and its own errors."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.specs.formulas import INPUTS, OUTPUTS, bounds, formulas, violates
from tests.specs.test_vnnlib1 import parse as parse1
from verifier.errors import InputError
from verifier.specs.property import Query
from verifier.specs.vnnlib import read_vnnlib
from verifier.specs.vnnlib2 import parse_vnnlib2

HEAD = "(vnnlib-version <2.0>)\n(declare-network f (declare-input X {} [{}]) (declare-output Y {} [{}]))\n"
BOX = "(assert (and (>= X[0] 0.0) (<= X[0] 1.0)))\n"


def head(inputs: object = 1, outputs: object = 1, kind: str = "float32") -> str:
    return HEAD.format(kind, inputs, kind, outputs)


def parse(body: str, inputs: object = 1, outputs: object = 1) -> Query:
    """The query of a file whose body starts on line 3."""
    return parse_vnnlib2(head(inputs, outputs) + body, "spec.vnnlib").query("spec.vnnlib")


def translate(text: str) -> str:
    """Version 1.0 in the notation of 2.0."""
    text = re.sub(r"([XY])_(\d+)", r"\1[\2]", text)
    return re.sub(r"(?<![\w.\[])(-?\d+)(?![\w.\]])", r"\1.0", text)


@given(st.lists(formulas(), min_size=1, max_size=3), st.integers(0, 10**6))
def test_both_versions_agree(asserted, seed):
    body = "\n".join(f"(assert {part})" for part in [*bounds(), *asserted])
    try:
        first = parse1(body, INPUTS, OUTPUTS)
    except InputError as error:
        with pytest.raises(InputError, match=re.escape(error.what)):
            parse(translate(body).replace("(= ", "(== "), INPUTS, OUTPUTS)
        return
    second = parse(translate(body).replace("(= ", "(== "), INPUTS, OUTPUTS)
    rng = np.random.default_rng(seed)
    for x, y in zip(rng.integers(-5, 6, (30, INPUTS)) / 2, rng.integers(-5, 6, (30, OUTPUTS)) / 2, strict=True):
        assert violates(first, x, y) == violates(second, x, y)


def test_the_version_shows_in_the_content(tmp_path):
    path = tmp_path / "spec.vnnlib"
    path.write_text("; (declare-const X_0 Real)\n" + head() + BOX + "(assert (<= Y[0] 0.0)) ; 1e-3\n")
    assert read_vnnlib(path).properties[0].unsafe[0].d.tolist() == [0.0]
    path.write_text(
        "; (declare-network was another version)\n(declare-const X_0 Real)(declare-const Y_0 Real)"
        "(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= Y_0 0))"
    )
    assert read_vnnlib(path).properties[0].unsafe[0].d.tolist() == [0.0]


def test_tensors_are_flattened_row_by_row():
    cells = [f"X[{i},{j}]" for i in range(2) for j in range(3)]
    body = "".join(f"(assert (and (>= {cell} 0.0) (<= {cell} {k}.0)))" for k, cell in enumerate(cells))
    (prop,) = parse(body + "(assert (<= Y[0,1] Y[1,0]))", "2, 3", "2, 2").properties
    assert prop.region.upper.tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]  # type: ignore[attr-defined]
    assert prop.unsafe[0].C.tolist() == [[0.0, 1.0, -1.0, 0.0]]


def test_decimals_are_exact():
    (prop,) = parse("(assert (and (>= X[0] 0.1) (<= X[0] 0.3)))(assert (<= Y[0] 0.7))").properties
    first = parse1("(assert (and (>= X_0 0.1) (<= X_0 0.3)))(assert (<= Y_0 0.7))").properties[0]
    for name in ("lower", "upper", "inner_lower", "inner_upper"):
        assert getattr(prop.region, name).equal(getattr(first.region, name))
    assert prop.unsafe[0].d == first.unsafe[0].d and prop.unsafe[0].d_inner == first.unsafe[0].d_inner


ERRORS = [
    (head() + BOX + "(assert (<= Y[0] 1e-3))", "line 4", "the number 1e-3"),
    (head() + BOX + "(assert (<= Y[0] 0))", "line 4", "Type mismatch"),
    (head() + BOX + "(assert (<= Z[0] 0.0))", "line 4", "Undeclared variable at 'Z'"),
    (head() + BOX + "(assert (<= Y[3] 0.0))", "line 4", "Index out of bounds"),
    (head() + BOX + "(assert (<= Y[0] 0.0)", "line", "unbalanced parentheses"),
    (head() + BOX + "(assert (<= Y[0] zero!))", "line 4", "syntax error"),
    (head() + BOX + "(assert (< Y[0] 0.0))", "", "strict inequality"),
    (head() + BOX + "(assert (!= Y[0] 0.0))", "", "is not supported"),
    (head() + BOX + "(assert (<= (* Y[0] Y[0]) 0.0))", "", "non-linear term"),
    (head() + BOX + "(assert (<= X[0] Y[0]))", "", "mixes inputs and outputs"),
    (head() + "(assert (<= X[0] 1.0))", "", "X_0 has no lower bound"),
    (head() + BOX + "(assert (>= X[0] 2.0))", "", "contradictory bounds"),
    (head(kind="int64") + "(assert (<= X[0] 1))", "", "X has type int64"),
    (head() + BOX + "(assert " + "(and " * 300 + "(<= Y[0] 0.0)" + ")" * 301, "", "nest deeper"),
    (head() + BOX + f"(assert (<= Y[0] 0.{'1' * 2000}))", "", "out of range"),
    (
        "(vnnlib-version <2.0>)(declare-network f (declare-input X real [1]) (declare-output Y real [1]))"
        "(declare-network g (declare-input A real [1]) (declare-output B real [1]))(assert (<= X[0] 1.0))",
        "",
        "2 networks (f, g)",
    ),
    (
        "(vnnlib-version <2.0>)(declare-network f (declare-input X real [1]) (declare-input Z real [1]) "
        "(declare-output Y real [1]))(assert (<= X[0] 1.0))",
        "",
        "2 inputs (X, Z)",
    ),
    (
        "(vnnlib-version <2.0>)(declare-network f (declare-input X real [1]) (declare-output Y real [1]) "
        "(declare-output Z real [1]))(assert (<= X[0] 1.0))",
        "",
        "2 outputs (Y, Z)",
    ),
    (
        '(vnnlib-version <2.0>)(declare-network f (declare-input X real [1]) (declare-hidden H real [1] "h") '
        "(declare-output Y real [1]))(assert (<= X[0] 1.0))",
        "",
        "hidden node H",
    ),
]


@pytest.mark.parametrize("text, place, message", ERRORS, ids=[message for *_, message in ERRORS])
def test_errors_are_one_sentence(text, place, message):
    with pytest.raises(InputError) as caught:
        parse_vnnlib2(text, "spec.vnnlib").query("spec.vnnlib")
    assert message in caught.value.what
    assert place in caught.value.where and caught.value.where.startswith("spec.vnnlib")
    assert "\n" not in str(caught.value) and caught.value.mend


WORDS = ["(", ")", "(assert", "(and", "(or", "(<=", "(==", "(-", "(*", "X[0]", "Y[0]", "Y[1]", "0.0", "1e-3", "3", "-"]


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_any_sequence_of_words_is_read_or_refused_in_one_sentence(words):
    try:
        query = parse(BOX + " ".join(words))
    except InputError as error:
        assert "\n" not in str(error) and error.mend
    else:
        assert query.properties
