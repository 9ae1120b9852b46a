"""Attacks beside foolbox and pyautoattack: robust accuracy and images per second, in one process and in turns.

    python -m benchmarks.attacks [--networks digits_mlp,mnist_cnn] [--images 200] [--repeat 3] [--threads 1]

Like is compared with like: plain PGD with foolbox's (as many steps of the same size, one random start, cross-entropy),
APGD on the cross-entropy and the ensemble with pyautoattack's (as many steps, one start, as many queries). All attack
the same function (this project's forward pass) on the same inputs. What is timed begins with inputs in each tool's own
form. Our time includes the replay of every success in onnxruntime; the others do none. Inputs that are fooled leave our
batch; foolbox's and pyautoattack's PGD go on with them. With one thread it is processor time, which other programs
disturb least, else wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from verifier.process import tune

tune()

import numpy as np  # noqa: E402  (torch has to come after the settings)
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.machine import describe  # noqa: E402
from verifier.attacks.ensemble import Budget  # noqa: E402
from verifier.attacks.plain_pgd import PlainPgd  # noqa: E402
from verifier.falsify import AttackOptions, attack  # noqa: E402
from verifier.graph import load  # noqa: E402
from verifier.graph.ir import Graph  # noqa: E402
from verifier.operators import evaluate, place  # noqa: E402
from verifier.specs.datasets import Dataset, load_dataset  # noqa: E402
from verifier.specs.robustness import Robustness, robustness  # noqa: E402
from verifier.verdict import Falsified  # noqa: E402

MODELS = Path(__file__).parents[1] / "models"
#: network -> norm and radius
RADII = {
    "digits_mlp": (("inf", 0.06), ("2", 0.35)),
    "digits_cnn": (("inf", 0.06),),
    "digits_robust": (("inf", 0.1),),
    "mnist_mlp": (("inf", 0.05),),
    "mnist_cnn": (("inf", 0.05), ("2", 1.0)),
    "mnist_resnet": (("inf", 0.05), ("2", 1.0)),
    "mnist_robust": (("inf", 0.15),),
}


@dataclass(frozen=True)
class Setting:
    """Inputs of a network under attack.

    Args:
        x: (B, *X) float32, y: (B,) int64.
        steps, queries: gradient steps of each run, queries of Square.
    """

    graph: Graph
    x: np.ndarray
    y: np.ndarray
    norm: str
    epsilon: float
    steps: int
    queries: int
    seed: int = 0

    @cached_property
    def points(self) -> list[np.ndarray]:
        """The inputs in the network's shape."""
        return [x.reshape(self.graph.input_shape) for x in self.x]

    @cached_property
    def specs(self) -> list[Robustness]:
        """What each of them has to withstand."""
        return [robustness(x, int(y), self.epsilon, self.norm) for x, y in zip(self.points, self.y, strict=True)]


