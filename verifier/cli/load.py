"""Reads the files of a call: the network, and the specification or the data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from verifier.cli.request import Inputs, Request
from verifier.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from verifier.graph.ir import Graph
    from verifier.specs.datasets import Dataset
    from verifier.specs.robustness import Spec


@dataclass(frozen=True)
class LoadedQuery:
    """One query: what is to be proved, and for a data set the class and the same query at another radius."""

    spec: Spec
    label: int | None = None
    at: Callable[[float], Spec] | None = None


@dataclass(frozen=True)
class Loaded:
    """The network, and a function that makes the query of each number; thousands of them need not fit memory."""

    graph: Graph
    query: Callable[[int], LoadedQuery]


def load(request: Request, threads: int | None) -> Loaded:
    """Read everything, the network first: what is wrong with it is said before torch is imported.

    Args:
        request: what to read.
        threads: for torch on the CPU; None for its own choice.

    Raises:
        InputError: a file cannot be used, or does not fit the network.
    """
    from verifier.graph import load as load_graph

    graph = load_graph(request.network)
    query = _inputs(request.what, graph) if isinstance(request.what, Inputs) else _specification(request.what)
    set_threads(threads)
    return Loaded(graph, query)


def set_threads(count: int | None) -> None:
    """As many threads for torch on the CPU; None for its own choice."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


def _specification(path: Path) -> Callable[[int], LoadedQuery]:
    from verifier.specs.vnnlib import read_vnnlib

    query = read_vnnlib(path)
    return lambda _: LoadedQuery(query)


@dataclass(frozen=True, eq=False)
class Point:
    """One input of a data set: its place there, its value (*X) as the network takes it, and its class."""

    index: int
    x: np.ndarray
    label: int


def load_points(inputs: Inputs, graph: Graph) -> list[Point]:
    """The inputs that are meant.

    Raises:
        InputError: the data cannot be used, does not fit the network, or leaves the allowed range.
    """
    from verifier.specs.robustness import robustness

    data, indices = _data(inputs, graph)
    points = [Point(i, _arranged(data.x[i], graph.input_shape), int(data.y[i])) for i in indices]
    for point in points:
        try:
            robustness(point.x, point.label, 0, inputs.norm, (0.0, 1.0) if inputs.clip else None)
        except InputError as error:
            raise InputError(f"--dataset {inputs.dataset}, input {point.index}", error.what, error.mend) from error
    return points


def _data(inputs: Inputs, graph: Graph) -> tuple[Dataset, list[int]]:
    """The data set and the places of the inputs that are meant, all of which fit the network."""
    from verifier.specs.datasets import load_dataset, parse_index

    data = load_dataset(inputs.dataset, inputs.folder)
    indices = parse_index(inputs.index, len(data))
    if prod(data.x.shape[1:]) != prod(graph.input_shape):
        what = f"its inputs have {prod(data.x.shape[1:])} values, the network takes {prod(graph.input_shape)}"
        raise InputError(f"--dataset {inputs.dataset}", what, "choose the data that the network was made for")
    _check_classes(inputs, [(index, int(data.y[index])) for index in indices], prod(graph.output_shape))
    return data, indices


def _inputs(inputs: Inputs, graph: Graph) -> Callable[[int], LoadedQuery]:
    from verifier.specs.robustness import robustness

    data, indices = _data(inputs, graph)
    clip = (0.0, 1.0) if inputs.clip else None

    def query(number: int) -> LoadedQuery:
        index = indices[number]
        x, label = _arranged(data.x[index], graph.input_shape), int(data.y[index])

        def at(epsilon: float) -> Spec:
            return robustness(x, label, epsilon, inputs.norm, clip, inputs.targets, inputs.mean, inputs.std)

        try:
            spec = at(inputs.epsilon)
        except InputError as error:
            where = f"--dataset {inputs.dataset}, input {index}" if error.where == "input" else error.where
            raise InputError(where, error.what, error.mend) from error
        return LoadedQuery(spec, label, at)

    return query


def _check_classes(inputs: Inputs, labels: Sequence[tuple[int, int]], classes: int) -> None:
    """Refuse before the first query what would end a later one: (index, label) of every query against the classes."""
    target = inputs.targets
    if target is not None and target >= classes:
        raise InputError(f"--targets {target}", "is not a class of the network", f"use 0 to {classes - 1}")
    for index, label in labels:
        if not 0 <= label < classes:
            where = f"--dataset {inputs.dataset}, input {index}"
            raise InputError(where, f"its label is {label}, the network has {classes} classes", "check the labels")
        if label == target:
            raise InputError(f"--targets {target}", f"is the class of input {index} itself", "leave it out of --index")


def _arranged(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A (C, H, W) image as (H, W, C) where the network takes it that way, anything else as it is."""
    import numpy as np

    last_first = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    return last_first if shape[-3:] == last_first.shape != image.shape else image
