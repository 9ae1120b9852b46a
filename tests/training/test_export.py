"""The file computes what the module does, and what the bounds are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from verifier.attacks.replay import Replayer
from verifier.errors import InputError
from verifier.graph import load
from verifier.graph.ir import Graph, Node
from verifier.training.export import export, to_onnx
from verifier.training.networks import NETWORKS, build_network


def unsettled(network: nn.Module) -> nn.Module:
    """With statistics of batch normalisation far from those of a fresh layer."""
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.3)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_exported_with_its_batch_normalisation(name: str, tmp_path: Path):
    network = unsettled(build_network(name, (2, 8, 8), 4, [0.3, 0.4], [0.2, 0.5], {"width": 3}))
    x = torch.rand(5, 2, 8, 8)
    network.train()
    graph = export(network, x[:1], tmp_path / "net.onnx", x)
    found = [Replayer(graph).run(image) for image in x.numpy()]
    with torch.no_grad():
        np.testing.assert_allclose(np.concatenate(found), network(x).numpy(), rtol=1e-4, atol=1e-4)
    shape = onnx.load(str(tmp_path / "net.onnx")).graph.input[0].type.tensor_type.shape
    assert shape.dim[0].dim_param == "N" and [d.dim_value for d in shape.dim][1:] == [2, 8, 8]


def test_other_layers(tmp_path: Path):
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(18, 5, bias=False),
        nn.BatchNorm1d(5),
        nn.Tanh(),
        nn.BatchNorm1d(5),
        nn.ReLU6(),
        nn.Linear(5, 3),
    )
    x = torch.rand(4, 1, 8, 8)
    assert export(unsettled(network), x[:1], tmp_path / "net.onnx", x).output_shape == (1, 3)


def test_products_over_more_than_a_batch():
    shapes = {"x": (1, 2, 3), "y": (1, 2, 4), "z": (1, 8)}
    weight, bias = torch.rand(4, 3), torch.rand(4)
    nodes = (
        Node("x", "input"),
        Node("y", "linear", ("x",), {}, {"weight": weight, "bias": bias}),
        Node("z", "reshape", ("y",), {"shape": (1, 8)}),
    )
    made = ReferenceEvaluator(to_onnx(Graph(nodes, "x", "z", shapes)))
    x = torch.rand(5, 2, 3)
    (found,) = made.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(np.asarray(found), (x @ weight.T + bias).reshape(5, 8).numpy(), rtol=1e-5)


def test_a_file_that_differs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))

    def wrong(path: Path) -> Graph:
        model = onnx.load(str(path))
        (weight,) = (one for one in model.graph.initializer if one.name.endswith(".weight"))
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + 1, weight.name))
        path.write_bytes(model.SerializeToString())
        return load(path)

    monkeypatch.setattr("verifier.training.export.load", wrong)
    with pytest.raises(InputError, match="differ from the module's"):
        export(network, torch.rand(1, 1, 2, 2), tmp_path / "net.onnx", torch.rand(3, 1, 2, 2))


def test_what_has_no_form_is_refused():
    nodes = (Node("x", "input"), Node("y", "softmax", ("x",), {"axis": 1}))
    with pytest.raises(InputError, match="softmax"):
        to_onnx(Graph(nodes, "x", "y", {"x": (1, 3), "y": (1, 3)}))
