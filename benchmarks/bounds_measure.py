"""The measurements behind `benchmarks.bounds`; imports torch."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

import verifier
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.auto_lirpa import AutoLirpa
from verifier.bounding.dual import Objective
from verifier.bounding.intermediate import by_dual, relax_network
from verifier.bounding.ladder import METHODS, LadderOptions, Problem
from verifier.bounding.rows import Rows
from verifier.errors import InputError
from verifier.operators import place
from verifier.specs.region import Box

SAMPLES = Path(__file__).parents[1] / "models" / "mnist_samples.npz"  # where MNIST itself is absent
SLACK = 1e-4

Run = Callable[[Problem], Tensor]


@dataclass(frozen=True)
class Row:
    """One network and method: images a second and mean bounds of both engines, None where one did not run.

    Args:
        their_batch: images that auto_LiRPA was given at a time, None for the whole batch.
        our_mean, their_mean: over the images that both bounded.
        as_tight: share of rows whose bound is at least theirs, up to `SLACK`.
    """

    network: str
    method: str
    ours: float | None = None
    theirs: float | None = None
    their_batch: int | None = None
    our_mean: float | None = None
    their_mean: float | None = None
    as_tight: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.ours is None or self.theirs is None else self.ours / self.theirs


def measure(path: Path, dataset: str, epsilon: float, options: Namespace) -> tuple[list[Row], list[str]]:
    """All methods on one network, and reasons for what could not be measured."""
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        problem = load_problem(path, dataset, epsilon, options.batch, options.data_dir)
    except InputError as error:
        return [], [str(error)]
    engine, reasons = None, []
    if "auto_lirpa" in options.engines:
        try:
            engine = AutoLirpa(problem.graph, problem.region, options.iterations)
        except InputError as error:
            reasons.append(str(error))
    rows = []
    for method in options.methods:
        try:
            rows.append(_row(path.stem, method, problem, engine, options))
        except (RuntimeError, AssertionError, MemoryError) as error:
            reasons.append(f"{method}: {type(error).__name__}: {error}")
    return rows, reasons


def load_problem(path: Path, dataset: str, epsilon: float, batch: int, data_dir: Path | None) -> Problem:
    """The first images of a data set, each against all other classes, in float32."""
    graph = verifier.load(path)
    try:
        data = verifier.load_dataset(dataset, data_dir)
    except InputError:
        if dataset != "mnist":
            raise
        data = verifier.load_dataset(SAMPLES)
    batch = min(batch, len(data))
    centre = torch.as_tensor(data.x[:batch], dtype=torch.float64).reshape(batch, *graph.input_shape)
    region = Box((centre - epsilon).clamp(0, 1), (centre + epsilon).clamp(0, 1)).to(torch.float32, "cpu")
    classes = torch.Size(graph.output_shape).numel()
    scores = torch.eye(classes)
    rows = [scores[label] - scores[torch.arange(classes) != label] for label in data.y[:batch].tolist()]
    C = torch.stack(rows).reshape(batch, classes - 1, *graph.output_shape)
    owner = torch.arange(classes - 1).expand(batch, classes - 1)
    return Problem(place(graph, torch.float32), region, Rows(Objective(graph.output, C), owner, (classes - 1,) * batch))


def ours(method: str, iterations: int) -> Run:
    """One of our methods, always run to its end."""
    options = LadderOptions()

    def run(problem: Problem) -> Tensor:
        if method in METHODS and method != "alpha-crown":
            with torch.no_grad():
                return METHODS[method](problem, options, None).lower
        intermediate = options.intermediate
        if method == "alpha-fixed":
            relaxation = METHODS["crown"](problem, options, None).relaxation
        else:
            relaxation = relax_network(
                problem.graph, problem.region, by_dual(problem.graph, problem.region, intermediate)
            )
        climb = AscentOptions(iterations=iterations)
        return ascend(problem.graph, problem.region, relaxation, problem.rows.objective, climb)[0]

    return run


def _row(network: str, method: str, problem: Problem, engine: AutoLirpa | None, options: Namespace) -> Row:
    batch = problem.region.batch
    our_run = ours(method, options.iterations) if "ours" in options.engines else None
    their_run: Run | None = None
    fewer, their_batch = problem, batch
    if engine is not None:
        their_run = _theirs(engine, method)
        their_batch = _affordable(their_run, problem, options.peer_seconds)
        fewer = problem.select(torch.arange(their_batch))
    our_times, their_times = [], []
    our_bounds = their_bounds = None
    if our_run is not None:
        our_run(problem.select(torch.arange(1)))  # allocations and kernels' caches
    for turn in range(max(options.repeat, options.peer_repeat or 0)):
        if our_run is not None and turn < options.repeat:
            seconds, our_bounds = _timed(our_run, problem)
            our_times.append(seconds / batch)
        if their_run is not None and turn < (options.peer_repeat or options.repeat):
            seconds, their_bounds = _timed(their_run, fewer)
            their_times.append(seconds / their_batch)
    return Row(
        network,
        method,
        1 / median(our_times) if our_times else None,
        1 / median(their_times) if their_times else None,
        their_batch if their_batch < batch else None,
        *_tightness(our_bounds, their_bounds),
    )


def _theirs(engine: AutoLirpa, method: str) -> Run:
    return lambda problem: engine.lower_bounds(problem.region, problem.rows.objective.C, None, method)


def _affordable(run: Run, problem: Problem, limit: float) -> int:
    """How many images a run may have, judged by the time that it takes for one (the second time)."""
    one = problem.select(torch.arange(1))
    seconds, _ = _timed(run, one)
    if seconds < limit:
        seconds, _ = _timed(run, one)
    return max(1, min(problem.region.batch, int(limit / seconds)))


def _timed(run: Run, problem: Problem) -> tuple[float, Tensor]:
    start = perf_counter()
    bounds = run(problem)
    return perf_counter() - start, bounds.detach().to(torch.float64)


def _tightness(ours: Tensor | None, theirs: Tensor | None) -> tuple[float | None, float | None, float | None]:
    """Means over common images, and the share of rows where ours is as tight."""
    if ours is None or theirs is None:
        return None if ours is None else float(ours.mean()), None if theirs is None else float(theirs.mean()), None
    ours = ours[: len(theirs)]
    tight = ours >= theirs - SLACK * theirs.abs().clamp(min=1)
    return float(ours.mean()), float(theirs.mean()), float(tight.double().mean())
