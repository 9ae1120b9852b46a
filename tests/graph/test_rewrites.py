"""Rewrites: what they merge, what they leave, and that names keep their values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph import ir_interpreter
from tests.graph.models import model, node, random
from tests.graph.parity import assert_parity, read
from verifier.graph import rewrites
from verifier.graph.ir import Graph


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes[1:]]


def batch_norm(channels: int) -> dict[str, np.ndarray]:
    values = {name: random(channels, seed=i) for i, name in enumerate("sbm")}
    return values | {"v": random(channels, seed=9) ** 2 + np.float32(0.5)}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_batch_norm_goes_into_the_convolution_before_it(op: str, bias: bool, groups: int):
    weight = random(6, 4 // groups, 3, 3) if op == "Conv" else random(4, 6 // groups, 3, 3)
    nodes = [
        node(op, "x w b" if bias else "x w", "c", group=groups, pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c s bn m v", "y"),
    ]
    constants = batch_norm(6)
    constants = {"w": weight, "b": random(6), **constants, "bn": constants.pop("b")}
    graph = assert_parity(model(nodes, constants, shape=(2, 4, 5, 6)))
    assert ops(graph) == ["conv" if op == "Conv" else "conv_transpose"]


def test_batch_norm_goes_into_the_linear_layer_before_it():
    nodes = [node("Gemm", "x w", "g"), node("BatchNormalization", "g s b m v", "y")]
    assert ops(assert_parity(model(nodes, {"w": random(4, 6), **batch_norm(6)}, shape=(3, 4)))) == ["linear"]


@pytest.mark.parametrize("groups", [1, 2])
def test_normalisation_goes_into_the_convolution_after_it(groups: int):
    nodes = [node("Sub", "x mean", "s"), node("Div", "s deviation", "n"), node("Conv", "n w", "y", group=groups)]
    constants = {
        "mean": random(4, 1, 1),
        "deviation": 1 + random(4, 1, 1) ** 2,
        "w": random(6, 4 // groups, 3, 3),
    }
    assert ops(assert_parity(model(nodes, constants, shape=(2, 4, 5, 6)))) == ["conv"]


@pytest.mark.parametrize(("op", "expected"), [("Mul", ["conv"]), ("Add", ["scale", "conv"])])
def test_before_a_padded_convolution_only_factors_move(op: str, expected: list[str]):
    nodes = [node(op, "x c", "n"), node("Conv", "n w", "y", pads=[1, 1, 1, 1])]
    graph = assert_parity(model(nodes, {"c": random(1, 2, 1, 1), "w": random(3, 2, 3, 3)}, shape=(1, 2, 4, 4)))
    assert ops(graph) == expected


def test_matmul_and_add_are_one_layer_named_after_the_add():
    graph = assert_parity(
        model([node("MatMul", "x w", "m"), node("Add", "m b", "y")], {"w": random(4, 3), "b": random(3)})
    )
    assert [n.name for n in graph.nodes] == ["x", "y"] and ops(graph) == ["linear"]


def test_a_scale_that_varies_along_other_axes_stays():
    nodes = [node("MatMul", "x w", "m"), node("Mul", "m c", "y")]
    assert ops(assert_parity(model(nodes, {"w": random(4, 3), "c": random(5, 3)}, shape=(5, 4)))) == ["linear", "scale"]


def test_scales_merge():
    nodes = [node("Mul", "x a", "p"), node("Add", "p b", "q"), node("Neg", "q", "r"), node("Sub", "c r", "y")]
    constants = {"a": random(3, 1), "b": random(4), "c": random(2, 3, 4)}
    assert ops(assert_parity(model(nodes, constants, shape=(2, 3, 4)))) == ["scale"]


def test_reshapes_merge_and_idle_nodes_go():
    nodes = [
        node("Flatten", "x", "f"),
        node("Reshape", "f s", "r"),
        node("Transpose", "r", "t", perm=[0, 1, 2]),
        node("Mul", "t one", "m"),
        node("Slice", "m zero end", "l"),
        node("Relu", "l", "y"),
    ]
    constants = {"s": [2, 3, 4], "one": 1.0, "zero": [0], "end": [100]}
    assert ops(assert_parity(model(nodes, constants, shape=(1, 24)))) == ["reshape", "relu"]


def test_the_output_keeps_its_name_when_its_node_goes():
    graph = assert_parity(model([node("Relu", "x", "r"), node("Identity", "r", "y")]))
    assert graph.output == "y" and [(n.name, n.op) for n in graph.nodes] == [("x", "input"), ("y", "relu")]


def test_linear_layers_merge_unless_they_are_a_bottleneck():
    def two(middle: int) -> onnx.ModelProto:
        nodes = [node("Gemm", "x v", "g"), node("Gemm", "g w b", "y")]
        return model(nodes, {"v": random(8, middle), "w": random(middle, 8), "b": random(8)}, shape=(1, 8))

    assert ops(assert_parity(two(8))) == ["linear"]
    assert ops(assert_parity(two(2))) == ["linear", "linear"]


@pytest.mark.parametrize("first", ["Gemm", "Mul"])
def test_a_value_that_others_read_is_kept(first: str):
    nodes = [
        node(first, "x w", "a"),
        node("Gemm", "a v", "b"),
        node("Mul", "a c", "d"),
        node("Add", "b d", "y"),
    ]
    constants = {"w": random(4, 4), "v": random(4, 4), "c": random(4)}
    graph = assert_parity(model(nodes, constants, shape=(4, 4)))
    assert "a" in graph.shapes


AFFINE = {
    "add": [node("Add", "{} row", "{}")],
    "mul": [node("Mul", "{} row", "{}")],
    "full": [node("Mul", "{} full", "{}")],
    "gemm": [node("Gemm", "{} square row", "{}")],
    "neg": [node("Neg", "{}", "{}")],
    "relu": [node("Relu", "{}", "{}")],
    "flat": [node("Reshape", "{} shape", "{}")],
    "copy": [node("Identity", "{}", "{}")],
    "flip": [node("Gather", "{} reverse", "{}", axis=1)],
    "swap": [node("Transpose", "{}", "{}")],
}


@given(st.lists(st.sampled_from(sorted(AFFINE)), min_size=1, max_size=8), st.lists(st.integers(0, 7), max_size=2))
def test_any_chain_keeps_its_values(kinds: list[str], shortcuts: list[int]):
    """Chains of affine nodes in any order, with shortcuts so that some values have several readers."""
    nodes, names = [], ["x"]
    for i, kind in enumerate(kinds):
        template = AFFINE[kind][0]
        inputs = [names[-1] if name == "{}" else name for name in template.input]
        fresh = onnx.NodeProto.FromString(template.SerializeToString())
        fresh.input[:], fresh.output[:], fresh.name = inputs, [f"t{i}"], f"n{i}"
        nodes.append(fresh)
        names.append(f"t{i}")
    for j, index in enumerate(shortcuts):
        nodes.append(node("Add", f"{names[-1]} {names[index % len(names)]}", f"u{j}"))
        names.append(f"u{j}")
    constants = {
        "row": random(4),
        "full": random(4, 4),
        "square": random(4, 4),
        "shape": [4, 4],
        "reverse": [3, 2, 1, 0],
    }
    assert_parity(model(nodes, constants, shape=(4, 4), output=names[-1]), samples=1, tolerance=1e-4)


def test_rewrites_are_applied_until_none_applies():
    graph = read(model([node("MatMul", "x w", "m"), node("Add", "m b", "y")], {"w": random(4, 3), "b": random(3)}))
    assert rewrites.simplify(graph) is graph


def test_a_graph_before_and_after_computes_the_same_in_float64():
    nodes = [node("Sub", "x m", "s"), node("Gemm", "s w", "g"), node("Mul", "g c", "y")]
    graph = read(model(nodes, {"m": random(4), "w": random(4, 3), "c": random(3)}))
    (layer,) = graph.nodes[1:]
    x = np.linspace(-1, 1, 4)[None]
    m, w, c = (value.astype(np.float64) for value in (random(4), random(4, 3), random(3)))
    assert np.allclose(ir_interpreter.run(graph, x)["y"], (x - m) @ w * c, rtol=1e-14, atol=0)
    assert replace(layer).constants["bias"].dtype == np.float64
