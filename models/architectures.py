"""The networks of this folder, as torch modules.

Inputs are (N, 1, side, side) in [0, 1] with side 8 or 28; outputs are (N, 10) logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 10


class Residual(nn.Module):
    """``relu(body(x) + shortcut(x))``; an empty shortcut is the identity."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Sequential):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def mlp(side: int) -> nn.Sequential:
    """Two hidden layers of ReLU."""
    width = 50 if side == 8 else 100
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(side * side, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, CLASSES),
    )


def smooth(side: int) -> nn.Sequential:
    """A hidden layer of sigmoid and one of tanh."""
    width = 32 if side == 8 else 64
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(side * side, width),
        nn.Sigmoid(),
        nn.Linear(width, width),
        nn.Tanh(),
        nn.Linear(width, CLASSES),
    )


def cnn(side: int) -> nn.Sequential:
    """Two convolutions, each pooled 2x2: by the maximum on 8x8 images, by the mean on 28x28."""
    pool = nn.MaxPool2d if side == 8 else nn.AvgPool2d
    width = 32 if side == 8 else 64
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        pool(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        pool(2),
        nn.Flatten(),
        nn.Linear(16 * (side // 4) ** 2, width),
        nn.ReLU(),
        nn.Linear(width, CLASSES),
    )


def resnet(side: int) -> nn.Sequential:
    """A convolution and two residual blocks with batch normalisation; the second block halves the image."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=1 if side == 8 else 2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Residual(_body(8, 8, stride=1), nn.Sequential()),
        Residual(
            _body(8, 16, stride=2),
            nn.Sequential(nn.Conv2d(8, 16, 1, stride=2, bias=False), nn.BatchNorm2d(16)),
        ),
        nn.Flatten(),
        nn.Linear(16 * (4 if side == 8 else 7) ** 2, CLASSES),
    )


def strided_cnn(side: int) -> nn.Sequential:
    """Two convolutions of stride 2 and a hidden layer, all ReLU."""
    width = 32 if side == 8 else 64
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * (side // 4) ** 2, width),
        nn.ReLU(),
        nn.Linear(width, CLASSES),
    )


def _body(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
    )


#: kind -> builder from the image's side
BUILDERS: dict[str, Callable[[int], nn.Sequential]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet": resnet,
    "smooth": smooth,
    "robust": strided_cnn,
}
