"""Comparisons as a picture: bound against time, waterfall, and widths of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from verifier.analysis.comparison import Comparison, Entry
from verifier.analysis.style import INK, PALE, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: colours that the colour-blind can tell apart (Okabe and Ito 2008), then two more
_COLOURS = ("#999999", "#56B4E9", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#7A5195", "#5B4636")
_MARKERS = "oDsv^P*Xh"
_ATTACK = "#B00020"
_GAP = "attack's margin - certified margin"
#: of a method that takes no measurable time
_LEAST_SECONDS = 1e-4
#: lower quartile of width ratios below which a log scale shows more, and where that scale ends at the latest
_SMALL_RATIO, _LEAST_RATIO = 0.05, 1e-5


def draw(comparisons: Sequence[Comparison], title: str = "") -> Figure:
    """The picture of one query, or of several.

    Bounds are shown by what separates them from the attack's, on a log scale: tight ones are near each other beside
    intervals, and their differences are what matters.

    Args:
        comparisons: at least one, all of the same methods.
    """
    from matplotlib.figure import Figure

    with styled():
        layers = max((len(e.layers) for c in comparisons for e in c.entries), default=0)
        figure = Figure(figsize=(11, 8 if layers else 4.2), layout="constrained", dpi=150)
        grid = figure.add_gridspec(2 if layers else 1, 2, width_ratios=(1, 1.15))
        _against_time(figure.add_subplot(grid[0, 0]), comparisons)
        _waterfall(figure.add_subplot(grid[0, 1]), comparisons)
        if layers:
            _widths(figure.add_subplot(grid[1, :]), comparisons)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    return figure


def save(comparisons: Sequence[Comparison], path: Path, title: str = "") -> None:
    """Write the picture; the ending of the name says in which format."""
    draw(comparisons, title).savefig(path)


def _style(comparisons: Sequence[Comparison]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every method."""
    names = [entry.method for entry in comparisons[0].entries]
    return {name: (_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]) for i, name in enumerate(names)}


def _against_time(axes: Axes, comparisons: Sequence[Comparison]) -> None:
    """A small marker for each query, filled where it is proved, and a large one for the medians of a method."""
    several = len(comparisons) > 1
    least = _least_gap([_gap(c, e) for c in comparisons for e in c.entries])
    for method, (colour, marker) in _style(comparisons).items():
        pairs = [(c.entry(method), gap) for c in comparisons if (gap := _gap(c, c.entry(method))) is not None]
        if not pairs:
            continue
        times = [max(entry.seconds, _LEAST_SECONDS) for entry, _ in pairs]
        gaps = [max(gap, least) for _, gap in pairs]
        faces = [colour if entry.verified else "white" for entry, _ in pairs]
        if several:
            axes.scatter(times, gaps, s=18, c=faces, edgecolors=colour, marker=marker, linewidths=0.9, alpha=0.55)
        face = colour if several else faces[0]
        middle = ([median(times)], [median(gaps)])
        axes.scatter(*middle, s=80, c=face, marker=marker, edgecolors=colour, linewidths=1.6, label=method, zorder=3)
    axes.set_xscale("log")
    _gap_axis(axes.yaxis, "y", axes)
    axes.set_xlabel("seconds")
    axes.set_ylabel(f"{_GAP} (log scale)")
    axes.set_title("Bound against time; filled: proved" + (", large: medians" if several else ""))
    axes.legend(fontsize=8, frameon=True, framealpha=0.9, edgecolor=PALE, loc="best")


def _gap(comparison: Comparison, entry: Entry) -> float | None:
    """How far a bound lies below the attack's, which is what is left to gain."""
    return None if comparison.upper is None or entry.bound is None else comparison.upper - entry.bound


def _least_gap(gaps: Sequence[float | None]) -> float:
    """What stands on a log scale for a gap that is closed."""
    return min((gap for gap in gaps if gap is not None and gap > 0), default=1.0) / 2


