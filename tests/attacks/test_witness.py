from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.attacks.witness import format_witness, read_witness
from verifier.errors import InputError
from verifier.verdict import Counterexample

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(floats32, min_size=1, max_size=6), st.lists(floats32, min_size=1, max_size=3))
def test_float32_values_survive_both_ways_of_reading(x, y):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "witness.txt"
        path.write_text(format_witness(Counterexample(np.array([x]), np.array([y], dtype=np.float32))))
        read_x, read_y = read_witness(path)
    assert read_x.tolist() == x and read_y.tolist() == y
    assert read_x.astype(np.float32).tolist() == x


def test_format(tmp_path):
    path = tmp_path / "witness.txt"
    output = np.array([[0.5, np.float32(0.1)]], dtype=np.float32)
    path.write_text(format_witness(Counterexample(np.array([[[0.1, -2.0]]]), output)))
    assert path.read_text() == "sat\n((X_0 0.1)\n(X_1 -2.0)\n(Y_0 0.5)\n(Y_1 0.10000000149011612))\n"


def test_reads_what_other_tools_write(tmp_path):
    path = tmp_path / "witness.txt"
    path.write_text("sat\n((X_0 1e-3) (X_1 -5)\n\n(Y_0\t.25)\n)\n")
    x, y = read_witness(path)
    assert x.tolist() == [0.001, -5.0] and y.tolist() == [0.25]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unsat\n", "line 1"),
        ("sat\n(X_0 1)", "not one list"),
        ("sat\n((X_0 1) oops (Y_0 1))", "not one list"),
        ("sat\n((X_0 1)(X_2 1)(Y_0 1))", "X_0, X_1"),
        ("sat\n((X_0 1)(X_0 2)(Y_0 1))", "X_0, X_1"),
        ("sat\n((X_0 one)(Y_0 1))", "not a number"),
    ],
)
def test_refuses_what_is_no_witness(tmp_path, text, says):
    path = tmp_path / "witness.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        read_witness(path)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_witness(tmp_path / "none.txt")
