"""Networks on which other verifiers are known to return wrong bounds: ours hold, from the file to the margin.

Grouped convolutions, average pooling with padding, and average pooling that does not count the padding: concrete
outputs of onnxruntime on the file itself are held against every method's bounds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from verifier.bounding.dual import Objective, lower_bound
from verifier.bounding.intermediate import IntermediateOptions, by_dual, interval_only, relax_network
from verifier.bounding.interval import interval_relaxation
from verifier.graph import load
from verifier.operators import place
from verifier.specs.region import Box

NETWORKS = {
    "grouped": helper.make_node("Conv", ["r0", "G", "g"], ["m"], group=4, pads=[1] * 4),
    "grouped, strided": helper.make_node("Conv", ["r0", "G", "g"], ["m"], group=4, pads=[1, 0, 0, 1], strides=[2, 2]),
    "grouped, dilated": helper.make_node("Conv", ["r0", "G", "g"], ["m"], group=4, pads=[2] * 4, dilations=[2, 2]),
    "mean with padding": helper.make_node(
        "AveragePool", ["r0"], ["m"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2], count_include_pad=1
    ),
    "mean without padding": helper.make_node(
        "AveragePool", ["r0"], ["m"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2], count_include_pad=0
    ),
    "lopsided mean": helper.make_node(
        "AveragePool", ["r0"], ["m"], kernel_shape=[2, 3], pads=[1, 0, 0, 2], strides=[1, 2], count_include_pad=0
    ),
    "lopsided maximum": helper.make_node(
        "MaxPool", ["r0"], ["m"], kernel_shape=[3, 2], pads=[1, 0, 0, 1], strides=[2, 1]
    ),
}


def _write(name: str, path: Path) -> Path:
    """Conv, Relu, the node in question, Relu, and a sum over all places that tells them apart."""
    random = np.random.default_rng(0)
    constants = {
        "A": random.normal(size=(4, 2, 3, 3)) / 3,
        "a": random.normal(size=4) / 2,
        "G": random.normal(size=(4, 1, 3, 3)),
        "g": random.normal(size=4) / 2,
        "P": random.normal(size=(1, 4, 1, 1)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "A", "a"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r0"]),
        NETWORKS[name],
        helper.make_node("Mul", ["m", "P"], ["s"]),
        helper.make_node("Relu", ["s"], ["r1"]),
        helper.make_node("ReduceSum", ["r1", "axes"], ["y"], keepdims=0),
    ]
    tensors = [numpy_helper.from_array(value.astype(np.float32), key) for key, value in constants.items()]
    tensors.append(numpy_helper.from_array(np.array([2], dtype=np.int64), "axes"))
    used = {key for node in nodes for key in node.input}
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2, 6, 6])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", [x], [y], [tensor for tensor in tensors if tensor.name in used])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_of_onnxruntime_lie_in_our_bounds(name: str, tmp_path: Path):
    path = _write(name, tmp_path / "net.onnx")
    graph = place(load(path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(1, *graph.input_shape, generator=generator, dtype=torch.float64)
    for radius in (0.01, 0.1, 0.5):
        region = Box(centre - radius, centre + radius)
        x = region.sample(40, generator).float().flatten(0, 1)
        outputs = np.stack([np.ravel(session.run(None, {"x": point.numpy()})[0]) for point in x])
        size = outputs.shape[1]
        unit = torch.eye(size, dtype=torch.float64)
        random = torch.randn(8, size, generator=generator, dtype=torch.float64)
        C = torch.cat([unit, -unit, random]).reshape(1, -1, *graph.output_shape)
        least = (torch.as_tensor(outputs).double() @ C.flatten(2)[0].T).amin(0)
        for relaxation in (
            interval_relaxation(graph, region),
            relax_network(graph, region, interval_only),
            relax_network(graph, region, by_dual(graph, region, IntermediateOptions())),
        ):
            bound = lower_bound(graph, region, relaxation, Objective(graph.output, C))
            assert bool((bound[0] <= least + 1e-4).all())  # onnxruntime computes in float32
