"""Verify shipped networks on handwritten digits, and draw a counterexample.

    python examples/demo.py

Every row is one question: can any image within `epsilon` of this one (in each pixel) be classified differently?
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table

import verifier

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "out" / "counterexample.png"
NETWORKS = ("digits_mlp", "digits_cnn", "digits_resnet", "digits_smooth", "digits_robust")
EPSILONS = (0.01, 0.03, 0.1)
IMAGES = range(5)
COLOURS = {"Verified": "green", "Falsified": "red", "Undecided": "yellow"}


def main() -> None:
    console = Console(width=100)
    digits = verifier.load_dataset("digits")
    table = Table(title="Is the class of the image the same everywhere within epsilon?")
    for column in ("network", "image", "label", *(f"eps {epsilon:g}" for epsilon in EPSILONS)):
        table.add_column(column, no_wrap=True)
    shown = None
    with console.status("verifying"):
        for name in NETWORKS:
            graph = verifier.load(ROOT / "models" / f"{name}.onnx")
            for index in IMAGES:
                image, label = digits.x[index], int(digits.y[index])
                cells = []
                for epsilon in EPSILONS:
                    verdict = verifier.verify(graph, verifier.robustness(image, label, epsilon=epsilon), timeout=10)
                    cells.append(cell(verdict))
                    if isinstance(verdict, verifier.Falsified) and verdict.counterexample and name == "digits_cnn":
                        shown = shown or (name, index, label, epsilon, image, verdict.counterexample)
                table.add_row(name, str(index), str(label), *cells)
    console.print(table)
    console.print(
        "Verified: proved for every image in the box. Falsified: an image that breaks it was found and run in "
        "onnxruntime. The number is the certified lower bound of the margin."
    )
    if shown:
        draw(*shown)
        console.print(f"A counterexample is drawn in {PICTURE.relative_to(ROOT)}")


def cell(verdict: verifier.Verdict) -> str:
    name = type(verdict).__name__
    bound = "" if verdict.bound is None else f" {verdict.bound:+.2f}"
    return f"[{COLOURS[name]}]{name}[/]{bound}"


def draw(name: str, index: int, label: int, epsilon: float, image: np.ndarray, found: verifier.Counterexample) -> None:
    """Original, adversarial image and their difference, side by side."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    original, adversarial = np.squeeze(image), np.squeeze(found.input)
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), constrained_layout=True)
    panels = (
        (original, f"image {index}: a {label}", "gray", 0.0, 1.0),
        (adversarial, f"adversarial: read as {int(found.output.argmax())}", "gray", 0.0, 1.0),
        (adversarial - original, f"difference, at most {epsilon:g}", "RdBu_r", -epsilon, epsilon),
    )
    for axis, (pixels, title, colours, low, high) in zip(axes, panels, strict=True):
        drawn = axis.imshow(pixels, cmap=colours, vmin=low, vmax=high)
        axis.set_title(title)
        axis.set_axis_off()
        figure.colorbar(drawn, ax=axis, shrink=0.8)
    figure.suptitle(f"{name}.onnx: a counterexample, replayed in onnxruntime")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
