"""The command `verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import typer

from verifier.cli import options
from verifier.cli.checks import check_files, check_timeout
from verifier.cli.decide import Settings, decide
from verifier.cli.files import STDOUT, write_whole
from verifier.cli.render import Display, next_steps
from verifier.cli.request import Request, choose, parse_memory, query_flags
from verifier.cli.results import QueryResult, document, exit_status
from verifier.process import use_threads
from verifier.verdict import Falsified

EPILOG = """
\b
Examples:
  verifier verify network.onnx property.vnnlib --timeout 60
  verifier verify models/digits_mlp.onnx --dataset digits --index 0:5 --epsilon 8/255

\b
Exit status: 0 every query verified, 1 at least one falsified, 2 bad usage or
input, 3 none falsified but at least one undecided, 70 an internal error.
"""


def verify(
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
    timeout: options.Timeout = None,
    method: options.Method = "auto",
    witness: options.Witness = None,
    threads: options.Threads = None,
    memory: options.Memory = None,
    json: options.Json = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Prove that no input of a set breaks a specification, or find one that does.

    The specification is a VNN-LIB file, or robustness around inputs of a data set.
    """
    started = context.obj.started
    flags = query_flags(index, epsilon, norm, targets, mean, std, no_clip, data_dir)
    request = Request(network, choose(spec, dataset, flags))
    settings = Settings(method, timeout, device, seed, threads, None if memory is None else parse_memory(memory))
    check_outputs(timeout, json, witness)
    use_threads(threads)
    with Display(not quiet and json != STDOUT, not quiet, request.count) as display:
        results: list[QueryResult] = []
        try:
            for result in decide(request, settings, started, display):
                results.append(result)
        finally:  # an error or an interrupt in a later query does not take away what is known
            if results:
                notes = write_results(witness, json, request.count, results) + next_steps(results, method)
                if len(results) < request.count:
                    notes.append(f"stopped after {len(results)} of {request.count} queries")
                display.close(results, monotonic() - started, notes)
    return exit_status(results)


def check_outputs(timeout: float | None, json: Path | None, witness: Path | None) -> None:
    """Refuse now what would fail after the work."""
    check_timeout(timeout)
    check_files(json=json, witness=witness)


def write_results(witness: Path | None, json: Path | None, count: int, results: Sequence[QueryResult]) -> list[str]:
    """Write the files that were asked for, of ``count`` queries; what to say about counterexamples."""
    from verifier.attacks.witness import format_witness

    written = []
    for result in results:
        if isinstance(result.verdict, Falsified) and result.verdict.counterexample is not None and witness is not None:
            path = witness
            if count > 1 and not isinstance(result.spec, str):
                path = witness.with_stem(f"{witness.stem}-{result.spec['index']}")
            write_whole(path, format_witness(result.verdict.counterexample), "--witness")
            written.append(path)
    if json is not None:
        write_whole(json, document(results), "--json")
    if witness is None and any(isinstance(result.verdict, Falsified) for result in results):
        return ["falsified: write counterexamples with --witness FILE"]
    return [f"counterexample in {path}" for path in written[:1]] + [f"and in {path}" for path in written[1:]]
