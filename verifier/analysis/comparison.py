"""What a comparison of methods says: one entry for each method, and what all queries say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from verifier.verdict import Counterexample


@dataclass(frozen=True)
class Layer:
    """How loose a method is at one activation.

    Args:
        name: name of the activation's node.
        label: operator and number, such as ``relu 2``.
        neurons: how many it has.
        width: mean over the neurons of the width of their input's interval, as a share of its width by IBP; neurons
            that IBP knows exactly do not count. None where there are no others.
        quartiles: least, lower quartile, median, upper quartile, largest of these shares.
        area: mean area over the neurons between their lines, in the plane of input and output.
        joint: for methods with cuts on groups of neurons, the mean over groups of the volume that the cuts leave,
            as a share of the volume that the lines of the single neurons leave; by Monte Carlo. Otherwise None.
    """

    name: str
    label: str
    neurons: int
    width: float | None
    quartiles: tuple[float, ...] | None
    area: float
    joint: float | None = None


@dataclass(frozen=True)
class Entry:
    """One method on one query.

    Args:
        method: its name.
        bound: certified lower bound on the smallest margin to the unsafe set; None where there is none.
        verified: whether the query is proved, beyond the allowance for rounding.
        gap_closed: ``(bound - IBP's) / (attack's - IBP's)``: 0 is as loose as IBP, 1 as tight as an exact method. None
            where one of them is missing, or the gap is empty.
        certified_epsilon: largest radius that the method was seen to prove, 0 for none; None where it was not sought.
        layers: looseness of every activation; empty for methods that do not say what they rest on.
        seconds: wall time of bounding, without attack and search for a radius.
        rows: linear objectives that were bounded, two for each neuron that was tightened; None where unknown.
        memory: growth of the process's (on CUDA: of the device's) peak memory in bytes.
        boxes: whose intermediate boxes it used: its own or another method's.
        reason: one sentence where there is no bound, or where it was stopped at the time limit.
    """

    method: str
    bound: float | None = None
    verified: bool = False
    gap_closed: float | None = None
    certified_epsilon: float | None = None
    layers: tuple[Layer, ...] = ()
    seconds: float = 0.0
    rows: int | None = None
    memory: int = 0
    boxes: str = "own"
    reason: str | None = None

    @property
    def width(self) -> float | None:
        """Mean width ratio of all layers."""
        return mean([layer.width for layer in self.layers])

    @property
    def area(self) -> float | None:
        """Mean area of all neurons."""
        neurons = sum(layer.neurons for layer in self.layers)
        return sum(layer.area * layer.neurons for layer in self.layers) / neurons if neurons else None

    @property
    def joint(self) -> float | None:
        """Mean joint volume ratio of all layers that have one."""
        return mean([layer.joint for layer in self.layers])


@dataclass(frozen=True)
class Comparison:
    """All methods on one query.

    Args:
        entries: one for each method, in the order asked for.
        upper: smallest margin that the attack found, an upper bound of what any method can prove.
        counterexample: its point, where that was replayed in onnxruntime and breaks the property.
        reference: IBP's bound, over boxes of its own.
        name: of the query.
    """

    entries: tuple[Entry, ...]
    upper: float | None
    counterexample: Counterexample | None
    reference: float | None
    name: str = ""

    @property
    def falsified(self) -> bool:
        return self.counterexample is not None

    def entry(self, method: str) -> Entry:
        """One method's.

        Raises:
            KeyError: it was not asked for.
        """
        found = {entry.method: entry for entry in self.entries}
        return found[method]

    def __str__(self) -> str:
        from verifier.analysis.tables import as_text  # rich behind it

        return as_text([self])


@dataclass(frozen=True)
class Summary:
    """One method on all queries; means and medians are over those where it has a value.

    Args:
        queries, bounded, verified: how many there are, have a bound, were proved.
        gap_closed, width, certified_epsilon: means.
        seconds: the median.
        memory: the largest.
    """

    method: str
    queries: int
    bounded: int
    verified: int
    gap_closed: float | None
    width: float | None
    certified_epsilon: float | None
    seconds: float | None
    memory: int


def summarise(comparisons: Sequence[Comparison]) -> list[Summary]:
    """Each method over all queries, in the order of the first."""
    rows = []
    for method in [entry.method for entry in comparisons[0].entries] if comparisons else ():
        entries = [comparison.entry(method) for comparison in comparisons]
        done = [entry for entry in entries if entry.bound is not None]
        rows.append(
            Summary(
                method,
                len(entries),
                len(done),
                sum(entry.verified for entry in entries),
                mean([entry.gap_closed for entry in done]),
                mean([entry.width for entry in done]),
                mean([entry.certified_epsilon for entry in done]),
                median([entry.seconds for entry in done]) if done else None,
                max([entry.memory for entry in done], default=0),
            )
        )
    return rows


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there; None where none is."""
    present = [value for value in values if value is not None]
    return fmean(present) if present else None
