"""Plain and adversarial training on the CPU, the same on every run of one machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from models.data import Images


@dataclass(frozen=True)
class Attack:
    """Projected gradient ascent on the cross-entropy (Madry et al., arXiv:1706.06083, section 2.1).

    Args:
        epsilon: radius of the L-infinity ball, in units of a pixel's range [0, 1].
        steps: gradient steps, from a uniformly random start.
    """

    epsilon: float
    steps: int


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: Adam, its rate falling from ``rate`` to 0 along a cosine.

    Args:
        attack: None for plain training; else each batch is replaced by its attacked images, and the radius
            grows from 0 to the attack's over the first half of the steps.
    """

    epochs: int
    batch: int
    rate: float
    attack: Attack | None = None
    seed: int = 0

    def __str__(self) -> str:
        text = f"{self.epochs} epochs of Adam, batch {self.batch}, rate {self.rate:g}"
        return text + (f", PGD {self.attack.epsilon:g} x{self.attack.steps}" if self.attack else "")


def train(network: nn.Sequential, images: Images, recipe: Recipe) -> None:
    """Trains in place and leaves the network in evaluation mode."""
    generator = torch.Generator().manual_seed(recipe.seed)
    x, y = torch.from_numpy(images.x), torch.from_numpy(images.y)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.rate)
    total = recipe.epochs * -(-len(x) // recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    step = 0
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(x), generator=generator).split(recipe.batch):
            inputs, labels = x[rows], y[rows]
            if recipe.attack:
                radius = recipe.attack.epsilon * min(1.0, 2 * step / total)
                inputs = pgd(network, inputs, labels, Attack(radius, recipe.attack.steps), generator)
            network.train()
            optimizer.zero_grad()
            cross_entropy(network(inputs), labels).backward()
            optimizer.step()
            schedule.step()
            step += 1
    network.eval()


def pgd(network: nn.Sequential, x: Tensor, y: Tensor, attack: Attack, generator: torch.Generator) -> Tensor:
    """Attacked images (N, 1, side, side), within epsilon of ``x`` and in [0, 1].

    Leaves the network in evaluation mode.
    """
    network.eval()
    lower, upper = (x - attack.epsilon).clamp(0, 1), (x + attack.epsilon).clamp(0, 1)
    size = 2.5 * attack.epsilon / attack.steps
    point = lower + (upper - lower) * torch.rand(x.shape, generator=generator)
    for _ in range(attack.steps):
        point.requires_grad_(True)
        (slope,) = torch.autograd.grad(cross_entropy(network(point), y, reduction="sum"), point)
        point = (point.detach() + size * slope.sign()).clamp(lower, upper)
    return point.detach()


def attacked_accuracy(network: nn.Sequential, images: Images, attack: Attack) -> float:
    """The share of images still classified rightly under one run of the attack."""
    x, y = torch.from_numpy(images.x), torch.from_numpy(images.y)
    moved = pgd(network, x, y, attack, torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float(np.mean((network(moved).argmax(1) == y).numpy()))
