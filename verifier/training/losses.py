"""Training losses: natural, adversarial and certified, each at a fixed or at an adaptive radius.

All certified losses are cross entropies of margins that `verifier.bounding` computes. Sources: IBP, Gowal et al. 2018;
CROWN-IBP, Zhang et al. 2019; its loss fusion, Xu et al. 2020 (arXiv 2002.12920); SABR, Mueller et al. 2023; MTL-IBP,
Exp-IBP and CC-IBP, De Palma et al. 2024 (arXiv 2305.13991); PGD, Madry et al. 2018; TRADES, Zhang et al. 2019 (arXiv
1901.08573); SOVR and TSOVR, Kanai et al. 2023 (arXiv 2207.10283), reconstructed where `verifier.training.switching`
says so; adaptive radii, Nurlanov et al.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.specs.region import Box
from verifier.training.attack import ascend_in_box
from verifier.training.bounded import BoundedModule, Margins, ball, cross_entropy, part_around, per_sample
from verifier.training.options import LossOptions
from verifier.training.radii import GRAIN, certified_radii, filled
from verifier.training.regularisers import balance, tightness
from verifier.training.switching import one_versus_rest, signed, switched

__all__ = ["LOSSES", "LossOptions", "LossTerms", "TrainingLoss", "training_loss"]

#: memory that the widest layer takes of samples whose radii are searched for together
CACHE_BYTES = 1 << 20


@dataclass(frozen=True)
class LossTerms:
    """What one step of training needs and reports. All tensors but `loss` are detached.

    Args:
        loss: ().
        correct: (B,) bool, by the clean logits.
        certified: (B,) bool: correct within epsilon by the bounds that the loss computed anyway; False where it
            computes none over the whole ball (standard and the adversarial losses; sabr with fixed radii).
        radius: (B,) the adaptive radius; with fixed radii epsilon where certified, else 0.
        parts: the terms that the loss is made of, each ().
    """

    loss: Tensor
    correct: Tensor
    certified: Tensor
    radius: Tensor
    parts: Mapping[str, Tensor]


class TrainingLoss(Protocol):
    """A loss of one batch. `network.clean` is called by the loss, and by nobody else in a step."""

    def __call__(
        self,
        network: BoundedModule,
        x: Tensor,
        y: Tensor,
        epsilon: float | Tensor,
        epsilon_end: float,
        previous_radius: Tensor | None,
        generator: torch.Generator,
    ) -> LossTerms:
        """Loss and what is known of the samples.

        Args:
            network: in training mode, unless statistics of batch normalisation shall stay.
            x: (B, *X) in [0, 1].
            y: (B,) int64.
            epsilon: radius now, of all (a number or a () tensor) or (B,), in units of x.
            epsilon_end: radius at the end of the schedule; the regularisers fade out on the way there.
            previous_radius: (B,) adaptive radii of these samples an epoch ago, or None; they only save time.
            generator: of the attacks' starts.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """One batch on its way through a loss.

    Args:
        graph: of the parameters now, with the statistics of the clean pass.
        logits: (B, K) clean.
        radius: (B,) of the boxes.
    """

    network: BoundedModule
    graph: Graph
    x: Tensor
    y: Tensor
    logits: Tensor
    radius: Tensor
    options: LossOptions
    generator: torch.Generator

    def select(self, index: Tensor) -> Batch:
        """The samples at int64 indices."""
        x, y, logits, radius = (value[index] for value in (self.x, self.y, self.logits, self.radius))
        return replace(self, x=x, y=y, logits=logits, radius=radius)

    @property
    def box(self) -> Box:
        return ball(self.x, self.radius)

    def attacked(self, objective: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Points (B, *X) of the attacked box, and their logits (B, K).

        Args:
            objective: of logits (B, K) -> (B,), to be made large; None for the cross entropy.
        """
        options = self.options
        loss = objective or (lambda z: F.cross_entropy(z, self.y, reduction="none"))
        box = ball(self.x, options.attack_scale * self.radius)
        point = ascend_in_box(
            lambda x: loss(self.network.logits(x, self.graph)),
            box,
            options.attack_steps,
            options.attack_step_size,
            self.generator,
        )
        return point, self.network.logits(point, self.graph)


