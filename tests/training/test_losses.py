"""Losses: gradients against finite differences, how they relate to each other, and what they report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training.networks import batch, convolutional, dense
from verifier.errors import InputError
from verifier.training import losses
from verifier.training.bounded import BoundedModule
from verifier.training.losses import LOSSES, LossOptions, LossTerms, training_loss

OPTIONS = LossOptions(kappa=0.3, alpha=0.4, small_box=0.5, attack_steps=2, bisections=4)
ADVERSARIAL = ("pgd", "trades", "sovr", "tsovr")
CERTIFIED = [name for name in LOSSES if name not in ("standard", *ADVERSARIAL)]
STEP = 1e-6


def network(training: bool = True, second: type[nn.Module] = nn.Tanh) -> BoundedModule:
    return BoundedModule(dense(second=second).train(training), torch.rand(1, 6, dtype=torch.float64))


def run(live: BoundedModule, name: str, options: LossOptions, epsilon: float = 0.1, end: float = 0.1) -> LossTerms:
    x, y = batch((6,), 3, count=6)
    return training_loss(name, options)(live, x, y, epsilon, end, None, torch.Generator().manual_seed(0))


def hold_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacked points and adaptive radii carry no gradient: keep the first that are found, as a derivative does."""
    for name in ("ascend_in_box", "radii"):
        kept: list[Tensor] = []
        original: Callable[..., Tensor] = getattr(losses, name)

        def first(*arguments, kept: list[Tensor] = kept, original: Callable[..., Tensor] = original) -> Tensor:
            if not kept:
                kept.append(original(*arguments))
            return kept[0]

        monkeypatch.setattr(losses, name, first)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("name", [*LOSSES, "crown-ibp by rows"])
