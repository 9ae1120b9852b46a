"""Damaged files give a graph or one sentence, never another error."""

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.models import model, node, random
from verifier.errors import InputError
from verifier.graph import coverage, load
from verifier.graph.checks import check

NODES = [
    node("Conv", "x w b", "c", pads=[1, 0, 1, 1], strides=[2, 1]),
    node("MaxPool", "c", "m", kernel_shape=[2, 2], ceil_mode=1),
    node("Shape", "m", "s"),
    node("Slice", "s zero one", "n"),
    node("Concat", "n minus", "t", axis=0),
    node("Reshape", "m t", "r"),
    node("Gemm", "r v", "g"),
    node("Clip", "g low", "l"),
    node("Split", "l", "p q", axis=1),
    node("Sub", "p q", "d"),
    node("Softmax", "d", "y"),
]
CONSTANTS = {
    "w": random(2, 1, 3, 2),
    "b": random(2),
    "zero": [0],
    "one": [1],
    "minus": [-1],
    "v": random(16, 6),
    "low": 0.0,
}
DATA = model(NODES, CONSTANTS, shape=(1, 1, 6, 5)).SerializeToString()


def load_bytes(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(data)
        try:
            check(load(path))
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        try:
            coverage(path)
        except InputError as error:
            assert "\n" not in str(error)


def test_the_undamaged_file_is_a_network(tmp_path: Path):
    path = tmp_path / "net.onnx"
    path.write_bytes(DATA)
    assert load(path).output_shape == (1, 3)


EDITS = st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), min_size=1, max_size=4)


@given(EDITS)
def test_changed_bytes(edits: list[tuple[int, int]]):
    data = bytearray(DATA)
    for position, value in edits:
        data[position] = value
    load_bytes(bytes(data))


@given(st.integers(0, len(DATA) - 1), st.integers(0, 64), st.binary(max_size=16))
def test_cut_and_inserted_bytes(position: int, length: int, inserted: bytes):
    load_bytes(DATA[:position] + inserted + DATA[position + length :])


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_changed_bytes_of_a_compressed_file(position: int, value: int):
    data = bytearray(gzip.compress(DATA, mtime=0))
    data[position % len(data)] = value
    load_bytes(bytes(data))


@given(st.integers(0, len(NODES) - 1), st.data())
def test_swapped_inputs(index: int, data: st.DataObject):
    names = ["x", *CONSTANTS, *(n.output[0] for n in NODES[:index])]
    net = model(NODES, CONSTANTS, shape=(1, 1, 6, 5))
    count = data.draw(st.integers(0, 5))
    net.graph.node[index].input[:] = data.draw(st.lists(st.sampled_from(names), min_size=count, max_size=count))
    load_bytes(net.SerializeToString())


@given(st.integers(0, len(NODES) - 1), st.sampled_from(sorted({n.op_type for n in NODES} | {"Pad", "Gather", "Tile"})))
def test_swapped_operators(index: int, op: str):
    net = model(NODES, CONSTANTS, shape=(1, 1, 6, 5))
    net.graph.node[index].op_type = op
    load_bytes(net.SerializeToString())


@given(st.sampled_from(sorted(CONSTANTS)), st.lists(st.integers(-3, 5), max_size=4), st.booleans())
def test_swapped_constants(name: str, shape: list[int], whole: bool):
    size = int(np.prod([abs(s) for s in shape]))
    values = np.arange(size).reshape([abs(s) for s in shape]) - 2
    constants = CONSTANTS | {name: values.astype(np.int64) if whole else values.astype(np.float32)}
    load_bytes(model(NODES, constants, shape=(1, 1, 6, 5)).SerializeToString())
