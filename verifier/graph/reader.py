"""From an ONNX file to a `Graph`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from verifier.errors import InputError
from verifier.graph.builder import Builder
from verifier.graph.calls import Activation, Call, Value, attributes
from verifier.graph.faults import MAX_ELEMENTS, Invalid, Unsupported, require_size
from verifier.graph.folding import constant, fold, infer_shapes
from verifier.graph.importers.table import IMPORTERS
from verifier.graph.ir import Graph
from verifier.graph.mirrored import merge_mirrored
from verifier.graph.model_file import Model, read_model
from verifier.graph.order import ordered
from verifier.graph.rewrites import rebuild, simplify
from verifier.graph.shapes import Shape
from verifier.graph.tensors import to_array

_COPIES = ("Identity", "Dropout", "Cast")
#: the most entries that all constants which a file computes may have together
MAX_COMPUTED = 2 * MAX_ELEMENTS
_INPUT_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class CoverageRow:
    """One ONNX node that the output needs.

    Args:
        name: of the node, or of its first output where it has none.
        op: its ONNX operator.
        shape: of its first output; None where it is not known.
        supported: whether it can be read.
        note: why it cannot, or "constant" where it does not depend on the input.
    """

    name: str
    op: str
    shape: Shape | None
    supported: bool
    note: str = ""


def load(path: str | Path) -> Graph:
    """Read a network from an ``.onnx`` or ``.onnx.gz`` file.

    Dynamic dimensions become 1, constants are folded, nodes that the output does not need are dropped, and scales and
    layers that follow each other are merged, and so are ReLUs of opposite inputs. Nodes that remain carry the names of
    their tensors in the file.

    Raises:
        InputError: the file cannot be used. Unsupported nodes are named all at once.
    """
    model = read_model(path)
    reading = _Reading(model)
    rows = reading.run()
    where = str(model.file.path)
    refused = [row for row in rows if not row.supported]
    if refused:
        raise InputError(where, f"unsupported: {_list(refused)}", "`verifier inspect` shows every node")
    result = reading.values[reading.output]
    if not isinstance(result, Activation):
        raise InputError(where, f"its output '{reading.output}' does not depend on its input", "export it again")
    build, source = reading.build, reading.input
    whole = Graph(tuple(build.nodes), source, result.name, build.shapes, model.file)
    smaller = simplify(rebuild(whole, whole.nodes, result.name))
    return simplify(merge_mirrored(smaller, build.unused))


def coverage(path: str | Path) -> list[CoverageRow]:
    """Which nodes of a network can be read; unlike `load` it does not raise where some cannot.

    Raises:
        InputError: the file is damaged or not a network of one input and one output.
    """
    return _Reading(read_model(path)).run()


def _list(rows: list[CoverageRow]) -> str:
    """Nodes grouped by operator and reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        groups.setdefault((row.op, row.note), []).append(_one_line(f"'{row.name}'"))
    return ", ".join(f"{_one_line(op)} {' '.join(names)} ({_one_line(note)})" for (op, note), names in groups.items())


