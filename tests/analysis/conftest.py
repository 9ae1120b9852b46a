"""A small network that all methods can bound, and its query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import verifier
from verifier.graph.ir import Graph
from verifier.specs.robustness import Robustness


@dataclass(frozen=True)
class Case:
    """A trained classifier of this repository, and robustness around one of its inputs by radius."""

    graph: Graph
    at: Callable[[float], Robustness]


@pytest.fixture(scope="session")
def digits(root) -> Case:
    data = verifier.load_dataset("digits")
    x, label = np.asarray(data.x[0]), int(data.y[0])
    return Case(verifier.load(root / "models" / "digits_mlp.onnx"), lambda e: verifier.robustness(x, label, epsilon=e))
