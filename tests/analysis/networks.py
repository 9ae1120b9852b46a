"""Small classifiers as ONNX files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from onnx import helper

from tests.cli.networks import model, save, tensor


def dense(path: Path, layers: list[tuple[np.ndarray, np.ndarray]]) -> Path:
    """Dense layers with ReLU between them: weights (out, in) and biases (out,); any batch size."""
    nodes, constants, value = [], [], "x"
    for i, (weight, bias) in enumerate(layers):
        constants += [tensor(f"w{i}", weight), tensor(f"b{i}", bias)]
        last = i + 1 == len(layers)
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], ["y" if last else f"h{i}"], transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{i}"], [f"r{i}"]))
            value = f"r{i}"
    made = model(nodes, constants, [("x", ("N", layers[0][0].shape[1]))], ("N", len(layers[-1][1])))
    return save(made, path)


def random_dense(path: Path, widths: tuple[int, ...], seed: int) -> Path:
    """`dense` with weights in float32 drawn at random."""
    random = np.random.default_rng(seed)
    layers = [
        (random.normal(size=(out, size)) / np.sqrt(size), random.normal(size=out) / 2) for size, out in pairwise(widths)
    ]
    return dense(path, [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers])
