"""Networks by name and by import path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from verifier.errors import InputError
from verifier.training.networks import NETWORKS, build_network
from verifier.training.trace import trace

DIGITS, CIFAR = (1, 8, 8), (3, 32, 32)


def multiply_adds(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Counted layer by layer while an image goes through."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        total += output.numel() * layer.weight[0].numel()

    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(count)
    network(torch.zeros(1, *shape))
    return total


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [DIGITS, (3, 9, 11)], ids=str)
def test_every_network_takes_odd_images_and_can_be_bounded(name: str, shape: tuple[int, ...]):
    channels = shape[0]
    network = build_network(name, shape, 4, [0.5] * channels, [0.25] * channels, {"width": 4})
    assert network(torch.rand(3, *shape)).shape == (3, 4)
    assert trace(network, torch.zeros(1, *shape)).layers


def test_cnn7_is_as_large_as_published():
    network = build_network("cnn7", CIFAR, 10, [0.5] * 3, [0.25] * 3)
    assert multiply_adds(network, CIFAR) / 1e6 == pytest.approx(150.7, abs=0.1)


def test_normalisation_comes_first():
    network = build_network("mlp", CIFAR, 10, [0.1, 0.2, 0.3], [1.0, 2.0, 4.0], {"width": 4})
    x = torch.rand(2, *CIFAR)
    first = next(network.children())
    for channel, (mean, std) in enumerate([(0.1, 1.0), (0.2, 2.0), (0.3, 4.0)]):
        torch.testing.assert_close(first(x)[:, channel], (x[:, channel] - mean) / std)


def test_weights_follow_from_the_seed_and_leave_global_randomness_alone():
    def weights(seed: int) -> torch.Tensor:
        return next(build_network("mlp", DIGITS, 3, [0.0], [1.0], {"width": 4}, seed).parameters())

    before = torch.get_rng_state()
    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self, hidden=5):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    network = build_network("my_nets:Net", DIGITS, 3, [0.0], [1.0], {"hidden": 7})
    assert sum(p.numel() for p in network.parameters()) == 65 * 7 + 8 * 3
    for path, said in (("my_nets:Nat", "Nat"), ("no_nets:Net", "no_nets")):
        with pytest.raises(InputError, match=said):
            build_network(path, DIGITS, 3, [0.0], [1.0])


@pytest.mark.parametrize(
    ("name", "shape", "options", "said"),
    [
        ("cnn9", DIGITS, {}, "small-cnn"),
        ("small-cnn", (64,), {}, "choose mlp"),
        ("mlp", DIGITS, {"breadth": 4}, "breadth"),
        ("torch.nn:ReLU", DIGITS, {}, r"should return \(2, 4\)"),
        ("os:getcwd", DIGITS, {}, "torch.nn.Module"),
    ],
)
def test_what_cannot_be_built(name: str, shape: tuple[int, ...], options: dict, said: str):
    with pytest.raises(InputError, match=said):
        build_network(name, shape, 4, [0.0], [1.0], options)