def test_gradients_are_those_of_finite_differences(name, adaptive, training, monkeypatch):
    hold_still(monkeypatch)
    # where the tangent of a tanh touches is searched for, and no gradient flows through the search
    live = network(training, nn.LeakyReLU if name.startswith("crown") else nn.Tanh)
    loss = name.removesuffix(" by rows")
    options = replace(OPTIONS, adaptive_radii=adaptive, fusion=not name.endswith("by rows"))
    terms = run(live, loss, options, epsilon=0.05)
    terms.loss.backward()
    generator = torch.Generator().manual_seed(3)
    for parameter in live.module.parameters():
        gradient = parameter.grad
        assert gradient is not None
        direction = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * STEP * direction
                ends.append(float(run(live, loss, options, epsilon=0.05).loss.detach()))
                parameter -= sign * STEP * direction
        numeric = (ends[0] - ends[1]) / (2 * STEP)
        assert float((gradient * direction).sum()) == pytest.approx(numeric, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_at_radius_zero_every_loss_is_the_natural_one(name):
    # but for TRADES, whose divergence is 0 then, and whose own natural term is the same; and nothing is switched
    live = network()
    terms = run(live, name, LossOptions(kappa=0.5, tightness=0, balance=0, sovr_share=0), epsilon=0.0)
    assert float(terms.loss.detach()) == pytest.approx(float(terms.parts["natural"]))


@pytest.mark.parametrize("name", ["mtl-ibp", "exp-ibp", "cc-ibp"])
@pytest.mark.parametrize(("alpha", "same"), [(0.0, "pgd"), (1.0, "ibp")])
def test_mixtures_end_at_the_attack_and_at_the_bounds(name, alpha, same):
    options = replace(OPTIONS, alpha=alpha)
    mixed, pure = (run(network(), n, options).parts["robust"] for n in (name, same))
    assert float(mixed) == pytest.approx(float(pure))


def test_the_bounds_are_above_the_attack():
    options = replace(OPTIONS, small_box=1.0)
    pgd, sabr, ibp = (float(run(network(), name, options).parts["robust"]) for name in ("pgd", "sabr", "ibp"))
    small = float(run(network(), "sabr", replace(options, small_box=0.2)).parts["robust"])
    assert pgd < small < sabr
    assert sabr == pytest.approx(ibp)


@pytest.mark.parametrize("name", CERTIFIED)
def test_what_is_reported(name):
    live = network(training=False)
    x, y = batch((6,), 3, count=40)
    epsilon = 0.05
    for adaptive in (False, True):
        options = replace(OPTIONS, adaptive_radii=adaptive)
        terms = training_loss(name, options)(live, x, y, epsilon, epsilon, None, torch.Generator().manual_seed(0))
        assert terms.correct.tolist() == (live.clean(x).argmax(1) == y).tolist()
        assert all(not t.requires_grad for t in (terms.correct, terms.certified, terms.radius, *terms.parts.values()))
        margins = live.ibp_margins(x, y, terms.radius).amin(1)
        assert (margins[terms.radius > 0] > 0).all()
        assert (terms.radius[~terms.correct] == 0).all() and (terms.radius <= epsilon).all()
        assert (terms.certified <= (terms.radius == epsilon)).all()
        full = live.ibp_margins(x, y, epsilon).amin(1) > 0
        if adaptive or name != "sabr":
            assert torch.equal(terms.certified, full)
            assert 0 < int(full.sum()) < len(x)
        else:
            assert not terms.certified.any(), "a small box certifies nothing"


def test_adaptive_radii_cap_the_loss():
    fixed, adaptive = (run(network(), "ibp", replace(OPTIONS, adaptive_radii=a), 0.2, 0.2) for a in (False, True))
    assert float(adaptive.parts["robust"]) < float(fixed.parts["robust"])


@pytest.mark.parametrize("name", ["ibp", "mtl-ibp"])
@pytest.mark.parametrize("guess", ["right", "all at the cap", "all at zero"])
def test_a_warm_start_changes_nothing_but_by_the_tolerance(name, guess):
    live, (x, _) = network(training=False), batch((6,), 3, count=40)
    y = live.clean(x).argmax(1)
    y[:5] = (y[:5] + 1) % 3
    loss = training_loss(name, replace(OPTIONS, adaptive_radii=True, bisections=20, attack_steps=4))

    def at(cap: float, previous: Tensor | None) -> LossTerms:
        return loss(live, x, y, cap, cap, previous, torch.Generator().manual_seed(0))

    cap = float(at(1.0, None).radius[5:].median())  # half of the samples reach it
    cold = at(cap, None)
    zero = torch.zeros_like(cold.radius)
    warm = at(cap, {"right": cold.radius, "all at the cap": zero + cap, "all at zero": zero}[guess])
    assert 0 < int(cold.certified.sum()) < int((cold.radius > 0).sum())
    assert torch.equal(cold.certified, warm.certified)
    assert torch.allclose(cold.radius, warm.radius, atol=2 * cap / 2**20)
    # the attack starts elsewhere, since samples take part in another order
    assert float(warm.loss.detach()) == pytest.approx(float(cold.loss.detach()), rel=1e-5 if name == "ibp" else 0.1)


def test_one_radius_for_each_sample():
    live, (x, y) = network(training=False), batch((6,), 3, count=6)
    loss = training_loss("ibp", LossOptions(tightness=0, balance=0))
    epsilon = torch.linspace(0, 0.2, 6, dtype=torch.float64)
    whole = loss(live, x, y, epsilon, 0.2, None, torch.Generator()).loss.detach()
    singles = [
        loss(live, x[i : i + 1], y[i : i + 1], float(epsilon[i]), 0.2, None, torch.Generator()).loss.detach()
        for i in range(6)
    ]
    assert float(whole) == pytest.approx(float(torch.stack(singles).mean()))


def test_regularisers_fade_out():
    early, late, done = (run(network(), "ibp", LossOptions(), e, 0.2) for e in (0.02, 0.1, 0.2))
    assert "tightness" in early.parts and "balance" in late.parts and "tightness" not in done.parts

    def extra(terms: LossTerms) -> float:
        return float(terms.loss.detach() - terms.parts["robust"])

    weights = [float(0.5 * terms.parts["tightness"] + 0.5 * terms.parts["balance"]) for terms in (early, late)]
    assert extra(early) == pytest.approx(0.9 * weights[0])
    assert extra(late) == pytest.approx(0.5 * weights[1])
    assert extra(done) == pytest.approx(0)


def test_an_image_network_in_float32():
    live = BoundedModule(convolutional(channels=3).train(), torch.rand(1, 3, 6, 6))
    x, y = batch((3, 6, 6), 4)
    for name in LOSSES:
        options = replace(OPTIONS, adaptive_radii=name in CERTIFIED)
        terms = training_loss(name, options)(live, x.float(), y, 0.1, 0.2, None, torch.Generator().manual_seed(0))
        terms.loss.backward()
        gradients = [parameter.grad for parameter in live.module.parameters()]
        assert all(g is not None and bool(g.isfinite().all()) for g in gradients), name


def test_confident_samples_leave_gradients_finite():
    network_ = dense().float().eval()
    last = network_[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight *= 1e4
    live = BoundedModule(network_, torch.rand(1, 6))
    x = batch((6,), 3)[0].float()
    y = network_(x).argmax(1)
    for name in CERTIFIED:
        network_.zero_grad()
        terms = training_loss(name, replace(OPTIONS, attack_steps=1))(live, x, y, 1e-4, 1.0, None, torch.Generator())
        terms.loss.backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network_.parameters()), name


def test_trades_is_the_natural_loss_and_a_divergence():
    live = network(training=False)
    x, y = batch((6,), 3, count=6)
    terms = run(live, "trades", replace(OPTIONS, trades_beta=2.0))
    natural = float(F.cross_entropy(live.clean(x), y).detach())
    assert float(terms.parts["robust"]) > natural
    assert float(run(live, "trades", replace(OPTIONS, trades_beta=0.0)).parts["robust"]) == pytest.approx(natural)


def test_an_unknown_loss_is_one_sentence_with_all_names():
    with pytest.raises(InputError) as caught:
        training_loss("ipb")
    assert "'ipb'" in str(caught.value) and all(name in str(caught.value) for name in LOSSES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [{"kappa": 1.5}, {"alpha": -0.1}, {"small_box": 0.0}, {"trades_beta": -1.0}, {"attack_steps": 0}]
    + [{"bisections": 0}, {"radius_by": "crown"}, {"tightness": float("nan")}]
    + [{"sovr_share": 1.2}, {"sovr_share": float("nan")}, {"sovr_weight": -1.0}, {"sovr_weight": float("inf")}],
)
def test_options_out_of_range(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        LossOptions(**wrong)
