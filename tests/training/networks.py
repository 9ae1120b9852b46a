"""Small modules for the tests of training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalised(nn.Module):
    """Pixels to the network's units, written with buffers."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.linspace(0.3, 0.5, channels).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.linspace(0.2, 0.4, channels).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Residual(nn.Module):
    """A block with a way around it, and functions in place of modules."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.norm(self.first(x)))) + x)


def convolutional(seed: int = 0, channels: int = 1) -> nn.Module:
    """Inputs (B, channels, 6, 6), 4 classes."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        Normalised(channels),
        nn.Conv2d(channels, 3, 3, stride=2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        Residual(3),
        nn.AvgPool2d(2, stride=1),
        nn.BatchNorm2d(3),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.Linear(5, 4),
    )
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return network


def dense(seed: int = 0, second: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Inputs (B, 6), 3 classes, in float64; `second` is the second activation."""
    torch.manual_seed(seed)
    layers = (nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4), second(), nn.Linear(4, 3))
    return nn.Sequential(*layers).double()


def batch(shape: tuple[int, ...], classes: int, count: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs in [0, 1], some of them on its ends, and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = (1.4 * torch.rand(count, *shape, generator=generator, dtype=torch.float64) - 0.2).clamp(0, 1)
    return x, torch.randint(classes, (count,), generator=generator)
