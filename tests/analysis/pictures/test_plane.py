"""Convex polygons, flat ones too."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from verifier.analysis.pictures.plane import area, clip, directions, from_support, hull, inside, rectangle, window

SQUARE = rectangle(np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
CLOUDS = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=30).map(
    lambda points: np.array(points, dtype=float)
)


@given(CLOUDS)
def test_a_hull_holds_its_points_and_turns_left_only(points: np.ndarray):
    corners = hull(points)
    assert {tuple(c) for c in corners} <= {tuple(p) for p in points}
    if len(corners) > 2:
        assert inside(points, corners).all()
        edges = np.roll(corners, -1, 0) - corners
        after = np.roll(edges, -1, 0)
        assert (edges[:, 0] * after[:, 1] - edges[:, 1] * after[:, 0] > 0).all()
    else:  # all points on a segment
        assert np.linalg.matrix_rank(points - points[0]) <= 1


@given(CLOUDS, CLOUDS.map(lambda p: p[0]), st.integers(-9, 9))
def test_clipping_parts_a_polygon(points: np.ndarray, normal: np.ndarray, limit: int):
    polygon = hull(points)
    one, other = clip(polygon, normal, limit), clip(polygon, -normal, -limit)
    assert np.isclose(area(one) + area(other), area(polygon)) or not normal.any()
    assert (one @ normal <= limit + 1e-9).all()


def test_clips_of_a_square():
    assert area(clip(SQUARE, np.array([1.0, 1.0]), 0.0)) == 2.0
    assert len(clip(SQUARE, np.array([1.0, 0.0]), -2.0)) == 0
    assert np.array_equal(clip(SQUARE, np.array([1.0, 0.0]), 5.0), SQUARE)


@given(CLOUDS)
def test_support_functions_cut_out_a_polygon_around_the_points(points: np.ndarray):
    normals = directions(64)
    found = from_support(normals, (points @ normals.T).max(0))
    assert (found @ normals.T <= (points @ normals.T).max(0) + 1e-6).all()
    if area(hull(points)):
        assert inside(points, found).all()
        assert area(hull(points)) <= area(found) * (1 + 1e-9)


def test_directions_hold_the_axes():
    rows = {tuple(row) for row in directions(64)}
    assert {(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)} <= rows and len(rows) == 64


def test_inside():
    points = np.array([[0.0, 0.0], [1.0, 1.0], [1.1, 0.0], [0.0, -3.0]])
    assert inside(points, SQUARE).tolist() == [True, True, False, False]


def test_windows_have_room_even_around_a_point():
    (x, X), (y, Y) = window(np.zeros((1, 2)))
    assert x < 0 < X and y < 0 < Y
