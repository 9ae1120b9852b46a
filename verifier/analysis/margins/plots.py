"""Pictures of margin consistency, of detectors and of logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from verifier.analysis.margins.detection import extremes
from verifier.analysis.margins.logits import LogitStatistics
from verifier.analysis.margins.report import ScoreReport
from verifier.analysis.margins.samples import Samples
from verifier.analysis.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SERIES = (BLUE, ORANGE, GREEN, PINK, GREY)
_BINS = 40


def report_figure(reports: Sequence[ScoreReport], samples: Samples, epsilon: float | None, title: str) -> Figure:
    """The first score against the brackets; ROC, risk and tau of all scores."""
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(11, 8), layout="constrained", dpi=150)
        axes = figure.subplots(2, 2)
        _scatter(axes[0, 0], reports[0], samples, epsilon)
        _taus(axes[0, 1], reports)
        if epsilon is None:
            for one in axes[1]:
                one.set_axis_off()
        else:
            _roc(axes[1, 0], reports, samples, epsilon)
            _risk(axes[1, 1], reports, samples, epsilon)
        _title(figure, title)
    return figure


def calibration_figure(
    name: str, scores: np.ndarray, samples: Samples, epsilon: float, mark: Any, title: str
) -> Figure:
    """Brackets against the score with lambda, and the risk of what passes.

    Args:
        mark: the `Threshold`.
    """
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(11, 4.4), layout="constrained", dpi=150)
        left, right = figure.subplots(1, 2)
        _brackets(left, name, scores, samples, epsilon)
        if np.isfinite(mark.value):
            left.axvline(mark.value, color=INK, linewidth=1.2, linestyle="--")
            left.annotate("flagged | passed", (mark.value, 0.97), xycoords=("data", "axes fraction"), ha="center",
                          fontsize=8, backgroundcolor="white")  # fmt: skip
        joint = mark.rule == "conformal"
        _risk_of(right, name, scores, samples, epsilon, BLUE, joint)
        right.axhline(100 * mark.alpha, color=INK, linewidth=1.2, linestyle="--", label=f"level {mark.alpha:g}")
        passed = scores > mark.value
        place = ([100 * float(passed.mean())], [_share(passed, samples, epsilon, joint)])
        right.plot(*place, "o", color=INK, label="the detector")
        _risk_axes(right, joint)
        _title(figure, title)
    return figure


def pair_figure(pairs: Sequence[tuple[np.ndarray, str, np.ndarray, str]], title: str) -> Figure:
    """Pairs of images that prove a score inconsistent, side by side, with what is known of them.

    Args:
        pairs: image (C, H, W) or (H, W) and text of the first and of the second input.
    """
    from matplotlib.figure import Figure

    with styled():
        count = len(pairs)
        figure = Figure(figsize=(max(4.5, 2.1 * count), 5.2), layout="constrained", dpi=150)
        axes = figure.subplots(2, count, squeeze=False)
        for column, (first, said, second, also) in enumerate(pairs):
            for row, (image, text) in enumerate(((first, said), (second, also))):
                axes[row, column].imshow(_image(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axes[row, column].set_title(text, fontsize=8, fontweight="normal")
                axes[row, column].set_xticks([])
                axes[row, column].set_yticks([])
                axes[row, column].grid(visible=False)
        _title(figure, title)
    return figure


def logit_figure(found: Sequence[LogitStatistics], title: str) -> Figure:
    """Histograms of the largest logit, the gap, the logit-margin loss, and confidence against the first network's."""
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(11, 7), layout="constrained", dpi=150)
        axes = figure.subplots(2, 2)
        for place, (name, words) in enumerate(
            (("max logit", "largest logit"), ("gap", "gap to the second"), ("LM loss", "logit-margin loss"))
        ):
            _histogram(axes.flat[place], found, name, words)
        axes.flat[2].axvline(0, color=INK, linewidth=0.8)
        _confidence(axes.flat[3], found)
        _title(figure, title)
    return figure


