"""How many of the first MNIST images CROWN verifies on the networks of the published k-ReLU and PRIMA tables.

    python -m benchmarks.eran [--images 1000] [--method crown] [--data-dir DIR]

The published column is what implementations of CROWN verify of the first 1000 images (correctly classified ones).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from verifier.process import tune

tune()

import numpy as np  # noqa: E402  (torch has to come after the settings)
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.machine import describe  # noqa: E402
from verifier.bounding.ladder import METHODS, LadderOptions, Problem, certify  # noqa: E402
from verifier.bounding.rows import stack_rows  # noqa: E402
from verifier.graph import load  # noqa: E402
from verifier.graph.ir import Graph  # noqa: E402
from verifier.operators import evaluate, place  # noqa: E402
from verifier.specs.datasets import load_dataset  # noqa: E402
from verifier.specs.property import Property  # noqa: E402
from verifier.specs.region import stack  # noqa: E402
from verifier.specs.robustness import resolve, robustness  # noqa: E402

#: network -> epsilon, correct of the first 1000, verified by CROWN of the first 1000
PUBLISHED = {
    "mnist_6x100": (0.026, 960, 166),
    "mnist_9x100": (0.026, 947, 186),
    "mnist_6x200": (0.015, 972, 303),
}
#: images at a time; multipliers of cuts take memory for every image
BATCH = {"k-relu": 1}
USUAL_BATCH = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--method", default="crown", choices=sorted(METHODS))
    parser.add_argument("--networks", type=Path, default=Path(__file__).parents[2] / "shared" / "eran")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    if not options.networks.is_dir():
        raise SystemExit(f"{options.networks}: not found; give the folder of the networks with --networks")
    mnist = load_dataset("mnist", options.data_dir)
    table = Table(title=f"{options.method} on the first {options.images} images of MNIST")
    for column in ("network", "epsilon", "correct", "verified", "published correct", "published CROWN", "images/s"):
        table.add_column(column, justify="right")
    for name, (epsilon, correct, verified) in PUBLISHED.items():
        ours = count(options.networks / f"{name}.onnx", mnist, options.images, epsilon, options.method)
        table.add_row(name, str(epsilon), str(ours[0]), str(ours[1]), str(correct), str(verified), f"{ours[2]:.0f}")
    console = Console(width=110)
    console.print(table)
    console.print(f"float32, in float64 again where a bound does not clear the rounding allowance; {describe()}")


def count(network: Path, mnist, images: int, epsilon: float, method: str) -> tuple[int, int, float]:
    """Images classified correctly, images verified among them, and images bounded per second."""
    graph = load(network)
    inputs = torch.as_tensor(mnist.x[:images]).reshape(-1, *graph.input_shape)
    labels = np.asarray(mnist.y[:images])
    right = np.flatnonzero(evaluate(place(graph, torch.float32), inputs).flatten(1).argmax(1).numpy() == labels)
    verified, begun = 0, time.perf_counter()
    size = BATCH.get(method, USUAL_BATCH)
    for start in range(0, len(right), size):
        chosen = right[start : start + size]
        specs = [robustness(mnist.x[i], int(labels[i]), epsilon=epsilon) for i in chosen]
        properties = [resolve(spec, graph).properties[0] for spec in specs]
        problem = pose(graph, properties, torch.float32)
        found = METHODS[method](problem, LadderOptions(), None)
        proved = certify(problem, found, lambda: pose(graph, properties, torch.float64))[2]  # noqa: B023
        verified += int(proved.sum())
    return len(right), verified, len(right) / (time.perf_counter() - begun)


def pose(graph: Graph, properties: list[Property], dtype: torch.dtype) -> Problem:
    region = stack([prop.region for prop in properties]).to(dtype, "cpu")
    return Problem(place(graph, dtype), region, stack_rows(graph, properties, dtype, "cpu"))


if __name__ == "__main__":
    main()
