"""Law 2: the hand-written adjoint equals torch's vector-Jacobian product, and its constant the value at zero."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.operators.build import Builder, Shape
from tests.operators.examples import EXAMPLES, convolution, output_node
from verifier.graph.ir import Graph, Node
from verifier.operators import OPERATORS, place

AFFINE = [name for name, operator in OPERATORS.items() if operator.adjoint is not None]


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _pulled_back(node: Node, A: Tensor, xs: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Coefficients (B, S, *X) on each input by torch's differentiation, row by row, and the constant (B, S)."""
    zeros = [torch.zeros_like(x, requires_grad=True) for x in xs]
    batch = max(A.shape[0], xs[0].shape[0])
    value = OPERATORS[node.op].forward(node, *zeros)
    products = (A * value.unsqueeze(1)).flatten(2).sum(2) if A.dim() > 2 else A * value.unsqueeze(1)
    rows = []
    for s in range(A.shape[1]):
        total = products[:, s].sum()
        inputs = zeros if total.requires_grad else []  # a constant has none
        grads = torch.autograd.grad(total, inputs, retain_graph=True, allow_unused=True) if inputs else ()
        rows.append([torch.zeros_like(z) if g is None else g for z, g in zip(inputs, grads, strict=True)])
    columns = [torch.stack([row[i] for row in rows], 1) for i in range(len(rows[0]))]
    return columns, products.detach().expand(batch, -1)


def assert_adjoint(graph: Graph, batch: int, of_A: int, rows: int, seed: int) -> None:
    node = output_node(place(graph))
    shapes = tuple(graph.shapes[name] for name in node.inputs)
    xs = [_random(batch, *shape, seed=seed + i) for i, shape in enumerate(shapes)]
    A = _random(of_A, rows, *graph.output_shape, seed=seed + 10)
    adjoint = OPERATORS[node.op].adjoint
    assert adjoint is not None
    parts, constant = adjoint(node, A, shapes)
    assert len(parts) == len(node.inputs)
    constant = torch.zeros(1, rows, dtype=torch.float64) if constant is None else constant
    like = [torch.zeros(batch, *graph.input_shape, dtype=torch.float64)]  # what a source borrows its batch size from
    expected, at_zero = _pulled_back(node, A, xs or like)
    torch.testing.assert_close(constant.expand(batch, rows), at_zero, rtol=1e-12, atol=1e-12)
    for part, pulled, x in zip(parts, expected, xs, strict=bool(xs)):
        part = torch.zeros(of_A, rows, *x.shape[1:], dtype=torch.float64) if part is None else part
        assert part.shape == (of_A, rows, *x.shape[1:])
        torch.testing.assert_close(part.expand(batch, *part.shape[1:]), pulled, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", AFFINE)
@settings(max_examples=10)
@given(batch=st.integers(1, 3), shared=st.booleans(), rows=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_adjoint_is_the_vector_jacobian_product(op: str, batch: int, shared: bool, rows: int, seed: int):
    for graph in EXAMPLES[op]:
        assert_adjoint(graph, batch, 1 if shared else batch, rows, seed)


@pytest.mark.parametrize("op", AFFINE)
def test_adjoint_of_no_rows(op: str):
    """A chunk without rows is legal: nothing was wanted."""
    for graph in EXAMPLES[op]:
        node = output_node(place(graph))
        shapes = tuple(graph.shapes[name] for name in node.inputs)
        adjoint = OPERATORS[node.op].adjoint
        assert adjoint is not None
        parts, _ = adjoint(node, torch.zeros(2, 0, *graph.output_shape, dtype=torch.float64), shapes)
        assert all(part is None or part.shape == (2, 0, *shape) for part, shape in zip(parts, shapes, strict=True))


@st.composite
def convolutions(draw: st.DrawFn) -> Graph:
    """Any geometry of up to three spatial axes; the transpose half of the time."""
    rank, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))

    def axes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    kernel, stride, dilation = axes(1, 3), axes(1, 3), axes(1, 3)
    padding, size = axes(0, 2), axes(1, 6 if rank < 3 else 4)
    transposed = draw(st.booleans())
    output_padding = axes(0, 2) if transposed else None
    for i in range(rank):
        reach = dilation[i] * (kernel[i] - 1) + 1
        if output_padding is None:
            assume(size[i] + 2 * padding[i] >= reach)
        else:
            assume(output_padding[i] < max(stride[i], dilation[i]))
            assume((size[i] - 1) * stride[i] - 2 * padding[i] + reach + output_padding[i] >= 1)
    shape = (draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)), *size)
    out = groups * draw(st.integers(1, 2))
    return convolution(shape, out, kernel, stride, padding, dilation, groups, draw(st.booleans()), output_padding)


@settings(max_examples=80)
@given(graph=convolutions(), batch=st.integers(1, 2), seed=st.integers(0, 2**32))
def test_adjoint_of_convolutions_of_any_geometry(graph: Graph, batch: int, seed: int):
    assert_adjoint(graph, batch, batch, 2, seed)


@settings(max_examples=100)
@given(
    channels=st.integers(1, 6),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 4),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    seed=st.integers(0, 2**32),
)
def test_adjoint_of_convolutions_by_phases_of_their_stride(
    channels: int, kernel: Shape, stride: int, padding: Shape, size: Shape, seed: int
):
    """Also where the stride leaves out inputs, exceeds the kernel, or the padding exceeds the kernel."""
    assume(all(n + 2 * p >= k for n, p, k in zip(size, padding, kernel, strict=True)))
    graph = convolution((1, channels, *size), 3, kernel, (stride, stride), padding, (1, 1))
    assert_adjoint(graph, 2, 1, 2, seed)


def test_concat_of_one_value_twice_gets_both_parts():
    builder = Builder(1, 2)
    builder.add("concat", "x", "x", attributes={"axis": 1})
    node = output_node(place(builder.graph()))
    A = torch.arange(4.0, dtype=torch.float64).reshape(1, 1, 1, 4)
    assert OPERATORS["concat"].adjoint is not None
    (first, second), _ = OPERATORS["concat"].adjoint(node, A, ((1, 2), (1, 2)))
    assert first is not None and second is not None
    assert (first.flatten().tolist(), second.flatten().tolist()) == ([0, 1], [2, 3])
