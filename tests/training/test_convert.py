"""Modules to graphs and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import verifier
from tests.training.networks import batch, convolutional
from verifier.errors import InputError
from verifier.operators import evaluate, place
from verifier.training.bounded import BoundedModule


@pytest.mark.parametrize("kept", [False, True])
def test_a_module_and_its_graph_agree(tmp_path: Path, kept: bool):
    network = convolutional().train()
    path = tmp_path / "network.onnx" if kept else None
    graph = verifier.from_torch(network, torch.rand(1, 1, 6, 6), path)
    assert network.training, "it is left in the mode that it was in"
    x, _ = batch((1, 6, 6), 4)
    wanted = network.eval()(x.float()).detach().double()
    assert torch.allclose(evaluate(place(graph), x.unsqueeze(1)).squeeze(1), wanted, rtol=1e-4, atol=1e-4)
    assert (graph.file is not None) == kept == (tmp_path / "network.onnx").exists()


def test_a_graph_of_a_module_is_verified(tmp_path: Path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = verifier.from_torch(network, torch.rand(1, 2), tmp_path / "network.onnx")
    x = torch.tensor([0.4, 0.6])
    label = int(network(x.unsqueeze(0)).argmax())
    query = verifier.robustness(x.double().numpy(), label, epsilon=1e-4)
    assert isinstance(verifier.verify(graph, query), verifier.Verified)


def test_there_and_back():
    graph = verifier.from_torch(convolutional(), torch.rand(1, 1, 6, 6))
    network = verifier.to_torch(graph)
    x, y = batch((1, 6, 6), 4)
    assert torch.allclose(network(x.float()), evaluate(place(graph), x.unsqueeze(1)).squeeze(1).float(), atol=1e-4)
    live = BoundedModule(network, torch.rand(1, 1, 6, 6))
    live.ibp_margins(x.float(), y, 0.05).sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert len(gradients) > 6 and all(g is not None and bool(g.any()) for g in gradients)
    again = verifier.to_torch(live.graph())
    assert torch.allclose(again(x.float()), network(x.float()), atol=1e-5)


def test_its_state_is_saved_and_loaded():
    graph = verifier.from_torch(convolutional(0), torch.rand(1, 1, 6, 6))
    other = verifier.from_torch(convolutional(1), torch.rand(1, 1, 6, 6))
    one, two = verifier.to_torch(graph), verifier.to_torch(other)
    x = batch((1, 6, 6), 4)[0].float()
    assert not torch.allclose(one(x), two(x))
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(x), two(x))


class Fails(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("of no use")


@pytest.mark.parametrize(
    ("network", "words"), [(Fails(), "cannot export"), (nn.Sequential(nn.LPPool1d(2, 2)), "unsupported")]
)
def test_modules_that_cannot_be_converted(network: nn.Module, words: str):
    with pytest.raises(InputError, match=words) as caught:
        verifier.from_torch(network, torch.rand(1, 3, 4))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be written"):
        verifier.from_torch(nn.Linear(2, 2), torch.rand(1, 2), tmp_path / "nowhere" / "network.onnx")
