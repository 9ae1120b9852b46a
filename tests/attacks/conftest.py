"""Small networks as ONNX files, and regions around points."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from verifier.graph import load
from verifier.graph.ir import Graph
from verifier.specs.region import Box


@pytest.fixture
def mlp(tmp_path: Path) -> Callable[..., Path]:
    """``mlp([(W, b), ...])`` writes a ReLU network with input x (1, n) and returns its path."""

    def write(layers: list[tuple[np.ndarray, np.ndarray]], name: str = "net.onnx") -> Path:
        nodes, constants, value = [], [], "x"
        for i, (weight, bias) in enumerate(layers):
            constants.append(numpy_helper.from_array(np.asarray(weight, np.float32), f"W{i}"))
            constants.append(numpy_helper.from_array(np.asarray(bias, np.float32), f"b{i}"))
            nodes.append(helper.make_node("Gemm", [value, f"W{i}", f"b{i}"], [f"g{i}"], name=f"gemm{i}", transB=1))
            value = f"g{i}"
            if i + 1 < len(layers):
                nodes.append(helper.make_node("Relu", [value], [f"r{i}"], name=f"relu{i}"))
                value = f"r{i}"
        sizes = [np.shape(layers[0][0])[1], np.shape(layers[-1][0])[0]]
        x, y = (
            helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, s])
            for n, s in zip(["x", value], sizes, strict=True)
        )
        graph = helper.make_graph(nodes, "net", [x], [y], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def saturated(tmp_path: Path) -> Callable[..., Path]:
    """``saturated("Sigmoid", gain, shift)`` writes ``y = gain * Sigmoid(x) + shift`` with x (1, 1)."""

    def write(op: str, gain: float, shift: float) -> Path:
        nodes = [
            helper.make_node(op, ["x"], ["s"], name="squash"),
            helper.make_node("Gemm", ["s", "gain", "shift"], ["y"], name="gain"),
        ]
        constants = [numpy_helper.from_array(np.array([[gain]], np.float32), "gain")]
        constants.append(numpy_helper.from_array(np.array([shift], np.float32), "shift"))
        x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1]) for name in "xy")
        graph = helper.make_graph(nodes, "net", [x], [y], constants)
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "s.onnx"
        )
        return tmp_path / "s.onnx"

    return write


@pytest.fixture
def random_net(mlp: Callable[..., Path]) -> Graph:
    """A random 4-16-16-3 ReLU network."""
    generator = np.random.default_rng(0)
    sizes = [4, 16, 16, 3]
    layers = [
        (generator.normal(size=(m, n)) / np.sqrt(n), generator.normal(size=m) / 2)
        for n, m in zip(sizes, sizes[1:], strict=False)
    ]
    return load(mlp(layers))


@pytest.fixture
def linear_net(mlp: Callable[..., Path]) -> Graph:
    """y = (x0 + 2 x1 - 3 x2), exactly."""
    return load(mlp([(np.array([[1.0, 2.0, -3.0]]), np.zeros(1))]))


@pytest.fixture
def cube() -> Callable[..., Box]:
    """``cube(n, radius, centre)``: a box in (1, n) space."""

    def make(n: int, radius: float = 1.0, centre: float = 0.0) -> Box:
        middle = torch.full((1, 1, n), centre, dtype=torch.float64)
        return Box(middle - radius, middle + radius)

    return make
