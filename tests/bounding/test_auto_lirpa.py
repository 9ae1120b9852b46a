"""The reference engine: it agrees with ours where it is trusted, and is refused where it is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import verifier
from tests.laws.attacked import attacked_minimum
from tests.laws.networks import NETWORKS, Case, average_pool, case, cnn, maxpool
from tests.operators.build import Builder, only
from verifier.bounding import auto_lirpa, auto_lirpa_module
from verifier.bounding.ascent import AscentOptions, ascend
from verifier.bounding.auto_lirpa import AutoLirpa, auto_lirpa_bounds, reference
from verifier.bounding.auto_lirpa_module import Network
from verifier.bounding.dual import Objective
from verifier.bounding.ladder import METHODS, Bounds, LadderOptions, Problem, reevaluate
from verifier.bounding.rows import Rows, stack_rows
from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.operators import place
from verifier.specs.datasets import load_dataset
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box, LpBall

pytest.importorskip(
    "appdirs", reason="needs auto_LiRPA: pip install appdirs tqdm, pip install --no-deps auto_LiRPA==0.3"
)

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))
ROUNDING = 2e-5  # of float32, relative to a bound of size 1 or more
TRUSTED = ("mlp", "leaky", "sigmoid", "tanh", "cnn", "grouped", "maxpool")


def _relative(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours.to(torch.float64) - theirs) / theirs.abs().clamp(min=1)


def _images(model: Path, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    if model.name.startswith("digits"):
        data = load_dataset("digits")
        return data.x[:count], data.y[:count], 0.03
    data = load_dataset(model.parent / "mnist_samples.npz")
    return data.x[:count], data.y[:count], 0.01


def _problem(model: Path, count: int = 2) -> Problem:
    """All targets of the first images, clipped to [0, 1], in float32."""
    graph = verifier.load(model)
    x, y, epsilon = _images(model, count)
    centre = torch.as_tensor(x, dtype=torch.float64).reshape(count, *graph.input_shape)
    region = Box((centre - epsilon).clamp(0, 1), (centre + epsilon).clamp(0, 1)).to(torch.float32, "cpu")
    scores = torch.eye(10)
    rows = [scores[label] - scores[torch.arange(10) != label] for label in y.tolist()]
    C = torch.stack(rows).reshape(count, 9, *graph.output_shape)
    owner = torch.arange(9).expand(count, 9)
    return Problem(place(graph, torch.float32), region, Rows(Objective(graph.output, C), owner, (9,) * count))


def _theirs(problem: Problem, method: str) -> Tensor:
    return auto_lirpa_bounds(problem.graph, problem.region, problem.rows.objective.C, method=method)


def _ours(problem: Problem, method: str) -> Tensor:
    with torch.no_grad():
        return METHODS[method](problem, LadderOptions(), None).lower


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
@pytest.mark.parametrize("method", ("ibp", "crown-ibp", "crown"))
def test_models_agree(model: Path, method: str):
    problem = _problem(model)
    difference = _relative(_ours(problem, method), _theirs(problem, method))
    if model.stem == "digits_cnn":  # our interval of a maximum is exact, theirs that of y + relu(x - y)
        assert difference.mean() > 1e-3
        assert difference.min() > (-ROUNDING if method == "ibp" else -0.05)  # other boxes, other adaptive slopes
    elif "smooth" in model.stem and method != "ibp":  # tangents of sigmoid and tanh touch at other points
        assert difference.mean() > -1e-4 and difference.min() > -5e-3
    else:
        assert difference.abs().max() < ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_optimised_models_agree(model: Path):
    problem = _problem(model)
    theirs = _theirs(problem, "alpha-fixed")
    relaxation = METHODS["crown"](problem, LadderOptions(), None).relaxation
    ours, _ = ascend(problem.graph, problem.region, relaxation, problem.rows.objective, AscentOptions())
    difference = _relative(ours, theirs)  # two ascents of the same function, neither at its top
    assert difference.mean() > -2e-4
    assert difference.min() > -5e-3


@settings(max_examples=20)
@given(
    name=st.sampled_from(tuple(NETWORKS)), seed=st.integers(0, 2**32), method=st.sampled_from(tuple(auto_lirpa.METHODS))
)
def test_bounds_hold_or_the_network_is_refused(name: str, seed: int, method: str):
    drawn = case(name, "box", seed)
    try:
        lower = auto_lirpa_bounds(drawn.graph, drawn.region, drawn.C, None, method, iterations=4)
    except InputError:
        assert name not in TRUSTED
        return
    attacked = attacked_minimum(drawn.graph, drawn.region, drawn.C, drawn.generator)
    assert bool((lower <= attacked + ROUNDING * (1 + attacked.abs())).all())


def _both_hold(drawn: Case) -> None:
    """Bounds by our CROWN and by theirs are below what an attack finds."""
    attacked = attacked_minimum(drawn.graph, drawn.region, drawn.C, drawn.generator)
    theirs = auto_lirpa_bounds(drawn.graph, drawn.region, drawn.C)
    assert bool((theirs <= attacked + ROUNDING * (1 + attacked.abs())).all())
    assert bool((_crown(drawn) <= attacked + 1e-9).all())


def _crown(drawn: Case) -> Tensor:
    rows = Rows(Objective(drawn.graph.output, drawn.C), torch.zeros(drawn.C.shape[:2], dtype=torch.int64), (1, 1))
    return METHODS["crown"](Problem(drawn.graph, drawn.region, rows), LadderOptions(), None).lower


@pytest.mark.parametrize("seed", range(4))
def test_grouped_convolutions_run_in_matrix_mode(seed: int):
    """Their patches mode bounds these wrongly (0.3 and 0.7.1)."""
    drawn = case("grouped", "box", seed)
    assert Network(drawn.graph, pooling=True).matrix_mode
    _both_hold(drawn)


def _pool(padding: int, random: np.random.Generator, counted: bool = True) -> Graph:
    """Average pooling 2 x 2 between convolutions; without `counted`, padding is left out of the means."""
    if not counted:
        return average_pool(random)
    b = Builder(1, 2, 4, 4)
    plain = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    x = b.relu(b.add("conv", "x", attributes=plain, weight=random.normal(size=(2, 2, 3, 3)), bias=[0.1, -0.1]))
    mean = {"stride": (2, 2), "padding": (padding, padding), "dilation": (1, 1), "groups": 2}
    x = b.relu(b.add("conv", x, attributes=mean, weight=np.full((2, 1, 2, 2), 0.25)))
    size = 2 * (2 + padding) ** 2
    flat = b.add("reshape", x, attributes={"shape": (1, size)})
    b.add("linear", flat, weight=random.normal(size=(3, size)), bias=[0.0, 0.1, 0.2])
    return b.graph()


@pytest.mark.parametrize("padding", (0, 1))
@pytest.mark.parametrize("seed", range(2))
def test_average_pooling_is_bounded_soundly(padding: int, seed: int):
    """Their own rule is unsound with padding (0.3); then it stays a grouped convolution."""
    random = np.random.default_rng(seed)
    graph = _pool(padding, random)
    network = Network(graph, pooling=True)
    assert network.matrix_mode == (padding > 0)
    region = Box(torch.zeros(2, *graph.input_shape), torch.full((2, *graph.input_shape), 0.3)).to(torch.float64, "cpu")
    C = torch.as_tensor(random.normal(size=(2, 3, *graph.output_shape)))
    _both_hold(Case("pool", place(graph), region, C, seed))


@pytest.mark.parametrize("make", (average_pool, NETWORKS["upsampling"], NETWORKS["tangle"]))
def test_untrusted_operators_are_refused(make: Any):
    """Means that do not count padding, transposed convolutions, repetition: some of these they bound wrongly."""
    graph = make(np.random.default_rng(0))
    with pytest.raises(InputError, match="auto_LiRPA is not trusted with"):
        Network(graph, pooling=True)
    drawn = case(next(name for name, made in NETWORKS.items() if made is make), "box", 1)
    attacked = attacked_minimum(drawn.graph, drawn.region, drawn.C, drawn.generator)
    assert bool((_crown(drawn) <= attacked + 1e-9).all())


def test_refusal_names_every_node():
    b = Builder(1, 4)
    clipped = b.add("clip", "x", attributes={"low": 0.0, "high": 1.0})
    bent = b.relu(clipped, slope=-1.0)
    spread = b.add("expand", b.add("reshape", bent, attributes={"shape": (1, 4, 1)}), attributes={"shape": (1, 4, 3)})
    b.add("sum", spread, attributes={"axes": (2,)})
    with pytest.raises(InputError) as caught:
        Network(b.graph(), pooling=False)
    message = str(caught.value)
    for name in (clipped, bent, spread, b.nodes[-1].name):
        assert f"'{name}'" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "graph",
    (
        only("take", [(1, 6)], {"axis": 1}, indices=[5, 0, 0]),
        only("take", [(1, 3, 4, 4)], {"axis": 1}, indices=[2, 0]),
        only("take", [(1, 2, 5, 4)], {"axis": 2}, indices=[0, 2]),
        only("take", [(1, 2, 5, 7)], {"axis": 3}, indices=[1, 3, 5]),
        only("take", [(1, 2, 5, 7)], {"axis": 3}, indices=[4]),
        only("scale", [(1, 4)], scale=[1.0, -2.0, 0.0, 3.0], shift=0.5),
        only("scale", [(1, 3, 2, 2)], scale=np.reshape([1.0, -2.0, 0.5], (3, 1, 1)), shift=np.ones((1, 3, 2, 2))),
        only("scale", [(5,)], scale=-2.0, shift=np.arange(5.0)),
        only("relu", [(1, 4)], slope=0.1),
        only("sub", [(1, 4), (1, 4)]),
        only("minimum", [(1, 4), (1, 4)]),
    ),
    ids=lambda graph: graph.output,
)
def test_layers_compute_what_the_graph_computes(graph: Graph):
    lower = torch.linspace(-1, 0.5, int(np.prod(graph.input_shape))).reshape(1, *graph.input_shape)
    AutoLirpa(graph, Box(lower, lower + 1))  # compares the two on random points


@pytest.mark.parametrize(
    ("graph", "why"),
    (
        (only("take", [(1, 2, 4, 4)], {"axis": 2}, indices=[0, 1, 3]), "not evenly spaced"),
        (only("take", [(2, 3)], {"axis": 0}, indices=[0]), "this axis"),
        (only("scale", [(1, 2, 2, 2)], scale=np.reshape([1.0, 2.0], (2, 1)), shift=0.0), "within a channel"),
        (only("relu", [(2,)], slope=[0.0, 0.1]), "differs between entries"),
        (only("linear", [(1, 2, 3)], weight=np.ones((2, 3)), bias=np.zeros(2)), "more than one axis"),
    ),
)
def test_unusual_uses_are_refused(graph: Graph, why: str):
    with pytest.raises(InputError, match=why):
        Network(graph, pooling=True)


def test_whole_ball_of_norm_2_agrees():
    drawn = case("cnn", "box", 3)
    centre = torch.full((2, *drawn.graph.input_shape), 0.5, dtype=torch.float64)
    ball = LpBall.checked(centre, torch.full((2,), 0.3, dtype=torch.float64), None, 2)
    theirs = auto_lirpa_bounds(drawn.graph, ball, drawn.C)
    difference = _relative(_crown(Case("ball", drawn.graph, ball, drawn.C, 0)), theirs)
    assert difference.min() > -ROUNDING  # ours meets the box around the ball as well


@pytest.mark.parametrize("fault", ("cut", "norm", "radii"))
def test_other_regions_are_refused(fault: str):
    drawn = case("mlp", "box", 0)
    centre = torch.full((2, *drawn.graph.input_shape), 0.1, dtype=torch.float64)
    radius = torch.tensor([0.3, 0.2 if fault == "radii" else 0.3], dtype=torch.float64)
    limits = Box(torch.zeros_like(centre), torch.ones_like(centre)) if fault == "cut" else None
    ball = LpBall.checked(centre, radius, limits, 1 if fault == "norm" else 2)
    with pytest.raises(InputError, match="the radii" if fault == "radii" else "neither a box nor a whole ball"):
        auto_lirpa_bounds(drawn.graph, ball, drawn.C)


def test_a_network_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch):
    layers = {**auto_lirpa_module._LAYERS, "relu": lambda node, source, shape: torch.nn.LeakyReLU(0.01)}
    monkeypatch.setattr(auto_lirpa_module, "_LAYERS", layers)
    drawn = case("mlp", "box", 0)
    with pytest.raises(InputError, match="forward pass differs"):
        auto_lirpa_bounds(drawn.graph, drawn.region, drawn.C)


def test_absent_package_and_unknown_method_are_one_sentence(monkeypatch: pytest.MonkeyPatch):
    drawn = case("mlp", "box", 0)
    with pytest.raises(InputError, match="'best' is not a method of it; choose one of ibp"):
        auto_lirpa_bounds(drawn.graph, drawn.region, drawn.C, method="best")
    monkeypatch.setitem(sys.modules, "auto_LiRPA", None)
    with pytest.raises(InputError, match="pip install --no-deps auto_LiRPA==0.3"):
        auto_lirpa_bounds(drawn.graph, drawn.region, drawn.C)


SETTINGS = """
import logging, sys, warnings, torch
from tests.laws.networks import case
from verifier.bounding.auto_lirpa import auto_lirpa_bounds
from torch.onnx._internal.torchscript_exporter._globals import GLOBALS
def settings():
    return (list(warnings.filters), list(logging.getLogger().handlers), GLOBALS.autograd_inlining,
            "numpy.lib.arraysetops" in sys.modules, hasattr(torch._C.Node, "__getitem__"),
            hasattr(torch.onnx.symbolic_helper, "_set_opset_version"), torch.get_default_dtype(),
            torch.is_grad_enabled(), sys.getrecursionlimit())