class _Reading:
    """One pass over a file, node by node; what cannot be read is noted and stepped over."""

    def __init__(self, model: Model):
        self.model = model
        self.path = str(model.file.path)
        graph = model.graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        if graph.sparse_initializer:
            raise InputError(self.path, "it holds sparse tensors", "export it with dense ones")
        self.output = _only([value.name for value in graph.output], "output", self.path)
        sources = [value for value in graph.input if value.name not in self.initializers]
        _only([value.name for value in sources], "input", self.path)
        self.input = sources[0].name
        with _naming(self.path):
            self.nodes = ordered(graph, self.output)
        self.computed = 0
        self.build = Builder(_tensor_names(graph))
        self.values: dict[str, Value] = {self.input: self._source(sources[0])}

    def run(self) -> list[CoverageRow]:
        """Read all nodes; one row for each."""
        used = {name for node in self.nodes for name in node.input} | {self.output}
        final = _final(self.nodes, self.output)
        if self.output in self.initializers:
            with _naming(self.path):
                self.values[self.output] = self._initializer(self.output)
        rows = []
        for node in self.nodes:
            where = f"{self.path}: " + _one_line(f"{node.op_type} '{_name(node)}'")
            with _naming(where), np.errstate(all="ignore"):  # what is not finite is found where it is used
                rows.append(self._read(node, used, final))
        return rows

    def _source(self, value: onnx.ValueInfoProto) -> Activation:
        kind = value.type.tensor_type
        where = f"{self.path}: " + _one_line(f"input '{value.name}'")
        if not value.type.HasField("tensor_type") or kind.elem_type not in _INPUT_TYPES:
            raise InputError(where, "its values are neither float32 nor float64", "export the network in float32")
        if not kind.HasField("shape"):
            raise InputError(where, "it has no shape", "export the network with the shape of its input")
        with _naming(where):
            return self.build.source(value.name, tuple(max(1, size.dim_value) for size in kind.shape.dim))

    def _initializer(self, name: str) -> np.ndarray:
        return to_array(self.initializers[name], self.model.folder)

    def _inputs(self, node: onnx.NodeProto) -> list[Value | None]:
        """Values of a node's inputs; None for one left out and for one that could not be read."""
        for name in node.input:
            if name in self.initializers and name not in self.values:
                self.values[name] = self._initializer(name)
        return [self.values.get(name) if name else None for name in node.input]

    def _read(self, node: onnx.NodeProto, used: set[str], final: set[str]) -> CoverageRow:
        inputs = self._inputs(node)
        unread = [name for name, value in zip(node.input, inputs, strict=True) if name and value is None]
        try:
            if node.domain not in ("", "ai.onnx"):
                raise Unsupported(f"an operator of {node.domain}, not of ai.onnx")
            note = self._lower(node, inputs, used, final, bool(unread))
        except Unsupported as error:
            self._stand_in(node, inputs, unread)
            return CoverageRow(_name(node), node.op_type, self._shape(node), False, str(error))
        return CoverageRow(_name(node), node.op_type, self._shape(node), True, note)

    def _lower(
        self, node: onnx.NodeProto, inputs: list[Value | None], used: set[str], final: set[str], unread: bool
    ) -> str:
        """Read one node into values; the note for its row."""
        settings = attributes(node, self.model.folder)
        if node.op_type == "Constant":
            self.values[node.output[0]] = constant(settings)
            return "constant"
        fixed = {n: v for n, v in zip(node.input, inputs, strict=True) if isinstance(v, np.ndarray)}
        if not unread and not any(isinstance(value, Activation) for value in inputs):
            self.values.update(self._folded(node, fixed))
            return "constant"
        if node.op_type not in IMPORTERS:
            raise Unsupported("no rule for this operator")
        if unread:
            return "follows a node that cannot be read"
        outputs = tuple(name if name in used else "" for name in node.output)
        call = Call(
            node.op_type,
            _name(node),
            self.model.opset,
            tuple(inputs),
            tuple(node.input),
            outputs,
            settings,
            any(name in final for name in outputs),
        )
        self.build.start(call)
        try:
            results = IMPORTERS[node.op_type](call, self.build)
        except Unsupported:
            self.build.abandon()
            raise
        results = results if isinstance(results, tuple) else (results,)
        if any(outputs[len(results) :]):
            raise Invalid(f"it has {len(outputs)} outputs, and its operator gives {len(results)}")
        named = {name: value for name, value in zip(outputs, results, strict=False) if name}
        self.values.update(self.build.finish(named))
        return "" if any(isinstance(self.values[name], Activation) for name in named) else "constant"

    def _folded(self, node: onnx.NodeProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = fold(node, inputs, self.model.opset)
        self.computed += sum(value.size for value in values.values())
        require_size((self.computed,), "the list of all constants that it computes", MAX_COMPUTED)
        return values

    def _stand_in(self, node: onnx.NodeProto, inputs: list[Value | None], unread: list[str]) -> None:
        """Outputs of a node that cannot be read, where their shapes are known, so that its readers can be checked."""
        if unread or node.domain not in ("", "ai.onnx"):
            return
        known = {name: value for name, value in zip(node.input, inputs, strict=True) if value is not None}
        try:
            for name, shape in infer_shapes(node, known, self.model.opset).items():
                if shape is not None:
                    require_size(shape)
                    self.values[name] = self.build.source(name, shape)
        except (Unsupported, Invalid):
            return

    def _shape(self, node: onnx.NodeProto) -> Shape | None:
        value = next((self.values[name] for name in node.output if name in self.values), None)
        return None if value is None else tuple(value.shape)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Errors in what the file holds, raised with their place."""
    try:
        yield
    except Invalid as error:
        raise InputError(where, _one_line(error.what), error.mend) from error
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(where, f"malformed ({_one_line(str(error))})", "export the network again") from error


def _one_line(text: str) -> str:
    """Names and messages from a file or a library on one line, and no longer than one."""
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:300] + " ..."


def _name(node: onnx.NodeProto) -> str:
    return node.name or next((name for name in node.output if name), "")


def _only(names: list[str], what: str, path: str) -> str:
    if len(names) != 1:
        listed = ", ".join(f"'{name}'" for name in names)
        raise InputError(
            path,
            f"it has {len(names)} {what}s" + (f" ({listed})" if names else ""),
            f"give a network with exactly one {what}",
        )
    return names[0]


def _tensor_names(graph: onnx.GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from node.output


def _final(nodes: list[onnx.NodeProto], output: str) -> set[str]:
    """The output and the tensors that it copies."""
    final = {output}
    for node in reversed(nodes):
        if node.op_type in _COPIES and final & set(node.output):
            final.add(node.input[0])
    return final
