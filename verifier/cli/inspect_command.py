"""The command `inspect`."""

from __future__ import annotations

import json as encoder
import sys
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from verifier.cli import options
from verifier.cli.files import STDOUT, check_writable, write_whole

if TYPE_CHECKING:
    from onnx import GraphProto, ValueInfoProto

    from verifier.graph import CoverageRow

EPILOG = """
\b
Example:
  verifier inspect models/digits_mlp.onnx

\b
Exit status: 0 the file could be read, whatever is in it; 2 bad usage or input.
"""


@dataclass(frozen=True)
class Description:
    """What a file holds.

    Args:
        network, sha256, opset: the file, its unpacked bytes, the version of its operators.
        input, output: name and shape; a dynamic dimension is its name, or ``?``.
        parameters: number of floating-point constants.
        nodes: the nodes that the output needs.
    """

    network: str
    sha256: str
    opset: int
    input: tuple[str, list[int | str]]
    output: tuple[str, list[int | str]]
    parameters: int
    nodes: list[CoverageRow]

    @property
    def unsupported(self) -> int:
        return sum(not row.supported for row in self.nodes)


def inspect(
    network: options.Network,
    json: options.Json = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Show the nodes of a network with their shapes, and which of them bounds can be computed for.

    Nothing is computed, so --seed and --device change nothing.
    """
    if json is not None:
        check_writable(json, "--json")
    found = describe(network)
    if json is not None:
        write_whole(json, document(found), "--json")
    if not quiet and json != STDOUT:
        _print(found)
    return 0


def describe(path: Path) -> Description:
    """Read a file.

    Raises:
        InputError: it cannot be read, or is not a network of one input and one output.
    """
    from verifier.graph import coverage
    from verifier.graph.model_file import read_model

    nodes = coverage(path)
    model = read_model(path)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    source = next(value for value in graph.input if value.name not in constants)
    return Description(
        str(path), model.file.sha256, model.opset, _value(source), _value(graph.output[0]), _parameters(graph), nodes
    )


def document(found: Description) -> str:
    """The text of ``--json``."""
    fields = {name: getattr(found, name) for name in ("network", "sha256", "opset", "parameters", "unsupported")}
    fields |= {name: dict(zip(("name", "shape"), getattr(found, name), strict=True)) for name in ("input", "output")}
    return encoder.dumps(fields | {"nodes": [asdict(row) for row in found.nodes]}, indent=1, allow_nan=False) + "\n"


def _value(value: ValueInfoProto) -> tuple[str, list[int | str]]:
    sizes = value.type.tensor_type.shape.dim
    return value.name, [size.dim_value if size.HasField("dim_value") else size.dim_param or "?" for size in sizes]


def _parameters(graph: GraphProto) -> int:
    from onnx import TensorProto

    kinds = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    in_nodes = [setting.t for node in graph.node if node.op_type == "Constant" for setting in node.attribute]
    return sum(prod(tensor.dims) for tensor in (*graph.initializer, *in_nodes) if tensor.data_type in kinds)


def _print(found: Description) -> None:
    """A table on a terminal, columns in a pipe; the summary last."""
    rows = [(row.op, row.name, _shape(row.shape), _state(row)) for row in found.nodes]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table("operator", "node", "shape", "bounds")
        for cells, row in zip(rows, found.nodes, strict=True):
            table.add_row(*map(escape, cells), style=None if row.supported else "red")
        Console(highlight=False).print(table)
    else:
        widths = [max((len(cells[i]) for cells in rows), default=0) for i in range(3)]
        for cells in rows:
            print(*(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)), cells[3], sep="  ")
    (source, taken), (result, given) = found.input, found.output
    print(f"input {source} {_shape(taken)}, output {result} {_shape(given)}")
    nodes = f"{len(rows)} node" + ("" if len(rows) == 1 else "s")
    print(f"{found.parameters:,} parameters, opset {found.opset}, {nodes}, {found.unsupported} unsupported")


def _shape(sizes: list[int | str] | tuple[int, ...] | None) -> str:
    return "?" if sizes is None else "x".join(map(str, sizes)) or "scalar"


def _state(row: CoverageRow) -> str:
    return row.note or "yes" if row.supported else f"unsupported: {row.note}"
