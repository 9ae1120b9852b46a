"""Speed and tightness of bounds, ours beside auto_LiRPA's: same images, same threads, in one process.

    python -m benchmarks.bounds [--batch 32] [--networks mnist_6x100,...] [--methods ibp,crown,alpha-fixed,alpha-crown]
        [--repeat 3] [--peer-repeat 1] [--peer-seconds 60] [--threads N] [--json FILE]

Every image is bounded against all other classes, in float32. A cell is the median of the repetitions, in which the
two engines take turns. ``alpha-fixed`` optimises the result over CROWN's hidden bounds, ``alpha-crown`` the hidden
bounds as well, both with 20 iterations. Where auto_LiRPA would take more than ``--peer-seconds`` for the batch, it gets
fewer images (their number stands behind its speed), and tightness is compared on these.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe
from verifier.process import tune

if TYPE_CHECKING:
    from benchmarks.bounds_measure import Row

ROOT = Path(__file__).parents[1]
#: network -> data set and radius (L-infinity, clipped to [0, 1]); for ERAN's, those of the published tables
NETWORKS = {
    "digits_mlp": ("digits", 0.03),
    "digits_cnn": ("digits", 0.03),
    "digits_resnet": ("digits", 0.03),
    "digits_smooth": ("digits", 0.03),
    "digits_robust": ("digits", 0.1),
    "mnist_mlp": ("mnist", 0.02),
    "mnist_cnn": ("mnist", 0.02),
    "mnist_resnet": ("mnist", 0.02),
    "mnist_smooth": ("mnist", 0.02),
    "mnist_robust": ("mnist", 0.1),
    "mnist_6x100": ("mnist", 0.026),
    "mnist_9x100": ("mnist", 0.026),
    "mnist_6x200": ("mnist", 0.015),
    "mnist_9x200": ("mnist", 0.015),
    "mnist_convsmall": ("mnist", 0.12),
    "cifar_convsmall": ("cifar10", 2 / 255),
}
METHODS = ("ibp", "crown", "alpha-fixed", "alpha-crown")


def main() -> None:
    options = _arguments()
    tune()  # before torch is imported
    from benchmarks.bounds_measure import measure

    console, rows, skipped = Console(width=132), [], []
    for name in options.networks:
        path = _find(name)
        if path is None:
            skipped.append(f"{name}: no file in models/ or ../shared/eran")
            continue
        with console.status(name):
            found, why = measure(path, *NETWORKS[name], options)
        rows += found
        skipped += [f"{name}: {reason}" for reason in why]
    console.print(table(rows))
    for method in options.methods:
        console.print(summary(method, [row for row in rows if row.method == method]))
    for reason in skipped:
        console.print(f"skipped {reason}")
    machine = describe()
    console.print(f"batch {options.batch}, {options.repeat} repetitions; {machine}")
    if options.json:
        content = {"machine": machine, "rows": [asdict(row) for row in rows], "skipped": skipped}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    def names(allowed: Sequence[str]):
        def split(text: str) -> list[str]:
            chosen = text.split(",")
            if unknown := [name for name in chosen if name not in allowed]:
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(allowed)}")
            return chosen

        return split

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="images at a time")
    parser.add_argument("--networks", type=names(tuple(NETWORKS)), default=list(NETWORKS))
    parser.add_argument("--methods", type=names(METHODS), default=list(METHODS))
    parser.add_argument("--engines", type=names(("ours", "auto_lirpa")), default=["ours", "auto_lirpa"])
    parser.add_argument("--iterations", type=int, default=20, help="steps of the ascents")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peer-repeat", type=int, help="repetitions of auto_LiRPA; default as --repeat")
    parser.add_argument("--peer-seconds", type=float, default=60.0, help="most time for one run of auto_LiRPA")
    parser.add_argument("--threads", type=int, help="threads of torch, for both")
    parser.add_argument("--data-dir", type=Path, help="folder with the MNIST and CIFAR-10 files")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    return parser.parse_args()


def _find(name: str) -> Path | None:
    places = (ROOT / "models", ROOT.parent / "shared" / "eran")
    return next((folder / f"{name}.onnx" for folder in places if (folder / f"{name}.onnx").exists()), None)


def table(rows: Sequence[Row]) -> Table:
    """One line for each network and method."""
    made = Table(title="Lower bounds of margins: images a second, and mean bound")
    made.add_column("network")
    made.add_column("method")
    for title in ("ours /s", "theirs /s", "ratio", "ours mean", "theirs mean", "as tight"):
        made.add_column(title, justify="right")
    for i, row in enumerate(rows):
        made.add_row(
            row.network if not i or rows[i - 1].network != row.network else "",
            row.method,
            _speed(row.ours, None),
            _speed(row.theirs, row.their_batch),
            "-" if row.ratio is None else f"{row.ratio:.1f}x",
            _number(row.our_mean),
            _number(row.their_mean),
            "-" if row.as_tight is None else f"{row.as_tight:.1%}",
        )
    made.caption = (
        "as tight: share of bounds that are at least theirs, up to 1e-4 of their size; means over common images"
    )
    return made


def summary(method: str, rows: Sequence[Row]) -> str:
    """The geometric mean of the ratios of one method, and the least."""
    ratios = {row.network: row.ratio for row in rows if row.ratio is not None}
    if not ratios:
        return f"{method}: nothing to compare"
    mean = exp(sum(log(ratio) for ratio in ratios.values()) / len(ratios))
    least = min(ratios, key=lambda name: ratios[name])
    return f"{method}: {mean:.1f} times as fast in the geometric mean; least {ratios[least]:.1f} ({least})"


def _speed(value: float | None, batch: int | None) -> str:
    if value is None:
        return "-"
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return shown if batch is None else f"{shown} ({batch})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
