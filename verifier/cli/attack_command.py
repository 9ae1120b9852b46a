"""The command `attack`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verifier.cli import options
from verifier.cli.files import STDOUT
from verifier.cli.render import line
from verifier.cli.request import Inputs, Request, choose, query_flags
from verifier.cli.results import QueryResult
from verifier.cli.verify_command import check_outputs, write_results
from verifier.errors import InputError
from verifier.process import use_threads
from verifier.verdict import Falsified

if TYPE_CHECKING:
    from verifier.cli.load import LoadedQuery

EPILOG = """
\b
Examples:
  verifier attack network.onnx property.vnnlib --attack apgd
  verifier attack models/digits_mlp.onnx --dataset digits --index 0:100
      --epsilon 0.06 --json attacked.json

\b
Exit status: 0 the attack ran, whatever it found; 2 bad usage or input; 70 an
internal error.
"""

Attack = Annotated[
    str,
    typer.Option(metavar="NAME", help="pgd, pgd-plain, apgd, fab, square, or ensemble: AutoAttack's order."),
]
Loss = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="What pgd-plain and APGD descend: ce, dlr, margin, or auto: ce and targeted dlr."
    ),
]
Steps = Annotated[int, typer.Option(metavar="N", min=1, help="Gradient steps of each run of pgd-plain, APGD and FAB.")]
Restarts = Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each pgd-plain, APGD and FAB.")]
Queries = Annotated[int, typer.Option(metavar="N", min=1, help="Queries that Square makes for each input.")]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Limit of the whole attack, seen between its steps and replays.")
]


def attack(
    context: typer.Context,
    network: options.Network,
    spec: options.Spec = None,
    dataset: options.Dataset = None,
    index: options.Index = None,
    epsilon: options.Epsilon = None,
    norm: options.Norm = None,
    targets: options.Targets = None,
    mean: options.Mean = None,
    std: options.Std = None,
    no_clip: options.NoClip = False,
    data_dir: options.DataDir = None,
    attack: Attack = "ensemble",
    loss: Loss = "auto",
    steps: Steps = 100,
    restarts: Restarts = 1,
    queries: Queries = 5000,
    timeout: Timeout = None,
    witness: options.Witness = None,
    threads: options.Threads = None,
    json: options.Json = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.QuietScreen = False,
    debug: options.Debug = False,
) -> int:
    """Look for inputs that break a specification; each is replayed in onnxruntime before it counts.

    The specification is a VNN-LIB file, or robustness around inputs of a data set, which are attacked together.
    """
    flags = query_flags(index, epsilon, norm, targets, mean, std, no_clip, data_dir)
    request = Request(network, choose(spec, dataset, flags))
    check_outputs(timeout, json, witness)
    use_threads(threads)
    chosen = {"attack": attack, "loss": loss, "timeout": timeout, "device": device, "seed": seed}
    budget = {"steps": steps, "restarts": restarts, "queries": queries}
    visible = not quiet and json != STDOUT
    results = _run(request, threads, chosen, budget, visible)
    notes = write_results(witness, json, request.count, results)
    if visible:
        _show(results, monotonic() - context.obj.started, notes)
    return 0


def _run(
    request: Request, threads: int | None, chosen: dict[str, Any], budget: dict[str, int], visible: bool
) -> list[QueryResult]:
    """Read the files and attack; where no table will be shown, a line is printed for each query once it is known."""
    from verifier.cli.load import load

    files = load(request, threads)
    from verifier.attacks.ensemble import NAMES, Budget  # torch behind it
    from verifier.falsify import PGD, AttackOptions, attack

    if chosen["attack"] not in (PGD, *NAMES):
        what = "is not an attack that is known here"
        raise InputError(f"--attack {chosen['attack']}", what, f"choose one of {PGD}, {', '.join(NAMES)}")
    queries = [files.query(number) for number in range(request.count)]
    sha256 = None if files.graph.file is None else files.graph.file.sha256

    def result(number: int, verdict: Any) -> QueryResult:
        what = request.what
        spec = what.spec(number, queries[number].label) if isinstance(what, Inputs) else str(what)
        return QueryResult(str(request.network), sha256, spec, verdict)

    def tell(number: int, verdict: Any) -> None:
        if visible and not sys.stdout.isatty():
            print(line(result(number, verdict)), flush=True)

    settings = AttackOptions(budget=Budget(**budget), **chosen)
    starts = [_input(query) for query in queries] if isinstance(request.what, Inputs) else None
    found = attack(files.graph, [query.spec for query in queries], settings, starts, tell)
    return [result(number, verdict) for number, verdict in enumerate(found)]


def _input(query: LoadedQuery) -> Any:
    """The input of a data set in the network's unit: what is left of its query at radius zero."""
    from verifier.specs.robustness import Robustness

    assert query.at is not None
    spec = query.at(0.0)
    assert isinstance(spec, Robustness)
    return spec.region.enclosing_box().lower[0].numpy()


def _show(results: Sequence[QueryResult], seconds: float, notes: Sequence[str]) -> None:
    """What each attack broke and what stands after it, and for a data set the accuracies."""
    rows, count = stages(results), len(results)
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for name in ("attack", "broken", "still stand"):
            table.add_column(name, justify="left" if name == "attack" else "right")
        for name, broken, left in rows:
            table.add_row(name, str(broken), f"{left} of {count}")
        Console(highlight=False).print(table)
    else:
        for name, broken, left in rows:
            print(f"{name}: {broken} broken, {left} of {count} still stand")
    for text in (*summary(results, seconds), *notes):
        print(text, flush=True)


def stages(results: Sequence[QueryResult]) -> list[tuple[str, int, int]]:
    """For each attack that broke something, in the order of their success: its name, how many, and what then stands."""
    broken = sorted((r.verdict.seconds, r.verdict.method) for r in results if isinstance(r.verdict, Falsified))
    counted, left, rows = Counter(method for _, method in broken), len(results), []
    for method, count in counted.items():
        left -= count
        rows.append((method, count, left))
    return rows


def summary(results: Sequence[QueryResult], seconds: float) -> list[str]:
    """How many were broken; for a data set the accuracy at the inputs themselves and under the attack."""
    count = len(results)
    broken = sum(isinstance(result.verdict, Falsified) for result in results)
    if any(isinstance(result.spec, str) for result in results):
        return [f"{count} queries: {broken} falsified, {count - broken} undecided, {seconds:.1f} s"]
    wrong = sum(isinstance(result.verdict, Falsified) and result.verdict.method == "input" for result in results)
    clean, robust = 100 * (count - wrong) / count, 100 * (count - broken) / count
    text = (
        f"robust accuracy at most {robust:.2f}% ({count - broken} of {count}), accuracy {clean:.2f}%, {seconds:.1f} s"
    )
    return [text]
