"""VNN-LIB 1.0: meaning, exact decimals, grouping, and every error with its line."""

from __future__ import annotations

import gzip
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.specs.formulas import INPUTS, OUTPUTS, bounds, evaluate, formulas, tree, violates
from verifier.errors import InputError
from verifier.specs import formula
from verifier.specs.property import Query
from verifier.specs.vnnlib import read_vnnlib
from verifier.specs.vnnlib1 import parse_vnnlib1


def declare(inputs: int = INPUTS, outputs: int = OUTPUTS) -> str:
    names = [f"X_{i}" for i in range(inputs)] + [f"Y_{j}" for j in range(outputs)]
    return "".join(f"(declare-const {name} Real)\n" for name in names)


def parse(body: str, inputs: int = 1, outputs: int = 1) -> Query:
    """The query of a file whose first line of assertions is line 1 + inputs + outputs."""
    return parse_vnnlib1(declare(inputs, outputs) + body, "spec.vnnlib").query("spec.vnnlib")


BOX = "(assert (>= X_0 0))(assert (<= X_0 1))"


@given(st.lists(formulas(), min_size=1, max_size=3), st.integers(0, 10**6))
def test_membership_agrees_with_the_formula(asserted, seed):
    body = "\n".join(f"(assert {part})" for part in [*bounds(), *asserted])
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-5, 6, (40, INPUTS)) / 2, rng.integers(-5, 6, (40, OUTPUTS)) / 2
    wanted = [all(evaluate(t[1], _point(a, b)) for t in tree(body)) for a, b in zip(x, y, strict=True)]
    try:
        query = parse(body, INPUTS, OUTPUTS)
    except InputError as error:
        assert "contradict" in error.what
        assert not any(wanted)
        return
    assert [violates(query, a, b) for a, b in zip(x, y, strict=True)] == wanted


def _point(x: np.ndarray, y: np.ndarray) -> dict[str, Fraction]:
    named = {f"X_{i}": v for i, v in enumerate(x)} | {f"Y_{j}": v for j, v in enumerate(y)}
    return {name: Fraction(float(value)) for name, value in named.items()}


def test_decimals_are_rounded_outwards_with_inner_bounds():
    query = parse("(assert (>= X_0 0.1))(assert (<= X_0 0.3))(assert (<= Y_0 0.7))")
    (prop,) = query.properties
    box, (polytope,) = prop.region, prop.unsafe
    assert Fraction(float(box.lower)) < Fraction("0.1") < Fraction(float(box.inner_lower))  # type: ignore[attr-defined]
    assert Fraction(float(box.upper)) > Fraction("0.3") > Fraction(float(box.inner_upper))  # type: ignore[attr-defined]
    assert polytope.d_inner is not None
    assert Fraction(polytope.d_inner[0]) < Fraction("0.7") < Fraction(polytope.d[0])


def test_exact_decimals_have_no_inner_bounds():
    (prop,) = parse("(assert (>= X_0 -0.5))(assert (<= X_0 2))(assert (>= Y_0 0.25))").properties
    assert prop.region.inner_lower is None and prop.unsafe[0].d_inner is None  # type: ignore[attr-defined]
    assert prop.unsafe[0].C.tolist() == [[-1.0]] and prop.unsafe[0].d.tolist() == [-0.25]


def test_a_fixed_decimal_gives_its_nearest_float_as_witness():
    (prop,) = parse("(assert (= X_0 0.1))(assert (<= Y_0 0))").properties
    assert float(prop.region.lower) < 0.1 or float(prop.region.upper) > 0.1  # type: ignore[attr-defined]
    witness = prop.region.witness(np.array([0.7]))
    assert witness is not None and witness.tolist() == [0.1]


def test_shared_boxes_are_one_property_and_others_their_own():
    query = parse(
        """(assert (or (and (>= X_0 0) (<= X_0 1) (<= Y_0 0))
                       (and (>= X_0 0.0) (<= X_0 1.00) (>= Y_0 5) (<= Y_0 6))
                       (and (>= X_0 2) (<= X_0 3) (<= Y_0 0))))"""
    )
    assert [len(prop.unsafe) for prop in query.properties] == [2, 1]
    assert query.properties[0].unsafe[1].C.tolist() == [[-1.0], [1.0]]
    assert query.properties[0].unsafe[1].d.tolist() == [-5.0, 6.0]
    assert [float(prop.region.lower) for prop in query.properties] == [0.0, 2.0]  # type: ignore[attr-defined]


