"""Gemm and MatMul with a constant matrix."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from verifier.graph.builder import Builder
from verifier.graph.calls import Activation, Call
from verifier.graph.faults import Invalid, Unsupported
from verifier.graph.importers.registry import Importer


def _gemm(call: Call, build: Builder) -> Activation:
    """``alpha * A' @ B' + beta * C``, where ' is an optional transposition and one of A, B is constant."""
    alpha, beta = (float(call.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    flips = [bool(call.attributes.get(name, 0)) for name in ("transA", "transB")]
    left, right = call.value(0), call.value(1)
    if isinstance(left, Activation) and isinstance(right, Activation):
        raise Unsupported("the product of two activations is not linear")
    bias = None
    if isinstance(left, Activation):
        x = build.transpose(left, (1, 0)) if flips[0] else left
        weight = call.weight(1) if flips[1] else call.weight(1).T
        if call.has(2) and not isinstance(call.value(2), Activation):
            bias = _row(call.weight(2), weight.shape[0])
        y = build.linear(x, alpha * weight, None if bias is None else beta * bias)
    else:
        x = build.activation(right)
        x = x if flips[1] else build.transpose(x, (1, 0))
        weight = call.weight(0).T if flips[0] else call.weight(0)
        y = build.transpose(build.linear(x, alpha * weight), (1, 0))
    if not call.has(2) or bias is not None:
        return y
    term = call.value(2)
    if isinstance(term, Activation):
        y = build.binary("add", y, term if beta == 1 else build.scale(term, beta))
    else:
        y = build.scale(y, shift=beta * call.weight(2))
    if y.rank != 2:
        raise Invalid("its third input has more than two axes")
    return y


def _row(bias: np.ndarray, size: int) -> np.ndarray | None:
    """The bias as a vector (size,) where it is the same for every row, else None."""
    if bias.size in (1, size) and (bias.ndim == 0 or bias.shape[-1] == bias.size):
        return np.broadcast_to(bias.reshape(-1), (size,)).copy()
    return None


def _matmul(call: Call, build: Builder) -> Activation:
    left, right = call.value(0), call.value(1)
    if isinstance(left, Activation) and isinstance(right, Activation):
        raise Unsupported("the product of two activations is not linear")
    if isinstance(left, Activation):
        return _times_constant(left, call.weight(1), build)
    return _constant_times(call.weight(0), build.activation(right), build)


def _times_constant(x: Activation, weight: np.ndarray, build: Builder) -> Activation:
    """``x @ weight``; weight (in,) or (*1, in, out)."""
    if weight.ndim == 1:
        y = build.linear(x, weight[None])
        return build.reshape(y, x.shape[:-1])
    y = build.linear(x, _matrix(weight).T)
    missing = weight.ndim - max(x.rank, 2)  # leading axes of size 1 that only the constant has
    return build.reshape(y, (*(1,) * missing, *y.shape)) if missing > 0 else y


def _constant_times(weight: np.ndarray, x: Activation, build: Builder) -> Activation:
    """``weight @ x``; weight (in,) or (*1, out, in)."""
    matrix = weight[None] if weight.ndim == 1 else _matrix(weight)
    if x.rank == 1:
        y = build.linear(x, matrix)
        return build.reshape(y, (*weight.shape[:-2], *(y.shape if weight.ndim > 1 else ())))
    y = _swap(build.linear(_swap(x, build), matrix), build)
    if weight.ndim == 1:
        return build.reshape(y, (*y.shape[:-2], y.shape[-1]))
    return build.reshape(y, (*(1,) * max(weight.ndim - y.rank, 0), *y.shape))


def _swap(x: Activation, build: Builder) -> Activation:
    return build.transpose(x, (*range(x.rank - 2), x.rank - 1, x.rank - 2))


def _matrix(weight: np.ndarray) -> np.ndarray:
    """The one matrix of a stack of matrices."""
    if max(weight.shape[:-2], default=1) != 1:
        raise Unsupported(f"a constant of shape {list(weight.shape)} is a stack of several matrices")
    return weight.reshape(weight.shape[-2:])


IMPORTERS: Mapping[str, Importer] = {"Gemm": _gemm, "MatMul": _matmul}
