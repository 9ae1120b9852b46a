"""Pictures as SVG or PNG, by matplotlib: panels side by side, each with its title, caption, axes and legend."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import ceil
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from verifier.analysis.pictures.marks import COLOURS, Mark, Picture

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: inches: a panel, and its axes within it (left, bottom, width, height)
PANEL, AXES = (5.4, 5.9), (0.85, 1.45, 4.3, 3.36)
#: panels in a row at most, letters in a line of a caption, dots per inch of PNG and of clouds in SVG
COLUMNS, LETTERS, DPI = 3, 88, 160
INK, FAINT = "#1b1f24", "#5b6470"
#: text stays text in SVG, and the same picture is the same file
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "verifier",
    "font.family": "sans-serif",
    "font.size": 9,
}


def draw(pictures: Sequence[Picture], form: Literal["svg", "png"]) -> bytes:
    """All pictures in one file."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if len(pictures) == 4 else min(COLUMNS, len(pictures))
    rows = ceil(len(pictures) / columns)
    width, height = PANEL[0] * columns, PANEL[1] * rows
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(figure)
        for number, picture in enumerate(pictures):
            left, bottom = PANEL[0] * (number % columns), PANEL[1] * (rows - 1 - number // columns)
            _panel(figure, picture, left, bottom)
        stream = BytesIO()
        figure.savefig(stream, format=form, dpi=DPI, metadata={"Date": None} if form == "svg" else None)
    return stream.getvalue()


def _panel(figure: Figure, picture: Picture, left: float, bottom: float) -> None:
    width, height = figure.get_size_inches()

    def at(x: float, y: float) -> tuple[float, float]:
        return (left + x) / width, (bottom + y) / height

    indent = AXES[0] + (0.25 if picture.rows else 0.0)
    size = ((AXES[2] - indent + AXES[0]) / width, AXES[3] / height)
    axes = figure.add_axes((*at(indent, AXES[1]), *size))
    figure.text(*at(0.2, PANEL[1] - 0.25), picture.title, va="top", fontsize=12, fontweight="bold", color=INK)
    figure.text(
        *at(0.2, PANEL[1] - 0.52),
        fill(picture.caption, LETTERS, break_on_hyphens=False),
        va="top",
        fontsize=8.2,
        color=FAINT,
        linespacing=1.35,
    )
    handles = {mark.label: _mark(axes, mark) for mark in picture.marks}
    _axes(axes, picture)
    if not picture.rows:
        legend = figure.legend(
            list(handles.values()),
            list(handles),
            loc="upper left",
            bbox_to_anchor=at(AXES[0] - 0.35, AXES[1] - 0.5),
            ncols=3 if max(map(len, handles)) < 18 else 2,
            markerscale=2.5,
            frameon=False,
            fontsize=8.2,
            handlelength=1.6,
            columnspacing=1.2,
        )
        legend.set_zorder(5)


def _mark(axes: Axes, mark: Mark) -> Artist:
    """Draw a mark; what stands for it in the legend."""
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Patch, Polygon, Rectangle

    colour, points = COLOURS[mark.role], mark.points
    if mark.kind == "curve":
        style = (0, (5, 3)) if mark.dashed else "-"
        return axes.plot(*points.T, color=colour, linewidth=mark.width, linestyle=style)[0]
    if mark.kind == "cloud":
        return axes.scatter(*points.T, s=5, color=to_rgba(colour, 0.45), linewidths=0, rasterized=True, zorder=3)
    if mark.kind == "bar":
        (x, y), (X, Y) = points
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        look = {"va": "center", "ha": "left", "fontsize": 8.2, "color": INK, "bbox": behind, "zorder": 4}
        axes.annotate(mark.note, (max(x, X), (y + Y) / 2), (7, 0), textcoords="offset points", **look)
        strength = 0.3 if mark.role == "network" else 0.85
        return axes.add_patch(Rectangle((x, y), X - x, Y - y, facecolor=to_rgba(colour, strength), edgecolor=colour))
    fill_, edge = _strength(mark)
    look = {"facecolor": to_rgba(colour, fill_), "edgecolor": to_rgba(colour, edge), "linewidth": mark.width}
    axes.add_patch(Polygon(points, closed=True, joinstyle="round", **look))
    return Patch(**look)


def _strength(mark: Mark) -> tuple[float, float]:
    """Opacity of a polygon's inside and of its edge."""
    if mark.faint:
        return 0.11, 0.25
    return (0.28, 0.6) if mark.role == "network" else (0.12, 1.0)


def _axes(axes: Axes, picture: Picture) -> None:
    axes.set_xlim(*picture.window[0])
    axes.set_ylim(*picture.window[1])
    axes.set_xlabel(picture.x_label, color=INK)
    axes.set_ylabel(picture.y_label, color=INK)
    axes.set_axisbelow(True)
    axes.grid(color="#e6e8eb", linewidth=0.7, axis="x" if picture.rows else "both")
    axes.tick_params(colors=FAINT, labelsize=8.2, length=3)
    for side, spine in axes.spines.items():
        spine.set_color("#c3c8ce")
        spine.set_visible(side in ("left", "bottom"))
    if picture.rows:
        axes.set_yticks([-float(row) for row in range(len(picture.rows))], picture.rows)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
