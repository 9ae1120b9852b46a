"""Pictures of one or two neurons of a layer: what is known of them, and how far from the truth it is."""

from __future__ import annotations

from itertools import product

import numpy as np

from verifier.analysis.pictures.layer import Layer, Pair
from verifier.analysis.pictures.marks import Mark, Picture
from verifier.analysis.pictures.plane import clip, hull, rectangle, window
from verifier.relaxations.octahedra import corners

#: points of an activation's graph that are drawn
GRID = 129
#: labels of marks
BOX, TRIANGLE, ENVELOPE, DEEPPOLY, GRAPH = "box", "triangle", "hull of all lines", "DeepPoly's lines", "activation"
REACHED, OCTAGON, KINKS = "sampled inputs", "octagon", "kinks"
BY_BOX, BY_OCTAGON = "triangles over box", "triangles over octagon"
HULL, EXACT = "k-ReLU hull", "octagon's exact image"


def neuron(layer: Layer, index: int) -> Picture:
    """Input x and output z of one neuron: the box, the two lines of DeepPoly and CROWN, and the hull of all lines."""
    (low, high), (z_low, z_high) = layer.inputs(index), layer.outputs(index)
    grid = np.union1d(np.linspace(low, high, GRID), [k for k in layer.kinks if low < k < high])
    lower, upper = layer.hull(index, grid)
    between = hull(np.concatenate([np.stack([grid, lower], 1), np.stack([grid, upper], 1)]))
    ends, reached = np.array([low, high]), layer.sampled((index,))[:, 0]
    seen = np.unique(np.clip(grid, reached.min(), reached.max()))
    marks = [
        Mark("area", BOX, "ibp", rectangle(np.array([low, z_low]), np.array([high, z_high]))),
        Mark("area", TRIANGLE if layer.node.op == "relu" else ENVELOPE, "triangle-lp", between),
        *(
            Mark("curve", DEEPPOLY, "crown", np.stack([ends, slope * ends + intercept], 1), dashed=True)
            for slope, intercept in layer.default_lines(index)
        ),
        Mark("curve", GRAPH, "network", np.column_stack([grid, layer.forward(grid[:, None], (index,))])),
        Mark("curve", REACHED, "network", np.column_stack([seen, layer.forward(seen[:, None], (index,))]), width=3.6),
    ]
    return Picture(
        "neuron",
        f"Neuron {index} of {layer.title}",
        f"CROWN bounds its input to [{low:.3g}, {high:.3g}]. The filled hull is all that a relaxation of single "
        "neurons can use; DeepPoly keeps a line on each side.",
        f"input x of neuron {index}",
        f"output z = {layer.node.op}(x)",
        tuple(marks),
        window(np.concatenate([mark.points for mark in marks])),
    )


def pair(layer: Layer, pair: Pair) -> Picture:
    """Inputs of two neurons: box, octagon, values that the network takes, and the lines on which they bend."""
    box, (octagon, _) = layer.box(pair), layer.octagon(pair)
    marks = [Mark("area", BOX, "ibp", box), Mark("area", OCTAGON, "k-relu", octagon)]
    view = window(np.concatenate([box, octagon]))
    for axis, kink in product((0, 1), layer.kinks):
        if view[axis][0] < kink < view[axis][1]:
            ends = np.array([[kink, view[1 - axis][0]], [kink, view[1 - axis][1]]])
            marks.append(Mark("curve", KINKS, "unsafe", ends if axis == 0 else ends[:, ::-1], dashed=True))
    marks.append(Mark("cloud", REACHED, "network", layer.sampled(pair)))
    return Picture(
        "pair",
        f"Inputs of neurons {pair[0]} and {pair[1]} of {layer.title}",
        "Bounds of each neuron make the box; bounds of their sum and difference cut it down to the octagon."
        + (" Between the kinks the activation is linear." if layer.joinable else ""),
        f"input of neuron {pair[0]}",
        f"input of neuron {pair[1]}",
        tuple(marks),
        view,
    )


def outputs(layer: Layer, pair: Pair) -> Picture:
    """Outputs of two neurons: the octagon's exact image, its hull (k-ReLU), and what triangles leave (projected).

    The layer has to be `joinable`.
    """
    octagon, limits = layer.octagon(pair)
    points = corners(limits, layer.kinks, 2)[0].cpu().numpy()
    axes = [sorted({*layer.inputs(i), *_within(layer.kinks, layer.inputs(i))}) for i in pair]
    marks = [
        Mark("area", BY_BOX, "ibp", _triangles(layer, pair, np.array(list(product(*axes))))),
        Mark("area", BY_OCTAGON, "triangle-lp", _triangles(layer, pair, points)),
        *(Mark("area", EXACT, "network", piece) for piece in _pieces(layer, octagon, pair)),
        Mark("area", HULL, "k-relu", hull(layer.forward(points, pair))),
        Mark("cloud", REACHED, "network", layer.forward(layer.sampled(pair), pair)),
    ]
    return Picture(
        "outputs",
        f"Outputs of neurons {pair[0]} and {pair[1]} of {layer.title}",
        "Projected onto both outputs. Triangles treat each neuron on its own; the k-ReLU hull is the smallest convex "
        "set that holds the image of the octagon.",
        f"output of neuron {pair[0]}",
        f"output of neuron {pair[1]}",
        tuple(marks),
        window(np.concatenate([mark.points for mark in marks])),
    )


def _within(kinks: tuple[float, ...], ends: tuple[float, float]) -> list[float]:
    return [kink for kink in kinks if ends[0] < kink < ends[1]]


def _pieces(layer: Layer, octagon: np.ndarray, pair: Pair) -> list[np.ndarray]:
    """Images of the parts that the kinks cut out of an octagon; on each the activation is linear."""
    ends, pieces = [-np.inf, *layer.kinks, np.inf], []
    for cell in product(zip(ends, ends[1:], strict=False), repeat=2):
        part = octagon
        for axis, (low, high) in enumerate(cell):
            for sign, limit in ((-1, low), (1, high)):
                if np.isfinite(limit) and len(part):
                    part = clip(part, sign * np.eye(2)[axis], sign * limit)
        if len(part):
            pieces.append(hull(layer.forward(part, pair)))
    return pieces


def _triangles(layer: Layer, pair: Pair, points: np.ndarray) -> np.ndarray:
    """Outputs that the relaxations of single neurons allow where the inputs lie in a polygon.

    The relaxed set is convex, and its projection reaches as far in a direction d as ``sum_i d_i z_i`` with every z_i on
    the upper or the lower end of its hull. That is concave in the inputs, and linear but for the kinks: it is largest
    at a corner of the parts between them.

    Args:
        points: (V, 2) all such corners.
    """
    sides = [layer.hull(index, points[:, axis]) for axis, index in enumerate(pair)]
    return hull(np.concatenate([np.stack([a, b], 1) for a, b in product(*sides)]))