before = settings()
drawn = case("cnn", "box", 0)
auto_lirpa_bounds(drawn.graph, drawn.region, drawn.C, method="alpha-crown", iterations=2)
assert settings() == before, (settings(), before)
"""


def test_settings_of_torch_and_python_are_left_alone(root: Path):
    done = subprocess.run([sys.executable, "-c", SETTINGS], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _rung(drawn: Case) -> tuple[Problem, Bounds]:
    C, size = drawn.C.numpy(), drawn.C.shape[1]
    properties = [
        Property(drawn.region.select(torch.tensor([b])), (Polytope(C[b].reshape(size, -1), np.zeros(size)),))
        for b in range(drawn.region.batch)
    ]
    problem = Problem(drawn.graph, drawn.region, stack_rows(drawn.graph, properties, torch.float64, "cpu"))
    return problem, reference(problem, LadderOptions(), None)


def test_rung_lowers_its_bounds_and_claims_no_dual_point():
    drawn = case("cnn", "box", 5)
    problem, found = _rung(drawn)
    raw = auto_lirpa_bounds(drawn.graph, drawn.region, drawn.C, method="alpha-fixed")
    assert found.lower.dtype == torch.float64
    assert bool((found.lower < raw).all()) and bool((found.lower > raw - 0.05 * (1 + raw.abs())).all())
    assert bool(found.by_interval.all()) and not found.relaxation.envelopes and not found.dual.weights
    ibp = METHODS["ibp"](problem, LadderOptions(), None).lower
    assert bool((reevaluate(problem, found).lower <= ibp + 1e-12).all())


def test_rung_stops_at_its_deadline():
    drawn = case("cnn", "box", 5)
    problem, found = _rung(drawn)
    late = reference(problem, LadderOptions(), deadline=0.0)
    assert bool((late.lower <= found.lower).all()) and bool((late.lower < found.lower).any())


def test_max_pooling_is_a_tournament_of_strided_convolutions():
    graph = maxpool(np.random.default_rng(0))
    assert Network(graph, pooling=True).matrix_mode
    assert not Network(cnn(np.random.default_rng(0)), pooling=True).matrix_mode
