"""Inputs of a data set reach the network in the order of axes that it takes."""

from __future__ import annotations

import numpy as np
import pytest

from verifier.cli.load import _arranged

IMAGE = np.arange(3 * 4 * 5).reshape(3, 4, 5)


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (3, 4, 5), (1, 60), (60,), (1, 60, 1, 1)])
def test_channels_stay_first(shape: tuple[int, ...]):
    assert _arranged(IMAGE, shape) is IMAGE


@pytest.mark.parametrize("shape", [(1, 4, 5, 3), (4, 5, 3)])
def test_channels_come_last_where_the_network_has_them_last(shape: tuple[int, ...]):
    assert np.array_equal(_arranged(IMAGE, shape)[2, 3], IMAGE[:, 2, 3])


def test_an_image_as_long_as_it_has_channels_stays_as_it_is():
    cube = np.arange(27).reshape(3, 3, 3)
    assert _arranged(cube, (1, 3, 3, 3)) is cube


def test_other_data_stay_as_they_are():
    row = np.arange(4)
    assert _arranged(row, (1, 4)) is row
