"""Forward parity: the graph as read computes what onnxruntime computes on the file."""

from __future__ import annotations

import numpy as np

from verifier.attacks.replay import Replayer, sample_points
from verifier.attacks.rounding import Comparison, Judgement, plainly_same
from verifier.errors import InputError
from verifier.operators import evaluate
from verifier.specs.region import Region


def check_parity(replayer: Replayer, region: Region, samples: int = 4, seed: int = 0) -> None:
    """Compare the graph in float64 with onnxruntime at the centre, a corner and random points of a region.

    Args:
        replayer: session on the original file.
        region: the first of its batch is sampled.
        samples: number of points, at least 1.
        seed: of the random points.

    Raises:
        InputError: names the first node whose value differs by more than rounding (see `Comparison`), or overflows
            in onnxruntime.
    """
    points = sample_points(replayer, region, samples, seed)
    theirs = np.stack([replayer.run(x.numpy()) for x in points])
    if plainly_same(theirs, evaluate(replayer.exact, points).detach().numpy()):
        return
    comparison = Comparison(replayer.graph, replayer.exact, points)
    judgement = comparison.judge(replayer.graph.output, theirs)
    if judgement.same:
        return
    node, judgement = _first_difference(replayer, comparison, judgement)
    if judgement.overflow:
        what = f"onnxruntime's value of {node} is infinite or NaN where ours is finite"
        raise InputError(str(replayer.path), what, "rescale the network, or choose a smaller input set")
    error, allowed = judgement.error, judgement.allowed
    raise InputError(
        str(replayer.path),
        f"our value of {node} differs from onnxruntime's by {error:.3g}, rounding explains {allowed:.3g}",
        "this network cannot be trusted here; please report it",
    )


def _first_difference(replayer: Replayer, comparison: Comparison, output: Judgement) -> tuple[str, Judgement]:
    """The first node in the graph's order that differs, at the latest the output, whose judgement is given."""
    graph = replayer.graph
    runs = [replayer.intermediates(x.numpy()) for x in comparison.points]
    for node in graph.nodes:
        if node.op == "input" or node.name == graph.output or node.name not in runs[0]:
            continue
        value = np.stack([run[node.name] for run in runs])
        if value.size == comparison.values[node.name].numel():
            judgement = comparison.judge(node.name, value)
            if not judgement.same:
                return node.source or repr(node.name), judgement
    last = next(node for node in graph.nodes if node.name == graph.output)
    return last.source or repr(last.name), output