def _title(figure: Figure, title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)


def _scatter(axes: Axes, one: ScoreReport, samples: Samples, epsilon: float | None) -> None:
    _brackets(axes, one.name, one.scores, samples, epsilon)
    low, high = one.tau.low, one.tau.high
    axes.set_title(f"Brackets against the {one.name}: tau in [{low:.2f}, {high:.2f}]")


def _brackets(axes: Axes, name: str, scores: np.ndarray, samples: Samples, epsilon: float | None) -> None:
    """Every bracket as a bar over its score."""
    ends = samples.upper[np.isfinite(samples.upper)]
    top = 1.1 * float(max(ends.max(initial=0.0), samples.lower[np.isfinite(samples.lower)].max(initial=0.0))) or 1.0
    low, high = np.minimum(samples.lower, top), np.minimum(samples.upper, top)
    for which, colour, label in ((samples.correct, BLUE, "correct"), (~samples.correct, ORANGE, "misclassified")):
        if which.any():
            axes.vlines(scores[which], low[which], high[which], color=colour, linewidth=1.2, alpha=0.8, label=label)
            axes.plot(scores[which], (low + high)[which] / 2, "o", color=colour, markersize=2.2)
    if epsilon is not None:
        axes.axhline(epsilon, color=INK, linewidth=0.9, linestyle=":", label=f"epsilon {epsilon:.4g}")
    axes.set_xlabel(name)
    axes.set_ylabel("margin, certified to attacked")
    axes.set_ylim(0, top)
    axes.set_title(f"Brackets against the {name}")
    axes.legend(fontsize=8, frameon=True, framealpha=0.85, edgecolor="none", loc="lower right")


def _taus(axes: Axes, reports: Sequence[ScoreReport]) -> None:
    """Certified intervals of tau, of all inputs and by class."""
    labels = ["all", *(str(label) for label in sorted({label for one in reports for label in one.classes}))]
    width = 0.7 / len(reports)
    for number, one in enumerate(reports):
        rows = [one.tau, *(one.classes.get(int(label)) for label in labels[1:])]
        offset = (number - (len(reports) - 1) / 2) * width
        kept = [(place + offset, row) for place, row in enumerate(rows) if row is not None]
        colour = _SERIES[number % len(_SERIES)]
        axes.vlines([x for x, _ in kept], [r.low for _, r in kept], [r.high for _, r in kept], color=colour,
                    linewidth=min(6, 36 * width), label=one.name)  # fmt: skip
        dots = [(x, r.attacked) for x, r in kept if r.attacked is not None]
        axes.plot([x for x, _ in dots], [y for _, y in dots], "o", color="white", markeredgecolor=INK, markersize=3.2)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylim(-1.02, 1.02)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("Kendall's tau")
    axes.set_title("Tau: certified interval, and of the attacked ends (dots)")
    axes.legend(fontsize=8, frameon=True, framealpha=0.85, edgecolor="none", loc="lower left")


def _roc(axes: Axes, reports: Sequence[ScoreReport], samples: Samples, epsilon: float) -> None:
    """ROC of brittle inputs: the band between the best and the worst labels of the unknown ones."""
    grid = np.linspace(0, 1, 401)
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=0.8, linestyle=":")
    for number, one in enumerate(reports):
        found = extremes(one.scores, samples, epsilon)
        if found is None:
            continue
        colour = _SERIES[number % len(_SERIES)]
        best, worst = (np.interp(grid, *curve) for curve in found)
        axes.fill_between(grid, np.minimum(best, worst), np.maximum(best, worst), color=colour, alpha=0.25, linewidth=0)
        axes.plot(grid, best, color=colour, linewidth=1.1, label=one.name)
        axes.plot(grid, worst, color=colour, linewidth=1.1)
    axes.set_xlabel("robust inputs flagged")
    axes.set_ylabel("brittle inputs flagged")
    axes.set_title(f"ROC at epsilon {epsilon:.4g}; shaded: left open by unknown margins")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False, loc="lower right")
    else:
        axes.text(0.5, 0.55, "brittle or robust inputs are missing", ha="center", transform=axes.transAxes)


