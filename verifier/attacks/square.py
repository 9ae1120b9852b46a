"""Square: random search with windows of falling size, which sees outputs only.

Andriushchenko, Croce, Flammarion and Hein 2020, "Square attack: a query-efficient black-box adversarial attack via
random search" (ECCV). In a box a window goes to a corner of it, as there. In balls of norm 2 and 1 a window takes
over what another one used of the radius; the form of the windows is ours.
Axes: A inputs, C channels, H and W the sides of an image, ``*X`` the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from verifier.attacks.batch import Batch, per_input, resumed, taken
from verifier.specs.region import Box, LpBall

#: shares of all steps after which the area of a window is halved
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
_MOST_CHANNELS = 4
_TINY = 1e-12


@dataclass(frozen=True)
class Square:
    """Options of the attack, and the attack.

    Args:
        steps: outputs that may be looked at for each input.
        area: of the first windows, as a share of the image.
        aims: none: any polytope will do.
    """

    steps: int = 5000
    area: float = 0.8
    aims: tuple[int, ...] = ()

    def start(self, batch: Batch, seed: int) -> SquareState:
        """Before the first step: stripes in a box, the centre in a ball."""
        generator = torch.Generator().manual_seed(seed)
        x = batch.center
        if isinstance(batch.region, Box):
            layout = Layout.of(x)
            shape = (len(x), layout.channels, 1, layout.width)
            high = layout.flat(_signs(shape, generator, x).expand(-1, -1, layout.height, -1) > 0, x)
            x = torch.where(high, batch.region.upper, batch.region.lower)
        margin = batch.margins(batch.outputs(x))
        return SquareState(x, margin, 1, generator.get_state())

    def step(self, batch: Batch, state: SquareState) -> SquareState:
        """One proposal for every input, taken where it lowers the margin."""
        generator, layout = resumed(state.random), Layout.of(state.point)
        side = self.side(layout, state.step)
        propose = _corner if isinstance(batch.region, Box) else _bump
        x = propose(batch, layout, state.point, side, generator)
        margin = batch.margins(batch.outputs(x))
        better = margin < state.margin
        return SquareState(
            taken(x, better, state.point),
            torch.minimum(margin, state.margin),
            state.step + 1,
            generator.get_state(),
        )

    def done(self, state: SquareState) -> bool:
        return state.step >= self.steps

    def side(self, layout: Layout, step: int) -> tuple[int, int]:
        """Height and width of the windows of a step."""
        area = self.area / 2 ** sum(step > share * self.steps for share in _HALVINGS)
        if layout.height == 1:
            return 1, max(1, round(area * layout.width))
        wanted = round(sqrt(area * layout.height * layout.width))
        return max(1, min(wanted, layout.height)), max(1, min(wanted, layout.width))


@dataclass(frozen=True, eq=False)
class SquareState:
    """Where the attack stands: the best points (A, *X), their margins (A,), steps taken, the generator's state."""

    point: Tensor
    margin: Tensor
    step: int
    random: Tensor


@dataclass(frozen=True)
class Layout:
    """How an input is an image; one that is none is a row of pixels.

    Args:
        last: whether the channels are the last axis.
    """

    channels: int
    height: int
    width: int
    last: bool = False

    @staticmethod
    def of(x: Tensor) -> Layout:
        """The layout of inputs (A, *X): (C, H, W), (H, W, C) or (H, W) behind axes of length one, else a row."""
        shape = list(x.shape[1:])
        while len(shape) > 2 and shape[0] == 1:
            shape.pop(0)
        if len(shape) == 2 and min(shape) > 1:
            return Layout(1, shape[0], shape[1])
        if len(shape) == 3 and shape[0] <= _MOST_CHANNELS:
            return Layout(shape[0], shape[1], shape[2])
        if len(shape) == 3 and shape[2] <= _MOST_CHANNELS:
            return Layout(shape[2], shape[0], shape[1], last=True)
        return Layout(1, 1, x[0].numel())

    def image(self, x: Tensor) -> Tensor:
        """Inputs (A, *X) as (A, C, H, W)."""
        if self.last:
            return x.reshape(len(x), self.height, self.width, self.channels).permute(0, 3, 1, 2)
        return x.reshape(len(x), self.channels, self.height, self.width)

    def flat(self, image: Tensor, like: Tensor) -> Tensor:
        """Images (A, C, H, W) in the shape (A, *X) of ``like``."""
        return (image.permute(0, 2, 3, 1) if self.last else image).reshape(like.shape)


