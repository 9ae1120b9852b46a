"""Pictures of a run: its course, and the certified accuracy at every radius."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from verifier.training.module import Epoch

#: colours that the colour-blind can tell apart (Okabe and Ito 2008)
_BLUE, _GREEN, _RED, _GREY = "#0072B2", "#009E73", "#D55E00", "#777777"


def save_training(history: Sequence[Epoch], path: Path) -> None:
    """Accuracies, radii and loss over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained", dpi=130)
    left, middle, right = figure.subplots(1, 3)
    epochs = [epoch["epoch"] for epoch in history]

    def line(axes: Any, name: str, label: str, colour: str, style: str = "-") -> None:
        axes.plot(epochs, [epoch[name] for epoch in history], style, color=colour, label=label, marker=".")

    line(left, "natural", "natural, held out", _BLUE)
    line(left, "certified", "certified, held out", _GREEN)
    line(left, "train_natural", "natural, training", _BLUE, ":")
    line(left, "train_certified", "certified, training", _GREEN, ":")
    left.set(title="Accuracy", xlabel="epoch", ylim=(0, 1))
    line(middle, "epsilon", "epsilon", _GREY)
    line(middle, "train_radius", "mean radius", _RED)
    middle.set(title="Radius", xlabel="epoch")
    line(right, "loss", "loss", _GREY)
    right.set(title="Loss", xlabel="epoch")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path)


def save_certified(report: dict[str, Any], path: Path) -> None:
    """Share of test images whose proved radius is at least epsilon, over epsilon."""
    from matplotlib.figure import Figure

    radius = report["radius"]
    figure = Figure(figsize=(5, 3.6), layout="constrained", dpi=130)
    axes = figure.subplots()
    axes.plot(
        *certified_curve(radius["radii"], radius["limit"]), color=_GREEN, label=f"certified by {radius['method']}"
    )
    axes.axhline(report["natural"]["accuracy"], color=_BLUE, ls=":", label="natural")
    if "attacked" in report:
        axes.plot(report["epsilon"], report["attacked"]["accuracy"], "v", color=_RED, label="under attack (PGD)")
    for method, found in report["certified"].items():
        axes.plot(report["epsilon"], found["accuracy"], "_", markersize=12, label=f"certified by {method}")
    axes.set(xlabel="epsilon", ylabel="accuracy", xlim=(0, radius["limit"]), ylim=(0, 1))
    axes.set_title(f"Certified accuracy; mean radius {radius['mean']:.4f}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path)


def certified_curve(radii: Sequence[float], limit: float, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Radii (points,) in (0, limit], and the share of images that are certified there."""
    epsilon = np.linspace(limit / points, limit, points)
    return epsilon, (np.asarray(radii)[None] >= epsilon[:, None]).mean(1)
