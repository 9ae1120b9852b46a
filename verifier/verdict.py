"""What the engine answers: one of three verdicts, each with its evidence or its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from verifier.bounding.ladder import Bounds, Problem


class Reason(StrEnum):
    """Why a query stayed undecided."""

    TIMEOUT = "timeout"
    MEMORY = "memory"
    METHOD_INCOMPLETE = "method-incomplete"
    NUMERICAL_DISAGREEMENT = "numerical-disagreement"
    NO_FILE = "no-file"


@dataclass(frozen=True)
class Counterexample:
    """An input that breaks the property, as replayed in onnxruntime on the original file.

    Args:
        input: (*X) float64; every coordinate is a float32 value unless the specification fixes it to a number
            that has none.
        output: (*Y) float32, what onnxruntime returned for it.
        property: which property of the query it breaks.
        polytope: which unsafe polytope of that property holds the output.
    """

    input: np.ndarray
    output: np.ndarray
    property: int = 0
    polytope: int = 0


@dataclass(frozen=True)
class Proof:
    """Everything that has to be re-evaluated to re-check a bound.

    Args:
        method: the bound's name.
        dtype: arithmetic in which the accepted bound was evaluated.
        boxes: node name -> interval of that node's value over the region (the pre-activation bounds).
        dual: the `DualPoint` of the final objective.
        intermediate: node name -> how its box was proved: ``(rows, dual)`` steps in the order they were taken.
        rows: the `Rows` of the properties, side by side, with the polytopes they belong to.
        bounds: (B, S) certified minimum of every row; each polytope has one that is positive.
        cuts: activation name -> groups of its neurons, and the cuts on them.
        trees: the `CasePoint` of the final objective, which its bounds come from where there is one.
    """

    method: str
    dtype: str
    boxes: Mapping[str, Any]
    dual: Any
    intermediate: Mapping[str, Any]
    rows: Any
    bounds: Any
    cuts: Mapping[str, Any] = field(default_factory=dict)
    trees: Any = None

    @classmethod
    def of(cls, method: str, problem: Problem, found: Bounds) -> Proof:
        """What stands behind bounds that prove some properties of a problem."""
        return cls(
            method=method,
            dtype=str(found.lower.dtype).removeprefix("torch."),
            boxes=found.relaxation.boxes,
            dual=found.dual,
            intermediate=found.relaxation.steps,
            rows=problem.rows,
            bounds=found.lower,
            cuts=found.relaxation.cuts,
            trees=found.trees,
        )


@dataclass(frozen=True)
class Stage:
    """One rung of the ladder: its name, wall seconds, certified bound after it, open polytopes after it."""

    name: str
    seconds: float
    bound: float | None
    open: int


@dataclass(frozen=True)
class Verdict:
    """Common to all verdicts.

    Args:
        bound: certified lower bound on the smallest margin to the unsafe set; None where none was computed.
        method: the method that decided, or the last one tried.
        stages: what was done, in order.
        seconds: wall time.
        subproblems: how many a search bounded; 0 where there was none.
    """

    bound: float | None
    method: str
    stages: tuple[Stage, ...]
    seconds: float
    subproblems: int = 0


@dataclass(frozen=True)
class Verified(Verdict):
    """No input of the set breaks the property, in real arithmetic on the weights of the file."""

    certificate: tuple[Proof, ...] = ()


@dataclass(frozen=True)
class Falsified(Verdict):
    """An input that breaks the property was found and replayed."""

    counterexample: Counterexample | None = None

    def __post_init__(self):
        if self.counterexample is None:
            raise ValueError("a Falsified verdict needs its replayed counterexample")


@dataclass(frozen=True)
class Undecided(Verdict):
    """Neither proved nor refuted."""

    reason: Reason = Reason.METHOD_INCOMPLETE
