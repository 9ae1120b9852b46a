"""Slices, parts, joins and padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.graph.models import model, node, random
from tests.graph.parity import assert_parity, read
from verifier.errors import InputError

BOUND = st.one_of(st.integers(-8, 8), st.sampled_from([2**31 - 1, -(2**31) + 1, 2**63 - 1, -(2**63) + 1]))


@given(st.lists(st.tuples(BOUND, BOUND, st.sampled_from([-3, -2, -1, 1, 2, 5])), min_size=1, max_size=2), st.data())
def test_slice(ranges: list[tuple[int, int, int]], data: st.DataObject):
    axes = data.draw(st.permutations([0, -1, 2]))[: len(ranges)]
    sizes = {0: 5, -1: 6, 2: 7}
    for (start, end, step), axis in zip(ranges, axes, strict=True):
        assume(len(range(*slice(start, end, step).indices(sizes[axis]))))
    starts, ends, steps = map(list, zip(*ranges, strict=True))
    constants = {"s": starts, "e": ends, "a": axes, "t": steps}
    assert_parity(model([node("Slice", "x s e a t", "y")], constants, shape=(5, 2, 7, 6)), samples=1)


def test_slice_by_attributes():
    assert_parity(model([node("Slice", "x", "y", starts=[1, -2], ends=[9, -1], axes=[1, 0])], shape=(3, 4), opset=9))
    assert_parity(model([node("Slice", "x", "y", starts=[1], ends=[3])], shape=(3, 4), opset=9))


def test_slice_without_axes_or_steps():
    assert_parity(model([node("Slice", "x s e", "y")], {"s": [1, 0], "e": [3, 2]}, shape=(3, 4)))
    assert_parity(model([node("Slice", "x s e _ t", "y")], {"s": [2, 0], "e": [0, 4], "t": [-1, 2]}, shape=(3, 4)))


@pytest.mark.parametrize(
    "constants",
    [
        {"s": [1], "e": [1], "a": [0], "t": [1]},
        {"s": [0], "e": [1], "a": [0], "t": [0]},
        {"s": [0], "e": [1], "a": [5], "t": [1]},
        {"s": [0, 1], "e": [1], "a": [0], "t": [1]},
        {"s": [0, 0], "e": [1, 1], "a": [0, 0], "t": [1, 1]},
    ],
)
def test_slices_that_cannot_be(constants: dict[str, list[int]]):
    with pytest.raises(InputError, match="Slice 'n_y'"):
        read(model([node("Slice", "x s e a t", "y")], constants, shape=(3, 4)))


@pytest.mark.parametrize(
    ("opset", "attributes", "sizes"),
    [
        (11, {"axis": 1}, None),
        (11, {"axis": 1, "split": [1, 4, 1]}, None),
        (13, {"axis": -1}, None),
        (13, {"axis": 1}, [1, 4, 1]),
        (18, {"axis": 1, "num_outputs": 3}, None),
        (18, {"axis": 0, "num_outputs": 3}, None),
    ],
)
def test_split(opset: int, attributes: dict[str, Any], sizes: list[int] | None):
    constants = {} if sizes is None else {"s": sizes}
    rejoin = [node("Neg", "b", "n"), node("Concat", "c a n", "y", axis=attributes["axis"])]
    nodes = [node("Split", "x s" if sizes else "x", "a b c", **attributes), *rejoin]
    assert_parity(model(nodes, constants, shape=(8, 6), opset=opset))


def test_parts_that_do_not_make_up_the_axis():
    nodes = [node("Split", "x s", "a b"), node("Add", "a b", "y")]
    with pytest.raises(InputError, match="do not make up axis 0"):
        read(model(nodes, {"s": [1, 2]}, shape=(4, 4)))


def test_one_part_of_a_split_may_be_used_alone():
    assert_parity(model([node("Split", "x", "a b", axis=1), node("Relu", "b", "y")]))


@pytest.mark.parametrize("indices", [2, [0, 3, -1], [[1, 0], [2, 2]], [[[0]]], np.array([1, -4], np.int32)])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(indices: Any, axis: int):
    assert_parity(model([node("Gather", "x i", "y", axis=axis)], {"i": indices}, shape=(4, 5, 6)))


def test_indices_that_leave_the_axis():
    with pytest.raises(InputError, match="leave axis 1"):
        read(model([node("Gather", "x i", "y", axis=1)], {"i": [4]}))


def test_gathering_from_a_constant_by_an_activation_is_refused():
    nodes = [node("Cast", "x", "i", to=7), node("Gather", "c i", "y")]
    with pytest.raises(InputError, match="Cast"):
        read(model(nodes, {"c": random(5)}))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis: int):
    nodes = [node("Relu", "x", "r"), node("Concat", "x c r x", "y", axis=axis)]
    assert_parity(model(nodes, {"c": random(3, 4)}, shape=(3, 4)))


def test_a_constant_part_of_a_join_is_a_node():
    graph = read(model([node("Concat", "c x", "y", axis=1)], {"c": random(1, 2)}))
    assert [n.op for n in graph.nodes] == ["input", "constant", "concat"]


def test_shapes_that_cannot_be_joined():
    with pytest.raises(InputError, match="cannot be joined"):
        read(model([node("Concat", "c x", "y", axis=1)], {"c": random(2, 2)}))


@pytest.mark.parametrize("repeats", [[1, 1], [2, 1], [2, 3]])
def test_tile(repeats: list[int]):
    assert_parity(model([node("Tile", "x r", "y")], {"r": repeats}, shape=(2, 3)))


@pytest.mark.parametrize("opset", [7, 11, 13])
@pytest.mark.parametrize("pads", [[0, 1, 2, 0], [1, 1, 1, 1], [-1, 2, 1, -2], [0, -1, -1, -1], [0, 0, 0, 0]])
@pytest.mark.parametrize("value", [None, 0.0, 1.5])
def test_constant_padding(opset: int, pads: list[int], value: float | None):
    if opset < 11:
        attributes = {"pads": pads} | ({} if value is None else {"value": value})
        assert_parity(model([node("Pad", "x", "y", **attributes)], shape=(4, 5), opset=opset))
    else:
        constants = {"p": pads} | ({} if value is None else {"v": value})
        inputs = "x p" if value is None else "x p v"
        assert_parity(model([node("Pad", inputs, "y")], constants, shape=(4, 5), opset=opset))


@pytest.mark.parametrize(("mode", "opset"), [("edge", 13), ("reflect", 13), ("wrap", 19)])
@pytest.mark.parametrize("pads", [[0, 1, 2, 0], [2, 2, 2, 3], [0, 0, 0, 0]])
def test_padding_with_copies(mode: str, opset: int, pads: list[int]):
    assert_parity(model([node("Pad", "x p", "y", mode=mode)], {"p": pads}, shape=(4, 5), opset=opset))


def test_padding_of_stated_axes():
    constants = {"p": [1, 2, 3, 4], "a": [-1, 0]}
    assert_parity(model([node("Pad", "x p _ a", "y")], constants, shape=(2, 3, 4), opset=18))


@pytest.mark.parametrize(
    ("mode", "pads"),
    [("reflect", [0, 9, 0, 0]), ("reflect", [0, -1, 0, 1]), ("edge", [-1, 0, 0, 0]), ("oval", [1] * 4)],
)
def test_padding_that_is_refused(mode: str, pads: list[int]):
    with pytest.raises(InputError, match="Pad 'n_y'"):
        read(model([node("Pad", "x p", "y", mode=mode)], {"p": pads}, shape=(4, 5)))
