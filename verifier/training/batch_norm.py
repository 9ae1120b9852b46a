"""Batch normalisation whose batch statistics are kept, with gradients, for the bounds of the same batch.

torch computes the statistics inside of its kernel and does not give them out; taking them again would cost more than
the kernel itself.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from verifier.errors import InputError

#: mean and reciprocal standard deviation, each (C,)
Moments = tuple[Tensor, Tensor]


class Recording(nn.Module):
    """A layer of batch normalisation that notes the moments of every batch that it is trained on.

    Args:
        layer: whose parameters, running statistics and mode are used.
        moments: where to note them, under the layer.
    """

    def __init__(self, layer: _BatchNorm, moments: MutableMapping[_BatchNorm, Moments]) -> None:
        super().__init__()
        self.layer, self.moments = layer, moments

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        if not layer.training:
            return layer(x)
        layer._check_input_dim(x)
        running = layer.running_mean, layer.running_var
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
        momentum = layer.momentum
        if momentum is None:  # the plain average of all batches
            momentum = 0.0 if layer.num_batches_tracked is None else 1 / float(layer.num_batches_tracked)
        y, mean, scale = _Normalise.apply(x, layer.weight, layer.bias, running, momentum, layer.eps)  # type: ignore[misc]
        self.moments[layer] = (mean, scale)
        return y


def running_moments(layer: _BatchNorm) -> Moments:
    """Those of evaluation mode.

    Raises:
        InputError: the layer keeps none.
    """
    if layer.running_mean is None or layer.running_var is None:
        what, mend = "it keeps no running statistics", "set track_running_stats, or stay in training mode"
        raise InputError("batch normalisation", what, mend)
    return layer.running_mean, (layer.running_var + layer.eps).rsqrt()


class _Normalise(torch.autograd.Function):
    """Normalised values, and the moments (C,) that did it, each with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running: tuple[Tensor | None, Tensor | None],
        momentum: float,
        eps: float,
    ):
        y, mean, scale = torch.native_batch_norm(x, weight, bias, *running, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return y, mean, scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_mean: Tensor | None, grad_scale: Tensor | None):  # type: ignore[override]
        x, weight, mean, scale = ctx.saved_tensors
        grad = torch.zeros_like(x) if grad is None else grad
        wanted = [ctx.needs_input_grad[0], weight is not None, weight is not None]
        on_x, on_weight, on_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, scale, True, ctx.eps, wanted
        )
        if wanted[0] and (grad_mean is not None or grad_scale is not None):
            count, shape = x.numel() / x.shape[1], (1, -1, *(1,) * (x.dim() - 2))
            # d scale / d x = -scale^3 (x - mean) / count
            slope = torch.zeros_like(mean) if grad_scale is None else grad_scale * scale.pow(3) / -count
            shift = -slope * mean if grad_mean is None else grad_mean / count - slope * mean
            on_x = torch.addcmul(on_x, x, slope.reshape(shape).to(x.dtype)).add_(shift.reshape(shape))
        return on_x, on_weight, on_bias, None, None, None
