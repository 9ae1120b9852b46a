"""auto_LiRPA (Xu et al. 2020, arXiv 2002.12920) as a reference engine: an independent second opinion.

It is never the root of trust: it works in float32, and some of its rules are unsound. So it is given only operators
that it bounds soundly (see `verifier.bounding.auto_lirpa_module`); grouped convolutions, which average pooling becomes
here, run in its matrix mode, since its patches mode bounds them wrongly; what it computes is compared with this
project's own forward pass before any bound is asked for; and `reference` lowers its bounds by a rounding allowance.

Versions 0.3 (PyPI) and 0.7 (its repository) are both accepted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from time import monotonic
from types import MappingProxyType, ModuleType
from typing import Any

import torch
from torch import Tensor

from verifier.bounding.auto_lirpa_module import Network, layout
from verifier.bounding.auto_lirpa_shims import import_shims, mend_class, quiet, tracing_shims
from verifier.bounding.dual import DualPoint
from verifier.bounding.intermediate import interval_only, relax_network
from verifier.bounding.interval import interval_relaxation
from verifier.bounding.ladder import Bounds, LadderOptions, Problem, allowance
from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.operators import evaluate, place
from verifier.specs.region import Box, LpBall, Region

#: our names of its methods; its ``CROWN-Optimized`` optimises hidden bounds along, unless it is given them
METHODS: Mapping[str, str] = MappingProxyType(
    {
        "ibp": "IBP",
        "crown-ibp": "CROWN-IBP",
        "crown": "CROWN",
        "alpha-fixed": "CROWN-Optimized",
        "alpha-crown": "CROWN-Optimized",
    }
)
_WHERE = "--method auto-lirpa"
_PARITY_POINTS = 8
_PARITY_TOLERANCE = 1e-4  # relative to the largest output
_RADIUS_SPREAD = 1e-3  # relative; radii of one batch that are this close are all rounded up to the largest


def auto_lirpa_bounds(
    graph: Graph,
    region: Region,
    C: Tensor,
    offset: Tensor | None = None,
    method: str = "crown",
    iterations: int = 20,
) -> Tensor:
    """Lower bounds (B, S) of ``<C, output> + offset`` over a region, by auto_LiRPA.

    Args:
        graph: the network, placed or not.
        region: a box, or a ball of norm 2 that no box cuts; batch B.
        C: (B, S, *Y); B may be 1.
        offset: (B, S) or None for zero.
        method: a key of `METHODS`; ``alpha-fixed`` optimises over CROWN's hidden bounds, ``alpha-crown`` optimises
            these along with the result.
        iterations: of the last two.

    Returns:
        float64 tensor of bounds computed in float32, without an allowance for rounding.

    Raises:
        InputError: see `AutoLirpa`.
    """
    return AutoLirpa(graph, region, iterations).lower_bounds(region, C, offset, method)


def reference(problem: Problem, options: LadderOptions, deadline: float | None = None) -> Bounds:
    """The rung of the ladder: auto_LiRPA's CROWN, and its optimised CROWN where that leaves a property open.

    Its bounds are lowered by the allowance for rounding in float32 of interval and CROWN-IBP bounds, the larger of the
    two. They come without a dual point, so what is returned beside them proves less than they say.

    Args:
        deadline: `time.monotonic` value after which the second method is not started.
    """
    single = _in_float32(problem)
    engine = AutoLirpa(problem.graph, problem.region, options.final.iterations)
    slack = _allowance(single).to(torch.float64)
    objective, lower = problem.rows.objective, None
    for method in ("crown", "alpha-fixed"):
        found = engine.lower_bounds(problem.region, objective.C, objective.offset, method) - slack.cpu()
        lower = found if lower is None else torch.maximum(lower, found)
        late = deadline is not None and monotonic() > deadline
        if late or bool((problem.rows.margins(lower.to(objective.C)) > 0).all()):
            break
    assert lower is not None
    relaxation = interval_relaxation(problem.graph, problem.region)
    return Bounds(lower.to(objective.C), torch.ones_like(lower, dtype=torch.bool), relaxation, DualPoint())


class AutoLirpa:
    """A network inside auto_LiRPA, traced once and bounded many times.

    Args:
        graph: the network, placed or not.
        region: a region on which what is traced is compared with our own forward pass.
        iterations: of ``alpha-fixed`` and ``alpha-crown``.

    Raises:
        InputError: auto_LiRPA is not installed, does not take an operator (all are named), or computes something else.
    """

    def __init__(self, graph: Graph, region: Region, iterations: int = 20):
        self._package = _import()
        self._shape = layout(graph.input_shape)
        self._old = self._package.__version__.startswith("0.3")
        network = Network(graph, pooling=not self._old)
        options: dict[str, Any] = {"optimize_bound_args": {"iteration": iterations}}
        if network.matrix_mode:
            options["conv_mode"] = "matrix"
        if self._old:  # its sparse bookkeeping fails on batches
            options |= {"sparse_alpha": False, "sparse_spec_alpha": False, "sparse_features_alpha": False}
        with tracing_shims():
            self._bounded = self._package.BoundedModule(network, torch.zeros(1, *self._shape), bound_opts=options)
        self._bounded.eval()
        self._check_parity(graph, region)

    def lower_bounds(self, region: Region, C: Tensor, offset: Tensor | None = None, method: str = "crown") -> Tensor:
        """As `auto_lirpa_bounds`."""
        if method not in METHODS:
            raise InputError(_WHERE, f"'{method}' is not a method of it", f"choose one of {', '.join(METHODS)}")
        x = self._input(region)
        rows = C.detach().to("cpu", torch.float32).flatten(2).expand(region.batch, -1, -1)
        arguments = {"x": (x,), "C": rows, "bound_upper": False}
        if method == "alpha-fixed":
            arguments |= self._hidden(arguments)
        with quiet(), torch.set_grad_enabled(METHODS[method] == "CROWN-Optimized"):
            lower, _ = self._bounded.compute_bounds(**arguments, method=METHODS[method])
        lower = lower.detach().to(torch.float64)
        return lower if offset is None else lower + offset.cpu()

    def _hidden(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The argument that fixes the bounds of all activations' inputs to CROWN's."""
        with quiet(), torch.no_grad():
            self._bounded.compute_bounds(**arguments, method="CROWN")
        sources = {node.inputs[0].name: node.inputs[0] for node in self._bounded.optimizable_activations}
        boxes = {name: (node.lower.detach(), node.upper.detach()) for name, node in sources.items()}
        return {"intermediate_layer_bounds" if self._old else "interm_bounds": boxes}

    def _input(self, region: Region) -> Tensor:
        """The region in float32, as a tensor that auto_LiRPA takes for perturbed."""
        region = region.to(torch.float32, "cpu")
        if isinstance(region, Box):
            lower, upper = (bound.reshape(region.batch, *self._shape) for bound in (region.lower, region.upper))
            ball = self._package.PerturbationLpNorm(norm=math.inf, x_L=lower, x_U=upper)
            return self._package.BoundedTensor((lower + upper) / 2, ball)
        if not isinstance(region, LpBall) or region.norm != 2 or _cut(region):
            raise InputError(
                _WHERE, "the input set is neither a box nor a whole ball of norm 2", "choose another --method"
            )
        least, largest = region.radius.aminmax()
        if largest - least > _RADIUS_SPREAD * largest:
            raise InputError(_WHERE, "the radii of the inputs differ", "give inputs of one radius at a time")
        ball = self._package.PerturbationLpNorm(norm=2, eps=float(largest))
        return self._package.BoundedTensor(region.center.reshape(region.batch, *self._shape), ball)

    def _check_parity(self, graph: Graph, region: Region) -> None:
        region = region.to(torch.float32, "cpu")
        points = region.sample(_PARITY_POINTS, torch.Generator().manual_seed(0)).flatten(0, 1)
        with torch.no_grad():
            ours = evaluate(place(graph, torch.float32, "cpu"), points).flatten(1)
            theirs = self._bounded(points.reshape(-1, *self._shape))
        difference, scale = float((ours - theirs).abs().max()), float(ours.abs().max())
        if not difference <= _PARITY_TOLERANCE * (1 + scale):
            raise InputError(
                _WHERE,
                f"its forward pass differs from ours by {difference:.1e} on outputs of size {scale:.1e}",
                "choose another --method",
            )


