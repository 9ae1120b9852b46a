"""What a search is asked and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from verifier.bounding.ascent import AscentOptions
from verifier.bounding.intermediate import IntermediateOptions
from verifier.relaxations.groups import GroupOptions

#: (number of the property in the batch, point (*X)) -> whether it is a counterexample, which ends the search
Replay = Callable[[int, Tensor], bool]


@dataclass(frozen=True)
class Standing:
    """Where a search is.

    Args:
        subproblems: how many were bounded.
        closed, open: how many were proved, and how many wait to be split.
        bound: certified lower bound of the least margin so far, minus infinity before there is one.
    """

    subproblems: int
    closed: int
    open: int
    bound: float


#: told now and then where a search is
Watch = Callable[[Standing], None]


@dataclass(frozen=True)
class RootOptions:
    """How the boxes of a search's root are tightened.

    Args:
        after: seconds of search that come first: what they decide needs no better boxes.
        share, seconds: share of the time that is left, and seconds without a limit.
        ascent: on each subproblem.
        rounds: rounds of splits at most.
    """

    after: float = 1.0
    share: float = 0.65
    seconds: float = 20.0
    ascent: AscentOptions = field(
        default_factory=lambda: AscentOptions(iterations=5, step=0.2, decay=0.8, multiplier_step=0.1)
    )
    rounds: int = 12


@dataclass(frozen=True)
class NarrowingOptions:
    """How the boxes of subproblems are tightened (see `verifier.search.narrowing`).

    Args:
        levels: of splits between two narrowings; None for as many as the logarithm of the open entries, which are the
            rows that a narrowing takes.
        entries: where more are open at the root nothing is narrowed, since it would take most of the time.
        ascent: for every end.
        chunk_bytes: memory that the coefficients of a chunk of subproblems take in the widest layer.
    """

    levels: int | None = None
    entries: int = 512
    ascent: AscentOptions = field(
        default_factory=lambda: AscentOptions(iterations=5, step=0.3, decay=0.7, multiplier_step=0.2)
    )
    chunk_bytes: int = 2 << 20


@dataclass(frozen=True)
class JointOptions:
    """Which cuts all subproblems of a search share.

    Args:
        after: seconds of search that come first: what they decide needs no cuts.
        share, least: share of the time that is left for finding them, and seconds without which there are none.
        layers: so many of the activations before the last one get some.
        groups: which of their neurons go together.
        work: multiply-adds of a forward pass times groups of an activation, at most: large networks get fewer.
        ascent: on the property's rows, which shows what cuts help.
        kept: groups of an activation that stay.
    """

    after: float = 1.0
    share: float = 0.5
    least: float = 8.0
    layers: int = 3
    groups: GroupOptions = field(default_factory=lambda: GroupOptions(most=2000))
    ascent: AscentOptions = field(
        default_factory=lambda: AscentOptions(iterations=40, step=0.1, decay=0.95, patience=20, whole=True)
    )
    work: int = 6 * 10**9
    kept: int = 400


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Args:
        memory: bytes that open subproblems may take.
        batch_bytes: memory that the rows of one batch take in the widest layer; small batches choose better.
        intermediate: how the boxes of a subproblem are tightened.
        input_dimensions: sets with at most this many free coordinates are split in the input first.
        splitting: of inputs with few free coordinates and of activations in turn (``auto``), or of one of them alone.
        branching: which activation is split: of the best few by their scores the one whose halves have the best bounds
            (``filtered``), the best one by its score (``scored``), or the one of the widest interval (``widest``).
        warm: whether a subproblem's line weights and multipliers begin where its parent's ended.
        branches: splits of a subproblem that are judged by the bounds of their children.
        stages: ascents on each subproblem; those that are closed take no part in the next stage.
        subproblem_bytes: memory that a batch of activation splits takes in the widest layer.
        candidates: points handed to the replay per batch at most.
        forms: whether boxes of inputs push affine forms forward besides intervals.
        root: how the boxes of the root are tightened before activations are split; None for not at all.
        narrowing: how the boxes of subproblems are tightened that stay open for long; None for not at all.
        joint: which cuts the subproblems share, in place of `narrowing`; None for no cuts.
        condense: where the undecided neurons alone take at most so many times as long as the network, the search knows
            nothing else; None for never, and never together with `narrowing`.
    """

    memory: int = 4 << 30
    batch_bytes: int = 256 << 10
    intermediate: IntermediateOptions = field(default_factory=IntermediateOptions)
    input_dimensions: int = 20
    splitting: Literal["auto", "input", "activation"] = "auto"
    branching: Literal["filtered", "scored", "widest"] = "filtered"
    warm: bool = True
    branches: int = 6
    stages: tuple[AscentOptions, ...] = (
        AscentOptions(iterations=5, step=0.05, decay=0.95, multiplier_step=0.05),
        AscentOptions(iterations=15, step=0.05, decay=0.95, multiplier_step=0.05),
    )
    subproblem_bytes: int = 1 << 20
    candidates: int = 2
    forms: bool = False
    root: RootOptions | None = field(default_factory=RootOptions)
    narrowing: NarrowingOptions | None = field(default_factory=NarrowingOptions)
    joint: JointOptions | None = None
    condense: float | None = None


@dataclass(frozen=True)
class SearchResult:
    """Where a search ended.

    Args:
        margins: (B,) certified lower bound of every property's margin.
        proved: (B,) bool, every subproblem of the property is closed.
        falsified: a candidate was confirmed as a counterexample.
        subproblems: how many were bounded.
        starved: it cannot go on for want of memory.
    """

    margins: Tensor
    proved: Tensor
    falsified: bool
    subproblems: int
    starved: bool = False
