"""Switching one-versus-the-rest: another loss for the samples of a batch whose logit margins are smallest.

Kanai et al., *One-vs-the-Rest Loss to Focus on Important Samples in Adversarial Training* (ICML 2023, arXiv
2207.10283): cross entropy barely tells samples with small logit margins from others, and the one-versus-the-rest loss
(OVR) grows their margins twice as fast in the limit of long training. How many samples are switched, and the weight
of their loss, are parameters here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def signed(logits: Tensor, y: Tensor) -> Tensor:
    """``z_y`` and ``-z_k`` of every other class, (B, K): what one-versus-the-rest wants to be large.

    Args:
        logits: (B, K).
        y: (B,) int64.
    """
    return logits * signs(y, logits.shape[1]).to(logits)


def signs(y: Tensor, classes: int) -> Tensor:
    """1 at the label and -1 elsewhere, (B, K) int64."""
    return 2 * F.one_hot(y, classes) - 1


def one_versus_rest(values: Tensor) -> Tensor:
    """``softplus(-z_y) + sum_k softplus(z_k)`` (B,) of signed logits (B, K).

    It falls in each of them, so that lower bounds of signed logits over a set give an upper bound of the loss over it.
    """
    return F.softplus(-values).sum(1)


def smallest(margins: Tensor, share: float) -> Tensor:
    """Which samples (B,) have the smallest margins: the nearest whole number to ``share * B``; of equals the first."""
    chosen = torch.zeros_like(margins, dtype=torch.bool)
    chosen[margins.detach().argsort(stable=True)[: round(share * len(margins))]] = True
    return chosen


def switched(usual: Tensor, other: Tensor, margins: Tensor, share: float, weight: float) -> Tensor:
    """The usual loss (B,), and `weight` times the other one for a share of the samples: those of smallest margins."""
    return torch.where(smallest(margins, share), weight * other, usual)
