"""Brackets as a picture: sorted, and as the robust accuracy that they prove and allow over epsilon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from verifier.analysis.measured import Measured
from verifier.analysis.style import BLUE, GREY, INK, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(made: Sequence[Measured], title: str = "") -> Figure:
    """The picture of at least one bracket, all of one norm."""
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(11, 4.4), layout="constrained", dpi=150)
        left, right = figure.subplots(1, 2)
        norm = made[0].spec["norm"]
        _sorted(left, made, norm)
        _accuracy(right, made, norm)
        figure.suptitle(f"{title}: {len(made)} inputs", x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    return figure


def save(made: Sequence[Measured], path: Path, title: str = "") -> None:
    """Write the picture; the ending of the name says in which format."""
    draw(made, title).savefig(path)


def _ends(made: Sequence[Measured]) -> tuple[np.ndarray, np.ndarray, float]:
    """Both ends, infinite ones put above all others, and that place."""
    low = np.array([one.bracket.lower for one in made])
    high = np.array([one.bracket.upper for one in made])
    finite = np.concatenate([low[np.isfinite(low)], high[np.isfinite(high)]])
    top = 1.1 * float(finite.max(initial=0.0)) or 1.0
    return np.where(np.isinf(low), top, low), np.where(np.isinf(high), top, high), top


def _sorted(axes: Axes, made: Sequence[Measured], norm: str) -> None:
    low, high, _ = _ends(made)
    order = np.lexsort((high, low + high))
    exact = np.array([one.bracket.exact for one in made])[order]
    wrong = np.array([one.bracket.correct is False for one in made])[order]
    low, high, places = low[order], high[order], np.arange(1, len(made) + 1)
    width = max(0.6, min(4.0, 160 / len(made)))
    for which, colour, label in ((exact, BLUE, "exact to the tolerance"), (~exact, ORANGE, "open")):
        if which.any():
            axes.vlines(places[which], low[which], high[which], color=colour, linewidth=width, label=label)
            axes.plot(places[which], high[which], "_", color=colour, markersize=width + 2)
    if wrong.any():
        axes.plot(places[wrong], high[wrong], "x", color=INK, markersize=5, label="misclassified")
    axes.set_xlabel("inputs by their margin")
    axes.set_ylabel(f"margin in the norm {norm}")
    axes.set_ylim(bottom=0)
    axes.set_title("From the certified to the attacked end")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _accuracy(axes: Axes, made: Sequence[Measured], norm: str) -> None:
    low, high, top = _ends(made)
    right = np.array([one.bracket.correct is not False for one in made])
    epsilons = np.unique(np.concatenate([[0.0, top], low, high]))
    proved = [100 * float(np.mean(right & (low > e))) for e in epsilons]
    allowed = [100 * float(np.mean(right & (high > e))) for e in epsilons]
    allowed[-1] = 100 * float(np.mean(right & np.array([math.isinf(one.bracket.upper) for one in made])))
    axes.fill_between(epsilons, proved, allowed, step="post", color=GREY, alpha=0.45, label="not known")
    axes.step(epsilons, allowed, where="post", color=ORANGE, label="attacked")
    axes.step(epsilons, proved, where="post", color=BLUE, label="certified")
    axes.set_xlim(0, top)
    axes.set_ylim(0, 102)
    axes.set_xlabel(f"epsilon in the norm {norm}")
    axes.set_ylabel("robust accuracy, %")
    axes.set_title("Correct and robust, certified and attacked")
    axes.legend(fontsize=8, frameon=False, loc="upper right")
