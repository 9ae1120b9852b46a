"""What certified training costs a step: adaptive against fixed radii, and our losses against auto_LiRPA's.

    python -m benchmarks.training_speed [--batch 256] [--epsilon 0.1] [--steps 10] [--epoch 60] [--threads N]

One small CNN (conv16-4x4s2, conv32-4x4s2, FC128, batch normalisation) on MNIST, or on noise where that is absent.
The network is trained for 300 steps first, with epsilon growing. Steps of the two sides take turns on the same batch,
so that whatever else the machine does hits both; figures are medians, and ratios are those of medians, but for the
whole epoch, whose steps are added up. A step is the clean pass, bounds, backward pass and Adam. On a CPU its processor
time is measured, which is that of the step where there is one thread.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from verifier.process import tune

tune()

import torch  # noqa: E402  (torch has to come after the settings)
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from benchmarks.machine import describe  # noqa: E402
from verifier.bounding.auto_lirpa_shims import import_shims, mend_class, quiet, tracing_shims  # noqa: E402
from verifier.errors import InputError  # noqa: E402
from verifier.operators import find_device  # noqa: E402
from verifier.specs.datasets import load_dataset  # noqa: E402
from verifier.training.bounded import BoundedModule, ball, cross_entropy, margin_rows  # noqa: E402
from verifier.training.losses import LossOptions, training_loss  # noqa: E402
from verifier.training.regularisers import initialise  # noqa: E402

SHAPE, CLASSES = (1, 28, 28), 10
#: batches that are trained on first, with epsilon growing, so that radii are those of a network in training
WARM_UP = 300
KAPPA = 0.5

#: ``(x, y)`` of one step
Step = Callable[[Tensor, Tensor], None]


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 4, 2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 4, 2), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(800, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, CLASSES)),
    )


class Trainer:
    """A network with its optimiser and one loss.

    Args:
        network: trained in place.
        options: of the loss; None for auto_LiRPA's.
        bounds: ``ibp`` or ``crown-ibp``.
        epsilon: radius.
    """

    def __init__(self, network: nn.Module, bounds: str, options: LossOptions, epsilon: float):
        self.live = BoundedModule(network.train(), torch.rand(1, *SHAPE, device=next(network.parameters()).device))
        self.loss, self.epsilon = training_loss(bounds, options), epsilon
        self.adam = torch.optim.Adam(network.parameters(), 1e-3, fused=True)
        self.generator = torch.Generator().manual_seed(0)
        self.previous: Tensor | None = None
        self.certified = 0.0

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """One step; the radii."""
        self.adam.zero_grad()
        terms = self.loss(self.live, x, y, self.epsilon, self.epsilon, self.previous, self.generator)
        terms.loss.backward()
        self.adam.step()
        self.certified = float(terms.certified.float().mean())
        return terms.radius


class Peer:
    """The same step with auto_LiRPA's bounds."""

    def __init__(self, network: nn.Module, bounds: str, epsilon: float):
        with import_shims():
            import auto_LiRPA
        mend_class(auto_LiRPA.BoundedModule)
        device = next(network.parameters()).device
        with tracing_shims():
            self.module: Any = auto_LiRPA.BoundedModule(network.train(), torch.zeros(2, *SHAPE, device=device))
        self.module.train()
        self.package, self.epsilon = auto_LiRPA, epsilon
        self.arguments: dict[str, Any] = {"method": "IBP"} if bounds == "ibp" else {"method": "CROWN-IBP", "IBP": True}
        self.rows = margin_rows(CLASSES).to(device)
        self.adam = torch.optim.Adam(network.parameters(), 1e-3, fused=True)

    def margins(self, x: Tensor, y: Tensor) -> Tensor:
        box = ball(x, self.epsilon)
        shape = {"x_L": box.lower.contiguous(), "x_U": box.upper.contiguous()}
        perturbed = self.package.BoundedTensor(x, self.package.PerturbationLpNorm(norm=math.inf, **shape))
        return self.module.compute_bounds(x=(perturbed,), C=self.rows[y], bound_upper=False, **self.arguments)[0]

    def __call__(self, x: Tensor, y: Tensor) -> None:
        self.adam.zero_grad()
        with quiet():
            natural = F.cross_entropy(self.module(x), y)
            robust = cross_entropy(self.margins(x, y)).mean()
        (KAPPA * natural + (1 - KAPPA) * robust).backward()
        self.adam.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=10, help="measured steps of each side")
    parser.add_argument("--epoch", type=int, default=60, help="steps of an epoch at adaptive and at fixed radii")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = find_device(options.device)
    batches, source = load(options.batch, options.data_dir, device)
    network = small_cnn().to(device)
    warm_up(network, batches, options.epsilon)
    table = Table("side", "step in ms", "against", "step in ms", "ratio", title=f"batches of {options.batch}, {source}")
    name = f"{device}" if device.type == "cpu" else torch.cuda.get_device_name(device)
    for row in (*adaptive_against_fixed(network, batches, options), *against_peer(network, batches, options)):
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"{name}; {describe()}; {torch.get_num_threads()} threads", style="dim")


