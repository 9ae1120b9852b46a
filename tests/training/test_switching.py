"""Switching one-versus-the-rest: which samples it takes, what bounds make of it, and the theory behind it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import wrightomega
from torch import Tensor
from torch.nn import functional as F

from tests.training.networks import batch, convolutional, dense
from verifier.training.bounded import BoundedModule, ball
from verifier.training.losses import LossOptions, training_loss
from verifier.training.switching import one_versus_rest, signed, smallest, switched

OPTIONS = LossOptions(attack_steps=3, sovr_share=0.4, sovr_weight=0.7, tightness=0, balance=0)


def network(training: bool = False) -> BoundedModule:
    return BoundedModule(dense().train(training), torch.rand(1, 6, dtype=torch.float64))


def robust(name: str, options: LossOptions, epsilon: float = 0.1, count: int = 10) -> float:
    x, y = batch((6,), 3, count=count)
    loss = training_loss(name, options)
    return float(loss(network(), x, y, epsilon, epsilon, None, torch.Generator().manual_seed(0)).parts["robust"])


def plain(logits: Tensor, y: Tensor) -> Tensor:
    """One-versus-the-rest (B,) as the paper writes it, sample by sample."""
    losses = []
    for z, label in zip(logits, y.tolist(), strict=True):
        others = [torch.log1p(torch.exp(value)) for k, value in enumerate(z) if k != label]
        losses.append(torch.log1p(torch.exp(-z[label])) + torch.stack(others).sum())
    return torch.stack(losses)


def test_one_versus_the_rest_is_the_papers_formula():
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn(20, 5, generator=generator).double() * 3, torch.randint(5, (20,), generator=generator)
    assert torch.allclose(one_versus_rest(signed(z, y)), plain(z, y))


@given(
    st.lists(st.floats(-5, 5, allow_nan=False), min_size=1, max_size=40).map(torch.tensor),
    st.floats(0, 1),
)
def test_the_switch_takes_exactly_a_share_of_smallest_margins(margins: Tensor, share: float):
    chosen = smallest(margins, share)
    count = int(chosen.sum())
    assert abs(count - share * len(margins)) <= 0.5
    if 0 < count < len(margins):
        assert margins[chosen].max() <= margins[~chosen].min()
    mixed = switched(torch.ones_like(margins), torch.full_like(margins, 10.0), margins, share, 0.5)
    assert mixed.tolist() == [5.0 if one else 1.0 for one in chosen.tolist()]


def test_equal_margins_are_switched_in_their_order():
    assert smallest(torch.tensor([1.0, 0.0, 1.0, 1.0]), 0.5).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("name", "usual"), [("sovr", "pgd"), ("tsovr", "trades"), ("certified-sovr", "ibp")])
def test_without_a_share_the_loss_is_the_one_that_it_switches(name: str, usual: str):
    assert robust(name, replace(OPTIONS, sovr_share=0)) == pytest.approx(robust(usual, OPTIONS))
    assert robust(name, OPTIONS) != pytest.approx(robust(usual, OPTIONS))


def test_sovr_by_its_definition():
    """On attacked points by cross entropy; TSOVR on the clean ones."""
    (x, y), live = batch((6,), 3, count=10), network()
    points: list[Tensor] = []
    logits = live.logits

    def watched(x: Tensor, graph=None) -> Tensor:
        points.append(logits(x, graph))
        return points[-1]

    live.logits = watched  # type: ignore[method-assign]
    loss = training_loss("sovr", OPTIONS)(live, x, y, 0.1, 0.1, None, torch.Generator().manual_seed(0))
    clean = training_loss("tsovr", replace(OPTIONS, trades_beta=0))
    for z, terms in (
        (points[-1].detach(), loss),
        (live.clean(x).detach(), clean(network(), x, y, 0.1, 0.1, None, torch.Generator().manual_seed(0))),
    ):
        pairs = zip(z.tolist(), y.tolist(), strict=True)
        lm = [max(v for k, v in enumerate(row) if k != label) - row[label] for row, label in pairs]
        large = sorted(range(10), key=lambda i: -lm[i])[:4]
        ce, ovr = F.cross_entropy(z, y, reduction="none"), plain(z, y)
        wanted = sum(float(0.7 * ovr[i] if i in large else ce[i]) for i in range(10)) / 10
        assert float(terms.parts["robust"]) == pytest.approx(wanted)


@pytest.mark.parametrize("epsilon", [0.0, 0.03, 0.2])
@pytest.mark.parametrize("image", [False, True])
def test_the_certified_loss_is_above_that_of_every_point_of_the_ball(epsilon: float, image: bool):
    shape, classes, module = ((1, 6, 6), 4, convolutional().double().eval()) if image else ((6,), 3, dense().eval())
    live, (x, y) = BoundedModule(module, torch.rand(1, *shape).double()), batch(shape, classes)
    box = ball(x, epsilon)
    values, margins = live.ibp_signed(box, y)
    bound = one_versus_rest(values)
    assert torch.allclose(margins.lower, live.ibp(box, y).lower)
    generator, worst = torch.Generator().manual_seed(1), torch.full((len(x),), -torch.inf, dtype=torch.float64)
    for _ in range(200):
        share = torch.rand(x.shape, generator=generator, dtype=torch.float64)
        share = share if torch.rand((), generator=generator) < 0.5 else share.round()  # corners
        logits = live.logits(torch.lerp(box.lower, box.upper, share))
        assert (signed(logits, y) >= values - 1e-9).all()
        worst = worst.maximum(one_versus_rest(signed(logits, y)))
    assert (worst <= bound + 1e-9).all()
    if epsilon == 0:
        assert torch.allclose(worst, bound)


def test_the_certified_switch_goes_by_certified_margins():
    (x, y), live = batch((6,), 3, count=10), network()
    values, margins = live.ibp_signed(ball(x, 0.05), y)
    margin = margins.lower.amin(1)
    chosen = margin <= margin.sort().values[3]
    assert int(chosen.sum()) == 4
    ce = torch.log1p(torch.exp(-margins.lower).sum(1))
    wanted = torch.where(chosen, 0.7 * one_versus_rest(values), ce).mean()
    assert robust("certified-sovr", OPTIONS, epsilon=0.05) == pytest.approx(float(wanted.detach()))


def flow(loss: Callable[[Tensor], Tensor], classes: int, times: list[float]) -> list[float]:
    """Margins ``z_0 - max_k z_k`` at some times of the gradient flow of a loss from z(0) = 0, by Runge-Kutta."""

    def slope(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        return -torch.autograd.grad(loss(z.unsqueeze(0)).sum(), z)[0]

    z, t, margins = torch.zeros(classes, dtype=torch.float64), 0.0, []
    for end in times:
        while t < end:
            h = min(0.05 + 0.02 * t, end - t)
            a = slope(z)
            b = slope(z + h / 2 * a)
            c = slope(z + h / 2 * b)
            d = slope(z + h * c)
            z, t = z + h / 6 * (a + 2 * b + 2 * c + d), t + h
        margins.append(float(z[0] - z[1:].max()))
    return margins


@pytest.mark.parametrize("classes", [2, 10])
def test_its_margins_grow_twice_as_fast_in_the_limit(classes: int):
    """The closed forms of both flows, by the Lambert W function: ``wrightomega(x) = W(exp(x))``."""
    times, label = [0.5, 3.0, 20.0, 100.0], torch.tensor([0])
    ovr = flow(lambda z: one_versus_rest(signed(z, label)), classes, times)
    ce = flow(lambda z: F.cross_entropy(z, label), classes, times)

    def of_ovr(t: float) -> float:
        return 2 * (t + 1 - wrightomega(t + 1).real)

    def of_ce(t: float) -> float:
        a = (classes * t + 1) / (classes - 1)
        return a - wrightomega(a - math.log(classes - 1)).real

    assert ovr == pytest.approx([of_ovr(t) for t in times], rel=1e-4)
    assert ce == pytest.approx([of_ce(t) for t in times], rel=1e-4)
    ratios = [of_ovr(t) / of_ce(t) for t in (1e2, 1e3, 1e6, 1e12)]
    assert ratios == sorted(ratios) and 1.8 < ratios[-1] < 2
    assert ratios[-1] == pytest.approx(2 * math.log(1e12) / math.log(classes * 1e12), rel=1e-3)
