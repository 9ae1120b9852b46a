from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from verifier.attacks.parity import check_parity
from verifier.attacks.replay import Replayer
from verifier.errors import InputError
from verifier.graph import load
from verifier.graph.ir import Graph


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
    first = generator.normal(size=(32, 4)) * 1000
    last = np.concatenate([generator.normal(size=(1, 32))] * 2, axis=1) * np.repeat([1, -1], 32)
    copies = np.concatenate([first, first]), np.repeat(generator.normal(size=32), 1)
    copies = copies[0], np.concatenate([copies[1], copies[1] + 1e-3])
    graph = load(mlp([copies, (last, np.zeros(1))]))
    replayer = Replayer(graph)
    check_parity(replayer, cube(4))
    with pytest.raises(InputError, match="gemm0"):
        check_parity(Replayer(corrupted(graph, 0, 1.01)), cube(4))


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
