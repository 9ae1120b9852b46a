"""Radii are certified, and the largest up to the tolerance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.training.networks import batch, dense
from verifier.training.bounded import BoundedModule
from verifier.training.losses import Batch, LossOptions, radii
from verifier.training.radii import certified_radii

BISECTIONS = 6


@pytest.mark.parametrize("warm", ["none", "near", "wrong", "past the cap"])
def test_roots_are_found_to_the_tolerance(warm: str):
    count, cap = 200, torch.full((200,), 0.5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    root = torch.rand(count, generator=generator, dtype=torch.float64)  # about half of them beyond the cap
    correct = torch.rand(count, generator=generator) < 0.9
    previous = {
        "none": None,
        "near": (root + 0.01 * torch.randn(count, generator=generator, dtype=torch.float64)).clamp(min=0),
        "wrong": torch.rand(count, generator=generator, dtype=torch.float64),
        "past the cap": torch.full_like(root, 7.0),
    }[warm]
    asked: list[int] = []
    seen = torch.zeros(count, dtype=torch.float64)

    def margin_at(index: Tensor, radius: Tensor) -> Tensor:
        asked.append(len(index))
        margin = root[index] - radius
        seen[index] = torch.where(margin > 0, radius.maximum(seen[index]), seen[index])
        assert (radius <= cap[index]).all() and (radius > 0).all()
        return margin

    at_zero = torch.where(correct, root, -root)
    radius = certified_radii(margin_at, at_zero, cap, BISECTIONS, previous)
    best = root.minimum(cap)
    assert (radius[~correct] == 0).all()
    assert torch.equal(radius, seen), "what is returned was certified"
    assert (best[correct] - radius[correct] <= 0.5 / 2**BISECTIONS * (1 + 1e-9)).all()
    assert torch.equal(radius[correct & (root > 0.5)], cap[correct & (root > 0.5)])
    assert asked[0] == int(correct.sum()) and asked == sorted(asked, reverse=True), "only unresolved samples are asked"


def test_a_good_guess_saves_most_of_the_work():
    root = torch.linspace(0.05, 0.45, 100, dtype=torch.float64)
    work = []
    for previous in (None, root.clone()):
        asked: list[int] = []

        def margin_at(index: Tensor, radius: Tensor, asked: list[int] = asked) -> Tensor:
            asked.append(len(index))
            return root[index] - radius

        certified_radii(margin_at, root, root * 0 + 0.5, BISECTIONS, previous)
        work.append(sum(asked))
    assert work[1] <= 100 < work[0]


@pytest.mark.parametrize("method", ["ibp", "crown-ibp"])
def test_radii_of_a_network(method):
    network = BoundedModule(dense().eval(), torch.rand(1, 6, dtype=torch.float64))
    x, _ = batch((6,), 3, count=40)
    logits = network.clean(x)
    y = logits.argmax(1)
    y[:5] = (y[:5] + 1) % 3
    cap = torch.full((40,), 0.3, dtype=torch.float64)
    options = LossOptions(adaptive_radii=True, bisections=BISECTIONS, radius_by=method)
    found = radii(Batch(network, network.graph(), x, y, logits, cap, options, torch.Generator()), None)
    margins = network.ibp_margins if method == "ibp" else network.crown_ibp_margins
    assert not found.requires_grad
    assert (found[:5] == 0).all() and (found[5:] > 0).any() and (found < 0.3).any()
    assert (margins(x, y, found).amin(1)[5:] > 0).all()
    if method == "ibp":  # the margin is monotone: a tolerance further it is not positive
        further = margins(x, y, found + 0.3 / 2**BISECTIONS).amin(1)
        assert ((further <= 0) | (found >= 0.3))[5:].all()
