"""Networks by name, or a user's own by its import path; all take pixels in [0, 1] and return logits."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from verifier.errors import InputError

#: (*X) shape of an input, number of classes -> layers
Builder = Callable[..., nn.Module]


class Normalisation(nn.Module):
    """``(x - mean) / std`` per channel, inside the network: so its file takes pixels as they are.

    Args:
        mean, std: one number for each channel.
        axes: axes of an input without the batch; the first of them is the channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], axes: int):
        super().__init__()
        shape = (1, len(mean), *[1] * (axes - 1))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(shape))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Residual(nn.Module):
    """``relu(body(x) + shortcut(x))``."""

    def __init__(self, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def small_cnn(shape: Sequence[int], classes: int, width: int = 16, hidden: int = 128) -> nn.Sequential:
    """Two convolutions 4x4 of stride 2 and a hidden layer, each with batch normalisation."""
    channels, size = _image(shape, "small-cnn", 4)
    return nn.Sequential(
        *_convolution(channels, width, 4, 2),
        *_convolution(width, 2 * width, 4, 2),
        nn.Flatten(),
        *_dense(2 * width * (size[0] // 4) * (size[1] // 4), hidden),
        nn.Linear(hidden, classes),
    )


def cnn7(shape: Sequence[int], classes: int, width: int = 64, hidden: int = 512) -> nn.Sequential:
    """The seven layers of the literature (Shi et al. 2021, arXiv 2103.17268): convolutions 3x3 of 64, 64, 128 (stride
    2), 128 and 128 channels, a hidden layer of 512, batch normalisation after every hidden layer."""
    channels, size = _image(shape, "cnn7", 2)
    half = (size[0] + 1) // 2 * ((size[1] + 1) // 2)
    return nn.Sequential(
        *_convolution(channels, width, 3, 1),
        *_convolution(width, width, 3, 1),
        *_convolution(width, 2 * width, 3, 2),
        *_convolution(2 * width, 2 * width, 3, 1),
        *_convolution(2 * width, 2 * width, 3, 1),
        nn.Flatten(),
        *_dense(2 * width * half, hidden),
        nn.Linear(hidden, classes),
    )


def mlp(shape: Sequence[int], classes: int, width: int = 256, depth: int = 2) -> nn.Sequential:
    """Hidden layers of equal width with batch normalisation."""
    widths = [prod(shape), *[width] * depth]
    layers = [layer for a, b in zip(widths, widths[1:], strict=False) for layer in _dense(a, b)]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], classes))


def residual(shape: Sequence[int], classes: int, width: int = 16, hidden: int = 128) -> nn.Sequential:
    """A convolution 3x3 of stride 2, a residual block, one that halves the image, and a hidden layer."""
    channels, size = _image(shape, "residual", 4)
    halves = [(n + 1) // 2 for n in size]
    quarter = prod((n + 1) // 2 for n in halves)
    return nn.Sequential(
        *_convolution(channels, width, 3, 2),
        _block(width, width, 1),
        _block(width, 2 * width, 2),
        nn.Flatten(),
        *_dense(2 * width * quarter, hidden),
        nn.Linear(hidden, classes),
    )


NETWORKS: Mapping[str, Builder] = MappingProxyType(
    {"small-cnn": small_cnn, "cnn7": cnn7, "mlp": mlp, "residual": residual}
)


def build_network(
    name: str,
    shape: Sequence[int],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    options: Mapping[str, Any] = MappingProxyType({}),
    seed: int = 0,
) -> nn.Sequential:
    """A network with fresh weights behind its normalisation; the global random state stays as it was.

    Args:
        name: a key of `NETWORKS`, or ``package.module:Name`` of a callable that returns an `nn.Module`.
        shape: (*X) of an input.
        classes: number of logits.
        mean, std: per channel, of the data.
        options: keyword arguments of the builder; a user's own gets no others.
        seed: of the weights.

    Raises:
        InputError: there is no such network, it does not take the options, or its output is not (B, classes).
    """
    where = f"--network {name}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            body = _imported(name)(**options) if ":" in name else _known(name)(shape, classes, **options)
        except TypeError as error:
            raise InputError(where, f"cannot be built ({error})", "check network_options") from error
    if not isinstance(body, nn.Module):
        raise InputError(where, f"gives a {type(body).__name__}", "name a torch.nn.Module or what returns one")
    network = nn.Sequential(Normalisation(mean, std, len(shape)), body)
    _check_output(network, shape, classes, where)
    return network


def _check_output(network: nn.Module, shape: Sequence[int], classes: int, where: str) -> None:
    network.eval()
    try:
        with torch.no_grad():
            found = tuple(network(torch.zeros(2, *shape)).shape)
    except (RuntimeError, ValueError) as error:
        what = f"cannot take images of shape {tuple(shape)} ({error})"
        raise InputError(where, what, "choose a network for these data") from error
    if found != (2, classes):
        raise InputError(where, f"returns {found} for 2 images", f"it should return (2, {classes})")


def _known(name: str) -> Builder:
    if name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise InputError(f"--network {name}", "is not known", f"choose {known}, or write package.module:Name")
    return NETWORKS[name]


def _imported(path: str) -> Builder:
    """What an import path names; modules in the working directory are found as well."""
    module, _, name = path.partition(":")
    where = f"--network {path}"
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise InputError(where, f"cannot be imported ({error})", "check the module's path") from error
    finally:
        sys.path.pop(0)
    if not callable(getattr(found, name, None)):
        raise InputError(where, f"{module} has no class or function {name!r}", "check its name")
    return getattr(found, name)


def _image(shape: Sequence[int], name: str, least: int) -> tuple[int, tuple[int, int]]:
    if len(shape) != 3 or min(shape[1:]) < least:
        raise InputError(f"--network {name}", f"takes images, the data have shape {tuple(shape)}", "choose mlp")
    return shape[0], (shape[1], shape[2])


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


def _dense(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]


def _block(inputs: int, outputs: int, stride: int) -> Residual:
    body = nn.Sequential(
        *_convolution(inputs, outputs, 3, stride), nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)
    )
    if stride == 1 and inputs == outputs:
        return Residual(body, nn.Identity())
    return Residual(body, nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)))
