"""Projected gradient descent for training: few steps, one restart, a whole batch at once (Madry et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from verifier.specs.box import random
from verifier.specs.region import Box


def ascend_in_box(
    loss: Callable[[Tensor], Tensor], box: Box, steps: int, step_size: float, generator: torch.Generator
) -> Tensor:
    """Points (B, *X) of a box where a loss is large.

    Args:
        loss: ``(B, *X) -> (B,)``.
        box: (B, *X).
        steps: of the sign of the gradient, from a random point.
        step_size: in half widths of the box, per coordinate; halved over the second half of the steps.
        generator: of the start.
    """
    half = (box.upper - box.lower) / 2
    x = torch.addcmul(box.lower, random(tuple(half.shape), generator, half), 2 * half)
    for step in range(steps):
        size = step_size if 2 * step < steps or steps == 1 else step_size / 2
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(x).sum(), x)
        x = torch.addcmul(x.detach(), gradient.sign(), size * half)
        x = torch.minimum(torch.maximum(x, box.lower), box.upper)
    return x.detach()
