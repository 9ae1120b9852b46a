"""Groups: overlaps, order, thresholds, and elements of a batch with different numbers of neurons."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from verifier.relaxations.groups import GroupOptions, choose_groups, subsets


@pytest.mark.parametrize("count, size, overlap", [(6, 2, 1), (10, 3, 1), (9, 3, 2), (8, 4, 2), (2, 3, 1)])
def test_no_two_subsets_share_too_much_and_none_is_left(count: int, size: int, overlap: int):
    found = subsets(count, size, overlap)
    for one, other in combinations(found, 2):
        assert len(set(one) & set(other)) <= overlap
    for other in set(combinations(range(count), size)) - set(found):
        assert any(len(set(one) & set(other)) > overlap for one in found)


def test_neurons_of_the_largest_area_go_together():
    lower = torch.tensor([[-1.0, -4.0, -0.1, -3.0, -2.0, 1.0]])
    upper = torch.tensor([[1.0, 1.0, 0.1, 1.0, 1.0, 2.0]])
    unstable = (lower < 0) & (upper > 0)
    options = GroupOptions(size=2, partition=2, overlap=1, least_area=0.05)
    area = torch.where(unstable, -lower * upper, 0.0)
    groups = choose_groups(area, options)
    assert groups is not None and groups.tolist() == [[[1, 3], [4, 0]]]
    assert choose_groups(area * (lower > -2), options) is None


def test_elements_with_fewer_groups_are_filled_up():
    area = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    groups = choose_groups(area, GroupOptions(size=2))
    assert groups is not None
    assert groups.tolist() == [[[0, 1], [0, 2], [1, 2]], [[0, 1], [0, 1], [0, 1]]]
    most = choose_groups(area, GroupOptions(size=2, most=2))
    assert most is not None and most.tolist() == [[[0, 1], [0, 2]], [[0, 1], [0, 1]]]