@dataclass(frozen=True, eq=False)
class _Window:
    """Where windows of a size lie: rows and columns (A,) of their first corners, their pixels (A, 1, H, W)."""

    row: Tensor
    column: Tensor
    mask: Tensor

    @staticmethod
    def random(count: int, layout: Layout, side: tuple[int, int], generator: torch.Generator, like: Tensor) -> _Window:
        row, column = (
            torch.randint(0, length - size + 1, (count,), generator=generator).to(like.device)
            for length, size in zip((layout.height, layout.width), side, strict=True)
        )
        down, across = (
            torch.arange(length, device=like.device) - first.unsqueeze(1)
            for length, first in ((layout.height, row), (layout.width, column))
        )
        inside = ((down >= 0) & (down < side[0])).unsqueeze(2) & ((across >= 0) & (across < side[1])).unsqueeze(1)
        return _Window(row, column, inside.unsqueeze(1))


def _corner(batch: Batch, layout: Layout, x: Tensor, side: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A window goes to the lower or the upper end of the box, channel by channel, and changes in one at least."""
    box = batch.region.enclosing_box()
    image, low, high = (layout.image(part) for part in (x, box.lower, box.upper))
    window = _Window.random(len(x), layout, side, generator, x)
    signs = _signs((len(x), layout.channels, 1, 1), generator, x)
    channel = torch.randint(0, layout.channels, (len(x),), generator=generator).to(x.device)
    place = torch.arange(len(x), device=x.device), channel, window.row, window.column
    signs[place[0], channel, 0, 0] = torch.where(image[place] < high[place], 1.0, -1.0).to(x)
    changed = torch.where(window.mask, torch.where(signs > 0, high, low), image)
    return layout.flat(changed, x)


def _bump(batch: Batch, layout: Layout, x: Tensor, side: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A window takes over what another one and the rest of the radius have left."""
    ball = batch.region
    assert isinstance(ball, LpBall)
    move = layout.image(x - ball.center)
    to, source = (_Window.random(len(x), layout, side, generator, x) for _ in range(2))
    inside = torch.where(to.mask, move, 0)
    rest = torch.where(to.mask | source.mask, 0, move)
    signs = _signs((len(x), layout.channels, 1, 1), generator, x)
    pattern = torch.where(to.mask, signs * _hill(to, layout, side, x), 0)
    pattern = pattern / per_input(_length(pattern, 2), pattern)
    pattern = pattern + inside / per_input(_length(inside, 2), pattern)
    used = _length(rest, ball.norm) ** ball.norm
    left = (ball.radius**ball.norm - used).clamp(min=0) ** (1 / ball.norm)
    pattern = pattern * per_input(left / _length(pattern, ball.norm), pattern)
    return batch.inside(ball.center + layout.flat(rest + pattern, x))


def _hill(window: _Window, layout: Layout, side: tuple[int, int], like: Tensor) -> Tensor:
    """(A, 1, H, W): falls from the middle of a window to its edges."""
    down, across = (
        (torch.arange(length, device=like.device) - first.unsqueeze(1) - (size - 1) / 2).abs()
        for length, first, size in (
            (layout.height, window.row, side[0]),
            (layout.width, window.column, side[1]),
        )
    )
    distance = torch.maximum(down.unsqueeze(2), across.unsqueeze(1)).to(like)
    return (1 / (1 + distance)).unsqueeze(1)


def _length(image: Tensor, norm: int) -> Tensor:
    return torch.linalg.vector_norm(image.flatten(1), ord=norm, dim=-1).clamp(min=_TINY)


def _signs(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    return (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(like)
