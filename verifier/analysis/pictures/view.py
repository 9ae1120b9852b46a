"""From a network and a specification to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from verifier.analysis.pictures import margins, neurons
from verifier.analysis.pictures.layer import Layer
from verifier.analysis.pictures.marks import Film
from verifier.analysis.pictures.subject import Subject, relaxed, subject
from verifier.bounding.ladder import LadderOptions
from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.operators.table import OPERATORS
from verifier.schedule import LADDERS
from verifier.schedule import methods as all_methods
from verifier.specs.robustness import Spec

#: kinds of pictures, in the order in which they are shown
KINDS = ("neuron", "pair", "outputs", "logits", "waterfall")
#: methods that are compared where none are named, the loosest first: triangle-lp keeps CROWN's boxes
METHODS = ("ibp", "crown", "triangle-lp", "alpha-crown", "k-relu")
#: pairs of neurons, and sizes of the input set, that a moving picture goes through
PAIRS, SHARES = 8, (0.8, 0.6, 0.4, 0.2)


@dataclass(frozen=True)
class ViewOptions:
    """What to draw.

    Args:
        kinds: some of `KINDS`; empty for all that the network allows.
        layer: an activation, or the node that feeds it; None for the last with two undecided neurons.
        neurons: one or two of its neurons, flat; empty for those of the largest triangles.
        logits: two outputs, flat; None for those that the specification compares with the least margin.
        methods: names of methods; empty for those of `METHODS` that there are.
        moving: whether films have several frames: pairs of neurons, sizes of the input set.
        device, seed: as of `verifier.verify`.
        ladder: options of the methods.
    """

    kinds: tuple[str, ...] = ()
    layer: str | None = None
    neurons: tuple[int, ...] = ()
    logits: tuple[int, int] | None = None
    methods: tuple[str, ...] = ()
    moving: bool = False
    device: str = "auto"
    seed: int = 0
    ladder: LadderOptions = field(default_factory=LadderOptions)


def view(graph: Graph, spec: Spec, options: ViewOptions = ViewOptions()) -> tuple[Film, ...]:
    """Pictures of a network's relaxations over the input set of a specification's first property.

    Args:
        graph: from `verifier.load`.
        spec: from `verifier.robustness` or `verifier.read_vnnlib`, or a `Property`.

    Raises:
        InputError: there is no such layer, neuron, output, picture or method, or what is asked for cannot be drawn.
    """
    unknown = [kind for kind in options.kinds if kind not in KINDS]
    if unknown:
        raise InputError(f"--picture {unknown[0]}", "is not a picture", f"choose all or one of {', '.join(KINDS)}")
    about = subject(graph, spec, options.device, options.seed)
    films = _of_neurons(about, options) + _of_outputs(about, options)
    if not films:
        raise InputError("network", "nothing of it can be drawn", "it needs an activation, or two outputs")
    return tuple(films)


def wanted(options: ViewOptions, kind: str) -> bool:
    """Whether a kind of picture was asked for, be it by name or with all others."""
    return not options.kinds or kind in options.kinds


def _of_neurons(about: Subject, options: ViewOptions) -> list[Film]:
    if not any(wanted(options, kind) for kind in KINDS[:3]):
        return []
    layer = find_layer(about, options.layer, required=bool(options.kinds) or bool(options.neurons))
    if layer is None:
        return []
    chosen, ranking = _neurons(layer, options.neurons), layer.ranking()
    films = []
    if wanted(options, "neuron"):
        shown = options.neurons or chosen[:1]
        frames = list(dict.fromkeys((*shown, *ranking[:PAIRS]))) if options.moving else list(shown)
        pictures = tuple(neurons.neuron(layer, index) for index in frames)
        films += (
            [Film("neuron", tuple(map(str, frames)), pictures)]
            if options.moving
            else [Film("neuron", (str(index),), (picture,)) for index, picture in zip(frames, pictures, strict=True)]
        )
    for kind, draw in (("pair", neurons.pair), ("outputs", neurons.outputs)):
        if not wanted(options, kind) or not _allows(layer, kind, chosen, options):
            continue
        first = (chosen[0], chosen[1])
        others = [(i, j) for n, i in enumerate(ranking) for j in ranking[n + 1 : n + 3]]
        pairs = list(dict.fromkeys([first, *others]))[:PAIRS] if options.moving else [first]
        films.append(
            Film("neurons", tuple(f"{i}, {j}" for i, j in pairs), tuple(draw(layer, (i, j)) for i, j in pairs))
        )
    return films


def _allows(layer: Layer, kind: str, chosen: Sequence[int], options: ViewOptions) -> bool:
    """Whether a picture of a pair can be drawn; where it was asked for by name, it has to be.

    Raises:
        InputError: it cannot, and was asked for.
    """
    where = f"--picture {kind}"
    if len(chosen) < 2:
        if options.kinds:
            raise InputError(where, "needs two neurons", "name two, as in --neurons 0,1, of a layer that has them")
        return False
    if kind == "outputs" and not layer.joinable:
        if options.kinds:
            what = f"the activation of {layer.node.name} ({layer.node.op}) is not piecewise linear"
            raise InputError(where, what, "choose another --layer or picture")
        return False
    return True


def find_layer(about: Subject, name: str | None, required: bool) -> Layer | None:
    """The activation of a name (its own, or that of the node that feeds it); else the last with two undecided neurons.

    Of several activations of one name (a pooling is many) it is the last with two undecided neurons.

    Raises:
        InputError: there is no such layer, or none at all though one is required.
    """
    nodes = [node for node in about.placed.nodes if node.op in OPERATORS and OPERATORS[node.op].envelope is not None]
    # the reader names nodes by their outputs, `inspect` by the nodes of the file
    found = [n for n in nodes if name in (None, n.name, n.inputs[0]) or n.source.endswith(f"'{name}'")]
    if name is not None and not found:
        names = ", ".join(node.name for node in nodes)
        mend = f"choose one of {names}" if names else "it has none: choose --picture logits or waterfall"
        raise InputError(f"--layer {name}", "is not an activation of the network", mend)
    if not found:
        if required:
            raise InputError("network", "has no activation to draw", "choose --picture logits or waterfall")
        return None
    relaxation = relaxed(about)
    layers = [Layer(about, relaxation, node) for node in found]
    return max(reversed(layers), key=lambda layer: min(2, int(layer.undecided.sum())))


def _neurons(layer: Layer, asked: tuple[int, ...]) -> tuple[int, ...]:
    """The neurons that were asked for, and one more where only one was; else those of the largest triangles.

    Raises:
        InputError: there is no such neuron, the two are one, or there are more than two.
    """
    where = f"--neurons {','.join(map(str, asked))}"
    if len(asked) > 2 or len(set(asked)) < len(asked):
        raise InputError(where, "is not one neuron, or two different ones", "write it like 3 or 3,7")
    for index in asked:
        if not 0 <= index < layer.size:
            raise InputError(where, f"{layer.node.name} has no neuron {index}", f"use 0 to {layer.size - 1}")
    if asked:
        return asked
    return tuple(layer.ranking()[:2])


def _of_outputs(about: Subject, options: ViewOptions) -> list[Film]:
    methods = _methods(options.methods)
    films: list[Film] = []
    if wanted(options, "logits"):
        pair = _outputs(about, options)
        if pair is not None:
            frames = [margins.logits(about, pair, methods, options.ladder)]
            for share in SHARES if options.moving else ():
                smaller = margins.shrunk(about, share)
                frames.append(margins.logits(smaller, pair, methods, options.ladder, frames[0].window))
            names = tuple(f"{share:.0%}" for share in (1.0, *SHARES))[: len(frames)]
            films.append(Film("share of the input set", names[::-1], tuple(frames[::-1]), len(frames) - 1))
    if wanted(options, "waterfall"):
        films.append(Film("", ("",), (margins.waterfall(about, methods, options.ladder),)))
    return films


def _methods(asked: tuple[str, ...]) -> tuple[str, ...]:
    known = [name for name in all_methods() if name not in LADDERS]
    for name in asked:
        if name not in known:
            mend = f"choose some of {', '.join(known)}"
            raise InputError(f"--methods {name}", "is not a method that bounds by itself", mend)
    return asked or tuple(name for name in METHODS if name in known)


def _outputs(about: Subject, options: ViewOptions) -> tuple[int, int] | None:
    """Two outputs of the network.

    Raises:
        InputError: there are no such two, and they or the picture were asked for.
    """
    count = int(np.prod(about.graph.output_shape))
    if options.logits is None:
        if count < 2 and options.kinds:
            raise InputError("--picture logits", "the network has one output", "choose another picture")
        return margins.default_pair(about)
    where = f"--logits {options.logits[0]},{options.logits[1]}"
    for index in options.logits:
        if not 0 <= index < count:
            raise InputError(where, f"the network has no output {index}", f"use 0 to {count - 1}")
    if options.logits[0] == options.logits[1]:
        raise InputError(where, "names one output twice", "name two different ones")
    return options.logits
