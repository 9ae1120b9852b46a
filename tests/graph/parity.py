"""Comparing a graph as read with onnxruntime, tensor by tensor."""

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime

from tests.graph import ir_interpreter
from verifier.graph import load
from verifier.graph.checks import check
from verifier.graph.ir import Graph

_FATAL_ONLY = 4


def read(model: onnx.ModelProto) -> Graph:
    """The model as `load` reads it from a file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(model.SerializeToString())
        return load(path)


def assert_parity(
    model: onnx.ModelProto, samples: int = 2, tolerance: float = 1e-5, inferred_shapes: bool = True
) -> Graph:
    """Read a model and compare it, also with the shapes that onnx infers; returns the graph."""
    graph = read(model)
    compare(graph, model, samples, tolerance)
    if inferred_shapes:
        compare_shapes(graph, model)
    return graph


def compare(graph: Graph, model: onnx.ModelProto, samples: int = 2, tolerance: float = 1e-5) -> None:
    """Every node whose name is a tensor of the file has its shape and value, within rounding; so has the output.

    Args:
        graph: as read from the model.
        model: the ONNX file's content.
        samples: number of random inputs in [-2, 2].
        tolerance: of the largest difference, relative to the largest value of a tensor.
    """
    check(graph)
    session = _session(model)
    names = [output.name for output in session.get_outputs()]
    assert graph.output == model.graph.output[0].name
    source = session.get_inputs()[0]
    dtype = np.float64 if source.type == "tensor(double)" else np.float32
    generator = np.random.default_rng(0)
    for _ in range(samples):
        x = generator.uniform(-2, 2, size=graph.input_shape).astype(dtype)
        expected = dict(zip(names, session.run(None, {source.name: x}), strict=True))
        values = ir_interpreter.run(graph, x)
        for node in graph.nodes:
            ours = values[node.name]
            assert ours.shape == graph.shapes[node.name], node
            if node.name in expected:
                _assert_close(node.name, ours, np.asarray(expected[node.name]), tolerance)


def compare_shapes(graph: Graph, model: onnx.ModelProto) -> None:
    """Shapes are those that onnx infers, as far as it infers them."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        if value.name in graph.shapes and value.type.tensor_type.HasField("shape"):
            sizes = value.type.tensor_type.shape.dim
            assert len(sizes) == len(graph.shapes[value.name]), value.name
            for size, ours in zip(sizes, graph.shapes[value.name], strict=True):
                assert size.dim_value <= 0 or size.dim_value == ours, value.name


def _assert_close(name: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    assert ours.shape == theirs.shape, f"{name}: {ours.shape} is not {theirs.shape}"
    difference = np.abs(ours - theirs).max(initial=0)
    assert difference <= tolerance * max(np.abs(ours).max(initial=0), 1e-3), f"{name} differs by {difference}"


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session that returns every tensor, the model's output first, without onnxruntime's own rewrites."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    known = {output.name for output in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in known]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )


def parse(path: Path) -> onnx.ModelProto:
    """A model from an ``.onnx`` or ``.onnx.gz`` file."""
    data = path.read_bytes()
    return onnx.ModelProto.FromString(gzip.decompress(data) if path.suffix == ".gz" else data)
