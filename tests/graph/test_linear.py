"""Gemm and MatMul."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.models import model, node, random
from tests.graph.parity import assert_parity, read
from verifier.errors import InputError


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [(5,), (1, 5), (3, 5), (3, 1), (1, 1), (1,), ()])
def test_gemm(opset: int, trans_b: int, bias: tuple[int, ...]):
    weight = random(5, 4) if trans_b else random(4, 5)
    gemm = node("Gemm", "x w b", "y", transB=trans_b, alpha=0.7, beta=-1.3)
    assert_parity(model([gemm], {"w": weight, "b": random(*bias)}, shape=(3, 4), opset=opset))


def test_gemm_without_bias():
    assert_parity(model([node("Gemm", "x w", "y")], {"w": random(4, 5)}))


def test_gemm_of_a_transposed_activation():
    assert_parity(model([node("Gemm", "x w b", "y", transA=1)], {"w": random(4, 5), "b": random(5)}, shape=(4, 3)))


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_with_the_constant_on_the_left(trans_a: int, trans_b: int):
    gemm = node("Gemm", "w x b", "y", transA=trans_a, transB=trans_b, alpha=2.0)
    weight = random(3, 2) if trans_a else random(2, 3)
    shape = (4, 3) if trans_b else (3, 4)
    assert_parity(model([gemm], {"w": weight, "b": random(2, 1)}, shape=shape))


def test_gemm_that_adds_an_activation():
    nodes = [node("Relu", "x", "r"), node("Gemm", "r w x", "y", beta=0.5)]
    assert_parity(model(nodes, {"w": random(4, 4)}, shape=(1, 4)))


@pytest.mark.parametrize(
    ("shape", "weight"),
    [
        ((2, 4), (4, 3)),
        ((4,), (4, 3)),
        ((2, 4), (4,)),
        ((4,), (4,)),
        ((2, 5, 4), (4, 3)),
        ((1, 2, 5, 4), (4,)),
        ((2, 4), (1, 4, 3)),
        ((2, 5, 4), (1, 1, 4, 3)),
        ((4,), (1, 4, 3)),
    ],
)
def test_matmul_with_the_constant_on_the_right(shape: tuple[int, ...], weight: tuple[int, ...]):
    assert_parity(model([node("MatMul", "x w", "y")], {"w": random(*weight)}, shape=shape))


@pytest.mark.parametrize(
    ("weight", "shape"),
    [
        ((3, 4), (4, 2)),
        ((3, 4), (4,)),
        ((4,), (4, 2)),
        ((4,), (2, 4, 3)),
        ((3, 4), (2, 5, 4, 3)),
        ((1, 3, 4), (4, 2)),
        ((1, 3, 4), (4,)),
        ((1, 1, 3, 4), (2, 4, 3)),
    ],
)
def test_matmul_with_the_constant_on_the_left(weight: tuple[int, ...], shape: tuple[int, ...]):
    assert_parity(model([node("MatMul", "w x", "y")], {"w": random(*weight)}, shape=shape))


def test_a_network_in_float64():
    graph = assert_parity(
        model([node("MatMul", "x w", "y")], {"w": np.arange(12.0, dtype=np.float32).reshape(4, 3)}), tolerance=1e-7
    )
    assert all(c.dtype == np.float64 for n in graph.nodes for c in n.constants.values())


@pytest.mark.parametrize("op", ["Gemm", "MatMul", "Mul", "Div"])
def test_two_activations_are_refused(op: str):
    with pytest.raises(InputError, match="not linear"):
        read(model([node("Relu", "x", "r"), node(op, "x r", "y")], shape=(4, 4)))


def test_a_stack_of_matrices_is_refused():
    with pytest.raises(InputError, match="stack of several matrices"):
        read(model([node("MatMul", "x w", "y")], {"w": random(2, 4, 3)}, shape=(2, 5, 4)))


def test_a_weight_that_does_not_fit_names_the_node():
    with pytest.raises(InputError, match="Gemm 'n_y'"):
        read(model([node("Gemm", "x w", "y")], {"w": random(5, 3)}))
