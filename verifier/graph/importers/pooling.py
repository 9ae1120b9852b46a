"""Pools: an average is a convolution, a maximum a tournament of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from verifier.graph.builder import Builder
from verifier.graph.calls import Activation, Call
from verifier.graph.faults import Invalid, Unsupported, require_size
from verifier.graph.importers.convolution import padded
from verifier.graph.importers.registry import Importer
from verifier.graph.importers.windows import Window, setting, spatial_rank, windows


def _kernel(call: Call, x: Activation) -> tuple[int, ...]:
    if "kernel_shape" not in call.attributes:
        raise Invalid("its attribute kernel_shape is missing")
    return setting(call, "kernel_shape", 1, spatial_rank(x))


def _max_pool(call: Call, build: Builder) -> Activation:
    """Columns first, then rows, and so on: the maximum over a box is the maximum of maxima."""
    call.refuse_outputs_after(1)
    x = call.activation()
    along = windows(call, x, _kernel(call, x))
    for axis, window in reversed(list(enumerate(along, start=2))):
        taps = [build.take(x, axis, indices) for indices in _taps(window)]
        x = _tournament(taps, build)
    return x


def _taps(window: Window) -> list[np.ndarray]:
    """Indices of each entry of a window, for all windows along an axis.

    Padding counts as minus infinity, so an index into it is replaced by another entry of the same window.
    """
    starts = np.arange(window.count) * window.stride - window.before
    indices = starts + np.arange(window.kernel)[:, None] * window.dilation
    valid = (indices >= 0) & (indices < window.size)
    if not valid.any(axis=0).all():
        raise Unsupported("one of its windows lies in the padding entirely")
    first = np.take_along_axis(indices, valid.argmax(axis=0)[None], axis=0)
    last = np.take_along_axis(indices, window.kernel - 1 - valid[::-1].argmax(axis=0)[None], axis=0)
    clamped = np.clip(indices, first, last)
    # rows rise from one to the next, so equal ones are neighbours
    return [row for i, row in enumerate(clamped) if i == 0 or (row != clamped[i - 1]).any()]


def _tournament(players: Sequence[Activation], build: Builder) -> Activation:
    """The maximum of all, in rounds of neighbouring pairs."""
    while len(players) > 1:
        pairs = [build.extremum("maximum", *players[i : i + 2]) for i in range(0, len(players) - 1, 2)]
        players = [*pairs, *players[2 * len(pairs) :]]
    return players[0]


def _global_max_pool(call: Call, build: Builder) -> Activation:
    """Each round compares the two halves of an axis, which share an entry where its size is odd."""
    x = call.activation()
    spatial_rank(x)
    for axis in range(x.rank - 1, 1, -1):
        while (size := x.shape[axis]) > 1:
            half = np.arange(-(-size // 2))
            x = build.extremum("maximum", build.take(x, axis, half), build.take(x, axis, half + size // 2))
    return x


def _average_pool(call: Call, build: Builder) -> Activation:
    """A convolution of each channel with ones, over the number of entries that count."""
    x = call.activation()
    along = windows(call, x, _kernel(call, x))
    if len(along) > 3:
        raise Unsupported(f"a pool in {len(along)} dimensions")
    inclusive = bool(call.attributes.get("count_include_pad", 0))
    counts = [_counts(window, inclusive) for window in along]
    uniform = all((count == count[0]).all() for count in counts)
    divisor = prod(int(count[0]) for count in counts) if uniform else 1
    kernel = tuple(window.kernel for window in along)
    require_size((x.shape[1], *kernel), "a pool's kernel")
    source, padding = padded(
        x, [window.before for window in along], [window.after + window.overhang for window in along], build
    )
    y = build.conv(
        "conv",
        source,
        np.full((x.shape[1], 1, *kernel), 1 / divisor),
        None,
        stride=[window.stride for window in along],
        padding=padding,
        dilation=[window.dilation for window in along],
        groups=x.shape[1],
    )
    if uniform:
        return y
    grids = np.meshgrid(*counts, indexing="ij")
    return build.scale(y, 1 / np.prod(grids, axis=0))


def _counts(window: Window, inclusive: bool) -> np.ndarray:
    """Number of entries of each window that the average divides by."""
    if inclusive and not window.overhang:
        return np.full(window.count, window.kernel)
    low, high = (-window.before, window.size + window.after) if inclusive else (0, window.size)
    starts = np.arange(window.count) * window.stride - window.before
    taps = starts[:, None] + np.arange(window.kernel) * window.dilation
    counts = ((taps >= low) & (taps < high)).sum(axis=1)
    if not counts.all():
        raise Unsupported("one of its windows lies in the padding entirely")
    return counts


def _global_average_pool(call: Call, build: Builder) -> Activation:
    x = call.activation()
    spatial_rank(x)
    return build.scale(build.total(x, range(2, x.rank), keep=True), 1 / prod(x.shape[2:]))


IMPORTERS: Mapping[str, Importer] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "MaxPool": _max_pool,
}