@dataclass(frozen=True)
class Robust:
    """The robust part of a loss.

    Args:
        loss: (B,).
        margins: what bounded it, where something did.
        whole: whether the margins hold over the whole box of the batch.
    """

    loss: Tensor
    margins: Margins | None = None
    whole: bool = True


def _pgd(batch: Batch) -> Robust:
    return Robust(F.cross_entropy(batch.attacked()[1], batch.y, reduction="none"))


def _sovr(batch: Batch) -> Robust:
    """On attacked points (by cross entropy) cross entropy, or one-versus-the-rest where their logit margin is small."""
    return Robust(_switched(batch, batch.attacked()[1]))


def _trades(batch: Batch) -> Robust:
    """Cross entropy of the clean logits, and the divergence of attacked ones from these."""
    natural = F.cross_entropy(batch.logits, batch.y, reduction="none")
    return Robust(natural + batch.options.trades_beta * _divergence(batch))


def _tsovr(batch: Batch) -> Robust:
    """TRADES with the switch on its natural part, by the margins of the clean logits."""
    return Robust(_switched(batch, batch.logits) + batch.options.trades_beta * _divergence(batch))


def _switched(batch: Batch, logits: Tensor) -> Tensor:
    """Cross entropy (B,) of logits (B, K), switched to one-versus-the-rest for the smallest margins."""
    usual, other = F.cross_entropy(logits, batch.y, reduction="none"), one_versus_rest(signed(logits, batch.y))
    margins, options = batch.network.margins_of(logits, batch.y).amin(1), batch.options
    return switched(usual, other, margins, options.sovr_share, options.sovr_weight)


def _divergence(batch: Batch) -> Tensor:
    """Kullback-Leibler divergence (B,) of the clean distribution from one that an attack has driven away from it."""
    clean = F.log_softmax(batch.logits, 1)

    def divergence(z: Tensor, target: Tensor) -> Tensor:
        return F.kl_div(F.log_softmax(z, 1), target, reduction="none", log_target=True).sum(1)

    fixed = clean.detach()
    _, attacked = batch.attacked(lambda z: divergence(z, fixed))
    return divergence(attacked, clean)


def _ibp(batch: Batch) -> Robust:
    margins = batch.network.ibp(batch.box, batch.y, batch.graph)
    return Robust(cross_entropy(margins.lower), margins)


def _certified_sovr(batch: Batch) -> Robust:
    """The switch on worst cases: bounds of cross entropy and of one-versus-the-rest, by certified margins."""
    signed_logits, margins = batch.network.ibp_signed(batch.box, batch.y, batch.graph)
    usual, other = cross_entropy(margins.lower), one_versus_rest(signed_logits)
    options = batch.options
    loss = switched(usual, other, margins.lower.amin(1), options.sovr_share, options.sovr_weight)
    return Robust(loss, margins)


def _crown_ibp(batch: Batch) -> Robust:
    if batch.options.fusion:
        loss, margins = batch.network.fused_crown_ibp(batch.box, batch.y, batch.graph)
        return Robust(loss, margins)
    margins = batch.network.crown_ibp(batch.box, batch.y, batch.graph)
    return Robust(cross_entropy(margins.lower), margins)


def _sabr(batch: Batch) -> Robust:
    """Intervals over a small box around an attacked point, moved as little as keeps the box in the ball.

    Mueller et al. 2023, section 3, with the ball cut to the range of inputs as it is here. Their tweak for CIFAR-10 at
    2/255, ReLUs that shrink their boxes, bounds nothing and is not made.
    """
    share = batch.options.small_box
    box = part_around(batch.box, batch.attacked()[0], per_sample(share * batch.radius, batch.x))
    margins = batch.network.ibp(box, batch.y, batch.graph)
    return Robust(cross_entropy(margins.lower), margins, whole=share == 1)


def _mtl_ibp(batch: Batch) -> Robust:
    margins = batch.network.ibp(batch.box, batch.y, batch.graph)
    alpha, attack = batch.options.alpha, _pgd(batch).loss
    return Robust(torch.lerp(attack, cross_entropy(margins.lower), alpha), margins)


