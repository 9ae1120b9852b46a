"""Whole files: inputs, outputs, unsupported nodes, functions, order."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.graph.models import FLOAT, model, node, random
from tests.graph.parity import assert_parity, read
from verifier.errors import InputError
from verifier.graph import coverage
from verifier.graph.builder import Builder
from verifier.graph.calls import Call, Value
from verifier.graph.importers.registry import registry
from verifier.graph.importers.table import IMPORTERS

ISSUE_OPERATORS = """
    Gemm MatMul Add Sub Mul Div Conv ConvTranspose BatchNormalization Relu LeakyRelu PRelu Sigmoid Tanh MaxPool
    AveragePool GlobalAveragePool ReduceMean ReduceSum Flatten Reshape Transpose Squeeze Unsqueeze Concat Slice Split
    Gather Pad Identity Dropout Cast Clip Min Max Neg Abs Softmax LogSoftmax
""".split()


def rows(net: onnx.ModelProto, folder: Path) -> dict[str, tuple[str, tuple[int, ...] | None, bool, str]]:
    path = folder / "net.onnx"
    path.write_bytes(net.SerializeToString())
    return {row.name: (row.op, row.shape, row.supported, row.note) for row in coverage(path)}


def test_the_table_holds_what_is_promised():
    assert set(ISSUE_OPERATORS) <= IMPORTERS.keys()


def test_an_operator_has_one_importer():
    def importer(call: Call, build: Builder) -> Value:
        return call.activation()

    with pytest.raises(ValueError, match="two importers for Relu"):
        registry({"Relu": importer}, {"Relu": importer})


def test_dynamic_sizes_become_one():
    graph = assert_parity(model([node("Relu", "x", "y")], shape=("batch", 3, -1)))
    assert graph.input_shape == (1, 3, 1)


def test_networks_in_float64():
    nodes = [node("MatMul", "x w", "m"), node("Relu", "m", "y")]
    net = model(nodes, {"w": random(4, 3)}, kind=TensorProto.DOUBLE)
    net.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(random(4, 3).astype("float64"), "w"))
    assert_parity(net, tolerance=1e-12)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BFLOAT16, TensorProto.STRING])
def test_other_inputs_are_refused(kind: int):
    with pytest.raises(InputError, match="input 'x': its values are neither float32 nor float64"):
        read(model([node("Relu", "x", "y")], kind=kind))


def test_an_input_that_is_no_tensor_is_refused():
    net = model([node("Relu", "x", "y")])
    net.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [1])))
    with pytest.raises(InputError, match="input 'x'"):
        read(net)


def test_an_input_of_unknown_rank_is_refused():
    with pytest.raises(InputError, match="input 'x': it has no shape"):
        read(model([node("Relu", "x", "y")], shape=None))


def test_initializers_are_no_inputs():
    net = model([node("Add", "x c", "y")], {"c": random(4)})
    net.graph.input.append(helper.make_tensor_value_info("c", FLOAT, [4]))
    assert_parity(net)


def test_several_inputs_are_named():
    net = model([node("Add", "x z", "y")])
    net.graph.input.append(helper.make_tensor_value_info("z", FLOAT, [1, 4]))
    with pytest.raises(InputError, match="it has 2 inputs \\('x', 'z'\\); give a network with exactly one input"):
        read(net)


def test_no_input():
    net = model([node("Relu", "c", "y")], {"c": random(4)})
    del net.graph.input[:]
    with pytest.raises(InputError, match="it has 0 inputs"):
        read(net)


def test_several_outputs_are_named():
    net = model([node("Relu", "x", "y"), node("Neg", "x", "z")])
    net.graph.output.append(helper.make_tensor_value_info("z", FLOAT, [1, 4]))
    with pytest.raises(InputError, match="it has 2 outputs \\('y', 'z'\\)"):
        read(net)


@pytest.mark.parametrize("nodes", [[node("Relu", "c", "y")], [node("Shape", "x", "y")]])
def test_an_output_that_is_constant_is_refused(nodes: list[onnx.NodeProto]):
    with pytest.raises(InputError, match="does not depend on its input"):
        read(model(nodes, {"c": random(4)}))


def test_an_output_that_is_a_weight_is_refused():
    with pytest.raises(InputError, match="does not depend on its input"):
        read(model([node("Relu", "x", "z")], {"y": random(4)}))


def test_nodes_that_the_output_does_not_need_are_left_out(tmp_path: Path):
    nodes = [node("Sin", "x", "s"), node("Relu", "x", "y"), node("If", "s", "t")]
    assert [n.op for n in assert_parity(model(nodes[1:2])).nodes] == ["input", "relu"]
    assert [n.op for n in read(model(nodes)).nodes] == ["input", "relu"]
    assert rows(model(nodes), tmp_path).keys() == {"n_y"}


def test_nodes_may_stand_in_any_order():
    nodes = [node("Neg", "r", "y"), node("Relu", "x", "r")]
    assert [n.op for n in read(model(nodes)).nodes] == ["input", "relu", "scale"]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Add", "x z", "y"), node("Relu", "y", "z")], "circle"),
        ([node("Relu", "z", "y")], "no node of it computes 'z'"),
        ([node("Relu", "x", "y"), node("Neg", "x", "y")], "'y' is defined twice"),
        ([node("Relu", "x", "x"), node("Neg", "x", "y")], "'x' is defined twice"),
    ],
)
def test_graphs_that_cannot_be(nodes: list[onnx.NodeProto], message: str):
    with pytest.raises(InputError, match=message):
        read(model(nodes))


def test_all_unsupported_nodes_are_named_at_once(tmp_path: Path):
    nodes = [
        node("Sin", "x", "a"),
        node("Erf", "a", "b"),
        node("Mul", "b x", "c"),
        node("Softmax", "c", "d"),
        node("Sin", "d", "e"),
        helper.make_node("Fancy", ["e"], ["f"], name="n_f", domain="com.example"),
        node("Relu", "f", "g"),
        node("Cos", "g", "h"),
        node("Add", "h one", "y"),
    ]
    net = model(nodes, {"one": 1.0})
    with pytest.raises(InputError) as error:
        read(net)
    text = str(error.value)
    assert "Sin 'n_a' 'n_e' (no rule for this operator)" in text
    assert all(f"'n_{name}'" in text for name in "abcdefh") and "'n_y'" not in text
    table = rows(net, tmp_path)
    assert table["n_a"] == ("Sin", (1, 4), False, "no rule for this operator")
    assert table["n_f"] == ("Fancy", None, False, "an operator of com.example, not of ai.onnx")
    assert table["n_y"] == ("Add", None, True, "follows a node that cannot be read")


def test_coverage_of_a_network_that_can_be_read(tmp_path: Path):
    nodes = [node("Shape", "x", "s"), node("Reshape", "x s", "r"), node("Relu", "r", "y")]
    assert rows(model(nodes), tmp_path) == {
        "n_s": ("Shape", (2,), True, "constant"),
        "n_r": ("Reshape", (1, 4), True, ""),
        "n_y": ("Relu", (1, 4), True, ""),
    }


def branches() -> list[onnx.NodeProto]:
    body = helper.make_graph([node("Neg", "x", "z")], "body", [], [helper.make_tensor_value_info("z", FLOAT, None)])
    return [helper.make_node("If", ["c"], ["y"], name="n_y", then_branch=body, else_branch=body)]


def test_control_flow_is_unsupported():
    with pytest.raises(InputError, match=r"If 'n_y' \(it holds a graph of its own"):
        read(model(branches(), {"c": True}))


def with_functions(calls: list[str], bodies: dict[str, list[onnx.NodeProto]]) -> onnx.ModelProto:
    """A network that calls local functions of one input and output, one after the other."""
    names = ["x", *(f"t{i}" for i in range(len(calls) - 1)), "y"]
    nodes = [
        helper.make_node(name, [names[i]], [names[i + 1]], domain="local", name=f"call{i}")
        for i, name in enumerate(calls)
    ]
    net = model(nodes)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("local", 1)]
    net.opset_import.append(opsets[1])
    for name, body in bodies.items():
        net.functions.append(helper.make_function("local", name, ["a"], ["z"], body, opsets))
    return net


def test_local_functions_are_inlined():
    body = [node("Relu", "a", "b"), node("Neg", "b", "z")]
    graph = assert_parity(with_functions(["f", "f"], {"f": body}), inferred_shapes=False)
    assert [n.op for n in graph.nodes] == ["input", "relu", "scale", "relu", "scale"]


def test_functions_that_grow_without_bound_are_refused():
    def twice(name: str) -> list[onnx.NodeProto]:
        return [helper.make_node(name, [a], [b], domain="local") for a, b in (("a", "b"), ("b", "z"))]

    bodies = {f"f{i}": twice(f"f{i + 1}") for i in range(60)} | {"f60": [node("Relu", "a", "z")]}
    with pytest.raises(InputError, match="more than 1,000,000 nodes"):
        read(with_functions(["f0"], bodies))
    with pytest.raises(InputError, match="calls itself"):
        read(with_functions(["f"], {"f": twice("f")}))


def test_names_in_the_graph_are_unique_and_known():
    nodes = [node("Abs", "x", "y/sub"), node("MaxPool", "y/sub", "y", kernel_shape=[2])]
    graph = assert_parity(model(nodes, shape=(1, 1, 6)))
    assert {"x", "y/sub", "y"} <= graph.shapes.keys() and len(graph.shapes) == len(graph.nodes)


def test_every_node_says_where_it_comes_from():
    nodes = [node("MatMul", "x w", "m"), node("Clip", "m low", "y")]
    graph = read(model(nodes, {"w": random(4, 3), "low": -1.0}))
    assert {n.source for n in graph.nodes[1:]} <= {"MatMul 'n_m'", "Clip 'n_y'"}
