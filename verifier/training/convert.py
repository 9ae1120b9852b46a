"""Modules of torch as graphs, and graphs as modules of torch; either is compared with what it was made from."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from verifier.attacks.parity import check_parity
from verifier.attacks.replay import Replayer
from verifier.errors import InputError
from verifier.graph import load
from verifier.graph.ir import Graph
from verifier.operators import evaluate, place
from verifier.specs.region import Box
from verifier.training.graph_network import GraphNetwork
from verifier.training.modes import evaluating

OPSET = 17
#: of outputs in float32, relative to the largest
TOLERANCE = 1e-3
_SAMPLES = 4


def from_torch(module: nn.Module, example: Tensor, file: str | Path | None = None) -> Graph:
    """The graph of a module in evaluation mode, by way of ONNX.

    Args:
        module: of one input and one output.
        example: one input (1, *X), about which the two are compared.
        file: where to keep the ONNX file. Without it the graph has no file, so its verdicts cannot be replayed:
            `verify` wants one.

    Raises:
        InputError: torch cannot export the module, the reader does not know an operator, or the graph computes
            something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.onnx" if file is None else Path(file)
        _export(module, example, path)
        graph = load(path)
        low, high = example.amin().item(), example.amax().item()
        whole = torch.empty(1, *graph.input_shape, dtype=torch.float64)
        check_parity(Replayer(graph), Box(torch.full_like(whole, low), torch.full_like(whole, max(high, low + 1))))
        with evaluating(module), torch.no_grad():
            theirs = module(example)
        ours = evaluate(place(graph), example.reshape(1, *graph.input_shape).cpu().double())
        _compare(type(module).__name__, ours.reshape(-1), theirs.reshape(-1))
        return graph if file is not None else replace(graph, file=None)


def to_torch(graph: Graph, dtype: torch.dtype = torch.float32) -> GraphNetwork:
    """A module that computes what a graph does, its constants being parameters in `dtype`.

    Raises:
        InputError: it computes something else (in `dtype`, at random inputs).
    """
    network = GraphNetwork(graph, dtype)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(_SAMPLES, *network.input_shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        exact = evaluate(place(graph), x.reshape(_SAMPLES, *graph.input_shape))
        _compare("network", network(x.to(dtype)).reshape(-1), exact.reshape(-1))
    return network


def _export(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write an ONNX file in evaluation mode, with a dynamic batch."""
    where = type(module).__name__
    dynamic = {"input": {0: "batch"}, "output": {0: "batch"}}
    try:
        with evaluating(module), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter that needs no other package says that it is the old one
            torch.onnx.export(
                module,
                (example,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes=dynamic,
            )
    except OSError as error:
        raise InputError(str(path), f"it cannot be written ({error})", "choose another file") from error
    except Exception as error:  # the exporter lets through whatever the module's own code raises
        reason = " ".join(str(error).split())[:200]
        raise InputError(where, f"torch cannot export it ({reason})", "use layers that ONNX knows") from error


def _compare(where: str, ours: Tensor, theirs: Tensor) -> None:
    """Raise where two outputs differ by more than float32 explains."""
    ours, theirs = (y.detach().cpu().double() for y in (ours, theirs))
    if ours.shape != theirs.shape:
        raise InputError(where, f"it gives {theirs.numel()} values, and its graph {ours.numel()}", "please report this")
    error, allowed = float((ours - theirs).abs().max()), TOLERANCE * (1 + float(theirs.abs().max()))
    if not error <= allowed:
        raise InputError(
            where, f"the conversion is off by {error:.3g}, rounding explains {allowed:.3g}", "please report"
        )
