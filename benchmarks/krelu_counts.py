"""Images verified on the networks of the k-ReLU papers: the second table of ``python -m benchmarks.krelu``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median
from time import perf_counter, process_time

import numpy as np
import torch
from rich.table import Table

from verifier import bounds, verify
from verifier.graph.ir import Graph
from verifier.operators import evaluate, place
from verifier.specs.datasets import Dataset
from verifier.specs.robustness import robustness
from verifier.verdict import Falsified

CROWN, ATTACK = "crown", "attack"
#: `refined-lp` is what the published counts by LP are: a program for every neuron, too. `alpha-crown` is its dual
#: (Salman et al. 2019) with as many steps as it has; `triangle-lp` takes CROWN's boxes
METHODS = (CROWN, "alpha-crown", "triangle-lp", "refined-lp", "k-relu")
#: images of the published counts
ALL = 1000


@dataclass(frozen=True)
class Published:
    """Published counts of the first `ALL` images.

    Args:
        epsilon: radius.
        correct: classified correctly.
        attacked: correct ones that an attack does not break.
        counts: method of ours that it stands beside -> name, images verified, seconds an image (None: unknown).
    """

    epsilon: float
    correct: int
    attacked: int
    counts: Mapping[str, tuple[str, int, float | None]]


def _published(
    epsilon: float, correct: int, attacked: int, deep: tuple[int, float | None], lp: tuple[int, float | None], prima
) -> Published:
    counts = {CROWN: ("DeepPoly", *deep), "k-relu": ("PRIMA", *prima)}
    counts |= {name: ("LP", *lp) for name in ("alpha-crown", "refined-lp")}
    return Published(epsilon, correct, attacked, counts)


#: Mueller et al. 2022 (POPL), with DeepPoly and the triangle LP as Tjandraatmadja et al. 2020 (NeurIPS) counted them
PUBLISHED: Mapping[str, Published] = {
    "mnist_6x100": _published(0.026, 960, 842, (160, 0.7), (201, 51), (510, 159)),
    "mnist_9x100": _published(0.026, 947, 820, (182, 1.4), (223, 386), (428, 301)),
    "mnist_6x200": _published(0.015, 972, 901, (292, 2.4), (344, 218), (690, 224)),
    "mnist_9x200": _published(0.015, 950, 911, (259, 5.6), (307, 2825), (624, 395)),
    "mnist_convsmall": _published(0.12, 980, 746, (162, None), (242, None), (598, 42)),
}


@dataclass(frozen=True)
class Row:
    """What one method made of one image.

    Args:
        margin: certified; None for an attack.
        verified: for an attack, whether it found no counterexample.
        seconds, cpu: by the clock, and of all cores together.
    """

    network: str
    index: int
    method: str
    epsilon: float
    verified: bool
    seconds: float
    cpu: float
    margin: float | None = None
    key: tuple[str, int, str, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "key", (self.network, self.index, self.method, self.epsilon))


class Rows:
    """Rows by key; new ones are appended to the file at once."""

    def __init__(self, path: Path | None):
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self.known = {row.key: row for row in (Row(**json.loads(line)) for line in lines if line.strip())}

    def add(self, row: Row) -> Row:
        self.known[row.key] = row
        if self.path is not None:
            record = {name: value for name, value in asdict(row).items() if name != "key"}
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        return row


def count(
    graph: Graph,
    name: str,
    mnist: Dataset,
    images: int,
    epsilon: float,
    methods: Sequence[str],
    out: Path | None,
    timeout: float | None = None,
) -> list[Row]:
    """Rows of the images that the network classifies correctly, for CROWN, the attack and the methods.

    Args:
        methods: those that CROWN and the attack leave something to do.
    """
    labels = np.asarray(mnist.y[:images])
    inputs = torch.as_tensor(np.asarray(mnist.x[:images])).reshape(-1, *graph.input_shape)
    right = evaluate(place(graph, torch.float32), inputs).flatten(1).argmax(1).numpy() == labels
    rows, found = Rows(out), []
    for index in np.flatnonzero(right).tolist():
        spec = robustness(mnist.x[index], int(labels[index]), epsilon=epsilon)
        for method in (CROWN, ATTACK, *methods):
            row = rows.known.get((name, index, method, epsilon))
            if row is None:
                row = rows.add(_run(graph, name, index, spec, epsilon, method, timeout))
            found.append(row)
            if (method == CROWN and row.verified) or (method == ATTACK and not row.verified):
                break
    return found


def _run(graph: Graph, name: str, index: int, spec, epsilon: float, method: str, timeout: float | None) -> Row:
    begun, worked = perf_counter(), process_time()
    if method == ATTACK:  # after intervals, which say nothing here
        broken = isinstance(verify(graph, spec, method="ibp", timeout=timeout), Falsified)
        return Row(name, index, method, epsilon, not broken, perf_counter() - begun, process_time() - worked)
    margin = min(float(part.min()) for part in bounds(graph, spec, method, timeout=timeout))
    return Row(name, index, method, epsilon, margin > 0, perf_counter() - begun, process_time() - worked, margin)


def tabulate(name: str, rows: Iterable[Row], known: Published, images: int, methods: Sequence[str]) -> Table:
    """Counts, seconds of CROWN, attack and method together, and what is published beside them."""
    by_image: dict[int, dict[str, Row]] = {}
    for row in rows:
        by_image.setdefault(row.index, {})[row.method] = row
    scaled = "" if images == ALL else f", scaled from {ALL} to {images} images"
    title = f"{name}, epsilon {known.epsilon}, first {images} images: verified of those classified correctly"
    table = Table(title=title, caption=f"published{scaled}; seconds of CROWN, attack and method together")
    columns = ("method", "correct", "verified", "run", "median s", "mean s", "mean CPU s")
    columns += ("published", "verified", "mean s", "time ratio")
    for column in columns:
        table.add_column(column, justify="right")
    share = images / ALL
    for method in (CROWN, *methods):
        taken = (CROWN,) if method == CROWN else (CROWN, ATTACK, method)
        spent = [[row for name, row in one.items() if name in taken] for one in by_image.values()]
        seconds = [sum(row.seconds for row in one) for one in spent]
        verified = sum(one[CROWN].verified or (method in one and one[method].verified) for one in by_image.values())
        run = sum(method in one for one in by_image.values())
        times = ("", "", "")
        if seconds:
            cpu = mean(sum(row.cpu for row in one) for one in spent)
            times = (f"{median(seconds):.2f}", f"{mean(seconds):.2f}", f"{cpu:.2f}")
        beside = _beside(known.counts.get(method), share, mean(seconds) if seconds else None)
        table.add_row(method, str(len(by_image)), str(verified), str(run), *times, *beside)
    robust = sum(one[CROWN].verified or one[ATTACK].verified for one in by_image.values())
    table.add_row(
        "not broken", str(len(by_image)), str(robust), *[""] * 4, "attack", f"{known.attacked * share:.1f}", "", ""
    )
    return table


def _beside(published: tuple[str, int, float | None] | None, share: float, seconds: float | None) -> tuple[str, ...]:
    if published is None:
        return ("",) * 4
    name, verified, theirs = published
    ratio = (
        ""
        if theirs is None or not seconds
        else f"1/{theirs / seconds:.0f}"
        if theirs > seconds
        else f"{seconds / theirs:.1f}"
    )
    return name, f"{verified * share:.1f}", "" if theirs is None else f"{theirs:g}", ratio