def _gap_axis(axis: Any, which: str, axes: Axes) -> None:
    """Gaps on a log scale, small ones (tight bounds) at the far end, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(**{f"{which}scale": "log"})
    low, high = sorted(getattr(axes, f"get_{which}lim")())
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 1000 * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(plain)
    axis.set_minor_formatter(NullFormatter())
    getattr(axes, f"set_{which}lim")(high, low)


def _waterfall(axes: Axes, comparisons: Sequence[Comparison]) -> None:
    """What each method adds to the next looser one, from the loosest to the tightest."""
    steps, upper, count = _mean_bounds(comparisons)
    axes.set_title("Waterfall" + (f": mean bounds of {count} queries" if len(comparisons) > 1 else ""))
    if not steps or upper is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no query was bounded by every method", ha="center", transform=axes.transAxes)
        return
    least = _least_gap([upper - bound for _, bound in steps])
    gaps = [max(upper - bound, least) for _, bound in steps]
    start, style = 1.25 * gaps[0], _style(comparisons)
    for place, ((method, bound), gap) in enumerate(zip(steps, gaps, strict=True)):
        before = gaps[place - 1] if place else start
        axes.barh(place, gap - before, 0.62, before, color=style[method][0])
        axes.plot((gap, gap), (place - 0.31, place + 1.31), color=INK, linewidth=0.8)
        gain = f"+{bound - steps[place - 1][1]:.3g}" if place else ""
        for x, text in ((1.13, f"{bound:+.4g}"), (1.3, gain)):
            axes.text(x, place, text, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=8.5)
    end = 0.8 * gaps[-1]
    axes.barh(
        len(steps), end - gaps[-1], 0.62, gaps[-1], facecolor="white", edgecolor=_ATTACK, hatch="////", linewidth=0
    )
    left = f"+{upper - steps[-1][1]:.3g}"
    for x, y, text, colour in (
        (1.13, len(steps), f"{upper:+.4g}", _ATTACK),
        (1.3, len(steps), left, _ATTACK),
        (1.13, -0.75, "bound", "#666666"),
        (1.3, -0.75, "gain", "#666666"),
    ):
        axes.text(x, y, text, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=8.5, color=colour)
    axes.set_yticks(range(len(steps) + 1), [*(method for method, _ in steps), "up to the attack"])
    axes.set_ylim(len(steps) + 0.6, -0.6)
    axes.set_xlim(end, start)
    _gap_axis(axes.xaxis, "x", axes)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{_GAP} (log scale)")


def _mean_bounds(comparisons: Sequence[Comparison]) -> tuple[list[tuple[str, float]], float | None, int]:
    """Methods with their mean bounds in increasing order, the attack's mean, and the number of queries they are over.

    Methods that have bounded no query are left out.
    """
    methods = [
        e.method for e in comparisons[0].entries if any(c.entry(e.method).bound is not None for c in comparisons)
    ]
    whole = [c for c in comparisons if all(c.entry(method).bound is not None for method in methods)]
    if not whole or not methods:
        return [], None, 0
    bounds = {method: [c.entry(method).bound for c in whole] for method in methods}
    means = [(method, fmean(value for value in values if value is not None)) for method, values in bounds.items()]
    uppers = [c.upper for c in whole if c.upper is not None]
    return sorted(means, key=lambda step: step[1]), fmean(uppers) if uppers else None, len(whole)


def _widths(axes: Axes, comparisons: Sequence[Comparison]) -> None:
    """Box plots of every layer's width ratios; over several queries the quartiles are means of theirs."""
    style = _style(comparisons)
    drawn = {method: boxes for method in style if (boxes := _boxes([c.entry(method) for c in comparisons]))}
    labels = list(dict.fromkeys(label for boxes in drawn.values() for label in boxes))
    width = 0.8 / max(1, len(drawn))
    for number, (method, boxes) in enumerate(drawn.items()):
        colour = style[method][0]
        places = [labels.index(label) + (number - (len(drawn) - 1) / 2) * width for label in boxes]
        artists = axes.bxp(
            list(boxes.values()),
            positions=places,
            widths=0.82 * width,
            showfliers=False,
            showmeans=True,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": colour, "edgecolor": colour, "alpha": 0.55},
            medianprops={"color": INK, "linewidth": 1.4},
            meanprops={"marker": "D", "markersize": 3.5, "markerfacecolor": "white", "markeredgecolor": INK},
            whiskerprops={"color": colour},
            capprops={"color": colour},
        )
        artists["boxes"][0].set_label(method)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    _ratio_axis(axes, [box["q1"] for boxes in drawn.values() for box in boxes.values()])
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("width / width by IBP")
    axes.set_title("Width of each activation's input: quartiles and range, mean as a diamond")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _ratio_axis(axes: Axes, values: Sequence[float]) -> None:
    """From 0 to 1; on a log scale where deep layers have ratios that could not be told from 0."""
    from matplotlib.ticker import FuncFormatter

    least = min((value for value in values if value > 0), default=1.0)
    if least < _SMALL_RATIO:
        axes.set_yscale("log")
        axes.set_ylim(max(least / 2, _LEAST_RATIO), 1.25)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.set_ylim(0, 1.04)


def _boxes(entries: Sequence[Entry]) -> dict[str, dict[str, float]]:
    """Statistics of every layer by its label, as matplotlib takes them."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for entry in entries:
        for layer in entry.layers:
            if layer.quartiles is not None and layer.width is not None:
                found.setdefault(layer.label, []).append((*layer.quartiles, layer.width))
    names = ("whislo", "q1", "med", "q3", "whishi", "mean")
    return {
        label: dict(zip(names, (fmean(column) for column in zip(*rows, strict=True)), strict=True))
        for label, rows in found.items()
    }