def test_bounds_of_a_case_tighten_the_common_ones():
    query = parse(BOX + "(assert (or (<= X_0 0.5) (>= X_0 0.75) (<= X_0 9)))(assert (<= Y_0 0))")
    boxes = [(float(p.region.lower), float(p.region.upper)) for p in query.properties]  # type: ignore[attr-defined]
    assert boxes == [(0.0, 0.5), (0.75, 1.0), (0.0, 1.0)]


def test_a_case_without_outputs_makes_every_output_unsafe():
    (prop,) = parse(BOX, outputs=2).properties
    assert prop.unsafe[0].contains(np.array([1e9, -1e9])) and prop.unsafe[0].C.shape == (1, 2)


def test_constant_comparisons_are_decided():
    (prop,) = parse(BOX + "(assert (or (<= 1 0) (and (<= 0 1) (<= Y_0 0)) (<= X_0 (- X_0 1))))").properties
    assert len(prop.unsafe) == 1


def test_empty_cases_are_dropped():
    query = parse(BOX + "(assert (or (and (<= X_0 -1) (<= Y_0 0)) (<= Y_0 1)))")
    assert len(query.properties) == 1 and query.properties[0].unsafe[0].d.tolist() == [1.0]


def test_coefficients_are_exact():
    (prop,) = parse(BOX + "(assert (<= (- (* 0.1 Y_0) (* 0.3 Y_1)) 0.7))", outputs=2).properties
    (polytope,) = prop.unsafe
    assert Fraction(polytope.C[0, 1]) / Fraction(polytope.C[0, 0]) == -3
    assert Fraction(polytope.d[0]) / Fraction(polytope.C[0, 0]) >= 7


def test_comments_and_layout_do_not_matter(tmp_path):
    text = (
        declare(1, 1)
        + "; (assert (<= X_0 -9))\n(assert\n ( <=   X_0 1 ) ) ; done\n(assert (>= X_0 0))\r\n(assert(<= Y_0 0))"
    )
    path = tmp_path / "a.vnnlib.gz"
    path.write_bytes(gzip.compress(text.encode()))
    query = read_vnnlib(path)
    assert query.name == str(path) and float(query.properties[0].region.upper) == 1.0  # type: ignore[attr-defined]


def test_thousands_of_inputs_read_well_under_a_second():
    lines = [f"(assert (<= X_{i} 0.{i:05d}1))\n(assert (>= X_{i} -0.{i:05d}1))\n" for i in range(3072)]
    start = time.process_time()
    query = parse("".join(lines) + "(assert (or " + "".join(f"(<= Y_0 Y_{j})" for j in range(1, 10)) + "))", 3072, 10)
    assert time.process_time() - start < 1
    assert len(query.properties[0].unsafe) == 9


def test_deep_nesting_is_read_and_absurd_nesting_refused():
    deep = 4000
    query = parse(BOX + "(assert " + "(and (or " * deep + "(<= Y_0 0)" + "))" * deep + ")")
    assert len(query.properties) == 1
    with pytest.raises(InputError, match="nest deeper"):
        parse("(" * 20_000)


def test_an_exploding_formula_is_refused(monkeypatch):
    clause = "(assert (or (<= Y_0 0) (<= Y_0 1)))"
    with pytest.raises(InputError, match="unfolds into 1073741824 cases"):
        parse(BOX + clause * 30)
    monkeypatch.setattr(formula, "MOST_ATOMS", 100)
    with pytest.raises(InputError, match="constraints in all its cases"):
        parse(BOX + clause * 8)
    monkeypatch.setattr(formula, "MOST_CASES", 3)
    with pytest.raises(InputError, match="unfolds into 4 cases"):
        parse(BOX + "(assert (or (<= Y_0 0) (<= Y_0 1) (<= Y_0 2) (<= Y_0 3)))")


