"""Forward parity: the graph as read computes what onnxruntime computes on the file."""

from __future__ import annotations

import numpy as np
import torch

from verifier.attacks.replay import Replayer
from verifier.errors import InputError
from verifier.operators import evaluate, evaluate_all, place
from verifier.specs.region import Region

_RELATIVE = 1e-5
_ROUNDINGS = 32.0


def check_parity(replayer: Replayer, region: Region, samples: int = 4, seed: int = 0) -> None:
    """Compare the graph in float64 with onnxruntime at the centre, a corner and random points of a region.

    With ``y`` our float64 values over all samples of one tensor and ``y32`` our float32 values, a difference counts as
    rounding up to ``1e-5 max |y| + 32 max |y32 - y|``: the second term measures how much float32 loses in this very
    network (it is only computed when the first does not suffice), and a wrong operator does not enlarge it.

    Args:
        replayer: session on the original file.
        region: the first of its batch is sampled.
        samples: number of points, at least 1.
        seed: of the random points.

    Raises:
        InputError: names the first node whose value differs by more than rounding.
    """
    points = _points(replayer, region, samples, seed)
    theirs = np.stack([replayer.run(x.numpy()) for x in points])
    ours = evaluate(replayer.exact, points).detach().numpy()
    if np.isfinite(theirs).all() and np.abs(theirs - ours).max() <= _RELATIVE * np.abs(ours).max():
        return
    node, error, allowed = _first_difference(replayer, points, theirs)
    if node is not None:
        raise InputError(
            str(replayer.path),
            f"our value of {node} differs from onnxruntime's by {error:.3g}, rounding explains {allowed:.3g}",
            "this network cannot be trusted here; please report it",
        )


def _points(replayer: Replayer, region: Region, samples: int, seed: int) -> torch.Tensor:
    """(samples, *X) float64 holding values of the network's input type."""
    generator = torch.Generator().manual_seed(seed)
    region = region.select(torch.zeros(1, dtype=torch.int64)).to(torch.float64, "cpu")
    box = region.enclosing_box()
    fixed = torch.stack([(box.lower + box.upper) / 2, box.upper])
    points = torch.cat([region.project(fixed), region.sample(samples, generator)])[:samples, 0]
    return torch.stack([torch.from_numpy(replayer.representable(x.numpy())) for x in points])


def _first_difference(replayer: Replayer, points: torch.Tensor, theirs: np.ndarray) -> tuple[str | None, float, float]:
    """The first node in the graph's order that differs, its error, and the error that rounding explains."""
    graph = replayer.graph
    exact = evaluate_all(replayer.exact, points)
    single = evaluate_all(place(graph, torch.float32), points.float())

    def judge(name: str, value: np.ndarray) -> tuple[bool, float, float]:
        y, y32 = exact[name].detach().numpy(), single[name].detach().numpy()
        with np.errstate(invalid="ignore"):  # inf - inf
            error = float(np.abs(value.reshape(y.shape) - y).max(initial=0))
            scale, lost = np.abs(y).max(initial=0), np.abs(y32 - y).max(initial=0)
            allowed = float(_RELATIVE * scale + _ROUNDINGS * lost)
        return error <= allowed, error, allowed  # not (error > allowed): NaN has to count as a difference

    same, error, allowed = judge(graph.output, theirs)
    if same:
        return None, error, allowed
    runs = [replayer.intermediates(x.numpy()) for x in points]
    for node in graph.nodes:
        if node.op == "input" or node.name == graph.output or node.name not in runs[0]:
            continue
        value = np.stack([run[node.name] for run in runs])
        if value.size == exact[node.name].numel():
            same, node_error, node_allowed = judge(node.name, value)
            if not same:
                return node.source or repr(node.name), node_error, node_allowed
    last = next(node for node in graph.nodes if node.name == graph.output)
    return last.source or repr(last.name), error, allowed
