"""Schedules begin, end and turn where they should."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verifier.training.schedules import decays, one_cycle, smoothed_ramp

steps = st.integers(0, 300)


@given(steps, st.integers(0, 200), st.floats(1e-3, 1.0))
def test_the_ramp_never_falls_and_ends_in_its_value(begin: int, length: int, final: float):
    ramp = smoothed_ramp(final, begin, length)
    values = [ramp(step) for step in range(begin + length + 3)]
    assert all(b >= a - 1e-12 for a, b in zip(values, values[1:], strict=False))
    assert all(value == 0 for value in values[:begin])
    assert values[begin + length] == final
    assert max(values) <= final


def test_the_ramp_is_smooth_where_its_parts_meet():
    ramp = smoothed_ramp(1.0, 0, 1000)
    before, after = ramp(250) - ramp(249), ramp(251) - ramp(250)
    assert after == pytest.approx(before, rel=0.02)
    assert ramp(999) - ramp(998) == pytest.approx(after, rel=1e-6)
    assert ramp(250) == pytest.approx(1 / (4 * 3 + 1))  # a M^4 of a (M^4 + 4 M^3 (n - M)), n = 4 M


def test_one_cycle_is_torchs():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.3,
        total_steps=50,
        anneal_strategy="linear",
        three_phase=True,
        div_factor=25,
        final_div_factor=100,
        cycle_momentum=False,
    )
    ours = one_cycle(0.3, 50)
    for step in range(50):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step < 49:
            theirs.step()


def test_decays():
    rate = decays(1.0, [30, 10], 0.5)
    assert [rate(step) for step in (0, 9, 10, 29, 30, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