def _exp_ibp(batch: Batch) -> Robust:
    margins = batch.network.ibp(batch.box, batch.y, batch.graph)
    alpha, least = batch.options.alpha, torch.finfo(margins.lower.dtype).tiny  # the logarithm of 0 has no gradient
    attack, bound = (loss.clamp(min=least).log() for loss in (_pgd(batch).loss, cross_entropy(margins.lower)))
    return Robust(torch.lerp(attack, bound, alpha).exp(), margins)


def _cc_ibp(batch: Batch) -> Robust:
    margins = batch.network.ibp(batch.box, batch.y, batch.graph)
    attack = batch.network.margins_of(batch.attacked()[1], batch.y)
    return Robust(cross_entropy(torch.lerp(attack, margins.lower, batch.options.alpha)), margins)


#: name -> robust part; None for the natural loss alone
LOSSES: Mapping[str, Callable[[Batch], Robust] | None] = MappingProxyType(
    {
        "standard": None,
        "pgd": _pgd,
        "trades": _trades,
        "sovr": _sovr,
        "tsovr": _tsovr,
        "ibp": _ibp,
        "crown-ibp": _crown_ibp,
        "sabr": _sabr,
        "mtl-ibp": _mtl_ibp,
        "exp-ibp": _exp_ibp,
        "cc-ibp": _cc_ibp,
        "certified-sovr": _certified_sovr,
    }
)

#: losses, each sample's by itself, whose margins are the intervals' over the whole box
BY_INTERVALS = frozenset({"ibp", "mtl-ibp", "exp-ibp", "cc-ibp"})
#: share of the cap from which a radius of an epoch ago is taken for the cap itself
NEAR_CAP = 0.95


def training_loss(name: str, options: LossOptions | None = None) -> TrainingLoss:
    """The loss of a name.

    Raises:
        InputError: there is none.
    """
    if name not in LOSSES:
        raise InputError("--loss", f"'{name}' is unknown", f"choose one of {', '.join(LOSSES)}")
    options = options or LossOptions()
    return _Loss(LOSSES[name], options, name in BY_INTERVALS and options.radius_by == "ibp")


@dataclass(frozen=True)
class _Loss:
    """``(1 - kappa) * robust + kappa * natural``, and regularisers while epsilon grows.

    Args:
        intervals: whether the margins of the robust part are those that certify the radius.
    """

    robust: Callable[[Batch], Robust] | None
    options: LossOptions
    intervals: bool

    def __call__(
        self,
        network: BoundedModule,
        x: Tensor,
        y: Tensor,
        epsilon: float | Tensor,
        epsilon_end: float,
        previous_radius: Tensor | None,
        generator: torch.Generator,
    ) -> LossTerms:
        logits = network.clean(x)
        natural = F.cross_entropy(logits, y, reduction="none")
        correct = logits.detach().argmax(1) == y
        cap = torch.as_tensor(epsilon, dtype=x.dtype, device=x.device).expand(len(x))
        nothing = torch.zeros_like(correct)
        if self.robust is None:
            loss = natural.mean()
            return LossTerms(loss, correct, nothing, torch.zeros_like(cap), {"natural": loss.detach()})
        graph, options = network.graph(), self.options
        fade = self._fade(epsilon, epsilon_end)
        batch, radius = Batch(network, graph, x, y, logits, cap, options, generator), cap
        if options.adaptive_radii and fade is None and previous_radius is not None and self.intervals:
            robust, radius = _adapted(self.robust, batch, correct, previous_radius)
        else:
            if options.adaptive_radii:
                radius = radii(batch, previous_radius)
            width = radius if fade is None else radius.clamp(min=options.least_radius)
            robust = self.robust(replace(batch, radius=width))
        parts = {"natural": natural.mean(), "robust": robust.loss.mean()}
        loss = options.kappa * parts["natural"] + (1 - options.kappa) * parts["robust"]
        if fade is not None and robust.margins is not None:
            for name, weight, measure in (
                ("tightness", options.tightness, tightness),
                ("balance", options.balance, balance),
            ):
                if weight > 0:
                    parts[name] = measure(graph, robust.margins.boxes)
                    loss = loss + fade * weight * parts[name]
        if options.adaptive_radii:
            certified = correct & (radius >= cap)
        elif robust.margins is not None and robust.whole:
            certified = correct & (robust.margins.lower.detach() > 0).all(1)
            radius = cap * certified
        else:
            certified, radius = nothing, torch.zeros_like(cap)
        return LossTerms(loss, correct, certified, radius, {name: part.detach() for name, part in parts.items()})

    def _fade(self, epsilon: float | Tensor, epsilon_end: float) -> Tensor | float | None:
        """Weight of the regularisers; None where they play no part (a tensor is not looked at, which would wait)."""
        if self.options.tightness == self.options.balance == 0 or epsilon_end <= 0:
            return None
        if isinstance(epsilon, Tensor):
            return (1 - epsilon.mean() / epsilon_end).clamp(min=0)
        return 1 - epsilon / epsilon_end if epsilon < epsilon_end else None


