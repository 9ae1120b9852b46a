"""The table of importers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from verifier.graph.builder import Builder
from verifier.graph.calls import Call, Value

#: emits the nodes of one call; returns its output, or all outputs where the operator has several
Importer = Callable[[Call, Builder], Value | tuple[Value, ...]]


def registry(*families: Mapping[str, Importer]) -> Mapping[str, Importer]:
    """All families in one table; an operator named twice is a programming error."""
    table: dict[str, Importer] = {}
    for name, importer in (item for family in families for item in family.items()):
        if name in table:
            raise ValueError(f"two importers for {name}")
        table[name] = importer
    return MappingProxyType(table)
