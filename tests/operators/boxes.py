"""Boxes and points of all kinds, at random: wide and tiny, on either side of zero, touching it, and points."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.specs.region import Box

#: kinds of intervals, mixed entry by entry
KINDS = ("around", "positive", "negative", "huge", "tiny", "point", "from zero", "to zero", "at zero", "uneven", "far")


def boxes(
    shape: tuple[int, ...], batch: int, generator: torch.Generator, dtype: torch.dtype = torch.float64, kind: str = ""
) -> Box:
    """A batch of boxes (batch, *shape); every entry of a random kind unless one is named."""

    def uniform() -> Tensor:
        return torch.rand(batch, *shape, generator=generator, dtype=torch.float64)

    centre, width = 4 * uniform() - 2, 3 * uniform()
    zero = torch.zeros_like(centre)
    ends = {
        "around": (-width, 3 * uniform()),
        "positive": (width, width + 3 * uniform()),
        "negative": (-width - 3 * uniform(), -width),
        "huge": (centre - 1e4 * uniform(), centre + 1e4 * uniform()),
        "tiny": (centre, centre + 1e-7 * uniform()),
        "point": (centre, centre),
        "from zero": (zero, width),
        "to zero": (-width, zero),
        "at zero": (zero, zero),
        "uneven": (-(10 ** (-9 * uniform())), 10 ** (6 * uniform() - 3)),
        "far": (30 * centre, 30 * centre + width),
    }
    chosen = torch.randint(len(KINDS), centre.shape, generator=generator)
    if kind:
        chosen.fill_(KINDS.index(kind))
    lower = torch.stack([ends[name][0] for name in KINDS]).gather(0, chosen.unsqueeze(0)).squeeze(0)
    upper = torch.stack([ends[name][1] for name in KINDS]).gather(0, chosen.unsqueeze(0)).squeeze(0)
    flip = (torch.rand(centre.shape, generator=generator) < 0.5) & (chosen == KINDS.index("uneven"))
    lower, upper = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    lower, upper = lower.to(dtype), upper.to(dtype)
    return Box(lower, torch.maximum(lower, upper))


def points(box: Box, count: int, generator: torch.Generator, kinks: tuple[float, ...] = (0.0,)) -> Tensor:
    """(count, B, *X): both extreme corners, random corners, points at kinks, near the ends, and uniform ones."""
    share = torch.rand(count, *box.lower.shape, generator=generator, dtype=box.lower.dtype)
    share[::4] = share[::4].round()
    share[1::8] = share[1::8] * 1e-6  # near the lower end
    share[2::8] = 1 - share[2::8] * 1e-6
    share[0], share[1] = 0, 1
    x = box.lower + share * (box.upper - box.lower)
    for i, kink in enumerate(kinks):
        x[(3 + 4 * i) % count] = kink
    return x.clamp(box.lower, box.upper)
