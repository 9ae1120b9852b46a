"""What `verify` can be told, what it tries, in which order, and how the time is shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

import torch

from verifier.attacks.pgd import PgdOptions
from verifier.bounding.ascent import AscentOptions
from verifier.bounding.ladder import METHODS, LadderOptions, Method, alpha_fixed
from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.operators.cost import multiply_adds
from verifier.search.result import JointOptions, SearchOptions
from verifier.specs.property import Query
from verifier.specs.region import Box

#: rungs that look for a counterexample: a short attack, and a long one from other starting points
ATTACK, ATTACK_AGAIN = "attack", "attack-again"
#: complete search, which goes on where it stopped when it comes again
SEARCH = "branch-and-bound"
#: complete search by linear programs, likewise
MILP = "milp"
#: methods by a solver of linear programs, which works in float64
LINEAR_PROGRAMS = ("triangle-lp", "refined-lp", "k-relu-lp")
#: ladders by method: what comes before an attack is cheaper than it
LADDERS = {
    "auto": ("ibp", "crown", ATTACK, "alpha-fixed", "alpha-crown", "k-relu", SEARCH, ATTACK_AGAIN, SEARCH),
    SEARCH: ("crown", "alpha-crown", "k-relu", SEARCH, ATTACK, SEARCH),
    MILP: ("crown", "alpha-crown", MILP, ATTACK, MILP),
}
#: rungs that a search by input splitting does not need
ONLY_FOR_MANY_INPUTS = ("alpha-fixed", "alpha-crown", "k-relu")
#: rungs that measure as not worth their time before a search where there are convolutions
ONLY_FOR_DENSE = ("k-relu",)
#: steps on each subproblem behind convolutions
LARGE_STEPS = (
    AscentOptions(iterations=3, step=0.1, decay=0.6, multiplier_step=0.3, cut_step=0.01),
    AscentOptions(iterations=4, step=0.03, decay=0.7, multiplier_step=0.03, cut_step=0.003),
)
#: multiply-adds from which on affine forms take the place of bounding every neuron by the dual function
FORMS_FROM = 1_000_000
#: rungs that take their time where there are convolutions and few inputs, and find less than the search's first step
NOT_BEFORE_FORMS = ("crown",)
#: bounding methods by name, those that need no solver
RUNGS = {**METHODS, "alpha-fixed": alpha_fixed}
#: shares of the remaining time that rungs before a search may take, and seconds of it without a deadline
RUNG_SHARES, RUNG_SECONDS = {"alpha-crown": 0.3, "k-relu": 0.3}, 60.0
#: share of the remaining time that an attack may take
ATTACK_SHARE = 0.2
#: share of the remaining time that a search may take after which more is tried, and seconds of it without a deadline
SEARCH_SHARE, SEARCH_SECONDS = 0.4, 30.0


@dataclass(frozen=True)
class VerifyOptions:
    """How to verify.

    Args:
        method: ``auto`` or a key of `verifier.bounding.ladder.METHODS`.
        timeout: seconds, or None for no limit. Checked between steps: see the command line for a hard one.
        device: ``auto`` (CUDA where there is one), ``cpu`` or ``cuda[:N]``.
        dtype: ``auto`` or a torch dtype for bounding.
        seed: of the attack and of the points at which parity is checked.
        memory: bytes that the bounds and the open subproblems of a search may take.
        rungs: what is tried, one after the other (see `LADDERS`); None for the method's own.
        ladder, attack, search: options of the rungs, of the attack and of branch and bound.
    """

    method: str = "auto"
    timeout: float | None = None
    device: str = "auto"
    dtype: torch.dtype | None = None
    seed: int = 0
    memory: int = 4 << 30
    rungs: tuple[str, ...] | None = None
    ladder: LadderOptions = field(default_factory=LadderOptions)
    attack: PgdOptions = field(default_factory=PgdOptions)
    search: SearchOptions = field(default_factory=SearchOptions)


def methods() -> tuple[str, ...]:
    """Names that ``--method`` takes."""
    return ("auto", *bounding_methods(), SEARCH, MILP, "auto-lirpa")


def bounding_methods() -> tuple[str, ...]:
    """Those of them that bound without a search, by this engine."""
    return (*METHODS, *LINEAR_PROGRAMS)


def ladder_of(method: str, rungs: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """The rungs of a method, one after the other, or those that are given.

    Raises:
        InputError: there is no such method or rung, or what it needs is not installed.
    """
    rungs = rungs or LADDERS.get(method) or (method, ATTACK)
    for name in rungs:
        if name not in (ATTACK, ATTACK_AGAIN, SEARCH, MILP):
            bounding(name)
    return rungs


def bounding(name: str) -> Method:
    """The bounding method of a rung."""
    if name == "auto-lirpa":
        from verifier.bounding.auto_lirpa import reference  # an optional package behind it

        return reference
    if name in LINEAR_PROGRAMS:
        from verifier.bounding.lp.method import k_relu_lp, triangle_lp  # scipy's sparse matrices behind them
        from verifier.bounding.refine import refined_lp

        return {"triangle-lp": triangle_lp, "refined-lp": refined_lp, "k-relu-lp": k_relu_lp}[name]
    if name not in RUNGS:
        raise InputError("--method", f"'{name}' is not a method", f"choose one of {', '.join(methods())}")
    return RUNGS[name]


def worthwhile(rungs: Sequence[str], graph: Graph, few_inputs: bool, splitting: str = "auto") -> list[str]:
    """Of the rungs of a ladder with branch and bound those that pay on a network and its input sets.

    Args:
        few_inputs: whether the search splits the input first.
        splitting: as of `SearchOptions`.
    """
    if SEARCH not in rungs:
        return list(rungs)
    left_out = (*ONLY_FOR_MANY_INPUTS * few_inputs, *ONLY_FOR_DENSE * convolutional(graph))
    forms = by_forms(graph, few_inputs, splitting)
    left_out += NOT_BEFORE_FORMS * (forms and "ibp" in rungs)
    kept = [name for name in rungs if name not in left_out]
    # a step of a search by forms takes seconds, and would be cut off half-way where the search comes once more
    return [name for i, name in enumerate(kept) if not (forms and name == SEARCH and SEARCH in kept[i + 1 :])]


def worthwhile_search(options: SearchOptions, graph: Graph, few_inputs: bool) -> SearchOptions:
    """Options of a search with what pays on a network.

    Where all layers are dense, boxes are tightened; behind convolutions the last neurons get cuts instead, and fewer
    and larger steps leave time for more splits.

    Args:
        few_inputs: whether the search splits the input first.
    """
    if not convolutional(graph):
        return options
    options = replace(
        options, root=None, narrowing=None, joint=JointOptions(), branches=4, stages=LARGE_STEPS, condense=1.0
    )
    if by_forms(graph, few_inputs, options.splitting):
        return replace(options, forms=True, splitting="input")
    return options


def by_forms(graph: Graph, few_inputs: bool, splitting: str) -> bool:
    """Whether a network has so many neurons behind so few inputs that affine forms alone bound them in time."""
    return few_inputs and splitting == "auto" and convolutional(graph) and multiply_adds(graph) > FORMS_FROM


def require_programs(rungs: Sequence[str], query: Query, graph: Graph, memory: int) -> None:
    """Refuse what the linear programs of some rungs cannot hold, before any work is done.

    Raises:
        InputError: an input set is no box and the method is ``milp``, or the placed network needs more memory.
    """
    if not any(name in (*LINEAR_PROGRAMS, MILP) for name in rungs):
        return
    from verifier.bounding.lp.size import require_size  # scipy's sparse matrices behind it

    if MILP in rungs and not all(isinstance(prop.region, Box) for prop in query.properties):
        raise InputError("--method milp", "an input set is a ball, and it takes boxes", "choose branch-and-bound")
    require_size(graph, memory)


def convolutional(graph: Graph) -> bool:
    return any(node.op == "conv" for node in graph.nodes)


def rung_until(name: str, rungs: Sequence[str], deadline: float | None) -> float | None:
    """When a bounding rung has to stop; like all times here, of `time.monotonic`."""
    if SEARCH not in rungs or name not in RUNG_SHARES:
        return deadline
    now = monotonic()
    return now + (RUNG_SECONDS if deadline is None else RUNG_SHARES[name] * (deadline - now))


def search_until(deadline: float | None, batches: int, more: bool) -> float | None:
    """When a search has to stop that is the first of so many batches that remain; `more` rungs may follow."""
    now = monotonic()
    if deadline is None:
        return now + SEARCH_SECONDS if more else None
    return now + (SEARCH_SHARE if more else 1.0) * (deadline - now) / batches


def attack_until(deadline: float | None) -> float | None:
    """When an attack has to stop."""
    now = monotonic()
    return None if deadline is None else now + ATTACK_SHARE * (deadline - now)
