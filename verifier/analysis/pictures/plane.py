"""Convex polygons in the plane: (N, 2) arrays of corners, anticlockwise; one corner is a point, two are a segment."""

from __future__ import annotations

import numpy as np

from verifier.analysis.pictures.marks import Window

#: corners nearer than this share of the polygon's extent are one; and turns of less than this share of the area of its
#: square are straight, which is some hundred units of rounding
SAME, STRAIGHT = 1e-9, 1e-13


def rectangle(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The corners (4, 2) of the box between two points (2,)."""
    (x, y), (X, Y) = low, high
    return np.array([[x, y], [X, y], [X, Y], [x, Y]])


def clip(polygon: np.ndarray, normal: np.ndarray, limit: float) -> np.ndarray:
    """The part of a polygon where ``<normal, p> <= limit`` (Sutherland and Hodgman 1974); (0, 2) if there is none."""
    above = polygon @ np.asarray(normal) - limit
    corners = []
    for here, there, a, b in zip(polygon, np.roll(polygon, -1, 0), above, np.roll(above, -1), strict=True):
        if a <= 0:
            corners.append(here)
        if min(a, b) < 0 < max(a, b):
            corners.append(here + (there - here) * (a / (a - b)))
    return np.array(corners).reshape(-1, 2)


def hull(points: np.ndarray) -> np.ndarray:
    """The convex hull of points (N, 2) by Andrew's monotone chain (1979); it takes flat clouds, as Qhull does not."""
    points = np.asarray(points, dtype=np.float64)
    extent = float(np.ptp(points, axis=0).max())
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    lower, upper = _chain(points, extent), _chain(points[::-1], extent)
    corners = np.array([*lower[:-1], *upper[:-1]]).reshape(-1, 2)
    return corners if len(corners) else points[:1]


def _chain(points: np.ndarray, extent: float) -> list[np.ndarray]:
    chain: list[np.ndarray] = []
    for point in points:
        if chain and np.abs(point - chain[-1]).max() <= SAME * extent:
            continue
        while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= STRAIGHT * extent**2:
            chain.pop()
        chain.append(point)
    return chain


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """Twice the area of a triangle, positive where a, b, c turn left."""
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def area(polygon: np.ndarray) -> float:
    """The area of a polygon."""
    if len(polygon) < 3:
        return 0.0
    x, y = polygon.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def inside(points: np.ndarray, polygon: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """Whether points (N, 2) lie in a polygon, or beyond an edge by no more than a share of the polygon's extent."""
    edges = np.roll(polygon, -1, 0) - polygon
    scale = float(np.ptp(polygon, axis=0).max())
    normal = np.stack([edges[:, 1], -edges[:, 0]], 1)
    length = np.linalg.norm(normal, axis=1)
    distance = np.einsum("nej,ej->ne", points[:, None] - polygon[None], normal) / np.where(length > 0, length, 1.0)
    return (distance <= tolerance * scale).all(1)


def directions(count: int) -> np.ndarray:
    """Unit vectors (count, 2), evenly spread and the axes among them."""
    angle = 2 * np.pi * np.arange(count) / count
    exact = np.round(np.stack([np.cos(angle), np.sin(angle)], 1), 15)
    return exact + 0.0  # no negative zeros


def from_support(normals: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The polygon of all p with ``<normal, p> <= limit`` for normals (D, 2), which reach around, and limits (D,).

    Limits are raised by a hair: those of a single point contradict each other when they are rounded.
    """
    limits = limits + SAME * (1 + np.abs(limits).max())
    reach = 4 * float(np.abs(limits).max()) + 1
    polygon = rectangle(np.array([-reach, -reach]), np.array([reach, reach]))
    for normal, limit in zip(normals, limits, strict=True):
        polygon = clip(polygon, normal, float(limit))
    return hull(polygon) if len(polygon) else polygon


def window(points: np.ndarray, margin: float = 0.06) -> Window:
    """Limits of both axes around points (N, 2), with some room."""
    low, high = points.min(0), points.max(0)
    room = margin * np.maximum(high - low, 1e-6 * max(1.0, float(np.abs(points).max())))
    (x, y), (X, Y) = low - room, high + room
    return (float(x), float(X)), (float(y), float(Y))
