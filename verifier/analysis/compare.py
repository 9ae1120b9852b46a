"""Methods side by side on the same query: how tight each one is, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

import torch

from verifier.analysis.comparison import Comparison, Entry
from verifier.analysis.measures import activations, layers
from verifier.analysis.memory import peak_memory
from verifier.attacks.objective import margin
from verifier.attacks.parity import check_parity
from verifier.attacks.pgd import PgdOptions, least_margin
from verifier.attacks.replay import Replayer, replay
from verifier.bounding.ladder import Bounds, LadderOptions
from verifier.errors import InputError, out_of_memory
from verifier.graph.ir import Graph
from verifier.operators import evaluate, find_device, place, require_bound_rules
from verifier.operators.tail import to_logits
from verifier.pipeline import Evidence, evidence, verify
from verifier.schedule import LADDERS, bounding_methods, methods
from verifier.specs.robustness import Spec, resolve
from verifier.verdict import Counterexample, Falsified, Verified
from verifier.workers import full_precision

#: boxes that each method computes for itself; boxes of one method for all, by another name
OWN, SHARED = "own", "shared"
#: whose boxes are shared where no other method is named
SHARED_BY = "crown"
#: reference of the gap
REFERENCE = "ibp"
_MOST_DOUBLINGS = 12

#: called with a method's name before its turn, and with how far it is where that takes long
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Radius:
    """A search for the largest radius that each method proves.

    Args:
        at: the query of a radius.
        start: radius that is tried first.
        tolerance: difference between a radius that is proved and one that is not at which the search ends.
    """

    at: Callable[[float], Spec]
    start: float
    tolerance: float


@dataclass(frozen=True)
class CompareOptions:
    """How to compare.

    Args:
        boxes: ``own``, ``shared`` (CROWN's for all), or the method whose intermediate boxes all take.
        timeout: seconds for each method, and for the attack; None for no limit. Methods look at the clock between
            their steps, and what they have by then counts.
        radius: a search for the largest radius proved, or None.
        device, dtype, seed, memory: as of `verifier.schedule.VerifyOptions`.
        ladder: options of the methods.
        attack: options of the attack that bounds the margin from above.
    """

    boxes: str = OWN
    timeout: float | None = 30.0
    radius: Radius | None = None
    device: str = "auto"
    dtype: torch.dtype | None = None
    seed: int = 0
    memory: int = 4 << 30
    ladder: LadderOptions = field(default_factory=LadderOptions)
    attack: PgdOptions = field(default_factory=lambda: PgdOptions(rounds=1))


def compare(
    graph: Graph, prop: Spec, methods: Sequence[str] | None = None, *, progress: Progress | None = None, **options
) -> Comparison:
    """Bound one query by several methods.

    Args:
        graph, prop: as of `verifier.verify`.
        methods: names as of ``--method``; None for all that bound without a search.
        progress: called with a method's name before its turn, and now and then with the name and how far it is.
        options: fields of `CompareOptions`, by name.

    Returns:
        An entry for each method. A method that cannot run on the query has the reason in its entry, and no bound.

    Raises:
        InputError: a method is unknown or named twice, the property does not fit the network, an operator has no
            bound rule, or the network as read does not compute what onnxruntime computes.
    """
    chosen = check_methods(bounding_methods() if methods is None else methods)
    made = CompareOptions(**options)
    check_boxes(made.boxes)
    with full_precision():
        return _Comparing(graph, prop, made, progress or (lambda name: None)).compare(chosen)


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """The same names.

    Raises:
        InputError: one is unknown, or twice there, or there is none.
    """
    known = methods()
    for name in names:
        if name not in known:
            raise InputError("--methods", f"'{name}' is not a method", f"choose from {', '.join(known)}")
    if len(set(names)) < len(names) or not names:
        what = "names a method twice" if names else "names no method"
        raise InputError("--methods", what, "name each once, such as ibp,crown,alpha-crown")
    return tuple(names)


def check_boxes(boxes: str) -> None:
    """Refuse what is neither a way to choose boxes nor a method that has some.

    Raises:
        InputError: it is not.
    """
    if boxes not in (OWN, SHARED, *bounding_methods()):
        what = f"'{boxes}' is neither own, nor shared, nor a method with boxes"
        raise InputError("--boxes", what, f"choose own, shared, or one of {', '.join(bounding_methods())}")


class _Comparing:
    """One query, and what all methods are measured against."""

    def __init__(self, graph: Graph, prop: Spec, options: CompareOptions, progress: Progress):
        self.graph, self.prop, self.options, self.progress = graph, prop, options, progress
        self.device = find_device(options.device)
        self.original_query = resolve(prop, graph)
        self.logits, self.query = to_logits(graph, self.original_query)
        require_bound_rules(self.logits)
        self.sharer = {OWN: None, SHARED: SHARED_BY}.get(options.boxes, options.boxes)
        # programs are solved in float64, other methods on large networks in float32: to share boxes is to share that
        self.dtype = torch.float64 if options.dtype is None and self.sharer is not None else options.dtype

    def compare(self, chosen: Sequence[str]) -> Comparison:
        progress = self.progress
        progress("attack")
        upper, counterexample = self.attack()
        _load_gradients()
        intervals = self.evidence(self.prop, REFERENCE)
        reference = _bound(intervals)
        shared = None
        if self.sharer is not None:
            progress(f"boxes of {self.sharer}")
            shared = self.shared(self.prop)
        entries = []
        for name in chosen:
            progress(name)
            entry = self.entry(name, intervals, shared)
            entry = replace(entry, gap_closed=_gap_closed(entry.bound, reference, upper))
            if self.options.radius is not None:
                progress(f"radius of {name}")
                entry = replace(entry, certified_epsilon=self.certified_epsilon(name, self.options.radius))
            entries.append(entry)
        return Comparison(tuple(entries), upper, counterexample, reference, self.original_query.name)

    def attack(self) -> tuple[float, Counterexample | None]:
        """The smallest margin found, evaluated in float64, and its point if onnxruntime confirms that it is unsafe."""
        replayer = None if self.graph.file is None else Replayer(self.graph)
        if replayer is not None:
            check_parity(replayer, self.original_query.properties[0].region, seed=self.options.seed)
        until = None if self.options.timeout is None else monotonic() + self.options.timeout
        options = replace(self.options.attack, seed=self.options.seed)
        placed = place(self.logits, torch.float32, self.device)
        found = least_margin(placed, self.query, options, until)
        point = torch.from_numpy(found.point).reshape(1, *self.logits.input_shape)
        output = evaluate(place(self.logits), point)[0].detach().numpy()
        least = margin(self.query.properties[found.property], output)
        if replayer is None or found.margin > 0:
            return least, None
        number = found.property
        return least, replay(replayer, self.original_query.properties[number], found.point, number)

    def evidence(
        self, prop: Spec, method: str, shared: Sequence[Evidence] | None = None, whole: bool = True
    ) -> list[Evidence]:
        """What a method finds; with an early end where it has proved the query, unless the whole is wanted."""
        options = self.options
        ladder = options.ladder.tightest() if whole else options.ladder
        ladder = replace(ladder, tell=lambda text: self.progress(f"{method}: {text}"))
        return evidence(
            self.graph,
            prop,
            method,
            shared,
            timeout=options.timeout,
            device=options.device,
            dtype=self.dtype,
            seed=options.seed,
            memory=options.memory,
            ladder=ladder,
        )

    def shared(self, prop: Spec) -> list[Evidence] | None:
        """The evidence whose boxes all methods take; None for boxes of their own.

        Raises:
            InputError: its boxes rest on cuts, which other methods do not have.
        """
        if self.sharer is None:
            return None
        found = self.evidence(prop, self.sharer)
        if any(one.working.relaxation.cuts for one in found):
            what = f"the boxes of {self.sharer} rest on cuts, which other methods do not have"
            raise InputError("--boxes", what, f"choose {SHARED_BY} or another method without cuts")
        return found

    def entry(self, name: str, intervals: Sequence[Evidence], shared: Sequence[Evidence] | None) -> Entry:
        """One method, measured; where it cannot run, the reason."""
        begun = monotonic()
        try:
            with peak_memory(self.device) as peak:
                entry = self.by_search(name) if name in LADDERS else self.by_bounds(name, intervals, shared)
        except InputError as error:
            return Entry(name, seconds=monotonic() - begun, reason=error.what)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return Entry(name, seconds=monotonic() - begun, reason="memory did not suffice")
        late = self.options.timeout is not None and entry.seconds > self.options.timeout
        reason = "stopped at the time limit" if late and entry.reason is None else entry.reason
        return replace(entry, memory=peak.bytes, reason=reason)

    def by_bounds(self, name: str, intervals: Sequence[Evidence], shared: Sequence[Evidence] | None) -> Entry:
        begun = monotonic()
        found = self.evidence(self.prop, name, shared)
        seconds = monotonic() - begun
        entry = Entry(name, _bound(found), all(bool(one.proved.all()) for one in found), seconds=seconds)
        if name not in bounding_methods():  # another engine, of whose boxes nothing is known
            return entry
        graph = found[0].problem.graph
        working = [one.working for one in found]
        measured = layers(graph, working, [one.working for one in intervals], self.options.seed)
        taken = shared is not None and all(
            _same_boxes(graph, a, b.working) for a, b in zip(working, shared, strict=True)
        )
        boxes = self.sharer if taken and self.sharer is not None else OWN
        return replace(entry, layers=measured, rows=sum(_rows(one) for one in found), boxes=boxes)

    def by_search(self, name: str) -> Entry:
        options = self.options
        verdict = verify(
            self.graph,
            self.prop,
            method=name,
            timeout=options.timeout,
            device=options.device,
            dtype=options.dtype,
            seed=options.seed,
            memory=options.memory,
            ladder=options.ladder,
        )
        reason = "found a counterexample" if isinstance(verdict, Falsified) else None
        return Entry(name, verdict.bound, isinstance(verdict, Verified), seconds=verdict.seconds, reason=reason)

    def certified_epsilon(self, name: str, radius: Radius) -> float | None:
        """The largest radius of a bisection that a method proves, 0 for none; None where it cannot run."""

        def proves(epsilon: float) -> bool:
            prop = radius.at(epsilon)
            if name in LADDERS:
                options = {"timeout": self.options.timeout, "device": self.options.device, "seed": self.options.seed}
                return isinstance(verify(self.graph, prop, method=name, **options), Verified)
            found = self.evidence(prop, name, self.shared(prop), whole=False)
            return all(bool(one.proved.all()) for one in found)

        try:
            return bisect(proves, radius.start, radius.tolerance)
        except InputError:
            return None


def bisect(proves: Callable[[float], bool], start: float, tolerance: float) -> float:
    """The largest number seen for which something holds, as if it held for all smaller ones and for no larger.

    Args:
        proves: whether it holds.
        start: the first number tried; it is doubled while it holds.
        tolerance: the search ends where a number that holds and one that does not are as near as that.
    """
    low, high = 0.0, max(start, tolerance)
    for _ in range(_MOST_DOUBLINGS):
        if not proves(high):
            break
        low, high = high, 2 * high
    else:
        return low
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if proves(middle) else (low, middle)
    return low


def _load_gradients() -> None:
    """The first gradient of a vector makes torch load packages, which takes longer than bounding a small network."""
    x = torch.ones(2, requires_grad=True)
    torch.autograd.grad(2 * x, x, torch.ones(2))


def _bound(found: Sequence[Evidence]) -> float | None:
    """The certified margin of a query: the least of all properties and polytopes."""
    least = min(float(one.margins().min()) for one in found)
    return least if math.isfinite(least) else None


def _gap_closed(bound: float | None, reference: float | None, upper: float | None) -> float | None:
    if bound is None or reference is None or upper is None or upper <= reference:
        return None
    return (bound - reference) / (upper - reference)


def _rows(found: Evidence) -> int:
    """Linear objectives that were bounded: the property's, and both sides of every neuron in every step."""
    steps = found.working.relaxation.steps.values()
    return int((found.problem.rows.owner >= 0).sum()) + sum(2 * rows.numel() for taken in steps for rows, _ in taken)


def _same_boxes(graph: Graph, bounds: Bounds, other: Bounds) -> bool:
    """Whether the boxes of all activations' inputs are the very same."""
    sources = [node.inputs[0] for node in activations(graph)]
    return all(bounds.relaxation.boxes[name] is other.relaxation.boxes[name] for name in sources)
