"""The front of natural accuracy against certified radius on MNIST: adaptive radii beside fixed ones.

    python -m benchmarks.training --out DIR [--seeds 3] [--kappas 0,0.25,0.5,0.75] [--epochs 8] [--threads 1]

Both ways of training share everything else (`mnist-ibp-0.1.yaml`), run in turns, and are evaluated on the test split
through their exported files. Every finished run is a line of ``DIR/rows.jsonl``; a command that was stopped goes on
where it stopped, in the middle of a run if need be.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from time import process_time

from verifier.process import tune, use_threads

CONFIG = Path(__file__).parent / "mnist-ibp-0.1.yaml"
#: of test images, for a mean that is good to the third digit in a minute
RADIUS_IMAGES = 5000
COLUMNS = ("radii", "kappa", "seeds", "natural %", "certified at epsilon %", "mean radius", "ACR %", "CPU s")


@dataclass(frozen=True)
class Row:
    """One run.

    Args:
        adaptive, kappa, seed, epochs: what was trained.
        natural, certified: accuracies on the whole test split, the second by IBP at `epsilon`.
        radius: mean certified radius, by IBP, of the first test images.
        limit: where radii are capped.
        seconds: of processor time for the training, or for what was left of it where it was resumed.
    """

    adaptive: bool
    kappa: float
    seed: int
    epochs: int
    natural: float
    certified: float
    epsilon: float
    radius: float
    limit: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kappas", default="0,0.25,0.5,0.75")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--plot", type=Path, help="default: front.png in --out")
    options = parser.parse_args()
    use_threads(options.threads)
    tune()
    options.out.mkdir(parents=True, exist_ok=True)
    kappas = [float(kappa) for kappa in options.kappas.split(",")]
    for seed, kappa, adaptive in product(range(options.seeds), kappas, (False, True)):
        wanted = (adaptive, kappa, seed, options.epochs)
        if wanted not in {(row.adaptive, row.kappa, row.seed, row.epochs) for row in read(options.out)}:
            made = measure(options.out, *wanted, options.data_dir)
            with (options.out / "rows.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(made)) + "\n")
            print(asdict(made), flush=True)
    rows = [row for row in read(options.out) if row.epochs == options.epochs]
    show(rows)
    draw(rows, options.plot or options.out / "front.png")


def read(out: Path) -> list[Row]:
    """The runs that are done."""
    path = out / "rows.jsonl"
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()] if path.is_file() else []


def measure(out: Path, adaptive: bool, kappa: float, seed: int, epochs: int, data_dir: Path | None) -> Row:
    """Train (or go on), export and evaluate one network."""
    from verifier.graph import load
    from verifier.training.checkpoints import LAST
    from verifier.training.config import read_config
    from verifier.training.evaluate import evaluate_network
    from verifier.training.loop import train
    from verifier.training.results import MODEL, load_test_data, save_results

    config = read_config(
        CONFIG,
        {
            "loss_options": {"adaptive_radii": adaptive, "kappa": kappa},
            "seed": seed,
            "epochs": epochs,
            "ramp": [0, epochs / 2],
            "rate": {"kind": "decays", "milestones": [0.75 * epochs, 0.875 * epochs], "factor": 0.2},
            "evaluation": {"radius_images": RADIUS_IMAGES, "attack_restarts": 0},
        },
    )
    folder = out / f"{'adaptive' if adaptive else 'fixed'}-{kappa:g}-{seed}-{epochs}"
    begun = process_time()
    done = train(config, folder, data_dir=data_dir, resume=(folder / LAST).is_file())
    seconds = process_time() - begun
    save_results(done, config, folder)
    data = load_test_data(config, data_dir)
    found = evaluate_network(load(folder / MODEL), data, config.epsilon, config.evaluation, "auto", seed)
    certified, radius = found["certified"]["ibp"]["accuracy"], found["radius"]
    natural = found["natural"]["accuracy"]
    row = (adaptive, kappa, seed, epochs, natural, certified, config.epsilon, radius["mean"], radius["limit"], seconds)
    return Row(*row)


def groups(rows: Sequence[Row]) -> Iterator[tuple[bool, float, list[Row]]]:
    """The runs that differ in their seed only."""
    for adaptive, kappa in sorted({(row.adaptive, row.kappa) for row in rows}):
        yield adaptive, kappa, [row for row in rows if (row.adaptive, row.kappa) == (adaptive, kappa)]


def spread(values: Sequence[float], scale: float, digits: int) -> str:
    """Mean and standard deviation."""
    deviation = stdev(values) if len(values) > 1 else float("nan")
    return f"{scale * fmean(values):.{digits}f} ± {scale * deviation:.{digits}f}"


def show(rows: Sequence[Row]) -> None:
    """The table, with the machine under it."""
    from rich.console import Console
    from rich.table import Table

    from benchmarks.machine import describe

    table = Table(*COLUMNS, title="MNIST, small CNN: mean ± standard deviation over seeds")
    for adaptive, kappa, same in groups(rows):
        table.add_row(
            "adaptive" if adaptive else "fixed",
            f"{kappa:g}",
            str(len(same)),
            spread([row.natural for row in same], 100, 2),
            spread([row.certified for row in same], 100, 2),
            spread([row.radius for row in same], 1, 4),
            spread([row.radius / row.limit for row in same], 100, 1),
            f"{fmean(row.seconds for row in same):.0f}",
        )
    console = Console(width=120)
    console.print(table)
    console.print(describe())


def draw(rows: Sequence[Row], path: Path) -> None:
    """Natural accuracy over mean radius: up and to the right is better."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4), layout="constrained", dpi=130)
    axes = figure.subplots()
    for adaptive, colour, label in ((False, "#0072B2", "fixed radius"), (True, "#D55E00", "adaptive radii")):
        chosen = [row for row in rows if row.adaptive == adaptive]
        if not chosen:
            continue
        means = [(fmean(r.radius for r in same), fmean(r.natural for r in same)) for _, _, same in groups(chosen)]
        axes.plot([r.radius for r in chosen], [r.natural for r in chosen], ".", color=colour, alpha=0.4)
        axes.plot(*zip(*means, strict=True), "o-", color=colour, label=label)
        for (x, y), (_, kappa, _) in zip(means, groups(chosen), strict=True):
            axes.annotate(f"{kappa:g}", (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set(xlabel="mean certified radius (IBP, test split)", ylabel="natural accuracy")
    axes.set_title("MNIST, small CNN; numbers are kappa", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
