"""A search by affine forms."""

from __future__ import annotations

import pytest

from tests.search.cases import first_output_below, network, one_step, start
from verifier.search import input_split
from verifier.search.input_split import InputSplit


@pytest.mark.parametrize("alone", [1, 3])
def test_sets_that_are_hardly_ever_proved_are_not_bounded_after_the_first(alone: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(input_split, "FORMS_ALONE", alone)
    graph, box = network("cnn", 0)
    search = start("forms", graph, box, first_output_below(graph, 1e3))  # false all over the set
    assert isinstance(search, InputSplit)
    search.ledger.size = 1
    one_step(search)
    assert search.ledger.store.numbers()["depth"].tolist() == [alone] * 2**alone
