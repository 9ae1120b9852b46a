"""Placing a graph on a device, and running it forward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from verifier.errors import InputError
from verifier.graph.ir import Graph, Node
from verifier.operators.table import OPERATORS


def place(graph: Graph, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Graph:
    """The same graph with its constants as tensors: floats in `dtype`, indices in int64."""

    def tensor(value: np.ndarray | Tensor) -> Tensor:
        value = torch.as_tensor(np.asarray(value)) if not isinstance(value, Tensor) else value
        return value.to(device=device, dtype=dtype if value.is_floating_point() else torch.int64)

    def placed(node: Node) -> Node:
        return replace(node, constants={name: tensor(value) for name, value in node.constants.items()})

    return replace(graph, nodes=tuple(placed(node) for node in graph.nodes))


def find_device(name: str) -> torch.device:
    """The device that ``auto`` (CUDA where there is one), ``cpu`` or ``cuda[:N]`` stands for.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            "--device", f"'{name}' cannot be used here", "choose auto, cpu or an existing cuda:N"
        ) from error
    return device


def evaluate_all(graph: Graph, x: Tensor) -> dict[str, Tensor]:
    """Value of every node of a placed graph, (B, *shape), for inputs x (B, *X)."""
    values: dict[str, Tensor] = {graph.input: x}
    for node in graph.nodes:
        if node.op == "input":
            continue
        inputs = [values[name] for name in node.inputs] or [x]
        values[node.name] = OPERATORS[node.op].forward(node, *inputs)
    return values


def evaluate(graph: Graph, x: Tensor) -> Tensor:
    """Outputs (B, *Y) of a placed graph for inputs x (B, *X); differentiable."""
    values: dict[str, Tensor] = {graph.input: x}
    for node, released in zip(graph.nodes, graph.releases, strict=True):
        if node.op == "input":
            continue
        inputs = [values[name] for name in node.inputs] or [x]
        values[node.name] = OPERATORS[node.op].forward(node, *inputs)
        for name in released:
            del values[name]
    return values[graph.output]


def require_bound_rules(graph: Graph) -> None:
    """Raise before any work starts when an operator has no bound rule, naming every such node at once."""
    missing = [n for n in graph.nodes if n.op != "input" and not (n.op in OPERATORS and OPERATORS[n.op].bounded)]
    if missing:
        names = ", ".join(node.source or f"{node.op} '{node.name}'" for node in missing)
        raise InputError(
            str(graph.file.path) if graph.file else "network",
            f"no bound rule for {names}",
            "only a final Softmax or LogSoftmax may stand without one",
        )
