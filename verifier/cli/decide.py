"""Queries one after the other, each within its time limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from verifier.cli.deadline import Worker
from verifier.cli.request import Inputs, Request
from verifier.cli.results import QueryResult
from verifier.errors import out_of_memory
from verifier.verdict import Reason, Stage, Undecided, Verdict

if TYPE_CHECKING:
    from verifier.cli.load import Loaded, LoadedQuery
    from verifier.graph.ir import Graph
    from verifier.search.result import Standing

#: what is kept of a time limit for the engine to hand over its own answer: seconds, and a share
_HANDOVER, _HANDOVER_SHARE = 0.1, 0.05


@dataclass(frozen=True)
class Settings:
    """How to verify: arguments of `verifier.pipeline.verify`, and the number of threads (None: torch's choice).

    `memory` is in bytes; None leaves it to the engine.
    """

    method: str
    timeout: float | None
    device: str
    seed: int
    threads: int | None
    memory: int | None = None


@dataclass
class Attempt:
    """A query on its way: written by the worker, read by the display and, at the time limit, for the answer.

    Args:
        request: the call that it is part of.
        number: its place among the request's queries.
        started: when its clock began.
        engine_started: when the engine began, None before.
        stages: those that are done.
        standing: of the search at work, None before there is one.
        rung: how far the rung at work is, None where it does not say.
        sha256, label: known once the files are read.
    """

    request: Request
    number: int
    started: float
    engine_started: float | None = None
    stages: list[Stage] = field(default_factory=list)
    sha256: str | None = None
    label: int | None = None
    standing: Standing | None = None
    rung: str | None = None

    def describe(self, graph: Graph, query: LoadedQuery) -> None:
        """Take over what the files say."""
        self.sha256 = None if graph.file is None else graph.file.sha256
        self.label = query.label

    def spec(self) -> str | Mapping[str, Any]:
        """The JSON field ``spec``."""
        what = self.request.what
        return what.spec(self.number, self.label) if isinstance(what, Inputs) else str(what)

    def result(self, verdict: Verdict) -> QueryResult:
        return QueryResult(str(self.request.network), self.sha256, self.spec(), verdict)

    def unanswered(self, method: str, reason: Reason) -> Undecided:
        """The answer where the engine, asked for a method, gave none: what it had found so far."""
        stages = tuple(self.stages)
        bound = stages[-1].bound if stages else None
        now = monotonic()
        seconds = now - (self.engine_started or now)
        subproblems = 0 if self.standing is None else self.standing.subproblems
        return Undecided(bound, stages[-1].name if stages else method, stages, seconds, subproblems, reason)


class Observer(Protocol):
    """Who is told what happens."""

    def begin(self, attempt: Attempt) -> None: ...
    def searching(self, attempt: Attempt) -> None: ...
    def finish(self, result: QueryResult) -> None: ...


def decide(request: Request, settings: Settings, started: float, observer: Observer) -> Iterator[QueryResult]:
    """The result of every query, in order, each as soon as it is known.

    The clock of the first query has run since the process began, so that reading files counts; that of each further
    one runs from the answer before. So n queries take n time limits at most.

    Args:
        request: the queries.
        settings: how to verify.
        started: `time.monotonic` when the process began.
        observer: told of every query before and after, and by the worker's thread during a search.

    Raises:
        InputError: the input cannot be used; the results before it stand.
    """
    worker = Worker()

    @cache
    def loaded() -> Loaded:
        from verifier.cli.load import load  # torch and onnx behind it

        return load(request, settings.threads)

    for number in range(request.count):
        attempt = Attempt(request, number, started)
        observer.begin(attempt)
        result = _answer(worker, loaded, attempt, settings, observer)
        observer.finish(result)
        yield result
        started = monotonic()


def _answer(
    worker: Worker, loaded: Callable[[], Loaded], attempt: Attempt, settings: Settings, observer: Observer
) -> QueryResult:
    deadline = None if settings.timeout is None else attempt.started + settings.timeout
    try:
        verdict = worker.call(lambda: _attempt(loaded, attempt, settings, observer, deadline), deadline)
    except TimeoutError:
        verdict = attempt.unanswered(settings.method, Reason.TIMEOUT)
    except (MemoryError, RuntimeError) as error:  # before the engine, or in what it cannot do without
        if not out_of_memory(error):
            raise
        verdict = attempt.unanswered(settings.method, Reason.MEMORY)
    return attempt.result(verdict)


def _attempt(
    loaded: Callable[[], Loaded], attempt: Attempt, settings: Settings, observer: Observer, deadline: float | None
) -> Verdict:
    """In the worker: read the files, unless that is done, and verify."""
    files = loaded()
    from verifier.bounding.ladder import LadderOptions  # torch behind it: not before the network is known to be good
    from verifier.pipeline import verify

    query = files.query(attempt.number)
    attempt.describe(files.graph, query)
    attempt.engine_started = monotonic()
    timeout = None
    if deadline is not None and settings.timeout is not None:
        handover = min(_HANDOVER, _HANDOVER_SHARE * settings.timeout)
        timeout = deadline - handover - attempt.engine_started
        if timeout <= 0:
            raise TimeoutError

    def watch(standing: Standing) -> None:
        attempt.standing = standing
        observer.searching(attempt)

    def tell(rung: str) -> None:
        attempt.rung = rung
        observer.searching(attempt)

    def ended(stage: Stage) -> None:
        attempt.rung = None
        attempt.stages.append(stage)

    return verify(
        files.graph,
        query.spec,
        method=settings.method,
        timeout=timeout,
        device=settings.device,
        seed=settings.seed,
        progress=ended,
        watch=watch,
        ladder=LadderOptions(tell=tell),
        **({} if settings.memory is None else {"memory": settings.memory}),
    )
