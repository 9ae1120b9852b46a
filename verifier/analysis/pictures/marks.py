"""What a picture consists of, whoever draws it: marks with coordinates, each in the colour of its role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

#: colour of each role; a relaxation has that of the method that rests on it (hues of Okabe and Ito 2008, which
#: colour-blind people can tell apart)
COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "ibp": "#8a8f98",  # and boxes
        "crown-ibp": "#b8860b",
        "crown": "#e69f00",  # and DeepPoly's two lines
        "alpha-crown": "#cc79a7",
        "triangle-lp": "#0072b2",  # and triangles
        "refined-lp": "#56b4e9",
        "k-relu": "#009e73",  # and octagons, hulls
        "k-relu-lp": "#004d38",
        "other": "#6a3d9a",
        "network": "#1b1f24",
        "unsafe": "#d55e00",
    }
)
#: what a role is called where roles are switched on and off
ROLES: Mapping[str, str] = MappingProxyType(
    {
        "ibp": "IBP, boxes",
        "crown-ibp": "CROWN-IBP",
        "crown": "CROWN, DeepPoly lines",
        "alpha-crown": "alpha-CROWN",
        "triangle-lp": "triangles, triangle LP",
        "refined-lp": "refined LP",
        "k-relu-lp": "k-ReLU LP",
        "k-relu": "k-ReLU, octagons",
        "other": "other methods",
        "network": "the network itself",
        "unsafe": "unsafe outputs, kinks",
    }
)

#: limits of the horizontal and of the vertical axis
Window = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Mark:
    """Points of one kind.

    Args:
        kind: ``area`` (a closed convex polygon, which may be a segment or a point), ``curve`` (a polyline), ``cloud``
            (single points), or ``bar`` (two opposite corners of a rectangle, the second at the end that counts).
        label: what the legend says; marks of one label count as one thing.
        role: a key of `COLOURS`.
        points: (N, 2).
        dashed: whether lines are broken.
        faint: whether an area is background.
        note: written beside a bar.
        width: of lines, in points; where edges coincide, a wider one behind stays in sight.
    """

    kind: Literal["area", "curve", "cloud", "bar"]
    label: str
    role: str
    points: np.ndarray
    dashed: bool = False
    faint: bool = False
    note: str = ""
    width: float = 1.7


@dataclass(frozen=True, eq=False)
class Picture:
    """Marks in a plane, the first at the back.

    Args:
        key: the kind of picture, as ``--picture`` names it.
        title, caption: a few words, and one or two sentences.
        x_label, y_label: of the axes, with units where there are any.
        window: what is shown.
        rows: names of the rows of bars, at heights 0, -1, -2, ...; empty where the vertical axis has numbers.
    """

    key: str
    title: str
    caption: str
    x_label: str
    y_label: str
    marks: tuple[Mark, ...]
    window: Window
    rows: tuple[str, ...] = ()

    def find(self, label: str) -> list[np.ndarray]:
        """Points of the marks with a label."""
        return [mark.points for mark in self.marks if mark.label == label]


@dataclass(frozen=True, eq=False)
class Film:
    """Pictures of one kind, of which one is shown at a time.

    Args:
        control: what tells them apart.
        names: of the frames.
        frames: at least one.
        start: the frame that is shown first, and alone where nothing moves.
    """

    control: str
    names: tuple[str, ...]
    frames: tuple[Picture, ...]
    start: int = 0

    @property
    def still(self) -> Picture:
        """The frame to show where nothing moves."""
        return self.frames[self.start]