ERRORS = [
    # body (first line is line 3), line or None, message
    (BOX + "(assert (<= Y_7 0))", 3, "Y_7 is not declared"),
    (BOX + "\n(assert (<= (+ Y_0 Y_7) 0))", 4, "Y_7 is not declared"),
    (BOX + "(assert (<= foo 0))", 3, "'foo' is neither a number nor a declared variable"),
    (BOX + "\n\n(assert (<= Y_0 1.2.3))", 5, "'1.2.3' is neither a number"),
    (BOX + "(assert (<= Y_0 1e999))", 3, "'1e999' is neither a number"),
    (BOX + "(assert (<= Y_0 0)", 3, "this '(' is never closed"),
    ("(assert (>= X_0 0)\n" + BOX + "(assert (<= Y_0 0))", 3, "this '(' is not closed before the next command"),
    ("(assert (and (>= X_0 0)\n(assert (<= X_0 1))))", 3, "this '(' is not closed before the next command"),
    (BOX + "\n(assert (<= Y_0 0)))", 4, "a ')' closes nothing"),
    (BOX + "\n(assert (< Y_0 0))", 4, "strict inequality '<'"),
    (BOX + "\n(assert (or (<= Y_0 0)\n(> Y_0 1)))", 5, "strict inequality '>'"),
    (BOX + "\n(assert (<= (* Y_0 Y_0) 0))", 4, "non-linear term"),
    (BOX + "\n(assert (<= (* X_0 Y_0) 0))", 4, "non-linear term"),
    (BOX + "\n(assert (<= X_0 Y_0))", 4, "mixes inputs and outputs"),
    (BOX + "\n(assert (not (<= Y_0 0)))", 4, "'not' is not part of VNN-LIB 1.0"),
    (BOX + "\n(assert ((<= Y_0 0)))", 4, "a '(' without an operator"),
    (BOX + "\n(assert ())", 4, "a '(' without an operator"),
    (BOX + "\n(assert (<= Y_0 0) (<= Y_0 1))", 4, "'assert' of 2 formulas"),
    (BOX + "\n(assert)", 4, "'assert' of 0 formulas"),
    (BOX + "\n(assert Y_0)", 4, "'Y_0' stands where a formula is needed"),
    (BOX + "\n(assert (+ Y_0 1))", 4, "a number stands where a formula is needed"),
    (BOX + "\n(assert (<= (and (<= Y_0 1)) 1))", 4, "a formula stands where a number is needed"),
    (BOX + "\n(assert (<= (<= Y_0 1) 1))", 4, "a formula stands where a number is needed"),
    (BOX + "\n(assert (<= Y_0 1 2))", 4, "'<=' compares 3 terms"),
    (BOX + "\n(assert (and))", 4, "'and' of nothing"),
    (BOX + "\n(assert (<= (+) 1))", 4, "'+' of nothing"),
    (BOX + "\n(declare-const X_0 Real)", 4, "X_0 is declared twice"),
    (BOX + "\n(declare-const Y_1 Int)", 4, "Y_1 is declared as Int"),
    (BOX + "\n(declare-const Z Real)", 4, "does not name a variable"),
    (BOX + "\n(declare-const Y_1)", 4, "does not name a variable"),
    (BOX + "\n(declare-fun Y_1 () Real)", 4, "a '(' without an operator"),
    (BOX + "\n(check-sat)", 4, "'check-sat' is not part of VNN-LIB 1.0"),
    (BOX + "\nhello", 4, "'hello' stands outside any command"),
    (BOX + "\n(<= Y_0 0)", 4, "stands outside any command"),
    ("", None, "asserts nothing"),
    (BOX + "(declare-const Y_2 Real)", None, "Y_1 is not declared"),
    ("(assert (>= X_0 0))(assert (<= Y_0 0))", None, "X_0 has no upper bound"),
    ("(assert (<= X_0 0))(assert (<= Y_0 0))", None, "X_0 has no lower bound"),
    (BOX + "(assert (>= X_0 2))(assert (<= Y_0 0))", None, "contradictory bounds: 2.0 <= X_0 <= 1.0"),
    (BOX + "(assert (or (<= X_0 -1) (>= X_0 2)))", None, "contradictory bounds"),
    (BOX + "(assert (<= 1 0))", None, "the assertions contradict each other"),
    (BOX + "(assert (<= (* 1e-300 X_0) 1e300))", 3, "a bound is beyond the range of float64"),
    (BOX + "(assert (<= (* 1e-300 Y_0) 1e300))", None, "an output bound is beyond the range of float64"),
]


