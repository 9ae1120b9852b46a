"""What people see: lines in a pipe, a table and a live status on a terminal. rich is imported for terminals only."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from verifier.cli.decide import Attempt
from verifier.cli.results import QueryResult, counts, word
from verifier.verdict import Falsified, Reason, Undecided

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.status import Status
    from rich.table import Table

_COLOURS = {"verified": "green", "falsified": "red", "undecided": "yellow"}
_REFRESH = 8  # times a second
_LINE_EVERY = 10.0  # seconds between two lines about a search where there is no terminal


class Display:
    """Shows the queries of one call: progress on stderr, and the answers on stdout.

    Progress is a live status on a terminal; elsewhere a line now and then of a search that takes long.

    Args:
        answers: print the answers; False where stdout is for JSON, or nothing is to be seen.
        progress: show the progress.
        total: number of queries.
    """

    def __init__(self, answers: bool, progress: bool, total: int):
        self.answers, self.progress, self.total = answers, progress, total
        self.current: Attempt | None = None
        self.next_line = 0.0
        self.table = answers and sys.stdout.isatty()
        self.status: Status | None = None
        if progress and sys.stderr.isatty():
            from rich.console import Console

            self.status = Console(stderr=True).status("", refresh_per_second=_REFRESH)

    def begin(self, attempt: Attempt) -> None:
        self.current, self.next_line = attempt, monotonic() + _LINE_EVERY
        if self.status is not None:
            self.status.update(_Progress(attempt, self.total))
            self.status.start()

    def searching(self, attempt: Attempt) -> None:
        if self.progress and self.status is None and attempt is self.current and monotonic() > self.next_line:
            self.next_line = monotonic() + _LINE_EVERY
            print(progress_line(attempt, self.total), file=sys.stderr, flush=True)

    def finish(self, result: QueryResult) -> None:
        self.current = None  # whoever gave up waiting for its search hears no more of it
        if self.answers and not self.table:
            print(line(result), flush=True)

    def close(self, results: Sequence[QueryResult], seconds: float, notes: Sequence[str]) -> None:
        """The table on a terminal, the summary, and what to do next."""
        self.stop()
        if not self.answers:
            return
        if self.table:
            from rich.console import Console

            console = Console(highlight=False)
            console.print(table(results))
            for text in (summary(results, seconds), *notes):
                console.print(text, markup=False, soft_wrap=True)
        else:
            print("\n".join((summary(results, seconds), *notes)), flush=True)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the live status off the terminal."""
        if self.status is not None:
            self.status.stop()


class _Progress:
    """The status of a query on its way; rich renders it again at every refresh."""

    def __init__(self, attempt: Attempt, total: int):
        self.attempt, self.total = attempt, total

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield progress_line(self.attempt, self.total)


def progress_line(attempt: Attempt, total: int) -> str:
    """Where a query on its way stands."""
    parts = [f"query {attempt.number + 1} of {total}", f"{monotonic() - attempt.started:.1f} s"]
    if attempt.stages:
        stage = attempt.stages[-1]
        parts += [f"after {stage.name}", f"bound {_number(stage.bound)}"]
    else:
        parts.append("reading" if attempt.engine_started is None else "bounding")
    if attempt.rung is not None:
        parts.append(attempt.rung)
    if attempt.standing is not None:
        now = attempt.standing
        parts.append(f"search: {now.open} subproblems open, {now.closed} closed, bound {_number(now.bound)}")
    return ", ".join(parts)


def line(result: QueryResult) -> str:
    """One query as a line of text."""
    verdict = result.verdict
    remark = _remark(result)
    head = f"{_name(result)}: {word(verdict)}" + (f" ({remark})" if remark else "")
    return f"{head}, bound {_number(verdict.bound)}, {verdict.method}, {verdict.seconds:.2f} s"


def table(results: Sequence[QueryResult]) -> Table:
    """All queries, one a row."""
    from rich.markup import escape
    from rich.table import Table

    made = Table()
    for name in ("query", "verdict", "bound", "method", "seconds", "remark"):
        numeric, free = name in ("bound", "seconds"), name in ("query", "remark")
        made.add_column(name, justify="right" if numeric else "left", no_wrap=not free, overflow="fold")
    for result in results:
        verdict, kind = result.verdict, word(result.verdict)
        made.add_row(
            escape(_name(result)),
            f"[{_COLOURS[kind]}]{kind}[/]",
            _number(verdict.bound),
            verdict.method,
            f"{verdict.seconds:.2f}",
            _remark(result),
        )
    return made


def summary(results: Sequence[QueryResult], seconds: float) -> str:
    """How many queries ended how, and the time of the whole call."""
    noun = "query" if len(results) == 1 else "queries"
    found = ", ".join(f"{count} {kind}" for kind, count in counts(results).items())
    return f"{len(results)} {noun}: {found}, {seconds:.1f} s"


def next_steps(results: Sequence[QueryResult], method: str) -> list[str]:
    """For each reason that left a query undecided, one line of what to try."""
    verdicts = [result.verdict for result in results if isinstance(result.verdict, Undecided)]
    steps = []
    for reason in dict.fromkeys(verdict.reason for verdict in verdicts):
        unstarted = all(not verdict.stages for verdict in verdicts if verdict.reason is reason)
        steps.append(f"{reason}: {_advice(reason, method, unstarted)}")
    return steps


def _advice(reason: Reason, method: str, unstarted: bool) -> str:
    match reason:
        case Reason.TIMEOUT if unstarted:
            return "the time was over before the first bound was computed; give more with --timeout"
        case Reason.TIMEOUT:
            return "give more time with --timeout"
        case Reason.MEMORY:
            return "give more with --memory, or choose a cheaper --method such as crown-ibp"
        case Reason.NUMERICAL_DISAGREEMENT:
            return "an input on the edge of the unsafe set behaves differently in onnxruntime; no claim is made"
    if method == "auto":
        return "the tightest bound leaves a gap and no counterexample was found; try a smaller input set"
    return f"{method} alone could not decide; try --method auto"


def _name(result: QueryResult) -> str:
    if isinstance(result.spec, str):
        return Path(result.spec).name
    label = result.spec["label"]
    return f"index {result.spec['index']}" + ("" if label is None else f", label {label}")


def _remark(result: QueryResult) -> str:
    """Why it is undecided, or the class of the counterexample."""
    verdict = result.verdict
    if isinstance(verdict, Undecided):
        return str(verdict.reason)
    if isinstance(verdict, Falsified) and verdict.counterexample is not None and not isinstance(result.spec, str):
        return f"becomes {int(verdict.counterexample.output.argmax())}"
    return ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
