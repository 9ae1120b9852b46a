"""Which rungs a network gets, and when a search has to stop."""

from __future__ import annotations

from time import monotonic

import numpy as np
import pytest

from tests.laws.networks import NETWORKS
from verifier import schedule
from verifier.schedule import ATTACK_AGAIN, LADDERS, MILP, SEARCH, search_until, worthwhile


def test_a_search_by_forms_is_not_cut_off_by_an_attack(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schedule, "FORMS_FROM", 0)
    graph = NETWORKS["cnn"](np.random.default_rng(0))
    few, many = (worthwhile(LADDERS["auto"], graph, few_inputs) for few_inputs in (True, False))
    assert few[-2:] == [ATTACK_AGAIN, SEARCH] and few.count(SEARCH) == 1
    assert many[-3:] == [SEARCH, ATTACK_AGAIN, SEARCH]
    for rungs in (("ibp", SEARCH, ATTACK_AGAIN), ("ibp", SEARCH, SEARCH), (SEARCH, MILP)):
        assert worthwhile(rungs, graph, True).count(SEARCH) == 1
    assert worthwhile(LADDERS["auto"], graph, True, splitting="activation").count(SEARCH) == 2


def test_a_search_after_which_nothing_is_tried_has_all_the_time():
    deadline = monotonic() + 100
    assert search_until(deadline, 1, more=False) == pytest.approx(deadline, abs=1)
    assert search_until(deadline, 1, more=True) == pytest.approx(deadline - 60, abs=1)
    assert search_until(None, 1, more=False) is None
