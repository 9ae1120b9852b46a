"""Changes of logits keep what they say, and students learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from verifier.analysis.brackets import Metric
from verifier.analysis.margins.distil import CHANGES, DistilOptions, distil
from verifier.errors import InputError


def changed(name: str, z: Tensor) -> Tensor:
    return CHANGES[name](z, torch.Generator().manual_seed(0))


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 9))
def test_changes(seed: int, classes: int, count: int):
    z = torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))
    top, label = z.max(1)
    below = [z[i][torch.arange(classes) != label[i]] for i in range(count)]
    for name in CHANGES:
        other = changed(name, z)
        assert torch.equal(other.argmax(1), label) or name in ("template", "class-mean")
        assert (other.gather(1, label[:, None]).squeeze(1) >= other.amax(1) - 1e-6).all()
        if name != "shuffle-gaps":
            assert torch.equal(other.gather(1, label[:, None]).squeeze(1), top)
    averaged, permuted, shuffled = (changed(name, z) for name in ("average", "permute", "shuffle-gaps"))
    for i in range(count):
        mine = torch.arange(classes) != label[i]
        assert torch.allclose(averaged[i][mine], below[i].mean().expand(classes - 1), atol=1e-6)
        assert torch.equal(permuted[i][mine].sort().values, below[i].sort().values)
        assert torch.equal(shuffled[i][mine], below[i])
    before, after = ((v[:, 0] - v[:, 1]).sort().values for v in (z.topk(2, 1).values, shuffled.topk(2, 1).values))
    assert torch.allclose(before, after, atol=1e-5)


def test_a_template_keeps_the_order_alone():
    z = torch.tensor([[9.0, 5.0, 1.0], [2.0, 8.0, 3.0]])
    assert torch.equal(changed("template", z), torch.tensor([[9.0, 4.0, 1.5], [1.5, 8.0, 4.0]]))


def test_a_student_learns_and_is_measured():
    random = np.random.default_rng(0)
    x = random.uniform(size=(400, 4)).astype(np.float32)
    teacher = torch.from_numpy(np.stack([20 * (x[:, 0] - 0.5), 20 * (0.5 - x[:, 0])], 1))
    test, labels = list(x[:30]), (x[:30, 0] < 0.5).astype(int).tolist()
    options = DistilOptions(hidden=(8,), epochs=20, rate=2e-2)
    found = distil("none", teacher, torch.from_numpy(x), test, labels, 0.05, Metric(), options)
    assert found.accuracy > 0.9 and found.accuracy >= found.attacked >= found.certified > 0.5
    with pytest.raises(InputError):
        distil("nonsense", teacher, torch.from_numpy(x), test, labels, 0.05, Metric(), options)