def load(batch: int, data_dir: Path | None, device: torch.device) -> tuple[list[tuple[Tensor, Tensor]], str]:
    """Batches of images and labels, and what they are."""
    try:
        data, source = load_dataset("mnist", data_dir, "train"), "MNIST"
        x, y = torch.from_numpy(data.x).float(), torch.as_tensor(data.y)
    except InputError as error:
        generator = torch.Generator().manual_seed(0)
        x, y = torch.rand(10000, *SHAPE, generator=generator), torch.randint(CLASSES, (10000,), generator=generator)
        source = f"noise ({error})"
    pairs = zip(x.reshape(-1, *SHAPE).split(batch), y.long().split(batch), strict=True)
    return [(a.to(device), b.to(device)) for a, b in pairs if len(a) == batch], source


def warm_up(network: nn.Module, batches: list[tuple[Tensor, Tensor]], epsilon: float) -> None:
    initialise(network, torch.Generator().manual_seed(0))
    trainer = Trainer(network, "ibp", LossOptions(kappa=KAPPA), 0.0)
    for step in range(WARM_UP):
        trainer.epsilon = min(epsilon, 2 * epsilon * step / WARM_UP)
        trainer(*batches[step % len(batches)])


def adaptive_against_fixed(network: nn.Module, batches: list[tuple[Tensor, Tensor]], options: argparse.Namespace):
    """The row of the table: an epoch of IBP at adaptive radii beside one at a fixed radius.

    An epoch at adaptive radii comes first, so that radii are as old as they are in training: the weights have made as
    many steps since then as there are batches.
    """
    few, sides = batches[: options.epoch], []
    for adaptive in (True, False):
        loss = LossOptions(kappa=KAPPA, tightness=0, balance=0, adaptive_radii=adaptive)
        sides.append(Trainer(copy.deepcopy(network), "ibp", loss, options.epsilon))
    adapting = sides[0]
    times: tuple[list[float], list[float]] = ([], [])
    radii = [adapting(x, y) for x, y in few]
    for number, (x, y) in enumerate(few):
        adapting.previous = radii[number]
        for side, taken in zip(sides, times, strict=True):
            taken.append(seconds(side, x, y))
    share = f"{adapting.certified:.0%} at the cap, {WARM_UP + len(few)} steps trained"
    names = f"ibp, adaptive radii ({share})", "ibp, fixed radius"
    yield row(names[0], times[0], names[1], times[1], over=True)
    one, other = (sum(taken) for taken in times)
    whole = f"an epoch of {len(few)} steps"
    yield whole, f"{1e3 * one:.0f}", whole, f"{1e3 * other:.0f}", f"{one / other:.2f} x as long"


def against_peer(network: nn.Module, batches: list[tuple[Tensor, Tensor]], options: argparse.Namespace):
    """Rows of the table: our losses beside auto_LiRPA's, at the same margins."""
    for bounds, fusion in (("ibp", False), ("crown-ibp", False), ("crown-ibp", True)):
        loss = LossOptions(kappa=KAPPA, tightness=0, balance=0, fusion=fusion)
        ours = Trainer(copy.deepcopy(network), bounds, loss, options.epsilon)
        theirs = Peer(copy.deepcopy(network), bounds, options.epsilon)
        times: tuple[list[float], list[float]] = ([], [])
        for step in range(options.steps + 1):
            x, y = batches[step % len(batches)]
            for side, taken in zip((ours, theirs), times, strict=True):
                taken.append(seconds(side, x, y))
        yield row(f"{bounds}{', fused' if fusion else ''}", times[0], f"auto_LiRPA {bounds}", times[1], over=False)


def seconds(step: Callable[[Tensor, Tensor], object], x: Tensor, y: Tensor) -> float:
    """Processor time on a CPU, of all threads together, which other programs disturb least; wall time on a GPU."""
    clock = perf_counter if x.device.type == "cuda" else process_time
    start = clock()
    step(x, y)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return clock() - start


def row(ours: str, our_times: list[float], theirs: str, their_times: list[float], over: bool) -> tuple[str, ...]:
    """Names, medians without the first step, and how many times as long (`over`) or as fast ours is."""
    one, other = median(our_times[1:]), median(their_times[1:])
    ratio = f"{one / other:.2f} x as long" if over else f"{other / one:.2f} x as fast"
    return ours, f"{1e3 * one:.1f}", theirs, f"{1e3 * other:.1f}", ratio


if __name__ == "__main__":
    main()