def _adapted(
    robust: Callable[[Batch], Robust], batch: Batch, correct: Tensor, previous: Tensor
) -> tuple[Robust, Tensor]:
    """The robust part at adaptive radii, and these (B,).

    Samples whose radius was at the cap before most likely are there still: their loss is taken at the cap at once,
    and its margins say whether that is certified. The others, and those that were not, have their radii looked for.

    Args:
        batch: with the cap as its radius.
    """
    near = torch.where(correct, previous / batch.radius, 0.0)
    # those near the cap, and a few more or less of them to a whole number of grains
    count = (int((near >= NEAR_CAP).sum()) + GRAIN // 2) // GRAIN * GRAIN
    hopeful = near.argsort(descending=True, stable=True)[:count]
    losses, radius, done = [], torch.zeros_like(batch.radius), torch.zeros_like(correct)
    at_cap = torch.zeros_like(radius)
    if hopeful.numel() > 0:
        found = robust(batch.select(hopeful))
        assert found.margins is not None
        at_cap[hopeful] = least = found.margins.lower.detach().amin(1)
        holds = correct[hopeful] & (least > 0)
        done[hopeful] = holds
        radius[hopeful] = torch.where(holds, batch.radius[hopeful], 0.0)
        losses.append(found.loss[holds])
    others = (~done).nonzero().squeeze(1)
    if others.numel() > 0:
        whole = filled(others)
        part = batch.select(whole)
        radius[whole] = found_radius = radii(part, previous[whole], at_cap[whole])
        losses.append(robust(replace(part, radius=found_radius)).loss[: len(others)])
    return Robust(torch.cat(losses)), radius


def radii(batch: Batch, previous: Tensor | None, at_cap: Tensor | None = None) -> Tensor:
    """Certified radii (B,) of a batch by the margins that the options name; no gradient flows through them.

    Args:
        batch: with the cap of the radii as its radius.
        previous: (B,) radii an epoch ago, or None.
        at_cap: (B,) margins at the cap where they are not positive, else other numbers; or None.
    """
    network, options, graph = batch.network, batch.options, batch.graph
    bounds = network.ibp if options.radius_by == "ibp" else network.crown_ibp
    size = len(batch.x)
    if batch.x.device.type == "cpu":  # so many at a time that the widest layer stays in the cache: twice as fast
        widest = max(math.prod(shape) for shape in graph.shapes.values())
        size = max(1, CACHE_BYTES // (widest * batch.x.element_size() * GRAIN)) * GRAIN

    def margin_at(index: Tensor, radius: Tensor) -> Tensor:
        count, radius = len(index), radius[filled(torch.arange(len(index), device=index.device))]
        parts = zip(filled(index).split(size), radius.split(size), strict=True)
        return torch.cat([bounds(ball(batch.x[i], r), batch.y[i], graph).lower.amin(1) for i, r in parts])[:count]

    at_zero = network.margins_of(batch.logits.detach(), batch.y).amin(1)
    return certified_radii(margin_at, at_zero, batch.radius, options.bisections, previous, at_cap)