def _import() -> ModuleType:
    """auto_LiRPA, mended where it is old; torch's and Python's settings stay as they are."""
    try:
        with import_shims():
            import auto_LiRPA
    except ImportError as error:
        raise InputError(
            _WHERE,
            f"auto_LiRPA cannot be imported ({error})",
            "pip install appdirs tqdm, then pip install --no-deps auto_LiRPA==0.3",
        ) from error
    mend_class(auto_LiRPA.BoundedModule)
    return auto_LiRPA


def _cut(ball: LpBall) -> bool:
    """Whether the ball's box is smaller than the ball (by more than the rounding of its bounds)."""
    reach = (ball.radius * (1 - _RADIUS_SPREAD)).reshape(-1, *[1] * (ball.center.dim() - 1))
    return bool(((ball.box.lower > ball.center - reach) | (ball.box.upper < ball.center + reach)).any())


def _in_float32(problem: Problem) -> Problem:
    objective = problem.rows.objective
    offset = None if objective.offset is None else objective.offset.to(torch.float32)
    rows = replace(problem.rows, objective=replace(objective, C=objective.C.to(torch.float32), offset=offset))
    device = objective.C.device
    return Problem(place(problem.graph, torch.float32, device), problem.region.to(torch.float32, device), rows)


def _allowance(problem: Problem) -> Tensor:
    """(B, S): see `verifier.bounding.ladder.allowance`, of intervals and of one backward pass over them."""
    nothing = torch.zeros(problem.rows.owner.shape, device=problem.rows.owner.device)
    lines = relax_network(problem.graph, problem.region, interval_only)
    flat = interval_relaxation(problem.graph, problem.region)
    return torch.maximum(
        allowance(problem, Bounds(nothing, torch.zeros_like(nothing, dtype=torch.bool), lines, DualPoint())),
        allowance(problem, Bounds(nothing, torch.ones_like(nothing, dtype=torch.bool), flat, DualPoint())),
    )
