"""What bounds the search's hot loop: products, memory traffic or Python, on a convolutional and a dense query.

    python -m benchmarks.profile [--families oval21,mnist_fc] [--number 1] [--seconds 5]

torch's profiler watches branch and bound alone, on one thread. Operators are put into three groups: products
(matrix products and convolutions, with their rate of arithmetic), passes over memory (everything else that touches
numbers, with its rate of traffic: what goes in, and as much again that comes out), and the rest of the wall time, in
which no operator runs: Python and the dispatch of operators.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from verifier.process import tune

tune()

import torch  # noqa: E402  (torch has to come after the settings)
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

import verifier  # noqa: E402
from benchmarks.machine import describe  # noqa: E402
from benchmarks.vnncomp.queries import Instance, read_instances  # noqa: E402
from verifier.bounding.ladder import METHODS, LadderOptions, Problem  # noqa: E402
from verifier.bounding.rows import stack_rows  # noqa: E402
from verifier.operators import place  # noqa: E402
from verifier.operators.tail import to_logits  # noqa: E402
from verifier.schedule import worthwhile_search  # noqa: E402
from verifier.search.branch_and_bound import Search  # noqa: E402
from verifier.search.result import SearchOptions  # noqa: E402
from verifier.specs.region import stack  # noqa: E402
from verifier.specs.robustness import resolve  # noqa: E402

#: subproblems before the profiler looks
WARM = 500
#: words in the names of operators that multiply matrices or convolve
PRODUCTS = ("mm", "addmm", "bmm", "convolution", "dot")
#: operators that only look at a tensor in another way
VIEWS = (
    "view",
    "reshape",
    "expand",
    "transpose",
    "permute",
    "slice",
    "select",
    "as_strided",
    "t",
    "unsqueeze",
    "alias",
)
#: bytes of a number
FLOAT32 = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="oval21,mnist_fc", help="comma-separated folders of the benchmarks")
    parser.add_argument("--network", default="", help="only networks whose name holds this")
    parser.add_argument("--number", type=int, default=1, help="which query of a family")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the search; as many before that")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "vnncomp")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120)
    for family in options.families.split(","):
        found = [i for i in read_instances(options.data, (family,), 1) if options.network in i.network.name]
        if options.number >= len(found):
            raise SystemExit(f"--number {options.number}: {family} has {len(found)} such queries")
        console.print(watched(found[options.number], options.seconds))
    console.print(f"one thread; {describe()}")


def search_of(instance: Instance) -> Search:
    """The search that `verify` would start on a query's first property, after alpha-CROWN; without what tightens boxes
    at its root or finds cuts."""
    original = verifier.load(instance.network)
    graph, query = to_logits(original, resolve(verifier.read_vnnlib(instance.spec), original))
    properties = query.properties[:1]

    def posed(dtype: torch.dtype) -> Problem:
        region = stack([one.region for one in properties]).to(dtype, "cpu")
        return Problem(place(graph, dtype), region, stack_rows(graph, properties, dtype, "cpu"))

    problem = posed(torch.float32)
    root = METHODS["alpha-crown"](problem, LadderOptions(), None)
    options = replace(worthwhile_search(SearchOptions(), graph, few_inputs=False), root=None, joint=None)
    return Search(problem, posed(torch.float64), root, torch.ones(1, dtype=torch.bool), options, lambda *_: False)


def watched(instance: Instance, seconds: float) -> Table:
    """A search under the profiler as a table."""
    search = search_of(instance)
    while not search.subproblems or not search.finished and search.subproblems < WARM:  # first batches are small, and
        search.run(monotonic() + seconds)  # the memory that they ask the system for is cleared page by page
    count, wall, events = profiled(search, seconds, shapes=False)
    again, _, shaped = profiled(search, seconds, shapes=True)
    if search.finished:
        raise SystemExit(f"{instance.key}: decided before {seconds:g} s were over; choose another query with --number")
    table = Table(title=f"{instance.key}: {count} subproblems in {wall:.1f} s")
    for column, side in (("", "left"), ("s", "right"), ("share", "right"), ("calls", "right"), ("rate", "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    products, passes = _products(events), _passes(events)
    parts = [(name, _seconds(some), _calls(some)) for name, some in (("products", products), ("memory", passes))]
    scale = count / max(again, 1) / 1e9  # from the subproblems whose shapes were seen to those that were timed
    rates = (
        f"{scale * sum(e.flops for e in _products(shaped)) / max(parts[0][1], 1e-9):.1f} GFLOP/s",
        f"{scale * sum(_traffic(e) for e in _passes(shaped)) / max(parts[1][1], 1e-9):.1f} GB/s",
    )
    for (name, spent, calls), rate in zip(parts, rates, strict=True):
        table.add_row(name, f"{spent:.2f}", f"{spent / wall:.0%}", f"{calls:,}", rate)
    rest = wall - sum(spent for _, spent, _ in parts)
    table.add_row("Python and dispatch", f"{rest:.2f}", f"{rest / wall:.0%}", "", "")
    return table


def profiled(search: Search, seconds: float, shapes: bool) -> tuple[int, float, list[Any]]:
    """Subproblems, wall time and operators of some seconds of a search.

    Args:
        shapes: with the shapes of operands. What is kept for them lies between the tensors in memory, so that the
            allocator cannot use their places again: fit for counting, not for timing.
    """
    before, begun = search.subproblems, monotonic()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=shapes, with_flops=shapes) as profiler:
        search.run(begun + seconds)
        wall = monotonic() - begun
    return search.subproblems - before, wall, list(profiler.key_averages(group_by_input_shape=shapes))


def _products(events: list[Any]) -> list[Any]:
    return [e for e in events if _is(e, PRODUCTS)]


def _passes(events: list[Any]) -> list[Any]:
    return [e for e in events if not _is(e, PRODUCTS) and not _is(e, VIEWS)]


def _is(event: Any, words: tuple[str, ...]) -> bool:
    name = event.key.removeprefix("aten::")
    return name in words or (words is PRODUCTS and any(word in name for word in ("convolution", "mm")))


def _seconds(events: list[Any]) -> float:
    return sum(event.self_cpu_time_total for event in events) / 1e6


def _calls(events: list[Any]) -> int:
    return sum(event.count for event in events)


def _traffic(event: Any) -> float:
    """Bytes that an operator's calls move: its inputs, and an output of the size of the largest."""
    sizes = [torch.Size(shape).numel() for shape in event.input_shapes if shape]
    return event.count * FLOAT32 * (sum(sizes) + max(sizes)) if sizes and event.self_cpu_time_total else 0.0


if __name__ == "__main__":
    main()