def _risk(axes: Axes, reports: Sequence[ScoreReport], samples: Samples, epsilon: float) -> None:
    for number, one in enumerate(reports):
        _risk_of(axes, one.name, one.scores, samples, epsilon, _SERIES[number % len(_SERIES)])
    _risk_axes(axes)


def _risk_of(
    axes: Axes, name: str, scores: np.ndarray, samples: Samples, epsilon: float, colour: str, of_all: bool = False
) -> None:
    """Of the inputs with the largest scores those that are brittle, and those that are not verified, as a share of what
    passes or of all inputs."""
    order = np.argsort(-scores, kind="stable")
    count = np.arange(1, len(order) + 1)
    base = len(order) if of_all else count
    known = 100 * np.cumsum(samples.brittle(epsilon)[order]) / base
    risky = 100 * np.cumsum(~samples.robust(epsilon)[order]) / base
    passed = 100 * count / len(order)
    axes.fill_between(passed, known, risky, color=colour, alpha=0.25, linewidth=0)
    axes.plot(passed, risky, color=colour, linewidth=1.2, label=name)
    axes.plot(passed, known, color=colour, linewidth=0.8)


def _risk_axes(axes: Axes, of_all: bool = False) -> None:
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("inputs that pass, %")
    axes.set_ylabel("pass and below epsilon, % of all inputs" if of_all else "of them below epsilon, %")
    axes.set_title("Risk: from attacked to not verified")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _share(passed: np.ndarray, samples: Samples, epsilon: float, of_all: bool) -> float:
    risky = ~samples.robust(epsilon) & passed
    return 100 * float(risky.sum()) / max(1, len(passed) if of_all else int(passed.sum()))


def _histogram(axes: Axes, found: Sequence[LogitStatistics], name: str, words: str) -> None:
    values = [one.quantity(name) for one in found]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    bins = np.linspace(low, high if high > low else low + 1, _BINS + 1).tolist()
    for number, (one, mine) in enumerate(zip(found, values, strict=True)):
        colour = _SERIES[number % len(_SERIES)]
        axes.hist(mine, bins=bins, color=colour, alpha=0.35, weights=np.full(len(mine), 100 / len(mine)))
        axes.hist(mine, bins=bins, color=colour, histtype="step", linewidth=1.3, label=one.name,
                  weights=np.full(len(mine), 100 / len(mine)))  # fmt: skip
    axes.set_xlabel(words)
    axes.set_ylabel("inputs, %")
    axes.set_title(words[0].upper() + words[1:])
    axes.legend(fontsize=8, frameon=False)


def _confidence(axes: Axes, found: Sequence[LogitStatistics]) -> None:
    """Differences of confidence to the first network, input by input; of one network alone its confidence."""
    first = found[0]
    if len(found) == 1:
        _histogram(axes, found, "confidence", "confidence")
        return
    for number, one in enumerate(found[1:], 1):
        colour = _SERIES[number % len(_SERIES)]
        difference = one.confidence - first.confidence
        axes.hist(difference, bins=np.linspace(-1, 1, _BINS + 1).tolist(), color=colour, histtype="step", linewidth=1.3,
                  weights=np.full(len(difference), 100 / len(difference)), label=one.name)  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlabel(f"confidence less that of {first.name}")
    axes.set_ylabel("inputs, %")
    axes.set_title(f"Confidence against {first.name}")
    axes.legend(fontsize=8, frameon=False)


def _image(x: np.ndarray) -> np.ndarray:
    """An input as matplotlib draws it: (H, W) or (H, W, 3)."""
    image = np.squeeze(x)
    if image.ndim == 1:
        side = int(np.sqrt(image.size))
        image = image.reshape(side, side) if side * side == image.size else image.reshape(1, -1)
    return np.moveaxis(image, 0, -1) if image.ndim == 3 and image.shape[0] == 3 else image
