"""The pseudo-margin: a small network that learns the input margin from features or logits.

Ngnawe et al. 2024, section 5: an MLP 512-512-512-1 with ReLU and a sigmoid, trained by Adam on the squared error to a
scaled margin. What could not be recovered from paper and code alike is an option here: the target's scale (the
authors' notebook takes ``sqrt(d)``, their rebuttal ``d / max``) and whether it reads features or logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from verifier.errors import InputError

TARGETS, INPUTS = ("sqrt", "max"), ("features", "logits")
_FEWEST = 10


@dataclass(frozen=True)
class PseudoOptions:
    """How to learn.

    Args:
        hidden: widths of the hidden layers.
        target: `sqrt`, the square root of the margin, or `max`, the margin as a share of the largest.
        on: `features` or `logits`.
        epochs, rate, batch: of Adam.
        held_out: share of the inputs on which the best epoch is chosen.
        seed: of the weights, the order and the split.
    """

    hidden: tuple[int, ...] = (512, 512, 512)
    target: str = "sqrt"
    on: str = "features"
    epochs: int = 500
    rate: float = 1e-4
    batch: int = 128
    held_out: float = 0.2
    seed: int = 0


@dataclass(frozen=True, eq=False)
class PseudoMargin:
    """A learned score.

    Args:
        on: what it reads.
        mean, scale: (F,) float32 by which its input is standardised.
        layers: weights (out, in) and biases (out,) float32.
    """

    on: str
    mean: Tensor
    scale: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]

    def __call__(self, features: Tensor) -> Tensor:
        """Scores (B,) in (0, 1) of features (B, F)."""
        h = (features - self.mean.to(features)) * self.scale.to(features)
        for number, (weight, bias) in enumerate(self.layers):
            h = torch.nn.functional.linear(h, weight.to(h), bias.to(h))
            h = torch.relu(h) if number + 1 < len(self.layers) else torch.sigmoid(h)
        return h.squeeze(1)


def learn(features: Tensor, distances: np.ndarray, options: PseudoOptions = PseudoOptions()) -> PseudoMargin:
    """A pseudo-margin from features (n, F) and margins (n,); inputs whose margin is infinite are left out.

    Raises:
        InputError: an option is not known, or there is too little to learn from.
    """
    if options.target not in TARGETS or options.on not in INPUTS:
        raise InputError("pseudo-margin", "has an unknown target or input", f"use {TARGETS} and {INPUTS}")
    kept = np.isfinite(distances)
    if kept.sum() < _FEWEST:
        what = f"has {int(kept.sum())} margins to learn from"
        raise InputError("--fit", what, f"measure at least {_FEWEST} inputs with verifier radius")
    x = features[torch.from_numpy(kept)].float().cpu()
    d = torch.from_numpy(distances[kept]).float()
    y = d.sqrt() if options.target == "sqrt" else d / d.max().clamp(min=1e-12)
    y = y / y.max().clamp(min=1.0)  # a sigmoid reaches no more than 1
    mean, scale = x.mean(0), 1 / x.std(0).clamp(min=1e-6)
    return PseudoMargin(options.on, mean, scale, _train((x - mean) * scale, y, options))


def _train(x: Tensor, y: Tensor, options: PseudoOptions) -> tuple[tuple[Tensor, Tensor], ...]:
    generator = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(len(x), generator=generator)
    held = order[: max(1, int(options.held_out * len(x)))]
    used = order[len(held) :]
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        widths = (x.shape[1], *options.hidden, 1)
        linear = [nn.Linear(a, b) for a, b in pairwise(widths)]
        parts = [part for layer in linear for part in (layer, nn.ReLU())][:-1]
        net = nn.Sequential(*parts, nn.Sigmoid())
    optimiser = torch.optim.Adam(net.parameters(), lr=options.rate)
    best, kept = float("inf"), _weights(linear)
    for _ in range(options.epochs):
        for part in used[torch.randperm(len(used), generator=generator)].split(options.batch):
            optimiser.zero_grad()
            nn.functional.mse_loss(net(x[part]).squeeze(1), y[part]).backward()
            optimiser.step()
        with torch.no_grad():
            error = float(nn.functional.mse_loss(net(x[held]).squeeze(1), y[held]))
        if error < best:
            best, kept = error, _weights(linear)
    return kept


def _weights(layers: list[nn.Linear]) -> tuple[tuple[Tensor, Tensor], ...]:
    return tuple((layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in layers)
