from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from verifier.attacks.parity import check_parity
from verifier.attacks.replay import Replayer
from verifier.errors import InputError
from verifier.graph import load
from verifier.graph.ir import Graph
from verifier.operators import evaluate


def corrupted(graph: Graph, position: int, factor: float) -> Graph:
    """The graph with the weights of its position-th linear node scaled."""
    nodes = list(graph.nodes)
    where = [i for i, node in enumerate(nodes) if node.op == "linear"][position]
    constants = dict(nodes[where].constants)
    constants["weight"] = constants["weight"] * factor
    nodes[where] = replace(nodes[where], constants=constants)
    return replace(graph, nodes=tuple(nodes))


def test_a_faithful_graph_passes(random_net, cube):
    check_parity(Replayer(random_net), cube(4))


@pytest.mark.parametrize(("position", "name"), [(0, "gemm0"), (1, "gemm1"), (2, "gemm2")])
def test_the_first_wrong_node_is_named(random_net, cube, position, name):
    with pytest.raises(InputError, match=name):
        check_parity(Replayer(corrupted(random_net, position, 1.001)), cube(4))


def test_cancellation_is_no_error(mlp, cube):
    """Large values that cancel lose digits in float32; that is rounding, not a wrong operator."""
    generator = np.random.default_rng(1)
    weight, bias = generator.normal(size=(32, 4)) * 1000, generator.normal(size=32)
    last = generator.normal(size=(1, 32))
    copies = np.concatenate([weight, weight]), np.concatenate([bias, bias + 1e-3])
    graph = load(mlp([copies, (np.concatenate([last, -last], axis=1), np.zeros(1))]))
    replayer = Replayer(graph)
    x = np.full((1, 4), 0.3)
    y = evaluate(replayer.exact, torch.from_numpy(x).unsqueeze(0)).item()
    assert abs(replayer.run(x).item() - y) > 1e-3 * abs(y)
    check_parity(replayer, cube(4))


@pytest.mark.parametrize("op, gain, shift, centre", [("Sigmoid", 1e6, 0.0, -17.0), ("Tanh", 1e6, 1e6, -9.5)])
def test_saturated_activations_are_no_error(saturated, cube, op, gain, shift, centre):
    """Near zero, onnxruntime's sigmoid has hardly a digit right; a large gain shows it."""
    replayer = Replayer(load(saturated(op, gain, shift)))
    y = evaluate(replayer.exact, torch.full((1, 1, 1), centre, dtype=torch.float64)).item()
    assert abs(replayer.run(np.full((1, 1), centre)).item() - y) > 0.02 * abs(y)
    check_parity(replayer, cube(1, 0.1, centre))


def test_a_wrong_node_after_saturated_activations_is_found(saturated, cube):
    graph = load(saturated("Sigmoid", 1e6, 1.0))
    assert [node.op for node in graph.nodes] == ["input", "sigmoid", "linear"]
    last = graph.nodes[2]
    wrong = replace(last, constants={**last.constants, "bias": last.constants["bias"] * 2})
    with pytest.raises(InputError, match="gain"):
        check_parity(Replayer(replace(graph, nodes=(*graph.nodes[:2], wrong))), cube(1, 0.1, -17.0))


def test_a_wrong_activation_is_found(saturated, cube):
    graph = load(saturated("Sigmoid", 1.0, 0.0))
    wrong = replace(graph.nodes[1], op="tanh")
    with pytest.raises(InputError, match="squash"):
        check_parity(Replayer(replace(graph, nodes=(graph.nodes[0], wrong, graph.nodes[2]))), cube(1))


@pytest.mark.parametrize("last", [-3e38, 3e38])
def test_an_overflow_is_called_so(mlp, cube, last):
    graph = load(mlp([(np.array([[3e38]]), np.zeros(1)), (np.array([[last]]), np.zeros(1))]))
    with pytest.raises(InputError, match=r"onnxruntime's value of Gemm 'gemm1' is infinite or NaN"):
        check_parity(Replayer(graph), cube(1))


def test_nan_is_a_difference(random_net, cube):
    with pytest.raises(InputError, match="gemm1"):
        check_parity(Replayer(corrupted(random_net, 1, np.nan)), cube(4))


@pytest.mark.parametrize(
    "file",
    [
        "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx.gz",
        "rl_benchmarks/onnx/cartpole.onnx.gz",
        "cifar10_resnet/onnx/resnet_2b.onnx.gz",
    ],
)
def test_public_networks(shared, cube, file):
    graph = load(shared / "vnncomp" / file)
    size = int(np.prod(graph.input_shape))
    check_parity(Replayer(graph), cube(size, 0.1, 0.2).reshape(graph.input_shape))
