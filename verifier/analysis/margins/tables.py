"""Reports, detectors and logits as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from verifier.analysis.margins.consistency import Tau
from verifier.analysis.margins.detection import Band, Detection
from verifier.analysis.margins.report import ScoreReport

if TYPE_CHECKING:
    from rich.table import Table


def consistency_table(reports: Sequence[ScoreReport], title: str) -> Table:
    """A line for each score: tau and detection."""
    table = make(("score", "tau certified", "tau attacked", "inconsistent", "AUROC", "AUPR", "FPR95"), title)
    for one in reports:
        table.add_row(one.name, *_tau(one.tau), *_detection(one.detection))
    return table


def class_table(one: ScoreReport) -> Table:
    """A line for each predicted class."""
    columns = ("class", "tau certified", "tau attacked", "inconsistent", "AUROC", "AUPR", "FPR95")
    table = make(columns, f"{one.name}, by predicted class")
    for label, found in one.classes.items():
        table.add_row(str(label), *_tau(found), *_detection(one.detection_by_class.get(label)))
    return table


def pair_table(one: ScoreReport, indices: Sequence[int]) -> Table:
    """Proofs that a score is not margin-consistent."""
    columns = ("input", "score", "margin at most", "input ", "score ", "margin at least")
    table = make(columns, f"{one.name}: the larger score, the smaller margin")
    for pair in one.pairs:
        table.add_row(
            str(indices[pair.first]), f"{pair.scores[0]:.4g}", f"{pair.upper:.5f}",
            str(indices[pair.second]), f"{pair.scores[1]:.4g}", f"{pair.lower:.5f}",
        )  # fmt: skip
    return table


def estimate_table(reports: Sequence[ScoreReport], epsilon: float) -> Table:
    """Robust accuracy, measured and estimated."""
    first = next(one.estimate for one in reports if one.estimate is not None)
    title = f"robust accuracy at {epsilon:g}: {first.n} inputs measured, {first.large} by their score, %"
    columns = (
        "score",
        "certified",
        "attacked",
        f"{first.confidence:.0%} interval",
        "prediction-powered",
        "95%-TPR rule",
    )
    table = make(columns, title)
    for one in reports:
        e = one.estimate
        if e is not None:
            table.add_row(
                one.name,
                _percent(e.certified),
                _percent(e.attacked),
                f"{_percent(e.interval.low)} to {_percent(e.interval.high)}",
                "-" if e.predicted is None else f"{_percent(e.predicted.low)} to {_percent(e.predicted.high)}",
                "-" if e.paper is None else _percent(e.paper),
            )
    return table


def logit_table(means: Mapping[str, Mapping[str, float]], title: str, first: str = "network") -> Table:
    """A line for each network (or whatever the first column names), a column for each quantity."""
    names = list(next(iter(means.values())))
    table = make((first, *names), title)
    for network, row in means.items():
        table.add_row(network, *(f"{row[name]:.4g}" for name in names))
    return table


def make(columns: Sequence[str], title: str) -> Table:
    """An empty table; its first column is text."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def _tau(one: Tau) -> tuple[str, str, str]:
    attacked = "-" if one.attacked is None else f"{one.attacked:.3f}"
    return f"{one.low:+.3f} to {one.high:+.3f}", attacked, f"{one.discordant:,}/{one.pairs:,}"


def _detection(one: Detection | None) -> tuple[str, str, str]:
    if one is None:
        return "-", "-", "-"
    return _band(one.auroc), _band(one.aupr), _band(one.fpr95)


def _band(one: Band | None) -> str:
    if one is None:
        return "-"
    return _percent(one.low) if one.high - one.low < 5e-5 else f"{_percent(one.low)} to {_percent(one.high)}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"