@pytest.mark.parametrize("body, line, message", ERRORS, ids=[message for *_, message in ERRORS])
def test_errors_name_the_place_and_the_fault(body, line, message):
    with pytest.raises(InputError) as caught:
        parse(body)
    assert message in caught.value.what
    assert "\n" not in str(caught.value) and caught.value.mend
    if line is not None:
        assert caught.value.where == f"spec.vnnlib, line {line}"
    else:
        assert caught.value.where == "spec.vnnlib"


def test_constraints_between_inputs_are_refused_with_the_line():
    with pytest.raises(InputError, match=r"line 4: a linear constraint between several inputs"):
        parse("(assert (<= X_0 X_1))", inputs=2)


def test_rows_beyond_float64_are_refused():
    with pytest.raises(InputError, match="too many digits"):
        parse(BOX + "(assert (<= (+ (* 0.1234567890123456789 Y_0) (* 0.98765432109876543211 Y_1)) 1))", outputs=2)


WORDS = ["(", ")", "(assert", "(and", "(or", "(<=", "(>=", "(=", "(-", "(*", "X_0", "Y_0", "Y_1", "0", "1e-3", "-", ";"]


@given(st.lists(st.sampled_from([*WORDS, "(declare-const Y_1 Real)", "\n", "(<= Y_0 0)", "assert"]), max_size=20))
def test_any_sequence_of_words_is_read_or_refused_in_one_sentence(words):
    try:
        query = parse(BOX + " ".join(words))
    except InputError as error:
        assert "\n" not in str(error) and error.mend
    else:
        assert query.properties


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_vnnlib(tmp_path / "none.vnnlib")
    with pytest.raises(InputError, match="cannot be read"):
        read_vnnlib(tmp_path)
    (tmp_path / "binary.vnnlib").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="is not text"):
        read_vnnlib(tmp_path / "binary.vnnlib")
    (tmp_path / "cut.vnnlib.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(InputError, match="damaged"):
        read_vnnlib(tmp_path / "cut.vnnlib.gz")
    (tmp_path / "bad.vnnlib.gz").write_bytes(b"\x1f\x8bnot gzip at all")
    with pytest.raises(InputError, match="damaged"):
        read_vnnlib(tmp_path / "bad.vnnlib.gz")


@pytest.mark.slow
def test_every_published_query_means_what_it_says(shared):
    """All are parsed; the first two of each family are compared with the other evaluation, inside and outside."""
    rng = np.random.default_rng(0)
    for folder in sorted(shared.glob("vnncomp/*/vnnlib")):
        paths = [path for path in sorted(folder.iterdir()) if path.stat().st_size < 400_000]  # larger: seconds each
        assert paths
        for number, path in enumerate(paths):
            query = read_vnnlib(path)
            if number < 2:
                _compare(query, gzip.decompress(path.read_bytes()).decode(), rng)


def _compare(query: Query, text: str, rng: np.random.Generator) -> None:
    plain = "".join(line.split(";")[0] + "\n" for line in text.splitlines())
    asserted = [node[1] for node in tree(plain) if node[0] == "assert"]
    prop = query.properties[int(rng.integers(len(query.properties)))]
    box = prop.region.enclosing_box()
    low, high = box.lower[0].numpy(), box.upper[0].numpy()
    if (high == np.nextafter(low, np.inf)).any():
        return  # an input is fixed to a decimal that no float64 is, so no sample satisfies the text
    for shift in (0, 10):
        x = low + rng.uniform(0.01, 0.99, low.shape) * (high - low)
        x[0] += shift
        y = rng.normal(size=prop.unsafe[0].C.shape[1])
        point = _point(x, y)
        assert violates(query, x, y) == all(evaluate(node, point) for node in asserted), query.name
