"""`radius`: brackets of input margins, by bounds and complete verification from below, by attacks from above.

A lower end is only ever an epsilon that was verified. Verified epsilons and distances of witnesses are kept for good,
so a bracket never grows; an epsilon that could not be verified only steers the search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

import numpy as np
import torch

from verifier.analysis.brackets import Bracket, Metric, least
from verifier.analysis.nearest import Item, Nearest, nearest, predictions
from verifier.attacks.nearest import MinimumNormOptions
from verifier.attacks.parity import check_parity
from verifier.attacks.replay import Replayer
from verifier.bounding.ladder import LadderOptions
from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.operators import find_device, place, require_bound_rules
from verifier.operators.tail import to_logits
from verifier.pipeline import evidence, verify
from verifier.specs.property import Query
from verifier.specs.robustness import resolve
from verifier.verdict import Falsified, Verified
from verifier.workers import full_precision

#: shares of the time that is left which the attack, and each method of bounds, may take
ATTACK_SHARE, BOUNDS_SHARE = 0.4, 0.4
#: first radius where no attack has found anything, as a share of the range's
_FIRST = 0.05
_MOST_STEPS = 64
#: where there is no range and nothing else to end the search, it ends here
_FARTHEST = 1e6

#: called with what is done next
Progress = Callable[[str], None]


@dataclass(frozen=True)
class RadiusOptions:
    """How to search.

    Args:
        norm, clip, mean, std: as of `verifier.analysis.brackets.Metric`.
        tolerance: width of a bracket, in units of epsilon, at which it counts as closed.
        methods: bounds that bisect the epsilon, all inputs in one batch; each goes on where the one before ended.
        complete: method of `verifier.verify` that decides what is left, input by input; None for bounds alone.
        per_class: also a bracket for every other class.
        timeout: seconds for each input on average; None for no limit. Checked between steps.
        attack: options of the attack; seed, device and time are taken from here.
        device, seed, memory, ladder: as of `verifier.schedule.VerifyOptions`.
    """

    norm: str = "inf"
    clip: tuple[float, float] | None = (0.0, 1.0)
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    tolerance: float = 1e-3
    methods: tuple[str, ...] = ("crown", "alpha-crown")
    complete: str | None = "branch-and-bound"
    per_class: bool = False
    timeout: float | None = 10.0
    attack: MinimumNormOptions = field(default_factory=MinimumNormOptions)
    device: str = "auto"
    seed: int = 0
    memory: int = 4 << 30
    ladder: LadderOptions = field(default_factory=LadderOptions)

    @property
    def metric(self) -> Metric:
        return Metric(self.norm, self.clip, self.mean, self.std)


def radius(graph: Graph, x: Any, label: int | None = None, norm: str = "inf", **options) -> Bracket:
    """Bracket the margin of one input: how far it is from the nearest input that is classified otherwise.

    Args:
        graph: from `verifier.load`. Without a file there is no replay, and so no upper end.
        x: the input, an array of any library and shape; its size must be that of the network's input.
        label: its true class, if known; the bracket is about the class that the network predicts, and says in
            `correct` whether they agree.
        norm: ``inf``, ``2`` or ``1``.
        options: further fields of `RadiusOptions`, by name.

    Raises:
        InputError: as of `verifier.verify`.
    """
    return radii(graph, [x], [label], norm=norm, **options)[0]


def radii(
    graph: Graph,
    inputs: Sequence[Any],
    labels: Sequence[int | None] | None = None,
    *,
    progress: Progress | None = None,
    **options,
) -> list[Bracket]:
    """Brackets of several inputs, bounded in one batch.

    Args:
        graph: as of `radius`.
        inputs: each (*X).
        labels: true classes.
        progress: called with what is done next.
        options: fields of `RadiusOptions`, by name.
    """
    made = RadiusOptions(**options)
    if not (made.tolerance > 0 and math.isfinite(made.tolerance)):
        raise InputError("tolerance", f"{made.tolerance:g} is no tolerance", "give a positive number, such as 0.001")
    if not inputs:
        raise InputError("inputs", "there is none", "give at least one")
    points = [_array(x) for x in inputs]
    with full_precision():
        return _Search(graph, points, labels or [None] * len(points), made, progress or (lambda what: None)).brackets()


class _Search:
    """One call: what is verified and what is found of every item so far."""

    def __init__(
        self,
        graph: Graph,
        inputs: Sequence[np.ndarray],
        labels: Sequence[int | None],
        options: RadiusOptions,
        progress: Progress,
    ):
        self.started, self.graph, self.options, self.progress = monotonic(), graph, options, progress
        self.metric, self.labels = options.metric, labels
        budget = None if options.timeout is None else options.timeout * len(inputs)
        self.deadline = None if budget is None else self.started + budget
        self.replayer = None if graph.file is None else Replayer(graph)
        classes = predictions(self.replayer, place(graph), self.metric, inputs)
        self.prepare(inputs[0], classes[0])
        count = math.prod(graph.output_shape)
        self.groups: list[list[int]] = []  # items of each input
        self.items: list[Item] = []
        for x, label in zip(inputs, classes, strict=True):
            targets = [k for k in range(count) if k != label] if options.per_class else [None]
            self.groups.append(list(range(len(self.items), len(self.items) + len(targets))))
            self.items += [Item(x, label, target) for target in targets]
        self.lower = [0.0] * len(self.items)
        self.method: list[str | None] = [None] * len(self.items)
        self.found: list[Nearest | None] = [None] * len(self.items)
        self.seconds = [0.0] * len(self.items)

    def prepare(self, x: np.ndarray, label: int) -> None:
        """Refuse what cannot be verified."""
        most = self.metric.largest(x)
        query = resolve(self.metric.ball(x, label, _FIRST * (most if math.isfinite(most) else 1.0)), self.graph)
        if self.replayer is not None:
            check_parity(self.replayer, query.properties[0].region, seed=self.options.seed)
        self.logits, _ = to_logits(self.graph, query)
        require_bound_rules(self.logits)
        find_device(self.options.device)

    def brackets(self) -> list[Bracket]:
        self.attack()
        for method in self.options.methods:
            self.bisect(method)
        if self.options.complete is not None:
            self.decide(self.options.complete)
        shared = (monotonic() - self.started - sum(self.seconds)) / len(self.items)
        made = [[self.bracket(i, shared, self.labels[n]) for i in group] for n, group in enumerate(self.groups)]
        return [least(one) if self.options.per_class else one[0] for one in made]

    def bracket(self, i: int, shared: float, label: int | None) -> Bracket:
        item, found = self.items[i], self.found[i]
        covered = self.lower[i] >= self.metric.largest(item.x)  # nothing in the range changes the class
        lower = math.inf if covered else self.lower[i]
        return Bracket(
            lower=lower,
            upper=self.upper(i),
            witness=None if found is None else found.point,
            exact=covered or self.upper(i) - lower <= self.options.tolerance,
            label=item.label,
            target=item.target,
            correct=None if label is None else label == item.label,
            method=self.method[i],
            attack=None if found is None else found.attack,
            tolerance=self.options.tolerance,
            seconds=shared + self.seconds[i],
        )

    def upper(self, i: int) -> float:
        found = self.found[i]
        return math.inf if found is None else found.distance

    def open(self) -> list[int]:
        """Items whose brackets are wider than the tolerance."""
        return [
            i
            for i, item in enumerate(self.items)
            if self.upper(i) - self.lower[i] > self.options.tolerance
            and self.lower[i] < min(_FARTHEST, self.metric.largest(item.x))
        ]

    def until(self, share: float) -> float | None:
        now = monotonic()
        return None if self.deadline is None else now + share * (self.deadline - now)

    def attack(self) -> None:
        if self.replayer is None:
            return
        self.progress("attack")
        until = self.until(ATTACK_SHARE)
        timeout = None if until is None else until - monotonic()
        options = replace(self.options.attack, seed=self.options.seed, device=self.options.device, timeout=timeout)
        self.found = nearest(self.logits, self.replayer, self.metric, self.items, options)

    def ceiling(self, i: int) -> float:
        """What the bisection starts from above: the witness's distance, or else the whole range."""
        most = self.metric.largest(self.items[i].x)
        return min(self.upper(i), most)

    def bisect(self, method: str) -> None:
        """Bisect the epsilon of every open item by one method of bounds, all items in one batch."""
        until, open_ = self.until(BOUNDS_SHARE), self.open()
        if not open_:
            return
        self.progress(method)
        high = {i: self.ceiling(i) for i in open_}
        for step in range(_MOST_STEPS):
            open_ = [i for i in open_ if high[i] - self.lower[i] > self.options.tolerance and self.lower[i] < _FARTHEST]
            if not open_ or (until is not None and monotonic() > until):
                return
            tried = [high[i] if step == 0 and self.whole(i) else self.middle(i, high[i]) for i in open_]
            for i, epsilon, proved in zip(open_, tried, self.proves(method, open_, tried, until), strict=True):
                if proved:
                    self.raise_lower(i, epsilon, method)
                else:
                    high[i] = epsilon

    def whole(self, i: int) -> bool:
        """Whether the search goes up to the whole range, so that nothing in it may change the class."""
        return math.isinf(self.upper(i)) and math.isfinite(self.ceiling(i))

    def middle(self, i: int, high: float) -> float:
        """The next epsilon to try; where there is no end above, twice the last one."""
        if math.isfinite(high):
            return (self.lower[i] + high) / 2
        return min(_FARTHEST, max(_FIRST, 2 * self.lower[i]))

    def proves(self, method: str, items: Sequence[int], epsilons: Sequence[float], until: float | None) -> list[bool]:
        """Whether a method verifies each item at its epsilon."""
        properties = [
            resolve(self.ball(self.items[i], epsilon), self.graph).properties[0]
            for i, epsilon in zip(items, epsilons, strict=True)
        ]
        options = self.options
        left = None if until is None else max(0.01, until - monotonic())
        found = evidence(
            self.graph,
            Query(tuple(properties)),
            method,
            timeout=left,
            device=options.device,
            seed=options.seed,
            memory=options.memory,
            ladder=options.ladder,
        )
        return [done for one in found for done in one.proved.tolist()]

    def ball(self, item: Item, epsilon: float):
        return self.metric.ball(item.x, item.label, epsilon, item.target)

    def raise_lower(self, i: int, epsilon: float, method: str) -> None:
        if epsilon > self.lower[i]:
            self.lower[i], self.method[i] = epsilon, method

    def decide(self, method: str) -> None:
        """Complete verification of what is still open, one item after the other; each gets its share of the time."""
        waiting = self.open()
        for number, i in enumerate(waiting):
            self.progress(f"{method}, {number + 1} of {len(waiting)}")
            begun, until = monotonic(), self.until(1 / (len(waiting) - number))
            self.close(i, method, until)
            self.seconds[i] += monotonic() - begun

    def close(self, i: int, method: str, until: float | None) -> None:
        """Narrow one bracket: first just below the witness, where a proof closes it, else in the middle."""
        refused, hopeful = math.inf, True  # hopeful: what was tried last was proved
        while i in self.open():
            high = min(self.ceiling(i), refused)
            if high - self.lower[i] <= self.options.tolerance or (until is not None and monotonic() >= until):
                return
            near = high if self.whole(i) else high - self.options.tolerance / 2
            epsilon = near if hopeful and math.isfinite(high) else self.middle(i, high)
            left = None if until is None else (until - monotonic()) * (0.5 if hopeful else 0.7)
            verdict = verify(
                self.graph,
                self.ball(self.items[i], epsilon),
                method=method,
                timeout=left,
                device=self.options.device,
                seed=self.options.seed,
                memory=self.options.memory,
                ladder=self.options.ladder,
            )
            hopeful = False
            if isinstance(verdict, Verified):
                self.raise_lower(i, epsilon, verdict.method)
                hopeful = math.isinf(refused)
            elif isinstance(verdict, Falsified) and verdict.counterexample is not None:
                self.lower_upper(i, verdict.counterexample, verdict.method)
            else:
                refused = epsilon

    def lower_upper(self, i: int, counterexample: Any, method: str) -> None:
        """A counterexample within an epsilon is a witness."""
        distance = self.metric.distance(self.items[i].x, counterexample.input)
        if distance < self.upper(i):
            self.found[i] = Nearest(distance, replace(counterexample, property=0), method)


def _array(x: Any) -> np.ndarray:
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu().numpy()
    return np.asarray(x, dtype=np.float64)
