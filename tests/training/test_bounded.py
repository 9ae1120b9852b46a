"""A live module's bounds: those of verification on the exported network, sound, and with one policy for statistics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.training.networks import batch, convolutional, dense
from verifier.bounding.ladder import METHODS, LadderOptions, Problem
from verifier.bounding.rows import stack_rows
from verifier.errors import InputError
from verifier.operators import place
from verifier.specs.region import Box
from verifier.specs.robustness import resolve, robustness
from verifier.training.bounded import BoundedModule, ball, cross_entropy, margin_rows, part_around
from verifier.training.convert import from_torch


def bounded(channels: int = 1, training: bool = False) -> BoundedModule:
    network = convolutional(channels=channels).double()
    return BoundedModule(network.train(training), torch.rand(1, channels, 6, 6, dtype=torch.float64))


@pytest.mark.parametrize("method", ["ibp", "crown-ibp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_margins_are_those_of_verification_on_the_exported_network(tmp_path: Path, method: str, channels: int):
    live = bounded(channels)
    graph = from_torch(live.module.float(), torch.rand(1, channels, 6, 6), tmp_path / "network.onnx")
    live.module.double()
    x, y = batch((channels, 6, 6), 4)
    ours = live.ibp_margins(x, y, 0.1) if method == "ibp" else live.crown_ibp_margins(x, y, 0.1)
    specs = [robustness(one.numpy(), int(label), epsilon=0.1) for one, label in zip(x, y, strict=True)]
    properties = [resolve(spec, graph).properties[0] for spec in specs]
    rows = stack_rows(graph, properties, torch.float64, "cpu")
    box = ball(x, 0.1)
    problem = Problem(place(graph), Box(box.lower.unsqueeze(1), box.upper.unsqueeze(1)), rows)
    theirs = METHODS[method](problem, LadderOptions(), None)
    if method == "crown-ibp":  # verification takes the better of lines and intervals
        ours = torch.maximum(ours, live.ibp_margins(x, y, 0.1))
    assert torch.allclose(ours.sort(1).values, theirs.lower.sort(1).values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_margins_lie_below_those_of_sampled_inputs(training: bool):
    live = bounded(training=training)
    x, y = batch((1, 6, 6), 4)
    epsilon = torch.linspace(0, 0.3, len(x), dtype=torch.float64)
    live.clean(x)
    box = ball(x, epsilon)
    points = box.sample(64, torch.Generator().manual_seed(1))
    lower = live.ibp_margins(x, y, epsilon)
    lines = live.crown_ibp_margins(x, y, epsilon)
    loss, _ = live.fused_crown_ibp(box, y)
    with torch.no_grad():
        margins = [live.margins_of(live.logits(p), y) for p in points]
    least = torch.stack(margins).amin(0)
    assert (points >= 0).all() and (points <= 1).all()
    assert (lower <= least + 1e-9).all()
    assert (lines <= least + 1e-9).all()
    assert (loss >= torch.stack([cross_entropy(m) for m in margins]).amax(0) - 1e-9).all()
    assert (loss <= cross_entropy(lower) + 1e-9).all()


def test_many_classes_have_the_margins_of_few(monkeypatch: pytest.MonkeyPatch):
    live = bounded(training=True)
    x, y = batch((1, 6, 6), 4)
    live.clean(x)
    shared, loss = live.ibp_margins(x, y, 0.05), live.fused_crown_ibp(ball(x, 0.05), y)[0]
    monkeypatch.setattr("verifier.training.bounded.FEW_CLASSES", 0)  # rows of each sample's own
    torch.testing.assert_close(live.ibp_margins(x, y, 0.05), shared)
    torch.testing.assert_close(live.fused_crown_ibp(ball(x, 0.05), y)[0], loss)


def test_channels_stay_the_last_axis_of_intervals():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    live = BoundedModule(network, torch.rand(1, 1, 6, 6))
    boxes = live.ibp(ball(batch((1, 6, 6), 4)[0].float(), 0.1), torch.zeros(4, dtype=torch.int64)).boxes
    maps = [box.lower for box in boxes.values() if box.lower.dim() == 5 and box.lower.shape[2] > 1]
    assert maps and all(each.stride(2) == 1 for each in maps)


@given(st.integers(0, 10**6), st.floats(0.01, 1))
def test_a_smaller_box_around_a_point_lies_in_the_whole_one(seed: int, share: float):
    generator = torch.Generator().manual_seed(seed)
    x = (2 * torch.rand(3, 5, generator=generator, dtype=torch.float64) - 0.5).clamp(0, 1)
    whole = ball(x, 0.2)
    point = whole.sample(1, generator)[0]
    part = part_around(whole, point, torch.tensor(share * 0.2, dtype=torch.float64))
    assert (part.lower >= whole.lower).all() and (part.upper <= whole.upper).all()
    assert (part.lower <= point + 1e-12).all() and (part.upper >= point - 1e-12).all()
    width = torch.minimum(whole.upper - whole.lower, torch.tensor(2 * share * 0.2, dtype=torch.float64))
    torch.testing.assert_close(part.upper - part.lower, width)  # at the ends of the range of inputs as well
    if share == 1:
        torch.testing.assert_close(part.lower, whole.lower)


def test_bounds_over_a_point_are_the_margins():
    live = bounded()
    x, y = batch((1, 6, 6), 4)
    exact = live.margins_of(live.clean(x), y)
    assert torch.allclose(live.ibp_margins(x, y, 0.0), exact)
    assert torch.allclose(live.crown_ibp_margins(x, y, 0.0), exact)


def test_in_training_the_statistics_are_those_of_the_clean_pass():
    live = bounded(training=True)
    x, y = batch((1, 6, 6), 4)
    with pytest.raises(ValueError, match="clean"):
        live.ibp_margins(x, y, 0.1)
    logits = live.clean(x)
    assert torch.allclose(live.logits(x), logits)
    other = batch((1, 6, 6), 4, count=3, seed=5)[0]
    live.logits(other)  # attacked inputs are no clean pass
    assert torch.allclose(live.logits(x), logits)
    live.clean(other)
    assert not torch.allclose(live.logits(x), logits)


def test_the_clean_pass_is_the_modules_own():
    x, _ = batch((1, 6, 6), 4)
    live, plain = bounded(training=True), convolutional().double().train()
    assert torch.allclose(live.clean(x), plain(x))
    assert all(torch.allclose(a, b) for a, b in zip(live.module.buffers(), plain.buffers(), strict=True))
    live.module.eval()
    plain.eval()
    assert torch.allclose(live.clean(x), plain(x))
    assert torch.allclose(live.logits(x), plain(x))
    live.module(x)
    live.ibp_margins(x, batch((1, 6, 6), 4)[1], 0.1)
    assert all(torch.allclose(a, b) for a, b in zip(live.module.buffers(), plain.buffers(), strict=True))


@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_move_as_torch_moves_them(momentum: float | None):
    networks = [dense() for _ in range(2)]
    for network in networks:
        layer = network[1]
        assert isinstance(layer, nn.BatchNorm1d)
        layer.momentum = momentum
    live = BoundedModule(networks[0], torch.rand(1, 6, dtype=torch.float64))
    for seed in range(3):
        x, _ = batch((6,), 3, seed=seed)
        assert torch.allclose(live.clean(x), networks[1](x))
    for a, b in zip(networks[0].buffers(), networks[1].buffers(), strict=True):
        assert torch.allclose(a, b)


def test_gradients_of_the_moments():
    layer = dense().train()
    live = BoundedModule(layer, torch.rand(1, 6, dtype=torch.float64))
    x, _ = batch((6,), 3)

    def moments(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = live.clean(x)
        return (y, *live.graph().nodes[1].constants.values())

    assert torch.autograd.gradcheck(moments, x.requires_grad_())


def test_steps_of_the_optimiser_are_seen():
    live = bounded()
    x, y = batch((1, 6, 6), 4)
    before = live.ibp_margins(x, y, 0.1)
    before.sum().backward()
    with torch.no_grad():
        for parameter in live.module.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad
    assert not torch.allclose(live.ibp_margins(x, y, 0.1), before)


def test_rows_of_margins():
    rows = margin_rows(3)
    z = torch.tensor([1.0, 5.0, 2.0])
    assert (rows @ z).tolist() == [[-4.0, -1.0], [4.0, 3.0], [1.0, -3.0]]


def test_unsupported_layers_are_named_at_once():
    network = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2))
    with pytest.raises(InputError, match=r"GELU '1'.*Dropout '3'"):
        BoundedModule(network, torch.rand(1, 4))


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Branching(), "cannot be traced"),
        (nn.Sequential(nn.Linear(4, 1)), "one logit for each class"),
        (nn.Sequential(nn.Linear(3, 2)), "cannot be traced"),
        (nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 1, 1), nn.ReLU()), "one logit"),
    ],
)
def test_modules_that_cannot_be_used(network: nn.Module, words: str):
    with pytest.raises(InputError, match=words) as caught:
        BoundedModule(network, torch.rand(1, 4))
    assert "\n" not in str(caught.value)
