"""One ONNX file that classifies and flags: outputs `logits`, `score` and `flag`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from verifier.analysis.margins.artifact import Detector
from verifier.analysis.margins.scores import (
    FEATURE,
    LOGIT,
    PSEUDO,
    feature_weights,
    last_layer,
    logits_of,
    unit_weights,
)
from verifier.errors import InputError
from verifier.graph.ir import Graph

if TYPE_CHECKING:
    from onnx import ModelProto

EXPORTED = (LOGIT, FEATURE, PSEUDO)
OUTPUTS = ("logits", "score", "flag")
_SELF = 1e30
_AXES_AS_INPUT = 18  # of ReduceMax, since this operator set


def exported(graph: Graph, detector: Detector) -> ModelProto:
    """The network with its detector: for inputs (N, ...) ``logits`` (N, K), ``score`` (N,), ``flag`` (N,) bool.

    The detector's JSON is part of the file's metadata, under ``verifier.detector``.

    Raises:
        InputError: the detector is of another network, or its score needs gradients or bounds, which ONNX has not.
    """
    import onnx
    from onnx import TensorProto, helper

    detector.require(graph)
    if detector.score not in EXPORTED or graph.file is None:
        what = f"the score {detector.score} cannot be written as ONNX"
        raise InputError("--onnx", what, f"calibrate with {', '.join(EXPORTED)}, or leave --onnx out")
    model = _model(graph)
    end = _End(model, graph)
    score = end.pseudo(detector) if detector.score == PSEUDO else end.margin(_weights(graph, detector))
    end.name("logits", end.logits)
    end.name("score", score)
    passes = end.node("Greater", score, end.constant("lambda", np.array(detector.threshold.value, np.float32)))
    end.model.graph.node.append(helper.make_node("Not", [passes], ["flag"], name="flag"))
    del model.graph.output[:]
    shapes = {"logits": ["N", int(np.prod(graph.output_shape))], "score": ["N"], "flag": ["N"]}
    for name in OUTPUTS:
        kind = TensorProto.BOOL if name == "flag" else TensorProto.FLOAT
        model.graph.output.append(helper.make_tensor_value_info(name, kind, shapes[name]))
    entry = model.metadata_props.add()
    entry.key, entry.value = "verifier.detector", json.dumps(detector.as_object(weights=False))
    onnx.checker.check_model(model)
    return model


def _weights(graph: Graph, detector: Detector) -> np.ndarray:
    if detector.score == FEATURE:
        return feature_weights(graph, detector.metric.order).numpy()
    return unit_weights(int(np.prod(graph.output_shape))).numpy()


def _model(graph: Graph) -> ModelProto:
    """The file that the graph was read from, with external data."""
    import onnx

    from verifier.graph.model_file import read_bytes

    assert graph.file is not None
    path = graph.file.path
    model = onnx.ModelProto.FromString(read_bytes(path))
    onnx.load_external_data_for_model(model, str(path.resolve().parent))
    return model


class _End:
    """Nodes that are appended to a model, whose values have names of their own."""

    def __init__(self, model: ModelProto, graph: Graph):
        self.model, self.graph = model, graph
        self.opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self.known = {name for node in model.graph.node for name in (*node.input, *node.output)}
        self.known |= {value.name for value in (*model.graph.input, *model.graph.initializer)}
        taken = [name for name in OUTPUTS if name in self.known and not self._may_stay(name)]
        if taken:
            what = f"has a tensor named {taken[0]}, which the exported network needs"
            raise InputError(str(graph.file.path) if graph.file else "network", what, "rename it")
        classes = int(np.prod(graph.output_shape))
        flat = self.constant("shape", np.array([-1, classes], np.int64))
        self.source = self._in_file(logits_of(graph).output)
        self.logits = self.node("Reshape", self.source, flat)
        self.classes = classes

    def _may_stay(self, name: str) -> bool:
        return name == "logits" and logits_of(self.graph).output == name and len(self.graph.output_shape) == 2

    def _in_file(self, name: str) -> str:
        if name in self.known:
            return name
        what = f"the value '{name}' is not a tensor of the file"
        raise InputError(str(self.graph.file.path) if self.graph.file else "network", what, "export another score")

    def constant(self, name: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        full = self._fresh(name)
        self.model.graph.initializer.append(numpy_helper.from_array(value, full))
        return full

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        output = self._fresh(op.lower())
        self.model.graph.node.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def _fresh(self, name: str) -> str:
        number = 0
        while (full := f"detector.{name}.{number}") in self.known:
            number += 1
        self.known.add(full)
        return full

    def name(self, wanted: str, value: str) -> None:
        """Give a value an output's name; the file's own logits may have theirs already."""
        from onnx import helper

        if wanted == "logits" and self.source == "logits":
            return
        self.model.graph.node.append(helper.make_node("Identity", [value], [wanted], name=f"output {wanted}"))

    def largest(self, value: str, keep: bool) -> str:
        if self.opset >= _AXES_AS_INPUT:
            return self.node("ReduceMax", value, self.constant("axes", np.array([1], np.int64)), keepdims=int(keep))
        return self.node("ReduceMax", value, axes=[1], keepdims=int(keep))

    def margin(self, weights: np.ndarray) -> str:
        """``min_j (z_i - z_j) weights[i, j]``, as `verifier.analysis.margins.scores.weighted_margin` has it."""
        own = np.where(np.eye(self.classes, dtype=bool), np.float32(_SELF), np.float32(0))
        off = np.where(np.eye(self.classes, dtype=bool), np.float32(0), weights.astype(np.float32))
        i = self.node("ArgMax", self.logits, axis=1, keepdims=0)
        rows = self.node("Gather", self.constant("weights", off), i, axis=0)
        ownness = self.node("Gather", self.constant("own", own), i, axis=0)
        gaps = self.node("Mul", self.node("Sub", self.largest(self.logits, True), self.logits), rows)
        return self.node("Neg", self.largest(self.node("Neg", self.node("Add", gaps, ownness)), False))

    def pseudo(self, detector: Detector) -> str:
        """The learned network on features or logits."""
        pseudo = detector.pseudo
        if pseudo is None:
            raise InputError("detector", "its pseudo-margin has no weights", "calibrate again with --fit")
        h = self.logits
        if pseudo.on == "features":
            shape = self.constant("features", np.array([-1, len(pseudo.mean)], np.int64))
            h = self.node("Reshape", self._in_file(last_layer(self.graph).inputs[0]), shape)
        h = self.node("Mul", self.node("Sub", h, self._of(pseudo.mean)), self._of(pseudo.scale))
        for number, (weight, bias) in enumerate(pseudo.layers):
            h = self.node("Add", self.node("MatMul", h, self._of(weight.T)), self._of(bias))
            h = self.node("Relu" if number + 1 < len(pseudo.layers) else "Sigmoid", h)
        return self.node("Reshape", h, self.constant("flat", np.array([-1], np.int64)))

    def _of(self, tensor: Any) -> str:
        return self.constant("learned", np.ascontiguousarray(tensor.numpy(), dtype=np.float32))
