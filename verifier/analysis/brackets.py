"""Certified brackets of input margins: what is known of the distance from an input to the nearest other class.

The margin of an input x is ``d(x) = inf { |x - x'|_p : the class predicted at x' is not the one at x }``, over all x'
in the allowed range (Ngnawe et al., NeurIPS 2024, section 2). A bracket holds it between an epsilon that was verified
and the distance of a point that was replayed in onnxruntime.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from verifier.specs.normalize import affine
from verifier.specs.robustness import Robustness, robustness
from verifier.verdict import Counterexample

Status = Literal["robust", "brittle", "unknown"]
#: a distance is rounded up by this, relatively: more than float64 arithmetic and a ball's own allowance can lose
_ROUND_UP = 4e-12


@dataclass(frozen=True)
class Metric:
    """How far apart two inputs are, and where an input may go.

    Args:
        norm: ``inf``, ``2`` or ``1``.
        clip: range of every input, None for no limit.
        mean, std: where given, the network takes ``(x - mean) / std``; distances are in the units before.
    """

    norm: str = "inf"
    clip: tuple[float, float] | None = (0.0, 1.0)
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None

    @property
    def order(self) -> float:
        return math.inf if self.norm == "inf" else float(self.norm)

    def ball(self, x: np.ndarray, label: int, epsilon: float, target: int | None = None) -> Robustness:
        """Robustness of a class of x (*X) against inputs within epsilon."""
        return robustness(x, label, epsilon, self.norm, self.clip, target, self.mean, self.std)

    def to_network(self, x: np.ndarray) -> np.ndarray:
        """x (*X) in the network's units, float64."""
        return affine(x.shape, self.mean, self.std)(np.asarray(x, dtype=np.float64))

    def distance(self, x: np.ndarray, point: np.ndarray) -> float:
        """From x (*X) to a point in the network's units (*X), rounded up."""
        change = affine(x.shape, self.mean, self.std)
        x = np.asarray(x, dtype=np.float64)
        move = np.abs(point.reshape(x.shape) - change(x)) * change.std
        if not change.identity:
            move = move + 4 * change.error(x) * change.std
        return float(np.linalg.norm(move.reshape(-1), ord=self.order)) * (1 + _ROUND_UP)

    def largest(self, x: np.ndarray) -> float:
        """A distance that no input of the range exceeds, inf where there is no range."""
        if self.clip is None:
            return math.inf
        reach = np.maximum(np.asarray(x, dtype=np.float64) - self.clip[0], self.clip[1] - np.asarray(x)).reshape(-1)
        return float(np.linalg.norm(reach, ord=self.order)) * (1 + _ROUND_UP)


@dataclass(frozen=True)
class Bracket:
    """What is known of one margin: ``lower <= d <= upper``.

    Args:
        lower: largest epsilon that was verified, 0 where none was; every input within it keeps its class.
        upper: distance of the witness, rounded up so that the witness lies within it; inf without a witness.
        witness: an input of another class, replayed in onnxruntime.
        exact: `upper - lower` is at most the tolerance, or no input of the range changes the class.
        label: the class whose margin it is: the one that the network predicts at x.
        target: the class that is to be reached; None for any other.
        correct: whether the label is the data set's; None where that has none.
        method: what verified `lower`; None where nothing did.
        attack: what found the witness; None where nothing did.
        tolerance: at which the search ended.
        seconds: share of the time that was spent on this input.
        classes: brackets of the same input for one target each, where they were asked for.
    """

    lower: float
    upper: float
    witness: Counterexample | None
    exact: bool
    label: int
    target: int | None = None
    correct: bool | None = None
    method: str | None = None
    attack: str | None = None
    tolerance: float = 0.0
    seconds: float = 0.0
    classes: tuple[Bracket, ...] = field(default=())

    def status(self, epsilon: float) -> Status:
        """Whether the input keeps its class within epsilon: proved, refuted, or not known."""
        if self.lower >= epsilon:
            return "robust"
        return "brittle" if self.upper <= epsilon else "unknown"


def least(brackets: Sequence[Bracket]) -> Bracket:
    """The bracket against all classes, of brackets of the same input for each target."""
    low = min(brackets, key=lambda bracket: bracket.lower)
    high = min(brackets, key=lambda bracket: bracket.upper)
    return Bracket(
        lower=low.lower,
        upper=high.upper,
        witness=high.witness,
        exact=high.upper - low.lower <= low.tolerance or low.lower == math.inf,
        label=low.label,
        correct=low.correct,
        method=low.method,
        attack=high.attack,
        tolerance=low.tolerance,
        seconds=sum(bracket.seconds for bracket in brackets),
        classes=tuple(brackets),
    )


def as_object(bracket: Bracket) -> dict[str, Any]:
    """A bracket as JSON has it; an infinite end is null."""
    found = bracket.witness
    values = {} if found is None else {name: getattr(found, name).reshape(-1).tolist() for name in ("input", "output")}
    return {
        "lower": None if math.isinf(bracket.lower) else bracket.lower,
        "upper": None if math.isinf(bracket.upper) else bracket.upper,
        "exact": bracket.exact,
        "prediction": bracket.label,
        "target": bracket.target,
        "correct": bracket.correct,
        "method": bracket.method,
        "attack": bracket.attack,
        "tolerance": bracket.tolerance,
        "seconds": bracket.seconds,
        "witness": None if found is None else {**values, "replayed": True},
        "classes": [as_object(one) for one in bracket.classes],
    }