class Forward(nn.Module):
    """The forward pass as a torch module, for the other tools: (B, C, H, W) -> (B, classes)."""

    def __init__(self, graph: Graph):
        super().__init__()
        self.graph = place(graph, torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        return evaluate(self.graph, x.reshape(len(x), *self.graph.input_shape)).flatten(1)


def ours(setting: Setting, name: str) -> float:
    """Robust accuracy by `verifier.falsify`."""
    chosen = {"pgd": ("pgd-plain", "ce"), "apgd-ce": ("apgd", "ce")}.get(name, (name, "auto"))
    options = AttackOptions(*chosen, Budget(setting.steps, queries=setting.queries), device="cpu", seed=setting.seed)
    found = attack(setting.graph, setting.specs, options, starts=setting.points)
    return 1 - sum(isinstance(verdict, Falsified) for verdict in found) / len(found)


def by_pyautoattack(setting: Setting, name: str) -> float:
    """Robust accuracy by pyautoattack."""
    from pyautoattack import AutoAttack

    module = Forward(setting.graph)
    norm = {"inf": "Linf", "2": "L2", "1": "L1"}[setting.norm]
    parts: list[Any] = ["apgd-ce"] if name == "apgd-ce" else ["apgd-ce", "apgd-t", "fab-t", "square"]
    chosen: dict[str, Any] = {"attacks": parts, "norm": norm, "version": "custom"}
    tool = AutoAttack(module, eps=setting.epsilon, seed=setting.seed, **chosen)
    tool.verbose = False
    classes = min(9, setting.graph.output_shape[-1] - 1)
    tool.apgd.n_restarts = tool.apgd_targeted.n_restarts = tool.fab.n_restarts = 1
    tool.apgd.n_iter = tool.apgd_targeted.n_iter = tool.fab.n_iter = setting.steps
    tool.apgd_targeted.n_target_classes = tool.fab.n_target_classes = classes
    tool.square.n_queries = setting.queries
    x, y = torch.from_numpy(setting.x), torch.from_numpy(setting.y)
    moved, _ = tool.run_standard_evaluation(x, y, batch_size=len(x))
    return accuracy(module, moved, y)


def by_foolbox(setting: Setting, name: str) -> float:
    """Robust accuracy by PGD of foolbox with as many steps of the same size."""
    import foolbox
    from foolbox.models.pytorch import PyTorchModel

    module = Forward(setting.graph).eval()
    kind = {"inf": foolbox.attacks.LinfPGD, "2": foolbox.attacks.L2PGD, "1": foolbox.attacks.L1PGD}[setting.norm]
    tool = kind(steps=setting.steps, rel_stepsize=PlainPgd(steps=setting.steps).size)
    model = PyTorchModel(module, bounds=(0, 1), device="cpu")
    x, y = torch.from_numpy(setting.x), torch.from_numpy(setting.y)
    torch.manual_seed(setting.seed)
    _, _, success = tool(model, x, y, epsilons=setting.epsilon)
    return 1 - float(success.float().mean())


def accuracy(module: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((module(x).argmax(1) == y).float().mean())


#: attack -> tool -> what runs it
TOOLS: dict[str, dict[str, Callable[[Setting, str], float]]] = {
    "pgd": {"verifier": ours, "foolbox": by_foolbox},
    "apgd-ce": {"verifier": ours, "pyautoattack": by_pyautoattack},
    "ensemble": {"verifier": ours, "pyautoattack": by_pyautoattack},
}


def settings(
    names: list[str], images: int, steps: int, queries: int, folder: Path | None
) -> Iterator[tuple[str, Setting]]:
    """The networks, their inputs and radii."""
    for name in names:
        data = _data(name, folder)
        for norm, epsilon in RADII[name]:
            graph = load(MODELS / f"{name}.onnx")
            yield name, Setting(graph, data.x[:images], data.y[:images], norm, epsilon, steps, queries)


def _data(name: str, folder: Path | None) -> Dataset:
    if name.startswith("digits"):
        return load_dataset("digits")
    return load_dataset("mnist", folder) if folder is not None else load_dataset(MODELS / "mnist_samples.npz")


def measure(setting: Setting, name: str, repeat: int) -> dict[str, tuple[float, float]]:
    """For each tool its robust accuracy in percent and its images per second, medians of runs in turns."""
    runs: dict[str, list[tuple[float, float]]] = {tool: [] for tool in TOOLS[name]}
    assert setting.specs  # made before the clock starts
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(repeat):
        for tool, call in TOOLS[name].items():
            began = clock()
            robust = call(setting, name)
            runs[tool].append((100 * robust, len(setting.x) / (clock() - began)))
    return {tool: (median(r for r, _ in each), median(s for _, s in each)) for tool, each in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="digits_mlp,mnist_robust")
    parser.add_argument("--attacks", default=",".join(TOOLS))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, help="folder of MNIST; else its first 64 images in models/")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = Table("network", "ball", "attack", "tool", "robust %", "images/s", "times ours")
    names = options.networks.split(",")
    for name, setting in settings(names, options.images, options.steps, options.queries, options.data_dir):
        for kind in options.attacks.split(","):
            found = measure(setting, kind, options.repeat)
            for tool, (robust, speed) in found.items():
                ball = f"{setting.norm}, {setting.epsilon:g}"
                ratio = speed / found["verifier"][1]
                table.add_row(name, ball, kind, tool, f"{robust:.2f}", f"{speed:.1f}", f"{ratio:.2f}")
    Console().print(table)
    print(f"{options.steps} steps, {options.queries} queries, {options.threads} threads; {describe()}")


if __name__ == "__main__":
    main()
