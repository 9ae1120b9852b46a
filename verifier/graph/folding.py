"""Nodes whose inputs are all constant, computed once by the reference implementation of onnx.

Values keep the types of the file, so they are rounded as they would be at run time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TypeProto, helper, numpy_helper

from verifier.graph.calls import Value
from verifier.graph.faults import Invalid, Unsupported, require_size
from verifier.graph.shapes import Shape

_RANDOM = (
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)
#: their outputs are no larger than their inputs (times the rank), but only their values tell how large
_BOUNDED_BY_INPUT = ("Compress", "NonZero", "Unique")
#: inputs up to this size can decide the shape of an output
_SHAPE_DATA = 4096
#: attributes of Constant that hold numbers
_CONSTANT_ATTRIBUTES = ("value", "value_float", "value_floats", "value_int", "value_ints")


def constant(attributes: Mapping[str, object]) -> np.ndarray:
    """The value of a Constant node."""
    for name in _CONSTANT_ATTRIBUTES:
        if name in attributes:
            value = attributes[name]
            if isinstance(value, np.ndarray):
                return value
            return np.asarray(value, np.float32 if "float" in name else np.int64)
    raise Unsupported("its value is neither a tensor nor numbers")


def fold(node: onnx.NodeProto, inputs: Mapping[str, np.ndarray], opset: int) -> dict[str, np.ndarray]:
    """Outputs of a node whose inputs are all constant.

    The shapes of the outputs are known to be within bounds before anything is computed.

    Raises:
        Unsupported: it is random, unknown to onnx, or its size cannot be told beforehand.
        Invalid: an output would be too large, or the node's inputs do not fit it.
    """
    if node.op_type in _RANDOM:
        raise Unsupported("its result is random")
    for name, shape in infer_shapes(node, inputs, opset).items():
        if shape is not None:
            require_size(shape, f"its output '{name}'")
        elif node.op_type not in _BOUNDED_BY_INPUT:
            raise Unsupported("the size of its constant result cannot be told")
    values = _evaluate(node, inputs, opset)
    for name, value in values.items():
        require_size(value.shape, f"its output '{name}'")
    return values


def infer_shapes(node: onnx.NodeProto, inputs: Mapping[str, Value], opset: int) -> dict[str, Shape | None]:
    """Shape of each output of one node, None where onnx cannot tell it.

    Raises:
        Unsupported: onnx does not know the operator.
        Invalid: the inputs do not fit the node.
    """
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError as error:
        raise Unsupported("no such operator in this version of ai.onnx") from error
    types = {name: helper.make_tensor_type_proto(_type(value), value.shape) for name, value in inputs.items()}
    data = {
        name: numpy_helper.from_array(value)
        for name, value in inputs.items()
        if isinstance(value, np.ndarray) and value.size <= _SHAPE_DATA
    }
    try:
        outputs = onnx.shape_inference.infer_node_outputs(
            schema, node, types, data, opset_imports=[helper.make_opsetid("", opset)]
        )
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, KeyError) as error:
        raise Invalid(f"its inputs do not fit it ({_first_line(error)})") from error
    return {name: _shape(outputs.get(name)) for name in node.output if name}


def _type(value: Value) -> int:
    return helper.np_dtype_to_tensor_dtype(value.dtype) if isinstance(value, np.ndarray) else onnx.TensorProto.FLOAT


def _shape(inferred: TypeProto | None) -> Shape | None:
    if inferred is None or not inferred.tensor_type.HasField("shape"):
        return None
    dimensions = inferred.tensor_type.shape.dim
    return tuple(d.dim_value for d in dimensions) if all(d.HasField("dim_value") for d in dimensions) else None


def _evaluate(node: onnx.NodeProto, inputs: Mapping[str, np.ndarray], opset: int) -> dict[str, np.ndarray]:
    from onnx.reference import ReferenceEvaluator  # slow to import, and most networks do not need it

    names = [name for name in node.output if name]
    sources = [helper.make_tensor_value_info(name, _type(v), v.shape) for name, v in inputs.items()]
    graph = helper.make_graph([node], "constant", sources, [onnx.ValueInfoProto(name=name) for name in names])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, dict(inputs))
    except Exception as error:  # the reference implementation lets through whatever numpy raises
        raise Invalid(f"its constant result cannot be computed ({_first_line(error)})") from error
    values = dict(zip(names, (np.asarray(result) for result in results), strict=True))
    if any(value.dtype.kind not in "fiub" and value.dtype.name != "bfloat16" for value in values.values()):
        raise Unsupported("its constant result does not hold real numbers")
    return values


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
