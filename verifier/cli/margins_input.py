"""What the commands of `margins` read: brackets and the inputs that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier.cli.checks import parse_names
from verifier.cli.radius_command import measure
from verifier.cli.request import Inputs, chosen
from verifier.cli.screens import Status
from verifier.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from verifier.analysis.brackets import Metric
    from verifier.analysis.margins.logits import LogitStatistics
    from verifier.analysis.margins.samples import Samples
    from verifier.analysis.margins.scores import ScoreOptions
    from verifier.analysis.measured import Measured
    from verifier.cli.load import Point
    from verifier.graph.ir import Graph


@dataclass(frozen=True, eq=False)
class Further:
    """Inputs without brackets."""

    graph: Graph
    points: list[Point]

    def correct(self, made: ScoreOptions) -> np.ndarray:
        """(N,) whether each is classified correctly, by torch in float32."""
        import numpy as np
        import torch

        from verifier.analysis.margins.scores import Scored

        scored = Scored.of(self.graph, made)
        found = []
        with torch.no_grad():
            for start in range(0, len(self.points), made.batch):
                part = self.points[start : start + made.batch]
                classes = scored.outputs(scored.tensor([point.x for point in part])).argmax(1).tolist()
                found += [one == point.label for one, point in zip(classes, part, strict=True)]
        return np.array(found)


@dataclass(frozen=True, eq=False)
class Gathered:
    """A network, brackets, and their inputs.

    Args:
        name: of the network's file.
        graph: the network.
        measured: the brackets.
        described: the inputs as flags would describe them.
    """

    name: str
    graph: Graph
    measured: list[Measured]
    described: Inputs

    @property
    def norm(self) -> str:
        return self.described.norm

    @property
    def metric(self) -> Metric:
        from verifier.analysis.brackets import Metric

        d = self.described
        return Metric(d.norm, (0.0, 1.0) if d.clip else None, d.mean, d.std)

    @property
    def indices(self) -> list[int]:
        return [one.index for one in self.measured]

    @cached_property
    def inputs(self) -> list[np.ndarray]:
        from verifier.cli.load import load_points

        return [point.x for point in load_points(self.described, self.graph)]

    @cached_property
    def samples(self) -> Samples:
        from verifier.analysis.margins.samples import Samples

        return Samples.of([one.bracket for one in self.measured])

    def further(self, large: str | None) -> Further | None:
        """Other inputs of the data set, less the measured ones."""
        if large is None:
            return None
        from verifier.cli.load import load_points

        points = load_points(replace(self.described, index=large), self.graph)
        known = set(self.indices)
        return Further(self.graph, [point for point in points if point.index not in known])


def gather(
    network: Path,
    brackets: Sequence[Path] | None,
    dataset: str | None,
    flags: dict[str, Any],
    settings: dict[str, Any],
    threads: int | None,
    status: Status,
) -> Gathered:
    """Brackets from files, or made now.

    Raises:
        InputError: both or neither are asked for, or a file cannot be used.
    """
    from verifier.graph import load

    if brackets:
        given = [flag for flag, value in flags.items() if value is not None and flag != "--data-dir"]
        if dataset is not None or given:
            flag = "--dataset" if dataset is not None else given[0]
            raise InputError(flag, "is known from the brackets", "leave it out, or leave --brackets out")
        from verifier.analysis.measured import read

        graph = load(network)
        measured = read(brackets, None if graph.file is None else graph.file.sha256)
        return Gathered(network.name, graph, measured, _described(measured, flags["--data-dir"]))
    if dataset is None:
        raise InputError("--brackets", "is missing", "give a file of verifier radius --json, or --dataset and --index")
    inputs = chosen(dataset, flags)
    graph = load(network)
    measured = [one for part in measure(graph, network, inputs, settings, threads, status) for one in part]
    return Gathered(network.name, graph, measured, inputs)


def _described(measured: Sequence[Measured], folder: Path | None) -> Inputs:
    spec = measured[0].spec
    indices = tuple(one.index for one in measured)
    text = ",".join(map(str, indices))
    mean, std = (None if spec[name] is None else tuple(spec[name]) for name in ("mean", "std"))
    return Inputs(spec["dataset"], text, indices, 0.0, spec["norm"], None, spec["clip"], mean, std, folder)


def parse_scores(text: str, single: bool = False) -> tuple[str, ...]:
    """Names of scores; whether they are known is seen where they are computed.

    Raises:
        InputError: there is none, or one twice, or several where one is wanted.
    """
    names = parse_names(text)
    if not names or len(set(names)) < len(names) or (single and len(names) > 1):
        raise InputError(f"--score {text}", "is no list of scores", "name one" if single else "name each once")
    return names


def fitted(
    found: Gathered, names: Sequence[str], epsilon: float | None, fit: Any, device: str, seed: int
) -> ScoreOptions:
    """Options of scores; where a pseudo-margin is wanted, what it learned from other brackets.

    Raises:
        InputError: there is nothing to learn from, or the same inputs that are measured.
    """
    from verifier.analysis.margins.scores import PSEUDO, SCORES, Scored, ScoreOptions, observed

    unknown = [name for name in names if name not in SCORES]
    if unknown:
        raise InputError("--score", f"'{unknown[0]}' is not known", f"choose from {', '.join(SCORES)}")
    made = ScoreOptions(found.metric, epsilon, None, device)
    paths, on, target, epochs = fit
    if PSEUDO not in names:
        return made
    if not paths:
        raise InputError("--fit", "is missing", "pseudo-margin learns from brackets of other inputs")
    import numpy as np

    from verifier.analysis.margins.pseudo import PseudoOptions, learn
    from verifier.analysis.measured import read
    from verifier.cli.load import load_points

    learned = read(paths, found.measured[0].sha256)
    described = _described(learned, found.described.folder)
    shared = set(found.indices) & {one.index for one in learned}
    if shared and described.dataset == found.described.dataset:
        what = f"holds input {min(shared)}, which is measured as well"
        raise InputError("--fit", what, "learn from other inputs")
    points = [point.x for point in load_points(described, found.graph)]
    features = observed(Scored.of(found.graph, made), points, on)
    distances = np.array([one.bracket.upper for one in learned])
    return replace(
        made, pseudo=learn(features, distances, PseudoOptions(on=on, target=target, epochs=epochs, seed=seed))
    )


def load_networks(networks: Sequence[Path], inputs: Inputs, device: str) -> list[LogitStatistics]:
    """Logits of networks on the same inputs."""
    from verifier.analysis.brackets import Metric
    from verifier.analysis.margins.logits import logit_statistics
    from verifier.analysis.margins.scores import ScoreOptions
    from verifier.cli.load import load_points
    from verifier.graph import load

    options = ScoreOptions(Metric(inputs.norm, None, inputs.mean, inputs.std), device=device)
    found = []
    for network in networks:
        graph = load(network)
        points = load_points(inputs, graph)
        found.append(
            logit_statistics(
                network.stem, graph, [point.x for point in points], [point.label for point in points], options
            )
        )
    return found
