"""The network itself as a mixed-integer program (Tjeng et al. 2019, arXiv 1711.07356), as a source of candidates.

HiGHS's points are replayed like anybody's; what it says of minima and of emptiness is not used at all.
"""

from __future__ import annotations

import numpy as np

from verifier.bounding.dual import Relaxation
from verifier.bounding.lp.highs import add_binaries, load, run
from verifier.bounding.lp.network import Layer
from verifier.bounding.lp.program import Program

#: a candidate whose greatest row is below this is wanted; it has to survive the solver's tolerances
CLEAR = -1e-4


def candidate(program: Program, relaxation: Relaxation, deadline: float | None) -> np.ndarray | None:
    """An input (flat) whose greatest target row HiGHS claims to be at most zero; None where it has none to offer.

    Args:
        program: with target rows.
        relaxation: boxes of the program's root, batch size 1.
    """
    graph = program.network.graph
    operators = {node.name: node for node in graph.nodes}
    layers = [layer for layer in program.network.layers if len(layer.free)]
    if any(operators[layer.node].op != "relu" for layer in layers):
        return None  # only two straight pieces have an exact encoding here
    highs = load(program)
    width = len(program.lower)
    for layer in layers:
        slope = operators[layer.node].constants["slope"].expand(graph.shapes[layer.node])
        leak = slope.reshape(-1).double().cpu().numpy()[layer.free]
        box = relaxation.boxes[layer.source]
        low, high = (end.reshape(-1).double().cpu().numpy()[layer.free] for end in (box.lower, box.upper))
        _add_choice(highs, program, layer, leak, low, high)
    highs.changeColCost(width - 1, 1.0)
    highs.changeColBounds(width - 1, -np.inf, 0.0)
    highs.setOptionValue("objective_target", CLEAR)
    if not run(highs, deadline):
        return None
    point = np.array(highs.getSolution().col_value)
    value = highs.getInfo().objective_function_value
    inputs = point[: len(program.values[graph.input].constant)]
    return inputs if len(inputs) and np.isfinite(inputs).all() and value <= 0 else None


def _add_choice(highs, program: Program, layer: Layer, leak: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """A binary a for each neuron: on the right piece where it is 1, on the left one where it is 0.

    With d = 1 - leak: ``z - leak p <= d high a`` and ``z - p <= -d low (1 - a)``, turned round where d < 0.
    """
    count, binary = len(layer.free), add_binaries(highs, len(layer.free))
    source = next(one for one in program.network.sources if one.name == layer.source)
    inputs = program.inputs[layer.source][np.searchsorted(source.entries, layer.free)]
    outputs, sign, size = program.outputs[layer.node], np.sign(1 - leak), np.abs(1 - leak)
    for slope, range_, limit in ((leak, high, np.zeros(count)), (np.ones(count), low, -size * low)):
        index = np.stack([outputs, inputs, binary], 1).astype(np.int32).reshape(-1)
        value = np.stack([sign, -sign * slope, -size * range_], 1).reshape(-1)
        starts = np.arange(0, 3 * count, 3, dtype=np.int32)
        highs.addRows(count, np.full(count, -np.inf), limit, 3 * count, starts, index, value)
