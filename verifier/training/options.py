"""Settings of the training losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from verifier.errors import InputError


@dataclass(frozen=True)
class LossOptions:
    """How a training loss works; what a loss does not need is ignored.

    Args:
        kappa: weight of the natural cross entropy, in [0, 1]; the robust loss has ``1 - kappa``.
        alpha: weight of the bounds in mtl-ibp, exp-ibp and cc-ibp, in [0, 1]; the attack has the rest.
        small_box: half width of SABR's box in units of epsilon, in (0, 1].
        trades_beta: weight of the divergence in trades and tsovr.
        sovr_share: of sovr, tsovr and certified-sovr: share of each batch, by smallest margins, whose loss is switched
            to one-versus-the-rest, in [0, 1] (the paper's M). Its default, and that of `sovr_weight`, are ours.
        sovr_weight: of the switched loss (the paper's lambda).
        attack_steps: of PGD.
        attack_step_size: in half widths of the attacked box.
        attack_scale: radius of the attack in units of epsilon (2 is usual for small radii in mtl-ibp).
        adaptive_radii: whether every sample is bounded at its own certified radius, at most epsilon.
        bisections: how fine radii are: their tolerance is ``epsilon / 2**bisections``.
        radius_by: the bounds that certify the radius.
        least_radius: of the boxes while the regularisers act, since they need one.
        tightness, balance: weights of the regularisers of Shi et al. at the start of the ramp of epsilon; they fall
            linearly to 0 at its end.
        fusion: whether crown-ibp bounds its loss by one row, and not every margin by one of its own.

    Raises:
        InputError: a value is out of its range.
    """

    kappa: float = 0.0
    alpha: float = 0.5
    small_box: float = 0.9
    trades_beta: float = 6.0
    sovr_share: float = 0.4
    sovr_weight: float = 0.5
    attack_steps: int = 8
    attack_step_size: float = 0.25
    attack_scale: float = 1.0
    adaptive_radii: bool = False
    bisections: int = 5
    radius_by: Literal["ibp", "crown-ibp"] = "ibp"
    least_radius: float = 1e-6
    tightness: float = 0.5
    balance: float = 0.5
    fusion: bool = True

    def __post_init__(self):
        for name in ("kappa", "alpha", "small_box", "sovr_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"loss option {name}", f"{getattr(self, name)!r} is not in [0, 1]", "choose a share")
        for name in (
            *("trades_beta", "sovr_weight", "attack_step_size", "attack_scale"),
            *("least_radius", "tightness", "balance"),
        ):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"loss option {name}", f"{getattr(self, name)!r} is not a number >= 0", "mend it")
        for name in ("attack_steps", "bisections"):
            if getattr(self, name) < 1:
                raise InputError(f"loss option {name}", f"{getattr(self, name)!r} is not positive", "give at least 1")
        if self.small_box == 0:
            raise InputError("loss option small_box", "a box of no width bounds nothing", "use the loss pgd")
        if self.radius_by not in ("ibp", "crown-ibp"):
            raise InputError("loss option radius_by", f"{self.radius_by!r} is unknown", "choose ibp or crown-ibp")
