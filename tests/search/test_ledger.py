"""How the workers of a search share its steps."""

from __future__ import annotations

import pytest

from tests.search.cases import first_output_below, network, start
from verifier.search.input_split import InputSplit
from verifier.search.ledger import SMALL
from verifier.workers import Workers


@pytest.mark.parametrize(("count", "parts"), [(2, [2]), (3, [3]), (4, [2, 2]), (8, [4, 4]), (20, [4, 4])])
def test_only_steps_of_some_size_are_shared(count: int, parts: list[int]):
    graph, box = network("mlp", 0)
    search = start("input", graph, box, first_output_below(graph, 1e3))
    assert isinstance(search, InputSplit)
    ledger, found = search.ledger, []
    fields = ledger.store.pop(1)
    ledger.restart({name: value.repeat(count, *(1,) * (value.dim() - 1)) for name, value in fields.items()})
    ledger.size, ledger.workers = 2 * SMALL if count < 8 else 4, Workers(2)
    ledger.advance(lambda batch: found.append(len(batch["bound"])) or [])
    assert sorted(found) == parts
