"""Sums and means over axes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from verifier.graph.builder import Builder
from verifier.graph.calls import Activation, Call, axes_of
from verifier.graph.importers.registry import Importer


def _axes(call: Call, x: Activation, input_since: int) -> tuple[int, ...]:
    """The axes to reduce: all of them where none are named, unless the node says otherwise."""
    stated = call.integers("axes", 1, input_since)
    if stated:
        return axes_of(stated, x.rank)
    return () if call.attributes.get("noop_with_empty_axes", 0) else tuple(range(x.rank))


def _reduced(x: Activation, axes: tuple[int, ...], call: Call, build: Builder) -> Activation:
    return build.total(x, axes, keep=bool(call.attributes.get("keepdims", 1)))


def _reduce_sum(call: Call, build: Builder) -> Activation:
    x = call.activation()
    return _reduced(x, _axes(call, x, input_since=13), call, build)


def _reduce_mean(call: Call, build: Builder) -> Activation:
    x = call.activation()
    axes = _axes(call, x, input_since=18)
    return build.scale(_reduced(x, axes, call, build), 1 / prod(x.shape[axis] for axis in axes))


IMPORTERS: Mapping[str, Importer] = {"ReduceMean": _reduce_mean, "ReduceSum": _reduce_sum}
